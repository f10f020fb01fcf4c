//! Engines of stages whose ring has ended. When a ring loses somebody, those that are left are asked a moment later for the
//! same layers: then nothing has to be loaded.

use engine::Supervisor;
use proto::ring::{Contract, OpenRing};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::memory::Reserved;

/// How long an engine is kept that nobody uses.
const KEPT: Duration = Duration::from_secs(20);

/// A loaded stage, with the memory that it takes of what this node gives.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) engine: Arc<Supervisor>,
    memory: Option<Reserved>,
    made_for: Spec,
}

/// What an engine was loaded for.
#[derive(Debug, Clone, PartialEq)]
struct Spec {
    contract: Contract,
    positions_max: u32,
    sessions_max: u32,
}

impl Spec {
    fn of(open: &OpenRing) -> Self {
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
        let made_for = Spec::of(open);
        let loaded = Loaded {
            engine,
            memory,
            made_for,
        };
        Self {
            loaded: Some(loaded),
            warm: warm.clone(),
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let healthy = |loaded: &Loaded| loaded.engine.host().is_ok();
        if let Some(loaded) = self.loaded.take().filter(healthy) {
            Warm::put(&self.warm, loaded);
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

    /// From now on nothing is kept.
    pub(super) fn close(&self) {
        self.shelf().closed = true;
        self.clear();
    }

    fn put(warm: &Arc<Self>, loaded: Loaded) {
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
        runtime.spawn(throw_away(Arc::downgrade(warm), turn));
    }
}

/// Throws an engine away, unless somebody has taken it by then.
async fn throw_away(warm: Weak<Warm>, turn: u64) {
    tokio::time::sleep(KEPT).await;
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
