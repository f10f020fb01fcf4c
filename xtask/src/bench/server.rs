//! A server that answers: started, waited for, ended when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::llama_server::LlamaServer;
use super::ours::Ours;
use super::subject::{Kind, Subject};
use crate::rig::http;
use crate::rig::process::{Node, Process};
use crate::rig::started::Started;

/// How long a server may take to load, and a ring to form.
const START_MAX: Duration = Duration::from_secs(120);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A server, or the coordinator of a ring with its members.
#[derive(Debug)]
pub(super) struct Server {
    /// What it is.
    pub(super) subject: Subject,
    /// Where it answers.
    pub(super) addr: SocketAddr,
    /// What it calls the model.
    pub(super) model: String,
    /// The one that is asked comes first; dropped in this order, since it notices the loss of the others.
    processes: Vec<Process>,
}

/// What servers are started from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The processes of this run.
    pub(super) started: &'a Started,
    /// The peer.
    pub(super) peer: &'a LlamaServer,
    /// The product and the model.
    pub(super) ours: &'a Ours,
}

impl Origin<'_> {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not start; the error quotes its log.
    pub(super) fn start(&self, subject: Subject) -> Result<Server> {
        let started = match subject.kind {
            Kind::Llama { .. } => self.llama_server(subject),
            Kind::Myzel { .. } => self.myzel(subject),
        };
        let (addr, processes) = started.with_context(|| format!("starting {subject}"))?;
        Ok(Server {
            subject,
            addr,
            model: http::model_name(addr)?,
            processes,
        })
    }

    fn model(&self) -> String {
        self.ours.model.display().to_string()
    }

    fn llama_server(&self, subject: Subject) -> Result<(SocketAddr, Vec<Process>)> {
        let (mut workers, mut addrs) = (Vec::new(), Vec::new());
        let program = if subject.others() == 0 {
            &self.peer.program
        } else {
            let rpc = self.peer.rpc.as_ref();
            let rpc = rpc.expect("phases with workers come with a build that has them");
            for _ in 0..subject.others() {
                let (addr, worker) = self.worker(&rpc.worker, subject)?;
                workers.push(worker);
                addrs.push(addr.to_string());
            }
            &rpc.program
        };
        let addr = free()?;
        let args = subject.args(&self.model(), &addr.port().to_string(), &addrs.join(","));
        let mut process = Process::spawn(self.started, program, &args, Stdio::null())?;
        let begun = Instant::now();
        while !http::get(addr, "/health").is_ok_and(|response| response.status == 200) {
            for one in std::iter::once(&mut process).chain(&mut workers) {
                one.check()?;
            }
            self.wait(begun, || process.tail())?;
        }
        workers.insert(0, process);
        Ok((addr, workers))
    }

    fn worker(&self, program: &Path, subject: Subject) -> Result<(SocketAddr, Process)> {
        let addr = free()?;
        let args = subject.worker_args(&addr.port().to_string());
        let mut process = Process::spawn(self.started, program, &args, Stdio::null())?;
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            process.check()?;
            self.wait(begun, || process.tail())?;
        }
        Ok((addr, process))
    }

    fn myzel(&self, subject: Subject) -> Result<(SocketAddr, Vec<Process>)> {
        let Kind::Myzel { numerics, remote } = subject.kind else {
            unreachable!("ours")
        };
        let node = |args: &[String]| Node::start(self.started, &self.ours.myzel, args);
        let first = node(&subject.args(&self.model(), "0", ""))?;
        let mut processes = vec![first.process];
        for _ in 0..remote {
            let alone = Subject::node(numerics, subject.threads).with_slots(subject.slots);
            let mut args = alone.args(&self.model(), "0", "");
            args.extend(["--join".to_owned(), first.ticket.clone()]);
            processes.push(node(&args)?.process);
        }
        let begun = Instant::now();
        while remote > 0 && !self.has_ring(&processes[0])? {
            for process in &mut processes {
                process.check()?;
            }
            self.wait(begun, || "the ring does not come up".to_owned())?;
        }
        Ok((first.addr, processes))
    }

    fn has_ring(&self, process: &Process) -> Result<bool> {
        Ok(process.status(self.started, &self.ours.myzel)?["answers"] == "ring")
    }

    /// Fails if a ring of ours is not one (any more).
    ///
    /// # Errors
    ///
    /// Exactly then, or when a node does not say.
    pub(super) fn confirm(&self, server: &Server) -> Result<()> {
        let subject = server.subject;
        if subject.is_ours() && subject.others() > 0 && !self.has_ring(&server.processes[0])? {
            bail!("{subject} does not answer over its ring");
        }
        Ok(())
    }

    fn wait(&self, begun: Instant, why: impl Fn() -> String) -> Result<()> {
        if begun.elapsed() > START_MAX {
            bail!("not there after {} s: {}", START_MAX.as_secs(), why());
        }
        self.started.pause(LOOK_EVERY)
    }
}

/// Free a moment ago; should another program take it meanwhile, the start fails and says so.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Server {
    /// The numbers of its processes, without what they started.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().map(|process| process.running.pid())
    }
}
