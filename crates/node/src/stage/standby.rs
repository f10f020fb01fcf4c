//! Stages that are loaded beforehand, in case that their host is lost.

use super::hosted::Hosted;
use super::prepare::Engine;
use super::refusal::Refusal;
use super::warm::{Loaded, STANDS_BY, Standby, Warm};
use super::{Stages, check, refusal};
use crate::status::StandbyStatus;
use proto::ids::NodeId;
use proto::ring::{LinkBody, OpenRing, RefusalCode, StandingBy};
use tracing::info;

impl Stages {
    /// A coordinator asks that a stage be loaded and kept, or kept a while longer. It is told how that stands.
    pub fn stand_by(&self, coordinator: NodeId, open: OpenRing) {
        let needs = self.needs.clone();
        let this = self.clone();
        // At most one load a coordinator at a time: it asks again in a moment.
        let Ok(turn) = self.loads.clone().try_acquire_owned() else {
            return;
        };
        self.needs.tasks.spawn(async move {
            let kept = tokio::select! {
                kept = this.keep(coordinator, &open) => kept,
                () = this.stop.cancelled() => return,
            };
            drop(turn);
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

fn status(coordinator: NodeId, open: &OpenRing) -> StandbyStatus {
    StandbyStatus {
        node: coordinator,
        stage: open.stage,
        layers: open.contract.layers,
        model: open.model_name.clone(),
    }
}
