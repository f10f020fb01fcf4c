//! Who is asked for which part: a pure machine, (event, now) to effects.
//!
//! Every part that is wanted is pending, or asked for. A provider that is ready is asked for a few parts at once, those
//! first that the fewest others could deliver. When nothing is pending that an idle provider has, it asks again for the
//! part that another owes longest; the first to deliver wins and the other is called off. A failure of the connection
//! is a strike, and the provider is called again; wrong bytes or a refusal are the end of it.

use crate::limits::{PARTS_PER_PROVIDER, PROVIDER_STRIKES_MAX, QUIET_MS, RECALL_MS, STALL_MS};
use proto::ids::NodeId;
use proto::manifest::{Block, BlockKind};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many times faster a second provider must promise to be before it is asked for the same part.
const STEAL_FACTOR: f64 = 2.0;
/// What the newest measurement weighs in a provider's rate.
const RATE_WEIGHT: f64 = 0.3;

/// A part of a block: places in the lists of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartAt {
    pub(super) block: usize,
    pub(super) part: u32,
}

/// What happened. Providers are places in the job's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A provider was reached.
    Ready { provider: usize },
    /// So many bytes of a part have come and verified.
    Heard {
        provider: usize,
        at: PartAt,
        bytes: u64,
    },
    /// A part is on disk.
    Kept { provider: usize, at: PartAt },
    /// A provider's connection is gone, or did not come about.
    Lost { provider: usize, detail: String },
    /// A provider will not or cannot serve a block that it said it has.
    Refused { provider: usize, detail: String },
    /// A provider sent wrong bytes.
    Poisoned { provider: usize, detail: String },
    /// A block that was whole is not what it should be: the disk lost some of it.
    Damaged { block: usize },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Call a provider after a pause.
    Call { provider: usize, pause: Duration },
    /// Ask a provider for a part.
    Get { provider: usize, at: PartAt },
    /// A part is not wanted of this provider any more.
    CallOff { provider: usize, at: PartAt },
    /// End everything with a provider.
    Leave { provider: usize },
}

/// Where a fetch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Running,
    Finished,
    /// Nobody is left who could deliver what lacks.
    Stuck,
}

/// How a provider stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderState {
    /// It is being called, or will be again.
    Away,
    /// It is connected.
    Ready,
    /// It was given up: it could not be reached or broke off again and again.
    Lost {
        /// What happened last.
        detail: String,
    },
    /// It was given up: it refused what it said it has.
    Refused {
        /// What it said.
        detail: String,
    },
    /// It was given up: it sent bytes that are not what they should be.
    Poisoned {
        /// What was wrong.
        detail: String,
    },
}

/// What a provider has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderReport {
    /// Who it is.
    pub peer: NodeId,
    /// Bytes of it that were verified and kept.
    pub bytes: u64,
    /// Measured bytes a second; `None` until measured.
    pub bytes_s: Option<u64>,
    /// How it stands.
    pub state: ProviderState,
}

/// How far a fetch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes kept, of `total`.
    pub done: u64,
    /// Bytes that lacked when the fetch began.
    pub total: u64,
    /// The providers, in the order in which they were given.
    pub providers: Vec<ProviderReport>,
}

#[derive(Debug)]
struct Work {
    block: Block,
    /// Not on disk yet.
    left: BTreeSet<u32>,
    /// Of these, not asked for.
    pending: BTreeSet<u32>,
}

#[derive(Debug)]
struct Runner {
    peer: NodeId,
    holds: Vec<bool>,
    state: ProviderState,
    strikes: u32,
    runs: Vec<Run>,
    bytes: u64,
    rate: Option<f64>,
    /// Bytes heard since `measured`.
    window: u64,
    measured: Duration,
}

#[derive(Debug)]
struct Run {
    at: PartAt,
    bytes: u64,
    heard: u64,
    heard_at: Duration,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Schedule {
    works: Vec<Work>,
    runners: Vec<Runner>,
    total: u64,
    done: u64,
}

impl Schedule {
    /// A job: blocks with the parts that lack, and providers with whether they hold each of the blocks.
    pub(super) fn new(
        blocks: &[(Block, Vec<u32>)],
        providers: &[(NodeId, Vec<bool>)],
    ) -> (Self, Vec<Effect>) {
        let work = |(block, parts): &(Block, Vec<u32>)| {
            let left: BTreeSet<u32> = parts
                .iter()
                .copied()
                .filter(|part| *part < block.parts())
                .collect();
            Work {
                block: *block,
                pending: left.clone(),
                left,
            }
        };
        let runner = |(peer, holds): &(NodeId, Vec<bool>)| Runner {
            peer: *peer,
            holds: holds.clone(),
            state: ProviderState::Away,
            strikes: 0,
            runs: Vec::new(),
            bytes: 0,
            rate: None,
            window: 0,
            measured: Duration::ZERO,
        };
        let mut schedule = Self {
            works: blocks.iter().map(work).collect(),
            runners: providers.iter().map(runner).collect(),
            total: 0,
            done: 0,
        };
        schedule.total = schedule.works.iter().map(Work::bytes_left).sum();
        let call = |provider| Effect::Call {
            provider,
            pause: Duration::ZERO,
        };
        let effects = (0..providers.len()).map(call).collect();
        (schedule, effects)
    }

    /// Takes an event in.
    pub(super) fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Ready { provider } => self.ready(provider, now),
            Event::Heard {
                provider,
                at,
                bytes,
            } => self.heard(provider, at, bytes, now),
            Event::Kept { provider, at } => self.kept(provider, at, &mut effects),
            Event::Lost { provider, detail } => self.lost(provider, detail, &mut effects),
            Event::Refused { provider, detail } => {
                self.give_up(provider, ProviderState::Refused { detail }, &mut effects);
            }
            Event::Poisoned { provider, detail } => {
                self.give_up(provider, ProviderState::Poisoned { detail }, &mut effects);
            }
            Event::Damaged { block } => self.damaged(block),
            Event::Tick => self.tick(now, &mut effects),
        }
        self.assign(now, &mut effects);
        effects
    }

    /// Where the fetch stands.
    pub(super) fn outcome(&self) -> Outcome {
        let waits =
            |runner: &Runner| runner.state == ProviderState::Away || !runner.runs.is_empty();
        if self.works.iter().all(|work| work.left.is_empty()) {
            Outcome::Finished
        } else if self.runners.iter().any(waits) {
            Outcome::Running
        } else {
            Outcome::Stuck
        }
    }

    /// The blocks that are not whole yet.
    pub(super) fn lacks(&self) -> Vec<BlockKind> {
        let lack = self.works.iter().filter(|work| !work.left.is_empty());
        lack.map(|work| work.block.kind).collect()
    }

    /// How far the fetch is.
    pub(super) fn report(&self) -> FetchReport {
        let report = |runner: &Runner| ProviderReport {
            peer: runner.peer,
            bytes: runner.bytes,
            bytes_s: runner.rate.map(|rate| rate as u64),
            state: runner.state.clone(),
        };
        FetchReport {
            done: self.done,
            total: self.total,
            providers: self.runners.iter().map(report).collect(),
        }
    }

    fn ready(&mut self, provider: usize, now: Duration) {
        let runner = &mut self.runners[provider];
        if runner.state == ProviderState::Away {
            runner.state = ProviderState::Ready;
            runner.window = 0;
            runner.measured = now;
        }
    }

    fn heard(&mut self, provider: usize, at: PartAt, bytes: u64, now: Duration) {
        let runner = &mut self.runners[provider];
        if let Some(run) = runner.runs.iter_mut().find(|run| run.at == at)
            && bytes > run.heard
        {
            runner.window += bytes - run.heard;
            run.heard = bytes;
            run.heard_at = now;
        }
    }

    fn kept(&mut self, provider: usize, at: PartAt, effects: &mut Vec<Effect>) {
        let work = &mut self.works[at.block];
        work.pending.remove(&at.part);
        let bytes = work.block.part_bytes(at.part);
        let wanted = work.left.remove(&at.part);
        for (number, runner) in self.runners.iter_mut().enumerate() {
            let before = runner.runs.len();
            runner.runs.retain(|run| run.at != at);
            if runner.runs.len() < before && number != provider {
                effects.push(Effect::CallOff {
                    provider: number,
                    at,
                });
            }
        }
        if wanted {
            self.done += bytes;
            self.runners[provider].bytes += bytes;
            self.runners[provider].strikes = 0;
        }
    }

    fn lost(&mut self, provider: usize, detail: String, effects: &mut Vec<Effect>) {
        let runner = &mut self.runners[provider];
        if runner.is_given_up() {
            return;
        }
        runner.strikes += 1;
        if runner.strikes >= PROVIDER_STRIKES_MAX {
            return self.give_up(provider, ProviderState::Lost { detail }, effects);
        }
        let pause = Duration::from_millis(RECALL_MS << (runner.strikes - 1));
        self.release(provider, ProviderState::Away);
        effects.push(Effect::Leave { provider });
        effects.push(Effect::Call { provider, pause });
    }

    fn give_up(&mut self, provider: usize, state: ProviderState, effects: &mut Vec<Effect>) {
        if !self.runners[provider].is_given_up() {
            self.release(provider, state);
            effects.push(Effect::Leave { provider });
        }
    }

    /// What a provider was asked for is pending again, unless another was asked for it too.
    fn release(&mut self, provider: usize, state: ProviderState) {
        self.runners[provider].state = state;
        for run in std::mem::take(&mut self.runners[provider].runs) {
            let work = &mut self.works[run.at.block];
            let asked = self
                .runners
                .iter()
                .any(|other| other.runs.iter().any(|r| r.at == run.at));
            if !asked && work.left.contains(&run.at.part) {
                work.pending.insert(run.at.part);
            }
        }
    }

    fn damaged(&mut self, block: usize) {
        let work = &mut self.works[block];
        let all: BTreeSet<u32> = (0..work.block.parts()).collect();
        let again: u64 = all
            .difference(&work.left)
            .map(|part| work.block.part_bytes(*part))
            .sum();
        work.pending.extend(all.difference(&work.left));
        work.left = all;
        self.total += again;
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let stall = Duration::from_millis(STALL_MS);
        for provider in 0..self.runners.len() {
            let runner = &mut self.runners[provider];
            runner.measure(now);
            let newest = runner.runs.iter().map(|run| run.heard_at).max();
            // A part that has come in full is on its way to the disk; that is not the provider's time.
            let owes = runner.runs.iter().any(|run| run.heard < run.bytes);
            if owes && newest.is_some_and(|at| now.saturating_sub(at) >= stall) {
                let detail = format!("nothing came of it for {STALL_MS} ms");
                self.lost(provider, detail, effects);
            }
        }
    }

    /// Asks those who could do more.
    fn assign(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        // One part each in turn, so that the first in the list does not take everything of a small job.
        for depth in 0..PARTS_PER_PROVIDER {
            for provider in 0..self.runners.len() {
                let runner = &self.runners[provider];
                if runner.state != ProviderState::Ready || runner.runs.len() != depth {
                    continue;
                }
                let next = self.rarest(provider);
                let next = next.or_else(|| self.owed(provider, now).filter(|_| depth == 0));
                if let Some(at) = next {
                    self.works[at.block].pending.remove(&at.part);
                    let bytes = self.works[at.block].block.part_bytes(at.part);
                    self.runners[provider].runs.push(Run {
                        at,
                        bytes,
                        heard: 0,
                        heard_at: now,
                    });
                    effects.push(Effect::Get { provider, at });
                }
            }
        }
    }

    /// The pending part that the fewest providers hold, of those that this one holds.
    fn rarest(&self, provider: usize) -> Option<PartAt> {
        let holders = |block: usize| {
            self.runners
                .iter()
                .filter(|other| !other.is_given_up() && other.holds[block])
                .count()
        };
        let mine = (0..self.works.len()).filter(|block| self.runners[provider].holds[*block]);
        let block = mine
            .filter(|block| !self.works[*block].pending.is_empty())
            .min_by_key(|block| (holders(*block), *block))?;
        let part = *self.works[block].pending.first()?;
        Some(PartAt { block, part })
    }

    /// The part that another provider owes longest, if this one promises to be much faster.
    fn owed(&self, thief: usize, now: Duration) -> Option<PartAt> {
        let mine = &self.runners[thief];
        let quiet = Duration::from_millis(QUIET_MS);
        let mut worst: Option<(f64, PartAt)> = None;
        for (number, victim) in self.runners.iter().enumerate().filter(|(n, _)| *n != thief) {
            for run in victim.runs.iter().filter(|run| run.heard < run.bytes) {
                let alone =
                    self.runners.iter().enumerate().all(|(n, other)| {
                        n == number || !other.runs.iter().any(|r| r.at == run.at)
                    });
                if !mine.holds[run.at.block] || !alone {
                    continue;
                }
                let left = (run.bytes - run.heard) as f64;
                let owes_s = victim
                    .rate
                    .map(|rate| left * victim.runs.len() as f64 / rate.max(1.0));
                let mine_s = mine.rate.map(|rate| run.bytes as f64 / rate.max(1.0));
                let slower = owes_s
                    .zip(mine_s)
                    .is_some_and(|(o, m)| o > STEAL_FACTOR * m);
                let silent = now.saturating_sub(run.heard_at) >= quiet;
                let owes_s = owes_s.unwrap_or(f64::INFINITY);
                if (slower || silent) && worst.is_none_or(|(most, _)| owes_s > most) {
                    worst = Some((owes_s, run.at));
                }
            }
        }
        worst.map(|(_, at)| at)
    }
}

impl Work {
    fn bytes_left(&self) -> u64 {
        self.left
            .iter()
            .map(|part| self.block.part_bytes(*part))
            .sum()
    }
}

impl Runner {
    fn is_given_up(&self) -> bool {
        !matches!(self.state, ProviderState::Away | ProviderState::Ready)
    }

    fn measure(&mut self, now: Duration) {
        let time = now.saturating_sub(self.measured);
        if self.runs.is_empty() || time.is_zero() {
            self.measured = now;
            return;
        }
        let newest = self.window as f64 / time.as_secs_f64();
        let before = self.rate.unwrap_or(newest);
        self.rate = Some(before + RATE_WEIGHT * (newest - before));
        (self.window, self.measured) = (0, now);
    }
}

#[cfg(test)]
mod tests;
