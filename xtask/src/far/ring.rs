//! A ring of ours, or the peer and its workers, on machines of a lab.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Machine, Node, Process, World, wait};

use crate::rig::ask::{Ask, Sample, ask};
use crate::rig::started::Started;
use crate::rig::stats::Series;
use crate::rig::{http, memory};

/// Tokens of an answer whose pace is taken, and of the one before it, in which connections learn the distance.
const TOKENS: u32 = 40;
const WARM_TOKENS: u32 = 8;
/// Positions of each stream.
const POSITIONS: u32 = 512;
/// Streams that there is room for.
const SLOTS: u32 = 8;
/// How long either may take to load and to be ready.
const START_MAX: Duration = Duration::from_secs(180);
/// Rest between two questions.
const REST: Duration = Duration::from_millis(300);
/// The chances of a world; none are taken here.
const SEED: u64 = 27;
/// Where the peer's server and its workers listen, each on a machine of its own.
const SERVER_PORT: u16 = 8_080;
const WORKER_PORT: u16 = 50_052;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Ours, exact, as `--split` is unless told otherwise.
    Myzel,
    /// llama-server with RPC workers, each of which has a part of the layers.
    Llama,
}

impl Who {
    pub(super) const ALL: [Self; 2] = [Self::Myzel, Self::Llama];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Myzel => "myzel",
            Self::Llama => "llama.cpp RPC",
        }
    }
}

/// What is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Programs<'a> {
    pub(super) myzel: &'a Path,
    pub(super) server: &'a Path,
    pub(super) worker: &'a Path,
    pub(super) model: &'a str,
}

/// The processes; the one that is asked comes first, and is dropped first.
enum Parts {
    Myzel {
        coordinator: Node,
        stages: Vec<Node>,
    },
    Llama {
        server: Process,
        workers: Vec<Process>,
    },
}

/// One of them, ready.
pub(super) struct Ring {
    parts: Parts,
    api: SocketAddr,
    model: String,
    /// The one that is asked, then the others, then a spare one.
    machines: Vec<Machine>,
    split: usize,
    world: World,
}

/// How quick it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) first_ms: f64,
    pub(super) decode: f64,
    pub(super) token_bytes: Option<f64>,
}

impl Ring {
    /// Starts it, at no distance, and waits until it answers.
    pub(super) fn start(
        started: &Started,
        programs: &Programs<'_>,
        (who, split, threads): (Who, u32, u32),
        spare: bool,
    ) -> Result<Self> {
        let mut world = World::new(SEED)?;
        let count = 1 + split + u32::from(spare);
        let machines: Vec<Machine> = (0..count)
            .map(|n| world.machine(&format!("m{n}")))
            .collect::<Result<_>>()?;
        let (parts, api) = match who {
            Who::Myzel => myzel(started, programs, &machines, (split, threads))?,
            Who::Llama => llama(started, programs, &machines[..=split as usize], threads)?,
        };
        let model = machines[0].inside(|| http::model_name(api))??;
        Ok(Self {
            parts,
            api,
            model,
            machines,
            split: split as usize,
            world,
        })
    }

    /// Puts the machines at a distance, and confirms it.
    pub(super) fn place(&self, started: &Started, rtt_ms: u32) -> Result<()> {
        self.world.links().delay_ms(f64::from(rtt_ms) / 2.0);
        for from in &self.machines {
            for to in self.machines.iter().filter(|to| to.name() != from.name()) {
                started.check()?;
                let asked = self.world.way(from, to).asked();
                self.world.confirm(from, to, &asked)?;
            }
        }
        Ok(())
    }

    /// Asks over so many connections at once.
    pub(super) fn measure(&self, started: &Started, streams: usize) -> Result<Pace> {
        let (_, warm_bytes) = self.ask_all(started, streams, WARM_TOKENS)?;
        let (samples, bytes) = self.ask_all(started, streams, TOKENS)?;
        let rate = |sample: &Sample| sample.decode_rate().context("an answer of many tokens");
        let rates = samples.iter().map(rate).collect::<Result<Vec<f64>>>()?;
        let first = samples
            .iter()
            .map(|sample| sample.first.as_secs_f64() * 1e3);
        let more = f64::from(TOKENS - WARM_TOKENS);
        Ok(Pace {
            first_ms: Series::new(first.collect()).median(),
            decode: rates.iter().sum(),
            token_bytes: (streams == 1).then(|| (bytes as f64 - warm_bytes as f64) / more),
        })
    }

    /// The answers, and the bytes that were on the links meanwhile.
    fn ask_all(
        &self,
        started: &Started,
        streams: usize,
        tokens_max: u32,
    ) -> Result<(Vec<Sample>, u64)> {
        started.pause(REST)?;
        let before = self.world.links().counts().delivered_bytes;
        let one = |number: usize| -> Result<Sample> {
            let text = format!(
                "Write a very long story about a {} and the sea.",
                NAMES[number % NAMES.len()]
            );
            let question = Ask {
                model: &self.model,
                text: &text,
                tokens_max,
            };
            let sample = self.machines[0].inside(|| ask(self.api, &question))??;
            ensure!(
                sample.answer_tokens == tokens_max,
                "an answer has {} tokens, not {tokens_max}",
                sample.answer_tokens
            );
            Ok(sample)
        };
        let one = &one;
        let answers: Vec<Result<Sample>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..streams)
                .map(|number| scope.spawn(move || one(number)))
                .collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().expect("a stream does not panic")
            };
            threads.into_iter().map(join).collect()
        });
        started.check()?;
        let answers = answers.into_iter().collect::<Result<Vec<Sample>>>()?;
        let after = self.world.links().counts().delivered_bytes;
        Ok((answers, after - before))
    }

    /// Proportional memory of all processes on all machines.
    pub(super) fn memory_bytes(&self) -> Result<u64> {
        let pids = self.machines.iter().flat_map(Machine::pids);
        pids.map(|pid| Ok(memory::of(pid)?.map_or(0, |memory| memory.proportional)))
            .sum()
    }

    /// Where it is asked, what it calls the model, and the machine on which that is.
    pub(super) fn asked(&self) -> (SocketAddr, &str, &Machine) {
        (self.api, &self.model, &self.machines[0])
    }

    /// The process that is asked.
    pub(super) fn first_pid(&mut self) -> i32 {
        match &mut self.parts {
            Parts::Myzel { coordinator, .. } => coordinator.process().pid(),
            Parts::Llama { server, .. } => server.pid(),
        }
    }

    /// A machine with layers, and the process there: the first stage's, or the first worker's.
    pub(super) fn victim(&mut self) -> Result<(Machine, i32)> {
        match &mut self.parts {
            Parts::Llama { workers, .. } => {
                let worker = workers.first().context("there is a worker")?;
                Ok((self.machines[1].clone(), worker.pid()))
            }
            Parts::Myzel {
                coordinator,
                stages,
            } => {
                let status = coordinator.status()?;
                let host = status["ring"]["stages"][0]["name"].as_str();
                let host = host.context("the ring has a stage")?.to_owned();
                let mut stages = stages.iter_mut();
                let node = stages.find(|node| node.machine().name() == host);
                let node = node.with_context(|| format!("no node {host}"))?;
                Ok((node.machine().clone(), node.process().pid()))
            }
        }
    }

    /// Waits until every stage of ours has somebody who stands by; the peer knows nothing like that.
    pub(super) fn stood_by(&self) -> Result<()> {
        let Parts::Myzel { coordinator, .. } = &self.parts else {
            return Ok(());
        };
        wait::until(START_MAX, "each stage has a standby", || {
            let status = coordinator.status()?;
            let standbys = status["ring"]["standbys"].as_array().map_or(0, Vec::len);
            Ok((standbys >= self.split).then_some(()))
        })
    }
}

/// What stories are about.
const NAMES: [&str; 8] = [
    "keeper", "captain", "baker", "teacher", "painter", "doctor", "farmer", "singer",
];

fn myzel(
    started: &Started,
    programs: &Programs<'_>,
    machines: &[Machine],
    (split, threads): (u32, u32),
) -> Result<(Parts, SocketAddr)> {
    let setup = |machine: &Machine| {
        let setup = machine.myzel(programs.myzel).model(programs.model);
        setup
            .exact()
            .arg("--context", &POSITIONS.to_string())
            .arg("--sessions", &SLOTS.to_string())
            .arg("--threads", &threads.to_string())
    };
    let coordinator = setup(&machines[0]).split(split).up()?;
    let mut stages = Vec::new();
    for machine in &machines[1..] {
        started.check()?;
        stages.push(setup(machine).join(&coordinator).up()?);
    }
    coordinator.ring_up()?;
    let api = coordinator.api();
    Ok((
        Parts::Myzel {
            coordinator,
            stages,
        },
        api,
    ))
}

fn llama(
    started: &Started,
    programs: &Programs<'_>,
    machines: &[Machine],
    threads: u32,
) -> Result<(Parts, SocketAddr)> {
    let threads = threads.to_string();
    let (mut workers, mut addrs) = (Vec::new(), Vec::new());
    for machine in &machines[1..] {
        let mut command = machine.command(programs.worker);
        command.args(["--host", &machine.addr().to_string()]);
        command.args(["--port", &WORKER_PORT.to_string(), "--threads", &threads]);
        workers.push(machine.start("worker", &mut command)?);
        addrs.push(format!("{}:{WORKER_PORT}", machine.addr()));
    }
    let first = &machines[0];
    for addr in &addrs {
        let addr: SocketAddr = addr.parse()?;
        wait::until(START_MAX, "the worker listens", || {
            started.check()?;
            let open = first.inside(|| std::net::TcpStream::connect(addr).is_ok())?;
            Ok(open.then_some(()))
        })?;
    }
    let mut command = first.command(programs.server);
    command
        .args(["--host", "127.0.0.1", "--port", &SERVER_PORT.to_string()])
        .args([
            "--ctx-size",
            &(POSITIONS * SLOTS).to_string(),
            "--parallel",
            &SLOTS.to_string(),
        ])
        .args([
            "--no-kv-unified",
            "--cache-ram",
            "0",
            "--no-webui",
            "--offline",
        ])
        .args(["--threads", &threads, "--threads-batch", &threads])
        .args([
            "--rpc",
            &addrs.join(","),
            "--gpu-layers",
            "99",
            "--model",
            programs.model,
        ]);
    let mut server = first.start("llama-server", &mut command)?;
    let api = SocketAddr::from((Ipv4Addr::LOCALHOST, SERVER_PORT));
    wait::until(START_MAX, "llama-server is ready", || {
        started.check()?;
        if let Some(status) = server.ended()? {
            anyhow::bail!("llama-server ended with {status}: {}", server.said());
        }
        let ready = first
            .inside(|| http::get(api, "/health").is_ok_and(|response| response.status == 200))?;
        Ok(ready.then_some(()))
    })?;
    Ok((Parts::Llama { server, workers }, api))
}
