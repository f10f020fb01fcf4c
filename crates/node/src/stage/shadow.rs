//! Stages that are kept in case that their host is lost, and have caches of long sessions already: the stage before feeds them, their
//! outputs go nowhere, and they say nothing. When the ring goes on, one of them takes a place in it as it is.

use super::hosted::Hosted;
use super::neighbour::{self, Outlet};
use super::serve::Serve;
use super::{INPUTS_MAX, Input, Needs, StageEngine};
use crate::ring::form::contract;
use proto::ids::{NodeId, RingId};
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::debug;

impl Needs {
    /// The stage before one that is kept here calls: from now on it has caches, too. Nothing happens when none is kept.
    pub(super) fn shadow(self: &Arc<Self>, peer: NodeId, (ring, stage): (RingId, u32)) {
        let warm = &self.warm;
        let Some((coordinator, open, in_use)) = warm.shadow(warm, (ring, stage), peer) else {
            return;
        };
        let Ok(host) = in_use.engine().host() else {
            return;
        };
        let layers = open.contract.layers;
        let mine = contract(
            open.contract.model,
            layers,
            open.contract.numerics,
            host.loaded(),
        );
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let hosted = Hosted::new(coordinator, &open, inputs).shadow();
        let (stop, sessions) = (hosted.stop.clone(), hosted.sessions.clone());
        let measured = StageEngine {
            model: open.contract.model,
            layers: layers.len(),
            engine: in_use.engine().clone(),
        };
        let Some(serial) = self.hosted().put(hosted) else {
            return;
        };
        self.hosted().loaded(serial, measured);
        debug!(ring = %ring.short(), stage, %layers, "a stage is shadowed");
        match Serve::shadow(self.clone(), coordinator, open, (mine, in_use), sessions) {
            Ok(serve) => self.spawn((coordinator, ring), (serial, stop), serve.run(inbox)),
            Err(_) => drop(self.hosted().take(serial)),
        }
    }

    /// Reaches what is kept on this very node for the stage behind one of its own.
    pub(super) fn own_shadow(
        self: &Arc<Self>,
        me: NodeId,
        (ring, stage): (RingId, u32),
    ) -> Option<Outlet> {
        self.shadow(me, (ring, stage));
        let inputs = self.hosted().inputs(ring, stage)?;
        let (outlet, inlet) = neighbour::here();
        inputs.try_send(Input::Inlet(inlet)).ok()?;
        Some(outlet)
    }
}
