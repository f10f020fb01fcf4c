//! The parts of a run.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use proto::model::Numerics;

use super::llama_server::{self, LlamaServer};
use super::memory::{self, Memory};
use super::ours::Ours;
use super::rounds::{Figures, measure};
use super::say;
use super::server::{Origin, Server};
use super::started::Started;
use super::subject::Subject;

/// Threads that are tried for everybody.
const THREADS: [u32; 2] = [1, 2];
/// Remote stages of the rings.
const REMOTE: [u32; 2] = [1, 2];

/// Everything that a run needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench<'a> {
    /// The processes of this run.
    pub(super) started: &'a Started,
    /// The peer.
    pub(super) peer: &'a LlamaServer,
    /// The product and the model.
    pub(super) ours: &'a Ours,
    /// How often each server is asked.
    pub(super) rounds: usize,
}

/// Everything that a run finds out.
#[derive(Debug, Clone, PartialEq)]
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
}

impl Bench<'_> {
    /// Runs all parts.
    ///
    /// # Errors
    ///
    /// When one fails.
    pub(super) fn all(&self) -> Result<All> {
        say("starting llama-server once to read its CPU features");
        let peer_features = llama_server::system_info(self.started, self.peer, &self.ours.model)?;
        let single = self.single()?;
        let memory = self.memory(&single)?;
        let rings = THREADS
            .iter()
            .map(|threads| self.rings(*threads))
            .collect::<Result<_>>()?;
        Ok(All {
            peer_features,
            single,
            memory,
            rings,
            beside: self.beside()?,
        })
    }

    fn start(&self, subjects: &[Subject]) -> Result<Vec<Server>> {
        let Self {
            started,
            peer,
            ours,
            ..
        } = *self;
        let origin = Origin {
            started,
            peer,
            ours,
        };
        subjects
            .iter()
            .map(|subject| origin.start(*subject))
            .collect()
    }

    fn measure(&self, what: &str, subjects: &[Subject]) -> Result<Vec<Figures>> {
        let (servers, rounds) = (subjects.len(), self.rounds);
        say(&format!(
            "measuring {what}: {rounds} rounds over {servers} servers, a few minutes"
        ));
        let servers = self.start(subjects)?;
        let figures = measure(self.started, &servers, self.rounds)?;
        let Self {
            started,
            peer,
            ours,
            ..
        } = *self;
        for server in &servers {
            Origin {
                started,
                peer,
                ours,
            }
            .confirm(server)?;
        }
        for one in &figures {
            let threads = one.subject.threads();
            say(&format!(
                "  {}, threads {threads}: decode {:.1}, prefill {:.0}, first token {:.0} ms",
                one.subject, one.decode, one.prefill, one.first_ms
            ));
        }
        Ok(figures)
    }

    fn single(&self) -> Result<Vec<Figures>> {
        let mut subjects = Vec::new();
        for threads in THREADS.map(Some) {
            subjects.extend([
                Subject::node(Numerics::Throughput, threads),
                Subject::LlamaServer { threads },
                Subject::node(Numerics::Exact, threads),
            ]);
        }
        self.measure("single nodes", &subjects)
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
        let (numerics, threads) = (Numerics::Exact, Some(threads));
        let mut subjects = vec![Subject::node(numerics, threads)];
        subjects.extend(REMOTE.map(|remote| Subject::Myzel {
            numerics,
            threads,
            remote,
        }));
        self.measure("rings on loopback", &subjects)
    }

    fn beside(&self) -> Result<[Vec<Figures>; 2]> {
        let subjects = [
            Subject::node(Numerics::Throughput, None),
            Subject::LlamaServer { threads: None },
        ];
        let alone = self.measure("threads as each chooses", &subjects)?;
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"])
            .stdin(Stdio::null());
        let _busy = self
            .started
            .spawn(&mut busy)
            .context("cannot keep a core busy")?;
        let beside = self.measure("threads as each chooses, one core busy", &subjects)?;
        Ok([alone, beside])
    }
}

/// Of each kind of server the one with the threads at which it decodes best.
fn best_threads(figures: &[Figures]) -> Vec<Subject> {
    let mut best: Vec<&Figures> = Vec::new();
    for one in figures {
        let kind = one.subject.to_string();
        match best
            .iter_mut()
            .find(|known| known.subject.to_string() == kind)
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
    use super::super::stats::Series;
    use super::*;

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
        let theirs = |threads| Subject::LlamaServer {
            threads: Some(threads),
        };
        let all = [
            figures(ours(1), 70.0),
            figures(theirs(1), 80.0),
            figures(ours(2), 90.0),
            figures(theirs(2), 10.0),
        ];
        assert_eq!(best_threads(&all), [ours(2), theirs(1)]);
    }
}
