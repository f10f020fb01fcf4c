//! A ring that is up, as sessions hold it, and how it ends.

use super::guessing::Guessing;
use super::laps::Laps;
use super::place::Layout;
use super::recoveries::{Loss, Recoveries, Resent};
use super::standbys::Standbys;
use super::{LAST_WORD, SESSION_EVENTS_MAX};
use crate::stage::feeder::Feeder;
use crate::status::StageStatus;
use bytes::Bytes;
use engine::Supervisor;
use net::{EndReason, HopReceiver, HopSender, Links, Net};
use proto::ids::{NodeId, RingId, SessionId};
use proto::member::{Member, Membership};
use proto::ring::{HopBody, HopHello, RefusalCode, RingReady, SessionRef};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use swarm::session::{Event, RemoteStage};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A frame that is not taken for so long makes stages be asked for a sign of life.
const STUCK: Duration = Duration::from_millis(500);

/// A remote stage of a ring that is up.
#[derive(Debug, Clone)]
pub struct StageHost {
    /// Who hosts it.
    pub member: Member,
    /// What it said when it had loaded.
    pub ready: RingReady,
    /// Which, from 1.
    pub stage: u32,
    /// Whether its bits equal ours.
    pub same_class: bool,
}

impl StageHost {
    pub(super) fn status(&self) -> StageStatus {
        StageStatus {
            stage: self.stage,
            node: self.member.id,
            name: self.member.name.clone(),
            layers: self.ready.contract.layers,
            load_ms: self.ready.load_ms,
            same_class: self.same_class,
        }
    }
}

/// A ring that is up. Sessions hold it.
#[derive(Debug)]
pub struct Ring {
    /// Its name.
    pub id: RingId,
    /// The remote stages in their order.
    pub stages: Vec<StageHost>,
    /// Head and tail.
    pub engine: Arc<Supervisor>,
    pub(super) layout: Layout,
    /// What laps of lone requests take.
    pub laps: Laps,
    /// Whether guessing ahead pays.
    pub guessing: Guessing,
    pub(super) links: Links,
    /// The hop to the first stage, written by the sessions themselves: a task between would cost a wake-up a token.
    pub(super) hop: tokio::sync::Mutex<HopSender>,
    pub(super) sessions: Mutex<HashMap<SessionId, mpsc::Sender<Event>>>,
    /// Who has stages loaded beforehand.
    pub(super) standbys: Standbys,
    /// Feeds who stands by for stage 1.
    pub(super) feeder: Mutex<Option<Feeder>>,
    /// What it takes to call somebody.
    pub(super) feeds: (Net, Membership),
    /// A session left, and wants another ring in place of this one.
    pub(super) outlived: AtomicBool,
    /// Fires when the ring is broken.
    pub(super) ended: CancellationToken,
    pub(super) broken: Mutex<Option<Broken>>,
    /// When a frame last came back.
    pub(super) moved: Mutex<Instant>,
    /// The recovery that this ring came of, and where it is written down.
    pub(super) recovery: (Recoveries, Option<u64>),
}

/// Why a ring is broken.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    /// In words for people, with the next step.
    pub(super) why: String,
    pub(super) loss: Loss,
}

impl Ring {
    /// How many layers stay here.
    #[must_use]
    pub fn layers_here(&self) -> u32 {
        self.layout.split.head.len() + self.layout.split.tail.len()
    }

    /// The remote stages, as a session names them.
    #[must_use]
    pub fn remote_stages(&self) -> Vec<RemoteStage> {
        let stage = |host: &StageHost| RemoteStage {
            node: host.member.id,
            layers: host.ready.contract.layers,
        };
        self.stages.iter().map(stage).collect()
    }

    /// Asks every stage for a sign of life: whoever is slow may be gone.
    pub(super) fn doubt(&self) {
        self.stages
            .iter()
            .for_each(|stage| self.links.doubt(stage.member.id));
    }

    /// Who stands by for a stage.
    pub(super) fn standby(&self, stage: u32) -> Option<Member> {
        let layers = self
            .layout
            .split
            .remote
            .get(stage.checked_sub(1)? as usize)?;
        self.standbys.of(self.id, *layers)
    }

    /// Feeds who stands by for stage 1 with what a session lacks there: the frames from a position on.
    pub(super) fn feed(
        &self,
        to: &Member,
        at: SessionRef,
        frames: impl FnOnce(u32) -> Option<Vec<(HopBody, Bytes)>>,
    ) {
        let mut slot = self.feeder.lock().unwrap_or_else(PoisonError::into_inner);
        let feeder = slot.take().filter(|feeder| feeder.feeds(to.id));
        let mut feeder = feeder.unwrap_or_else(|| {
            let (net, membership) = self.feeds.clone();
            let hello = HopHello {
                ring: self.id,
                from_stage: 0,
                membership,
            };
            Feeder::call(net, to, hello)
        });
        feeder.retain(|session| self.sessions().contains_key(&session));
        if let Some(frames) = frames(feeder.fed(at)) {
            feeder.send(at, frames);
        }
        *slot = Some(feeder);
    }

    /// Whether no stage was lost.
    pub(super) fn is_whole(&self) -> bool {
        self.broken().is_none() && !self.ended.is_cancelled()
    }

    /// Opens a session's mailbox.
    pub(super) fn enter(&self, session: SessionId) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(SESSION_EVENTS_MAX);
        self.sessions().insert(session, sender);
        // Whoever comes after the end was not among those that were told of it.
        if let Some(broken) = self.broken() {
            let stage = broken.loss.stage;
            self.deliver(session, Event::LinkLost { stage });
        }
        receiver
    }

    /// Whether no more than one request is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.sessions().len() <= 1
    }

    /// A session is about to leave, and wants another ring; or it has come back.
    pub(super) fn outlive(&self, wants_another: bool) {
        self.outlived.store(wants_another, Ordering::Release);
    }

    /// Whether some session goes on without this ring. Those that learn of its end first have left by now.
    pub(super) fn is_needed(&self) -> bool {
        !self.sessions().is_empty() || self.outlived.load(Ordering::Acquire)
    }

    pub(super) fn leave(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    pub(super) fn sessions(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Event>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into a session's mailbox. A full mailbox means a peer that sends what nobody asked for:
    /// the session loses its mailbox, and fails.
    pub(super) fn deliver(&self, session: SessionId, event: Event) {
        let mut sessions = self.sessions();
        if let Some(mailbox) = sessions.get(&session)
            && mailbox.try_send(event).is_err()
        {
            sessions.remove(&session);
        }
    }

    pub(super) fn deliver_all(&self, event: impl Fn() -> Event) {
        let sessions: Vec<SessionId> = self.sessions().keys().copied().collect();
        for session in sessions {
            self.deliver(session, event());
        }
    }

    /// Sends a frame to the first stage. When the hop has ended, so has the ring, and the lost stage is returned.
    ///
    /// Not to be dropped half-way: the frame would be torn.
    pub(super) async fn forward(&self, body: HopBody, payload: Bytes) -> Result<(), u32> {
        let send = async { self.hop.lock().await.send(body, payload).await };
        let mut send = std::pin::pin!(send);
        let sent = loop {
            match tokio::time::timeout(STUCK, &mut send).await {
                Ok(sent) => break sent,
                Err(_) => self.doubt(),
            }
        };
        match sent {
            Ok(()) => Ok(()),
            Err(reason) => Err(self.hop_ended(1, &reason).await),
        }
    }

    /// The hop to or from `stage` has ended. Returns the stage that is to blame.
    pub(super) async fn hop_ended(&self, stage: u32, reason: &EndReason) -> u32 {
        if *reason == EndReason::Finished {
            // The cause may be another stage, which is named over the link; that comes in no order with the hop.
            let _ = tokio::time::timeout(LAST_WORD, self.ended.cancelled()).await;
        }
        self.end(stage, &reason.to_string());
        self.broken().map_or(stage, |broken| broken.loss.stage)
    }

    /// The stage that a node hosts, from 1.
    pub(super) fn stage_of(&self, node: NodeId) -> Option<u32> {
        self.stages
            .iter()
            .find(|stage| stage.member.id == node)
            .map(|stage| stage.stage)
    }

    /// What else the host of a stage has of this ring, for people; empty when nothing.
    #[must_use]
    pub fn beside(&self, stage: u32) -> String {
        let node = |host: &StageHost| host.member.id;
        let host = self.stages.get(stage as usize - 1).map(node);
        let others = self
            .stages
            .iter()
            .filter(|other| Some(node(other)) == host && other.stage != stage);
        let name = |other: &StageHost| {
            format!(
                "stage {} (layers {})",
                other.stage, other.ready.contract.layers
            )
        };
        others.map(name).collect::<Vec<_>>().join(" and ")
    }

    /// The stage that a node speaks of: the one that it says, if it hosts it, else the first that it hosts.
    pub(super) fn stage_at(&self, node: NodeId, said: u32) -> Option<u32> {
        let mut stages = self.stages.iter();
        let hosts = stages.any(|stage| stage.member.id == node && stage.stage == said);
        hosts.then_some(said).or_else(|| self.stage_of(node))
    }

    /// The stage that was lost first, and why.
    pub(super) fn broken(&self) -> Option<Broken> {
        let broken = self.broken.lock();
        broken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ring is broken since `stage` is lost. What is said first counts: the rest follows from it.
    pub(super) fn end(&self, stage: u32, reason: &str) {
        let moved = *self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Broken {
            why: lost(self, stage, reason),
            loss: Loss {
                stage,
                cause: reason.to_owned(),
                detected: moved.elapsed(),
                at: Instant::now().into_std(),
            },
        };
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert(found);
        drop(broken);
        self.ended.cancel();
    }

    /// A frame came back.
    pub(super) fn moves(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A session's next row came back over this ring, which took the place of a lost one.
    pub(super) fn resumed(&self, resent: &Resent) {
        if let (recoveries, Some(number)) = &self.recovery {
            recoveries.resumed(*number, resent);
        }
    }

    /// A stage says that it cannot go on: who is to blame, and why. It knows best whether it is itself, or the one behind.
    pub(super) fn blame(
        &self,
        stage: u32,
        code: Option<RefusalCode>,
        detail: &str,
    ) -> (u32, String) {
        if code != Some(RefusalCode::SuccessorLost) || stage as usize == self.stages.len() {
            return (stage, detail.to_owned());
        }
        let Member { id, name, .. } = &self.stages[stage as usize - 1].member;
        let says = format!("node {} {name:?} before it says: {detail}", id.short());
        (stage + 1, says)
    }
}

/// Why a ring is broken, naming the stage that was lost.
fn lost(ring: &Ring, stage: u32, reason: &str) -> String {
    let host = &ring.stages[stage as usize - 1];
    let Member { id, name, .. } = &host.member;
    let others = match ring.beside(stage) {
        others if others.is_empty() => others,
        others => format!(", with {others},"),
    };
    format!(
        "stage {stage} (layers {}){others} on node {} \"{name}\" is lost: {reason}; start that node again, or let \
         another one join with: myzel ticket",
        host.ready.contract.layers,
        id.short(),
    )
}

/// Hands frames from the last stage to their sessions until the hop ends.
pub(super) async fn read_frames(ring: Arc<Ring>, mut hop: HopReceiver) {
    loop {
        let frame = tokio::select! {
            () = ring.ended.cancelled() => return,
            frame = hop.recv() => frame,
        };
        match frame {
            Ok((HopBody::Rows(rows), payload)) => {
                ring.moves();
                ring.deliver(rows.session, Event::Returned { rows, payload });
            }
            Ok((HopBody::Open(_), _)) => {}
            Err(reason) => {
                let last = ring.stages.len() as u32;
                ring.hop_ended(last, &reason).await;
                return;
            }
        }
    }
}
