//! The parts of a run.

use std::cell::OnceCell;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;
use proto::model::Numerics;

use super::agreement::{self, Agreement};
use super::llama_server::{self, LlamaServer};
use super::many::{self, Burst};
use super::ours::Ours;
use super::overhead::{self, Overhead};
use super::rounds::{Figures, measure};
use super::server::{Origin, Server};
use super::subject::{Cache, Subject};
use crate::rig::memory::{self, Memory};
use crate::rig::say;
use crate::rig::started::Started;

/// Threads that are tried for everybody.
const THREADS: [u32; 2] = [1, 2];
/// Remote stages of the rings, and workers of the peer.
const REMOTE: [u32; 2] = [1, 2];
/// Streams at once, single nodes.
const STREAMS: [u32; 4] = [1, 4, 8, 16];
/// Streams at once, rings beside RPC.
const STREAMS_RPC: [u32; 2] = [1, 8];
/// Streams and threads at which both caches of llama-server are tried.
const TRIAL: (u32, u32) = (8, 2);

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Phase {
    /// Single nodes, one request at a time, and their memory
    Single,
    /// Rings on loopback beside a single node
    Rings,
    /// Threads as each chooses, alone and beside a busy core
    Beside,
    /// Single nodes, many requests at once
    Streams,
    /// Rings beside llama.cpp's RPC, many requests at once
    Rpc,
    /// Answers and probabilities beside llama-server's
    Agreement,
    /// A node's answers beside those of its own engine
    Overhead,
}

impl Phase {
    /// What it is called on the command line.
    pub(super) fn name(self) -> String {
        let value = self
            .to_possible_value()
            .expect("every phase can be asked for");
        value.get_name().to_owned()
    }
}

/// Everything that a run needs.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// The processes of this run.
    pub(super) started: &'a Started,
    /// The peer.
    pub(super) peer: &'a LlamaServer,
    /// The product and the model.
    pub(super) ours: &'a Ours,
    /// How often each server is asked.
    pub(super) rounds: usize,
    /// Both caches of the peer, once tried.
    pub(super) trial: OnceCell<Vec<Burst>>,
}

/// Everything that a run finds out; empty where a phase was not asked for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct All {
    /// The features with which llama-server was built, in its words.
    pub(super) peer_features: String,
    /// One node of either, threads swept.
    pub(super) single: Vec<Figures>,
    /// Memory of one node of either, after the same requests.
    pub(super) memory: Vec<(Subject, Memory)>,
    /// Rings, each group with a single node of ours as its first; threads swept.
    pub(super) rings: Vec<Vec<Figures>>,
    /// Both with as many threads as they choose: alone, and beside a core that is kept busy.
    pub(super) beside: [Vec<Figures>; 2],
    /// The peer with one cache and the other, at many streams.
    pub(super) trial: Vec<Burst>,
    /// Many streams to one node of either, threads swept; a group for each number of streams.
    pub(super) streams: Vec<Vec<Burst>>,
    /// Many streams to rings of both, threads swept; a group for each number of streams and remote stages.
    pub(super) rpc: Vec<Vec<Burst>>,
    /// How far answers and probabilities are the peer's.
    pub(super) agreement: Vec<Agreement>,
    /// What HTTP adds to the engine.
    pub(super) overhead: Option<Overhead>,
}

impl Bench<'_> {
    /// Runs the phases.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub(super) fn run(&self, phases: &[Phase]) -> Result<All> {
        say("starting llama-server once to read its CPU features");
        let mut all = All {
            peer_features: llama_server::system_info(self.started, self.peer, &self.ours.model)?,
            ..All::default()
        };
        for phase in phases {
            match phase {
                Phase::Single => {
                    all.single = self.single()?;
                    all.memory = self.memory(&all.single)?;
                }
                Phase::Rings => {
                    all.rings = THREADS
                        .iter()
                        .map(|threads| self.rings(*threads))
                        .collect::<Result<_>>()?;
                }
                Phase::Beside => all.beside = self.beside()?,
                Phase::Streams => all.streams = self.streams()?,
                Phase::Rpc => all.rpc = self.rpc()?,
                Phase::Agreement => all.agreement = self.agreement()?,
                Phase::Overhead => {
                    say("measuring a node beside its own engine");
                    all.overhead = Some(overhead::measure(self.started, self.ours, self.rounds)?);
                }
            }
        }
        all.trial = self.trial.get().cloned().unwrap_or_default();
        Ok(all)
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            started: self.started,
            peer: self.peer,
            ours: self.ours,
        }
    }

    fn start(&self, subjects: &[Subject]) -> Result<Vec<Server>> {
        let origin = self.origin();
        subjects
            .iter()
            .map(|subject| origin.start(*subject))
            .collect()
    }

    /// Starts servers, measures them, and confirms that rings are still rings.
    fn with_servers<T>(
        &self,
        what: &str,
        subjects: &[Subject],
        measure: impl Fn(&[Server]) -> Result<T>,
    ) -> Result<T> {
        let (servers, rounds) = (subjects.len(), self.rounds);
        say(&format!(
            "measuring {what}: {rounds} rounds over {servers} servers, a few minutes"
        ));
        let servers = self.start(subjects)?;
        let figures = measure(&servers)?;
        for server in &servers {
            self.origin().confirm(server)?;
        }
        Ok(figures)
    }

    fn one_by_one(&self, what: &str, subjects: &[Subject]) -> Result<Vec<Figures>> {
        let figures = self.with_servers(what, subjects, |servers| {
            measure(self.started, servers, self.rounds)
        })?;
        for one in &figures {
            let threads = one.subject.threads();
            say(&format!(
                "  {}, threads {threads}: decode {:.1}, prefill {:.0}, first token {:.0} ms",
                one.subject, one.decode, one.prefill, one.first_ms
            ));
        }
        Ok(figures)
    }

    fn at_once(&self, what: &str, streams: u32, subjects: &[Subject]) -> Result<Vec<Burst>> {
        let subjects: Vec<Subject> = subjects
            .iter()
            .map(|subject| subject.with_slots(streams))
            .collect();
        let bursts = self.with_servers(
            &format!("{what}, {streams} at once"),
            &subjects,
            |servers| many::measure(self.started, servers, streams as usize, self.rounds),
        )?;
        for one in &bursts {
            let threads = one.subject.threads();
            let cache = one.subject.cache().map_or("", Cache::flag);
            say(&format!(
                "  {}, threads {threads} {cache}: {:.1} tokens/s in all, first token {:.0} ms",
                one.subject, one.total, one.first_ms
            ));
        }
        Ok(bursts)
    }

    fn single(&self) -> Result<Vec<Figures>> {
        let mut subjects = Vec::new();
        for threads in THREADS.map(Some) {
            subjects.extend([
                Subject::node(Numerics::Throughput, threads),
                Subject::llama_server(threads),
                Subject::node(Numerics::Exact, threads),
            ]);
        }
        self.one_by_one("single nodes", &subjects)
    }

    /// Each alone on the machine, since a model's file that several map would be shared between them.
    fn memory(&self, single: &[Figures]) -> Result<Vec<(Subject, Memory)>> {
        say("measuring memory, each server alone");
        let mut measured = Vec::new();
        for subject in best_threads(single) {
            let servers = self.start(&[subject])?;
            measure(self.started, &servers, 1)?;
            let mut sum = Memory::default();
            for pid in servers.iter().flat_map(Server::pids) {
                let one = memory::of_tree(pid)?;
                sum.resident += one.resident;
                sum.proportional += one.proportional;
            }
            measured.push((subject, sum));
        }
        Ok(measured)
    }

    fn rings(&self, threads: u32) -> Result<Vec<Figures>> {
        let ring = |remote| Subject::ring(Numerics::Exact, Some(threads), remote);
        let mut subjects = vec![ring(0)];
        subjects.extend(REMOTE.map(ring));
        self.one_by_one("rings on loopback", &subjects)
    }

    fn beside(&self) -> Result<[Vec<Figures>; 2]> {
        let subjects = [
            Subject::node(Numerics::Throughput, None),
            Subject::llama_server(None),
        ];
        let alone = self.one_by_one("threads as each chooses", &subjects)?;
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"])
            .stdin(Stdio::null());
        let _busy = self
            .started
            .spawn(&mut busy)
            .context("cannot keep a core busy")?;
        let beside = self.one_by_one("threads as each chooses, one core busy", &subjects)?;
        Ok([alone, beside])
    }

    /// The cache with which the peer answers many streams faster.
    fn cache(&self) -> Result<Cache> {
        let caches = [Cache::Parted, Cache::Unified];
        if self.trial.get().is_none() {
            let (streams, threads) = TRIAL;
            let subjects = caches.map(|cache| Subject::llama_rpc(cache, Some(threads), 0));
            let tried = self.at_once("both caches of llama-server", streams, &subjects)?;
            self.trial.set(tried).expect("it was tried just now");
        }
        let tried = self.trial.get().expect("it was tried above");
        Ok(caches[faster(tried)])
    }

    fn streams(&self) -> Result<Vec<Vec<Burst>>> {
        let mut subjects = Vec::new();
        let cache = self.cache()?;
        for threads in THREADS.map(Some) {
            subjects.extend([
                Subject::node(Numerics::Throughput, threads),
                Subject::llama_rpc(cache, threads, 0),
                Subject::node(Numerics::Exact, threads),
            ]);
        }
        STREAMS
            .iter()
            .map(|streams| self.at_once("single nodes", *streams, &subjects))
            .collect()
    }

    fn rpc(&self) -> Result<Vec<Vec<Burst>>> {
        let cache = self.cache()?;
        let mut groups = Vec::new();
        for streams in STREAMS_RPC {
            for remote in REMOTE {
                let mut subjects = Vec::new();
                for threads in THREADS.map(Some) {
                    subjects.extend([
                        Subject::ring(Numerics::Exact, threads, remote),
                        Subject::llama_rpc(cache, threads, remote),
                    ]);
                }
                groups.push(self.at_once("rings beside RPC", streams, &subjects)?);
            }
        }
        Ok(groups)
    }

    fn agreement(&self) -> Result<Vec<Agreement>> {
        let threads = Some(THREADS[0]);
        let (exact, peer) = (
            Subject::node(Numerics::Exact, threads),
            Subject::llama_server(threads),
        );
        let ring = Subject::ring(Numerics::Exact, threads, REMOTE[0]);
        let pairs = [
            ([Subject::node(Numerics::Throughput, threads), peer], true),
            ([ring, exact], true),
            ([exact, peer], false),
            ([Subject::llama_plain(threads), peer], false),
        ];
        say("comparing answers: four pairs of servers, some minutes");
        let compare = |(pair, promised): &([Subject; 2], bool)| {
            let servers = self.start(pair)?;
            let found = agreement::measure(self.started, [&servers[0], &servers[1]], *promised)?;
            self.origin().confirm(&servers[0])?;
            Ok(found)
        };
        pairs.iter().map(compare).collect()
    }
}

/// Which of them answers the most tokens a second.
fn faster(tried: &[Burst]) -> usize {
    let rate = |at: &usize| tried[*at].total.median();
    (0..tried.len())
        .max_by(|a, b| rate(a).total_cmp(&rate(b)))
        .expect("something was tried")
}

/// Of each kind of server the one with the threads at which it decodes best.
fn best_threads(figures: &[Figures]) -> Vec<Subject> {
    let mut best: Vec<&Figures> = Vec::new();
    for one in figures {
        match best
            .iter_mut()
            .find(|known| known.subject.kind == one.subject.kind)
        {
            Some(known) if known.decode.median() >= one.decode.median() => {}
            Some(known) => *known = one,
            None => best.push(one),
        }
    }
    best.into_iter().map(|figures| figures.subject).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::stats::Series;

    #[test]
    fn each_kind_of_server_is_there_once_with_its_best_threads() {
        let figures = |subject, rate: f64| {
            let series = || Series::new(vec![rate]);
            let (decode, prefill, first_ms) = (series(), series(), series());
            Figures {
                subject,
                decode,
                prefill,
                first_ms,
                prompt_tokens: (1, 1),
            }
        };
        let ours = |threads| Subject::node(Numerics::Throughput, Some(threads));
        let theirs = |threads| Subject::llama_server(Some(threads));
        let all = [
            figures(ours(1), 70.0),
            figures(theirs(1), 80.0),
            figures(ours(2), 90.0),
            figures(theirs(2), 10.0),
        ];
        assert_eq!(best_threads(&all), [ours(2), theirs(1)]);
    }

    #[test]
    fn the_faster_cache_is_the_one_with_more_tokens() {
        let burst = |rates: [f64; 3]| Burst {
            subject: Subject::llama_server(None),
            total: Series::new(rates.to_vec()),
            first_ms: Series::new(vec![1.0; 3]),
            answered: 1.0,
            prompt_tokens: (1, 1),
        };
        let (slow, fast) = (burst([90.0, 10.0, 10.0]), burst([5.0, 20.0, 20.0]));
        assert_eq!(faster(&[slow.clone(), fast.clone()]), 1);
        assert_eq!(faster(&[fast, slow]), 0);
    }

    #[test]
    fn every_phase_has_a_name() {
        let names: Vec<String> = Phase::value_variants().iter().map(|p| p.name()).collect();
        let wanted = "single rings beside streams rpc agreement overhead";
        assert_eq!(names.join(" "), wanted);
    }
}
