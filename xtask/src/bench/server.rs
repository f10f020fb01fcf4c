//! A server that answers: started, waited for, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::llama_server::LlamaServer;
use super::ours::Ours;
use super::started::{Running, Started};
use super::subject::Subject;
use super::{ask, http};

/// How long a server may take to load, and a ring to form.
const START_MAX: Duration = Duration::from_secs(120);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many lines of a log an error quotes.
const TAIL_LINES: usize = 5;

/// A server, or the coordinator of a ring with its members.
#[derive(Debug)]
pub(super) struct Server {
    /// What it is.
    pub(super) subject: Subject,
    /// Where it answers.
    pub(super) addr: SocketAddr,
    /// What it calls the model.
    pub(super) model: String,
    processes: Vec<Process>,
}

/// A process with its log and its data directory.
#[derive(Debug)]
struct Process {
    // Fields are dropped in this order: the process first, then what it writes to.
    running: Running,
    stdout: Option<BufReader<ChildStdout>>,
    log: NamedTempFile,
    dir: TempDir,
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
        let started = match subject {
            Subject::LlamaServer { .. } => self.llama_server(subject),
            Subject::Myzel { remote, .. } => self.myzel(subject, remote),
        };
        let (addr, processes) = started.with_context(|| format!("starting {subject}"))?;
        Ok(Server {
            subject,
            addr,
            model: ask::model_name(addr)?,
            processes,
        })
    }

    fn llama_server(&self, subject: Subject) -> Result<(SocketAddr, Vec<Process>)> {
        // Free a moment ago; should another program take it meanwhile, the start fails and says so.
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let args = subject.args(
            &self.ours.model.display().to_string(),
            &addr.port().to_string(),
        );
        let mut process = self.spawn(&self.peer.program, &args, Stdio::null())?;
        let begun = Instant::now();
        while !http::get(addr, "/health").is_ok_and(|response| response.status == 200) {
            process.check()?;
            self.wait(begun, || process.tail())?;
        }
        Ok((addr, vec![process]))
    }

    fn myzel(&self, subject: Subject, remote: u32) -> Result<(SocketAddr, Vec<Process>)> {
        let args = subject.args(&self.ours.model.display().to_string(), "0");
        let mut processes = Vec::new();
        let (addr, ticket, process) = self.node(&args)?;
        processes.push(process);
        let Subject::Myzel {
            numerics, threads, ..
        } = subject
        else {
            unreachable!("ours")
        };
        for _ in 0..remote {
            let alone = Subject::node(numerics, threads);
            let mut args = alone.args(&self.ours.model.display().to_string(), "0");
            args.extend(["--join".to_owned(), ticket.clone()]);
            processes.push(self.node(&args)?.2);
        }
        let begun = Instant::now();
        while remote > 0 && self.status(&processes[0])?["answers"] != "ring" {
            for process in &mut processes {
                process.check()?;
            }
            self.wait(begun, || "the ring does not come up".to_owned())?;
        }
        Ok((addr, processes))
    }

    /// Starts a node of ours and reads its `ready` line: where it answers, and its ticket.
    fn node(&self, args: &[String]) -> Result<(SocketAddr, String, Process)> {
        let mut process = self.spawn(&self.ours.myzel, args, Stdio::piped())?;
        let stdout = process
            .running
            .child
            .stdout
            .take()
            .expect("the output is a pipe");
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // Kept open: a node that cannot print would end.
        process.stdout = Some(stdout);
        match ready(&line) {
            Some((addr, ticket)) => Ok((addr, ticket, process)),
            None => bail!("it is not ready but says {line:?}: {}", process.tail()),
        }
    }

    fn spawn(&self, program: &Path, args: &[String], stdout: Stdio) -> Result<Process> {
        let (log, dir) = (NamedTempFile::new()?, TempDir::new()?);
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log.reopen()?);
        for (name, _) in std::env::vars_os() {
            // Settings of whoever runs this must not reach either server.
            let name_text = name.to_string_lossy();
            if ["MYZEL_", "LLAMA_", "OMP_", "GOMP_", "GGML_"]
                .iter()
                .any(|p| name_text.starts_with(p))
            {
                command.env_remove(name);
            }
        }
        command
            .env("MYZEL_DATA_DIR", dir.path())
            .env("XDG_DATA_HOME", dir.path());
        let running = self.started.spawn(&mut command)?;
        Ok(Process {
            running,
            stdout: None,
            log,
            dir,
        })
    }

    /// What `myzel status --json` says of a node.
    fn status(&self, process: &Process) -> Result<Value> {
        let mut command = Command::new(&self.ours.myzel);
        command
            .arg("--data-dir")
            .arg(process.dir.path())
            .args(["status", "--json"]);
        let text = self.started.output(&mut command)?;
        serde_json::from_str(&text).context("what `status --json` printed")
    }

    /// Fails if a ring is not one (any more).
    ///
    /// # Errors
    ///
    /// Exactly then, or when a node does not say.
    pub(super) fn confirm(&self, server: &Server) -> Result<()> {
        if server.subject.remote() > 0 && self.status(&server.processes[0])?["answers"] != "ring" {
            bail!("{} does not answer over its ring", server.subject);
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

impl Server {
    /// The numbers of its processes, without what they started.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().map(|process| process.running.pid())
    }
}

impl Process {
    /// Fails once the process has ended.
    fn check(&mut self) -> Result<()> {
        match self.running.try_wait()? {
            Some(status) => bail!("it ended with {status}: {}", self.tail()),
            None => Ok(()),
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read(self.log.path()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text))
    }
}

/// The last lines of a log, in one.
pub(super) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [] => "it left no words".to_owned(),
        lines => lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / "),
    }
}

/// Reads `ready http://ADDR/v1 ticket TICKET`.
fn ready(line: &str) -> Option<(SocketAddr, String)> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace();
    let addr = words
        .next()?
        .strip_prefix("http://")?
        .strip_suffix("/v1")?
        .parse()
        .ok()?;
    let ticket = words.skip_while(|word| *word != "ticket").nth(1)?;
    Some((addr, ticket.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_read() {
        let (addr, ticket) = ready("ready http://127.0.0.1:7717/v1 ticket myzel1abc\n").unwrap();
        assert_eq!((addr.port(), ticket.as_str()), (7717, "myzel1abc"));
        for line in [
            "",
            "ready",
            "ready http://127.0.0.1:7717/v1",
            "error: port taken",
        ] {
            assert_eq!(ready(line), None, "{line}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        assert_eq!(tail("\n\n"), "it left no words");
        assert_eq!(tail("a\n b \n\n"), "a / b");
        assert_eq!(tail("1\n2\n3\n4\n5\n6\n7\n"), "3 / 4 / 5 / 6 / 7");
    }
}
