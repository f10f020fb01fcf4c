//! Stages that are loaded beforehand, in case that their host is lost.

use super::hosted::Hosted;
use super::prepare::Engine;
use super::refusal::Refusal;
use super::warm::{Loaded, STANDS_BY, Standby, Warm};
use super::{Stages, check, refusal};
use crate::status::StandbyStatus;
use proto::ids::{NodeId, RingId};
use proto::ring::{LinkBody, OpenRing, RefusalCode, StandingBy};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::info;

/// Loads that may wait at once, over all coordinators.
const ERRANDS_MAX: usize = 16;

impl Stages {
    /// A coordinator asks that a stage be loaded and kept, or kept a while longer. It is told how that stands.
    pub fn stand_by(&self, coordinator: NodeId, open: OpenRing) {
        let needs = self.needs.clone();
        let this = self.clone();
        let Some(errand) = Errand::begin(&self.errands, coordinator, &open) else {
            return;
        };
        self.needs.tasks.spawn(async move {
            let keep = async {
                // Never closed, so this waits for no longer than the loads before.
                let _turn = this.loads.acquire().await;
                this.keep(coordinator, &open).await
            };
            let kept = tokio::select! {
                kept = keep => kept,
                () = this.stop.cancelled() => return,
            };
            drop(errand);
            let standing = StandingBy {
                ring: open.ring,
                layers: open.contract.layers,
                refused: kept.err().map(|refused| refused.told()),
            };
            // A coordinator whose link is lost does not miss it.
            let _ = needs
                .links
                .send(coordinator, LinkBody::StandingBy(standing));
        });
    }

    async fn keep(&self, coordinator: NodeId, open: &OpenRing) -> Result<(), Refusal> {
        check(open)?;
        let needs = &self.needs;
        let serves = needs.rooms.serves(coordinator);
        serves.map_err(|why| refusal(RefusalCode::OtherRoom, why))?;
        if self.hosted().keeps(coordinator, open) {
            return Ok(());
        }
        let standby = Standby {
            coordinator,
            open: Box::new(open.clone()),
        };
        if Warm::renew(&needs.warm, open, &standby) {
            return Ok(());
        }
        let Engine { engine, memory, .. } = needs.engine(coordinator, open, false).await?;
        info!(ring = %open.ring.short(), stage = open.stage, layers = %open.contract.layers, "stands by");
        let loaded = Loaded::new(open, engine, memory, Some(standby));
        Warm::put(&needs.warm, loaded, STANDS_BY);
        Ok(())
    }

    /// What is kept for coordinators, for status.
    #[must_use]
    pub fn standing_by(&self) -> Vec<StandbyStatus> {
        let hosted = self.hosted();
        let shadows = hosted.iter().filter_map(Hosted::standby);
        let shadows = shadows.map(|(coordinator, open)| status(coordinator, open));
        let kept = self.needs.warm.standbys().into_iter();
        let kept = kept.map(|standby| status(standby.coordinator, &standby.open));
        shadows.chain(kept).collect()
    }
}

/// Loads that were asked for and not answered yet.
pub(super) type Errands = Arc<Mutex<BTreeSet<(NodeId, RingId, u32)>>>;

/// One of them. Coordinators ask again and again; what waits is not loaded twice.
struct Errand {
    all: Errands,
    key: (NodeId, RingId, u32),
}

impl Errand {
    /// `None` when it waits already, or when too many do.
    fn begin(all: &Errands, coordinator: NodeId, open: &OpenRing) -> Option<Self> {
        let key = (coordinator, open.ring, open.stage);
        let mut waiting = all.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = waiting.len() < ERRANDS_MAX && waiting.insert(key);
        drop(waiting);
        fresh.then(|| Self {
            all: all.clone(),
            key,
        })
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut waiting = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.key);
    }
}

fn status(coordinator: NodeId, open: &OpenRing) -> StandbyStatus {
    StandbyStatus {
        node: coordinator,
        stage: open.stage,
        layers: open.contract.layers,
        model: open.model_name.clone(),
    }
}
