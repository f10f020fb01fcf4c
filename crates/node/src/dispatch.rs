//! One task that reads what links and hops bring, and hands it on.

use crate::ring::{Coordinator, News};
use crate::roster::Roster;
use crate::stage::Stages;
use net::{IncomingHop, LinkEvent};
use proto::ids::NodeId;
use proto::ring::LinkBody;
use std::sync::{Arc, OnceLock};
use store::state::State;
use swarm::members::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// The coordinator of a node's ring: there later than its links, or never.
pub type RingCell = Arc<OnceLock<Arc<Coordinator>>>;

/// Where everything goes.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Stages hosted here.
    pub stages: Stages,
    /// The ring of this node, once it coordinates one.
    pub ring: RingCell,
    /// Where members are remembered.
    pub state: Arc<State>,
    /// The members of the commons.
    pub roster: Roster,
    /// Hops that wait for their ring.
    pub tasks: TaskTracker,
}

impl Dispatch {
    /// Works until the network or the node ends.
    pub async fn run(
        self,
        mut events: mpsc::Receiver<LinkEvent>,
        mut hops: mpsc::Receiver<IncomingHop>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = events.recv() => self.event(event).await,
                Some(hop) = hops.recv() => self.hop(hop).await,
                else => return,
            }
        }
    }

    async fn tell(&self, news: News) {
        if let Some(ring) = self.ring.get() {
            ring.tell(news).await;
        }
    }

    async fn event(&self, event: LinkEvent) {
        match event {
            LinkEvent::Up { member } => {
                info!(node = %member.id.short(), name = %member.name, "a member is linked");
                if let Err(error) = self.state.remember_member(member.id, &member) {
                    warn!(%error, "a member is not remembered");
                }
                self.roster.up(&member).await;
                self.tell(News::Up(member)).await;
            }
            LinkEvent::Silent { peer, silent_ms } => {
                self.roster.tell(Event::LinkSilent(peer)).await;
                self.tell(News::Silent(peer, silent_ms)).await;
            }
            LinkEvent::Unreached { peer } => self.roster.tell(Event::CallFailed(peer)).await,
            LinkEvent::Lost { peer, reason } => {
                info!(node = %peer.short(), %reason, "a member's link is lost");
                self.stages.lost(peer);
                self.roster.lost(peer).await;
                self.tell(News::Lost(peer, reason)).await;
            }
            LinkEvent::Message { peer, body } => self.message(peer, body).await,
        }
    }

    async fn message(&self, peer: NodeId, body: LinkBody) {
        match body {
            LinkBody::OpenRing(open) => self.stages.open(peer, *open),
            LinkBody::Standby(open) => self.stages.stand_by(peer, *open),
            LinkBody::StandingBy(standing) => self.tell(News::StandingBy(peer, standing)).await,
            LinkBody::CloseRing(ring) => self.stages.close(peer, ring),
            LinkBody::CloseSession(at) => self.stages.control(peer, at.ring, &body),
            LinkBody::Epoch(epoch) => self.stages.control(peer, epoch.ring, &body),
            LinkBody::Resume(resume) => self.stages.control(peer, resume.at.ring, &body),
            LinkBody::Shadow(ref shadow) => self.stages.control(peer, shadow.at.ring, &body),
            LinkBody::Ack(ack) => self.stages.control(peer, ack.at.ring, &body),
            LinkBody::RingLoading(ring) => self.tell(News::Loading(peer, ring)).await,
            LinkBody::RingProgress(said) => self.tell(News::Progress(peer, said)).await,
            LinkBody::RingReady(ready) => self.tell(News::Ready(peer, ready)).await,
            LinkBody::RingRefused(refused) => self.tell(News::Refused(peer, refused)).await,
            LinkBody::SessionFailed(failed) => self.tell(News::Failed(peer, failed)).await,
            LinkBody::EpochAnswer(answer) => self.tell(News::Answer(peer, answer)).await,
            LinkBody::Gossip(message) => self.roster.gossiped(peer, message).await,
            LinkBody::Ads(ads) => self.roster.bundle(peer, ads).await,
            // The link's own business.
            LinkBody::Heartbeat(_) | LinkBody::Members(_) => {}
        }
    }

    /// A hop of our own ring comes back to us; any other is for a stage that we host.
    async fn hop(&self, hop: IncomingHop) {
        if let Some(ring) = self.ring.get()
            && ring.expects(hop.hello.ring)
        {
            return ring.tell(News::Hop(hop)).await;
        }
        let stages = self.stages.clone();
        self.tasks.spawn(async move { stages.hop(hop).await });
    }
}
