//! Stages that were asked to load: who is how far, and who keeps the others waiting.
//!
//! A stage first says that it was asked, then perhaps fetches its layers, then loads them. Loading alone has a fixed
//! time. Fetching may take as long as it makes progress: what a stage says of it counts when it is more than before.

use super::form::named;
use proto::ids::NodeId;
use proto::member::Member;
use proto::ring::RingProgress;
use std::time::Duration;
use tokio::time::Instant;

/// How long stages have to load, and to fetch anything more of what they load.
pub(super) const LOAD_MAX: Duration = Duration::from_secs(120);
/// How long stages have to say that they were asked.
pub(super) const FIRST_WORD_MAX: Duration = Duration::from_secs(10);
/// The least that counts as progress before the end, in bytes.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// The stages of a ring that is being formed.
#[derive(Debug)]
pub(super) struct Loads {
    stages: Vec<Load>,
    /// No stage fetches more, in bytes: nobody can say forever that he does.
    fetch_bytes_max: u64,
}

#[derive(Debug)]
struct Load {
    member: Member,
    state: State,
    until: Instant,
    /// Of what it fetches.
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was heard of it.
    Asked,
    Loading,
    Ready,
}

impl Loads {
    /// These members were asked just now to load stages of a model of so many bytes.
    pub(super) fn new(members: &[Member], model_bytes: u64, now: Instant) -> Self {
        let load = |member: &Member| Load {
            member: member.clone(),
            state: State::Asked,
            until: now + FIRST_WORD_MAX,
            done_bytes: 0,
            total_bytes: 0,
        };
        Self {
            stages: members.iter().map(load).collect(),
            // What the disk lost is fetched twice.
            fetch_bytes_max: model_bytes.saturating_mul(2),
        }
    }

    /// The stage of a node that has not loaded; one of them, where it hosts several.
    fn load(&mut self, node: NodeId) -> Option<&mut Load> {
        let waits = |load: &Load| load.member.id == node && load.state != State::Ready;
        let at = self.stages.iter().position(waits);
        let at = at.or_else(|| self.stages.iter().position(|load| load.member.id == node))?;
        self.stages.get_mut(at)
    }

    /// A stage says that it was asked.
    pub(super) fn loading(&mut self, node: NodeId, now: Instant) {
        let load = self.load(node).filter(|load| load.state == State::Asked);
        if let Some(load) = load {
            (load.state, load.until) = (State::Loading, now + LOAD_MAX);
        }
    }

    /// A stage says how far it is with fetching. Whether that is progress.
    pub(super) fn progress(&mut self, node: NodeId, said: RingProgress, now: Instant) -> bool {
        let most = self.fetch_bytes_max;
        self.loading(node, now);
        let load = self.load(node).filter(|load| load.state == State::Loading);
        let Some(load) = load else { return false };
        let more = said.done_bytes.saturating_sub(load.done_bytes);
        let ends = more > 0 && said.done_bytes == said.total_bytes;
        if said.done_bytes > most || !(ends || more >= PROGRESS_BYTES_MIN) {
            return false;
        }
        load.done_bytes = said.done_bytes;
        load.total_bytes = said.total_bytes;
        load.until = now + LOAD_MAX;
        true
    }

    /// A stage has loaded.
    pub(super) fn ready(&mut self, node: NodeId, now: Instant) {
        if let Some(load) = self.load(node) {
            // From here on only the last hop may lack.
            (load.state, load.until) = (State::Ready, now + LOAD_MAX);
        }
    }

    /// Whether all have loaded.
    pub(super) fn all_ready(&self) -> bool {
        self.stages.iter().all(|load| load.state == State::Ready)
    }

    /// When waiting makes no sense any more, unless something is heard before.
    pub(super) fn until(&self) -> Instant {
        let first = self.lacking().map(|load| load.until).min();
        // All have loaded, so the last of them calls back.
        let last = || self.stages.iter().map(|load| load.until).max();
        first.or_else(last).expect("a ring has a stage")
    }

    fn lacking(&self) -> impl Iterator<Item = &Load> {
        let stages = self.stages.iter();
        stages.filter(|load| load.state != State::Ready)
    }

    /// Who kept the others waiting until `now`, and with what.
    pub(super) fn late(&self, now: Instant) -> String {
        let lacking = self.lacking().filter(|load| load.until <= now);
        let words: Vec<String> = lacking.map(Load::complaint).collect();
        let last = self.stages.last().filter(|_| self.all_ready());
        last.map_or_else(|| words.join("; "), Load::complaint)
    }

    /// How far those are that fetch, for people; `None` when nobody does.
    pub(super) fn words(&self) -> Option<String> {
        let fetching = self
            .stages
            .iter()
            .filter(|load| load.state == State::Loading && load.total_bytes > 0);
        let words: Vec<String> = fetching.map(Load::fetching).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

impl Load {
    fn complaint(&self) -> String {
        let (who, s) = (named(&self.member), LOAD_MAX.as_secs());
        match self.state {
            State::Asked => {
                let s = FIRST_WORD_MAX.as_secs();
                format!("{who} did not say within {s} s that it loads")
            }
            State::Loading if self.done_bytes < self.total_bytes => {
                format!(
                    "{} and then nothing more for {s} s; see there what its providers do",
                    self.fetching()
                )
            }
            State::Loading => format!("{who} did not load within {s} s"),
            State::Ready => format!("{who} did not call back within {s} s"),
        }
    }

    fn fetching(&self) -> String {
        let (who, done, total) = (named(&self.member), self.done_bytes, self.total_bytes);
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        format!(
            "{who} has fetched {} of {} MiB of its layers ({percent} %)",
            done >> 20,
            total >> 20
        )
    }
}

#[cfg(test)]
mod tests;
