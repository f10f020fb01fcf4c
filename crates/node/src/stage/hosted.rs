//! Which stages are hosted here, and what their rings are called: a ring that loses somebody goes on as another one.

use super::warm::Spec;
use super::{HOSTED_MAX, Input, StageEngine};
use crate::status::HostingStatus;
use proto::ids::{NodeId, RingId};
use proto::ring::OpenRing;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many of a stage's former rings are remembered: a request may leave one while others are formed and lost.
const FORMER_MAX: usize = 8;

/// A stage that is hosted here, or loads.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) coordinator: NodeId,
    /// The ring, with what it is for here.
    open: OpenRing,
    /// Rings that went on as this one, newest last.
    former: VecDeque<RingId>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) stop: CancellationToken,
    /// Once it is loaded.
    pub(super) engine: Option<StageEngine>,
    loaded: bool,
    /// It is kept for the case that another node is lost, and has no place in the ring.
    shadow: bool,
    /// Sessions whose caches are here.
    pub(super) sessions: Arc<AtomicU32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// With the number of their task.
    stages: Vec<(u64, Hosted)>,
    serials: u64,
}

impl Hosted {
    pub(super) fn new(coordinator: NodeId, open: &OpenRing, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            coordinator,
            open: open.clone(),
            former: VecDeque::new(),
            inputs,
            stop: CancellationToken::new(),
            engine: None,
            loaded: false,
            shadow: false,
            sessions: Arc::default(),
        }
    }

    /// As kept for the case that its host is lost.
    pub(super) fn shadow(self) -> Self {
        Self {
            shadow: true,
            ..self
        }
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// What it is kept for, if it is.
    pub(super) fn standby(&self) -> Option<(NodeId, &OpenRing)> {
        self.shadow.then_some((self.coordinator, &self.open))
    }

    pub(super) fn ring(&self) -> RingId {
        self.open.ring
    }

    /// Whether this coordinator means this stage by a ring's name, be it a former one.
    pub(super) fn is_of(&self, coordinator: NodeId, ring: RingId) -> bool {
        self.coordinator == coordinator && (self.ring() == ring || self.former.contains(&ring))
    }

    pub(super) fn status(&self) -> HostingStatus {
        HostingStatus {
            ring: self.ring(),
            coordinator: self.coordinator,
            stage: self.open.stage,
            layers: self.open.contract.layers,
            model: self.open.model_name.clone(),
            sessions: self.sessions.load(Ordering::Relaxed),
        }
    }

    /// Whether a ring that goes on can have this stage as it is.
    fn fits(&self, open: &OpenRing) -> bool {
        let sane = (1..=open.stages).contains(&open.stage);
        let alive = self.loaded && !self.stop.is_cancelled();
        sane && alive && Spec::of(&self.open) == Spec::of(open)
    }
}

impl Shelf {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Hosted> {
        self.stages.iter().map(|(_, hosted)| hosted)
    }

    /// Adds one, and returns its task's number; `None` when there is no room, or it is there already.
    pub(super) fn put(&mut self, hosted: Hosted) -> Option<u64> {
        let key = |hosted: &Hosted| (hosted.ring(), hosted.open.stage);
        let there = self.iter().any(|other| key(other) == key(&hosted));
        // What is kept for a loss takes nobody's place.
        let counts = |other: &&Hosted| hosted.shadow || !other.shadow;
        if there || self.iter().filter(counts).count() >= HOSTED_MAX {
            return None;
        }
        self.serials += 1;
        self.stages.push((self.serials, hosted));
        Some(self.serials)
    }

    /// Removes the one of a task that ends.
    pub(super) fn take(&mut self, serial: u64) -> Option<Hosted> {
        let at = self
            .stages
            .iter()
            .position(|(number, _)| *number == serial)?;
        Some(self.stages.swap_remove(at).1)
    }

    pub(super) fn loaded(&mut self, serial: u64, engine: StageEngine) {
        let mut stages = self.stages.iter_mut();
        if let Some((_, hosted)) = stages.find(|(number, _)| *number == serial) {
            (hosted.engine, hosted.loaded) = (Some(engine), true);
        }
    }

    /// Where a stage of a ring is told things.
    pub(super) fn inputs(&self, ring: RingId, stage: u32) -> Option<mpsc::Sender<Input>> {
        let mut all = self.iter();
        let hosted = all.find(|hosted| hosted.ring() == ring && hosted.open.stage == stage)?;
        Some(hosted.inputs.clone())
    }

    /// Hands a stage on to the ring that goes on for its own. False when there is none that fits.
    pub(super) fn moves(&mut self, coordinator: NodeId, open: &OpenRing) -> bool {
        let Some(before) = open.continues else {
            return false;
        };
        let fits = |hosted: &Hosted| hosted.is_of(coordinator, before) && hosted.fits(open);
        let moved = self.hand_on(fits, Input::Move(Box::new(open.clone())), open);
        moved.map(|hosted| hosted.shadow = false).is_some()
    }

    /// Keeps what is kept for a loss a while longer, for this ring. False when there is none that fits.
    pub(super) fn keeps(&mut self, coordinator: NodeId, open: &OpenRing) -> bool {
        let fits = |hosted: &Hosted| {
            hosted.shadow && hosted.coordinator == coordinator && hosted.fits(open)
        };
        let kept = self.hand_on(fits, Input::Keep(Box::new(open.clone())), open);
        kept.is_some()
    }

    /// Ends those that are kept for a loss and were not made for a ring in which they have a place: all, or those that have what
    /// this coordinator asks for.
    pub(super) fn stop_shadows(&self, of: Option<(NodeId, &OpenRing)>) {
        let meant = |hosted: &&Hosted| match of {
            Some((coordinator, open)) => hosted.coordinator == coordinator && hosted.fits(open),
            None => true,
        };
        let shadows = self.iter().filter(|hosted| hosted.shadow);
        shadows
            .filter(meant)
            .for_each(|hosted| hosted.stop.cancel());
    }

    fn hand_on(
        &mut self,
        fits: impl Fn(&Hosted) -> bool,
        input: Input,
        open: &OpenRing,
    ) -> Option<&mut Hosted> {
        let mut stages = self.stages.iter_mut().map(|(_, hosted)| hosted);
        let hosted = stages.find(|hosted| fits(hosted))?;
        if hosted.inputs.try_send(input).is_err() {
            hosted.stop.cancel();
            return None;
        }
        if hosted.open.ring != open.ring {
            if hosted.former.len() == FORMER_MAX {
                hosted.former.pop_front();
            }
            hosted.former.push_back(hosted.open.ring);
        }
        hosted.open = open.clone();
        Some(hosted)
    }
}

#[cfg(test)]
mod tests;
