//! Engines of stages without a ring: those whose ring has ended, since a moment later another one may ask for the same
//! layers; and those that a coordinator asked for in case that their host is lost.

use engine::Supervisor;
use proto::ids::{NodeId, RingId};
use proto::ring::{Contract, OpenRing, STANDBY_MS};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::memory::Reserved;

/// How long an engine is kept that nobody uses.
const KEPT: Duration = Duration::from_secs(20);
/// How long one is kept that a coordinator asked for.
pub(super) const STANDS_BY: Duration = Duration::from_millis(STANDBY_MS);

/// A loaded stage, with the memory that it takes of what this node gives.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) engine: Arc<Supervisor>,
    memory: Option<Reserved>,
    made_for: Spec,
    /// For whom it is kept, if somebody asked.
    standby: Option<Standby>,
}

impl Loaded {
    pub(super) fn new(
        open: &OpenRing,
        engine: Arc<Supervisor>,
        memory: Option<Reserved>,
        standby: Option<Standby>,
    ) -> Self {
        Self {
            engine,
            memory,
            made_for: Spec::of(open),
            standby,
        }
    }
}

/// What an engine was loaded for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    contract: Contract,
    positions_max: u32,
    sessions_max: u32,
}

impl Spec {
    pub(super) fn of(open: &OpenRing) -> Self {
        Self {
            contract: open.contract.clone(),
            positions_max: open.positions_max,
            sessions_max: open.sessions_max,
        }
    }
}

/// Engines without a ring.
#[derive(Debug, Default)]
pub(super) struct Warm {
    shelf: Mutex<Shelf>,
}

/// An engine that is kept for a coordinator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Standby {
    /// Who asked for it.
    pub(super) coordinator: NodeId,
    /// What it would be asked.
    pub(super) open: Box<OpenRing>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// With the number of their turn, so that who comes to throw one away finds that one.
    engines: Vec<(u64, Loaded)>,
    turns: u64,
    /// The node ends: nothing is kept any more.
    closed: bool,
}

/// A stage's engine in use. It goes back to the others with this.
#[derive(Debug)]
pub(super) struct InUse {
    loaded: Option<Loaded>,
    warm: Arc<Warm>,
}

impl InUse {
    pub(super) fn new(
        warm: &Arc<Warm>,
        open: &OpenRing,
        engine: Arc<Supervisor>,
        memory: Option<Reserved>,
    ) -> Self {
        Self {
            loaded: Some(Loaded::new(open, engine, memory, None)),
            warm: warm.clone(),
        }
    }
}

impl InUse {
    pub(super) fn engine(&self) -> &Arc<Supervisor> {
        let loaded = self.loaded.as_ref();
        &loaded.expect("taken only when this is dropped").engine
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let healthy = |loaded: &Loaded| loaded.engine.host().is_ok();
        if let Some(loaded) = self.loaded.take().filter(healthy) {
            Warm::put(&self.warm, loaded, KEPT);
        }
    }
}

impl Warm {
    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An engine that was loaded for just this.
    pub(super) fn take(
        warm: &Arc<Self>,
        open: &OpenRing,
    ) -> Option<(Arc<Supervisor>, Option<Reserved>)> {
        let wanted = Spec::of(open);
        let mut shelf = warm.shelf();
        let found = |(_, loaded): &(u64, Loaded)| loaded.made_for == wanted;
        let at = shelf.engines.iter().position(found)?;
        let (_, loaded) = shelf.engines.remove(at);
        loaded
            .engine
            .host()
            .is_ok()
            .then_some((loaded.engine, loaded.memory))
    }

    /// Their memory is needed.
    pub(super) fn clear(&self) {
        let engines = std::mem::take(&mut self.shelf().engines);
        drop(engines);
    }

    /// Takes what is kept for a stage of this ring, if it is this member that would feed it: for whom, what for, and the engine.
    pub(super) fn shadow(
        &self,
        warm: &Arc<Self>,
        (ring, stage): (RingId, u32),
        predecessor: NodeId,
    ) -> Option<(NodeId, OpenRing, InUse)> {
        let kept = |(_, loaded): &(u64, Loaded)| {
            let standby = loaded.standby.as_ref();
            standby.is_some_and(|by| {
                (by.open.ring, by.open.stage, by.open.predecessor) == (ring, stage, predecessor)
            })
        };
        let mut shelf = self.shelf();
        let at = shelf.engines.iter().position(kept)?;
        let (_, mut loaded) = shelf.engines.remove(at);
        drop(shelf);
        let Standby { coordinator, open } = loaded.standby.take()?;
        let loaded = Some(loaded);
        let warm = warm.clone();
        Some((coordinator, *open, InUse { loaded, warm }))
    }

    /// From now on nothing is kept.
    pub(super) fn close(&self) {
        self.shelf().closed = true;
        self.clear();
    }

    /// Keeps an engine that was asked for just this a while longer, for this coordinator. False when there is none.
    pub(super) fn renew(warm: &Arc<Self>, open: &OpenRing, standby: &Standby) -> bool {
        let wanted = Spec::of(open);
        let mut shelf = warm.shelf();
        let found = |(_, loaded): &(u64, Loaded)| loaded.made_for == wanted;
        let Some(at) = shelf.engines.iter().position(found) else {
            return false;
        };
        let (_, mut loaded) = shelf.engines.remove(at);
        drop(shelf);
        loaded.standby = Some(standby.clone());
        let healthy = loaded.engine.host().is_ok();
        if healthy {
            Self::put(warm, loaded, STANDS_BY);
        }
        healthy
    }

    /// What is kept for coordinators.
    pub(super) fn standbys(&self) -> Vec<Standby> {
        let shelf = self.shelf();
        let all = shelf
            .engines
            .iter()
            .filter_map(|(_, loaded)| loaded.standby.clone());
        all.collect()
    }

    /// A coordinator is lost: nothing is kept for it any more.
    pub(super) fn lost(&self, coordinator: NodeId) {
        let of_it = |standby: &Standby| standby.coordinator == coordinator;
        let mut shelf = self.shelf();
        let old = shelf
            .engines
            .extract_if(.., |(_, loaded)| loaded.standby.as_ref().is_some_and(of_it))
            .collect::<Vec<_>>();
        drop(shelf);
        drop(old);
    }

    /// Keeps an engine for so long, unless somebody takes it.
    pub(super) fn put(warm: &Arc<Self>, loaded: Loaded, time: Duration) {
        // Outside a runtime nobody would throw it away again.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut shelf = warm.shelf();
        if shelf.closed {
            return;
        }
        shelf.turns += 1;
        let turn = shelf.turns;
        shelf.engines.push((turn, loaded));
        runtime.spawn(throw_away(Arc::downgrade(warm), turn, time));
    }
}

/// Throws an engine away, unless somebody has taken it by then.
async fn throw_away(warm: Weak<Warm>, turn: u64, after: Duration) {
    tokio::time::sleep(after).await;
    if let Some(warm) = warm.upgrade() {
        let mut shelf = warm.shelf();
        let old: Vec<_> = shelf
            .engines
            .extract_if(.., |(of, _)| *of == turn)
            .collect();
        drop(shelf);
        drop(old);
    }
}
