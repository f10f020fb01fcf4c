//! Feeding whoever stands by for the next stage, beside the ring: nobody waits for it, and what does not get through is sent the
//! next time.

use super::neighbour::{FRAMES_MAX, Frame, Outlet};
use net::Net;
use proto::ids::{NodeId, SessionId};
use proto::member::Member;
use proto::ring::{HopBody, HopHello, SessionRef};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

/// A hop beside the ring. Dropping it ends the hop.
#[derive(Debug)]
pub(crate) struct Feeder {
    to: NodeId,
    frames: mpsc::Sender<Frame>,
    /// The epoch of each session, and up to where it was fed under it.
    fed: HashMap<SessionId, (u32, u32)>,
    _task: AbortOnDropHandle<()>,
}

impl Feeder {
    /// Calls a standby on another node.
    pub(crate) fn call(net: Net, to: &Member, hello: HopHello) -> Self {
        let (id, to) = (to.id, to.clone());
        let outlet = async move {
            let called = net.dial_hop(&to, &hello).await;
            let hop = called
                .map_err(|error| debug!(node = %id.short(), %error, "a standby cannot be fed"));
            hop.ok().map(|hop| Outlet::Net(Box::new(hop)))
        };
        Self::over(id, outlet)
    }

    /// Feeds a standby over this, once it is there.
    pub(super) fn over(
        to: NodeId,
        outlet: impl Future<Output = Option<Outlet>> + Send + 'static,
    ) -> Self {
        let (frames, inbox) = mpsc::channel(FRAMES_MAX);
        let task = tokio::spawn(feed(outlet, inbox));
        Self {
            to,
            frames,
            _task: AbortOnDropHandle::new(task),
            fed: HashMap::new(),
        }
    }

    /// Whether this one feeds that standby still.
    pub(crate) fn feeds(&self, node: NodeId) -> bool {
        self.to == node && !self.frames.is_closed()
    }

    /// Up to where a session was fed.
    pub(crate) fn fed(&self, at: SessionRef) -> u32 {
        let fed = self.fed.get(&at.session);
        fed.filter(|(epoch, _)| *epoch == at.epoch)
            .map_or(0, |(_, until)| *until)
    }

    /// Sends as many frames of a session as there is room for.
    pub(crate) fn send(&mut self, at: SessionRef, frames: Vec<Frame>) {
        for (body, payload) in frames {
            let end = match &body {
                HopBody::Rows(rows) => Some(rows.position + rows.rows),
                HopBody::Open(_) => None,
            };
            if self.frames.try_send((body, payload)).is_err() {
                return;
            }
            if let Some(end) = end {
                self.fed.insert(at.session, (at.epoch, end));
            }
        }
    }

    /// Forgets all sessions but these.
    pub(crate) fn retain(&mut self, open: impl Fn(SessionId) -> bool) {
        self.fed.retain(|session, _| open(*session));
    }
}

async fn feed(outlet: impl Future<Output = Option<Outlet>>, mut frames: mpsc::Receiver<Frame>) {
    let Some(mut outlet) = outlet.await else {
        return;
    };
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            reason = outlet.ended() => return debug!(%reason, "a standby is fed no more"),
        };
        let Some((body, payload)) = frame else { return };
        outlet.send(body, payload).await;
    }
}
