//! The coordinator's side of a ring.
//!
//! # Story
//!
//! A [`Coordinator`] owns one task. It waits until there are members for the whole model ([`place`]: N of them with `--split N`,
//! else those that the planner chooses), loads head and tail here, asks each member to load its stage, connects the hops
//! ([`form`]), publishes the [`Ring`], and watches it. When a member is lost or a hop ends, the ring is broken: its sessions
//! fail with an error that names the peer, and the task begins again with whoever is there. Head and tail stay loaded as long
//! as the layers that stay here are the same. An idle ring is given up when the planner finds a much better one.
//!
//! Each request has a task of its own ([`session`]) which feeds a `swarm::session` machine. Frames that come back from the
//! last stage find their session by its id.

pub mod form;
mod laps;
mod loads;
mod mend;
mod place;
mod seek;
pub mod session;
mod state;

pub use place::Placing;
pub use state::{State, Why};

use crate::content::Cuts;
use crate::home::EngineSettings;
use crate::rooms::Rooms;
use crate::status::{RingStatus, StageStatus};
use bytes::Bytes;
use engine::{EngineError, Supervisor};
use laps::Laps;
use net::{EndReason, HopReceiver, HopSender, IncomingHop, Links, Net};
use place::Layout;
use proto::ids::{NodeId, RingId, SessionId};
use proto::member::{Member, Membership};
use proto::ring::{
    EpochAnswer, HopBody, LinkBody, RefusalCode, RingProgress, RingReady, RingRefused,
    SessionFailed,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use swarm::session::{Event, RemoteStage};
use swarm::split::Split;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// What happens that a coordinator must know; more that wait make the dispatcher wait.
const NEWS_MAX: usize = 256;
/// Events that may wait for one session: several times what can be in flight for it.
const SESSION_EVENTS_MAX: usize = 64;
/// The pause before a ring is formed again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a stage that ended its hop in good order has to say over its link why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What happened, for the coordinator's task.
#[derive(Debug)]
pub enum News {
    /// A member is linked.
    Up(Member),
    /// A member has been silent; the loss of its link follows.
    Silent(NodeId, u64),
    /// A member's link is lost.
    Lost(NodeId, EndReason),
    /// A member loads its stage.
    Loading(NodeId, RingId),
    /// A member fetches what it is to load.
    Progress(NodeId, RingProgress),
    /// A member has loaded its stage.
    Ready(NodeId, RingReady),
    /// A member has not, or no longer.
    Refused(NodeId, RingRefused),
    /// A stage cannot go on with a session.
    Failed(NodeId, SessionFailed),
    /// A stage says where it stands.
    Answer(NodeId, EpochAnswer),
    /// A stage wants to return activations.
    Hop(IncomingHop),
}

/// What is needed to form rings.
#[derive(Debug)]
pub struct Plan {
    /// The endpoint.
    pub net: Net,
    /// The links.
    pub links: Links,
    /// This node's proof, for hops.
    pub membership: Membership,
    /// The engine's settings.
    pub engine: EngineSettings,
    /// The model.
    pub model: store::models::Model,
    /// Who may compute them.
    pub rooms: Rooms,
    /// How layers are given out.
    pub placing: Placing,
    /// Where head and tail come from.
    pub cuts: Cuts,
}

/// The coordinator of a ring, until it is dropped.
#[derive(Debug)]
pub struct Coordinator {
    state: watch::Receiver<State>,
    news: mpsc::Sender<News>,
    placing: Placing,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Coordinator {
    /// Starts to form a ring.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        let (publish, state) = watch::channel(State::Waiting { have: 0, why: None });
        let (news, inbox) = mpsc::channel(NEWS_MAX);
        let placing = plan.placing.clone();
        let (members, refused) = (BTreeMap::new(), HashMap::new());
        let tasks = TaskTracker::new();
        let work = Work {
            plan,
            ends: None,
            publish,
            inbox,
            members,
            lost: None,
            refused,
            tasks,
        };
        Self {
            state,
            news,
            placing,
            task: tokio::spawn(work.run()),
        }
    }

    /// Tells the task what happened.
    pub async fn tell(&self, news: News) {
        // The task ends with us, so somebody listens.
        let _ = self.news.send(news).await;
    }

    /// Whether a hop of this ring comes back to us: the one that is being formed, or is up.
    #[must_use]
    pub fn expects(&self, ring: RingId) -> bool {
        match &*self.state.borrow() {
            State::Waiting { .. } => false,
            State::Forming { ring: forming, .. } => *forming == ring,
            State::Up(up) => up.id == ring,
        }
    }

    /// How the ring stands now, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The ring, if it is up.
    #[must_use]
    pub fn up(&self) -> Option<Arc<Ring>> {
        match &*self.state.borrow() {
            State::Up(ring) => Some(ring.clone()),
            _ => None,
        }
    }

    /// How the ring stands, for status.
    #[must_use]
    pub fn status(&self) -> RingStatus {
        let (word, why, ring) = match &*self.state.borrow() {
            State::Waiting { have, why } => {
                let why = why.as_ref().map(|why| why.words().to_owned());
                let why = why.or_else(|| Some(self.waits(*have)));
                ("waiting", why, None)
            }
            State::Forming { progress: None, .. } => ("forming", None, None),
            State::Forming { progress, .. } => ("loading", progress.clone(), None),
            State::Up(ring) => ("up", None, Some(ring.clone())),
        };
        let split = match (&ring, &self.placing) {
            (Some(ring), _) => Some(&ring.layout.split),
            (None, Placing::Asked(split)) => Some(split),
            (None, Placing::Weighed(_)) => None,
        };
        let forecast = ring.as_ref().and_then(|ring| ring.layout.forecast);
        RingStatus {
            split: split.map_or(0, |split| split.remote.len() as u32),
            planned: matches!(self.placing, Placing::Weighed(_)),
            predicted_token_ms: forecast.map(|forecast| forecast.token_ms()),
            state: word.to_owned(),
            why,
            ring: ring.as_ref().map(|ring| ring.id),
            head: split.map(|split| split.head),
            tail: split.map(|split| split.tail),
            stages: ring
                .map(|ring| ring.stages.iter().map(StageHost::status).collect())
                .unwrap_or_default(),
        }
    }
}

impl Coordinator {
    /// What a ring without enough members waits for.
    fn waits(&self, have: usize) -> String {
        match &self.placing {
            Placing::Asked(split) => {
                let need = split.remote.len();
                format!("{have} of {need} other nodes are linked; let more join with: myzel ticket")
            }
            Placing::Weighed(_) => "the planner has not been asked yet".to_owned(),
        }
    }
}

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
    fn status(&self) -> StageStatus {
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
    layout: Layout,
    /// What laps of lone requests take.
    pub laps: Laps,
    links: Links,
    /// The hop to the first stage, written by the sessions themselves: a task between would cost a wake-up a token.
    hop: tokio::sync::Mutex<HopSender>,
    sessions: Mutex<HashMap<SessionId, mpsc::Sender<Event>>>,
    /// A session left, and wants another ring in place of this one.
    outlived: AtomicBool,
    /// Fires when the ring is broken.
    ended: CancellationToken,
    /// The stage that was lost first, and why in words for people.
    broken: Mutex<Option<(u32, String)>>,
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

    /// Whether no stage was lost.
    fn is_whole(&self) -> bool {
        self.broken().is_none() && !self.ended.is_cancelled()
    }

    /// Opens a session's mailbox.
    fn enter(&self, session: SessionId) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(SESSION_EVENTS_MAX);
        self.sessions().insert(session, sender);
        // Whoever comes after the end was not among those that were told of it.
        if let Some((stage, _)) = self.broken() {
            self.deliver(session, Event::LinkLost { stage });
        }
        receiver
    }

    /// Whether no more than one request is under way.
    fn is_quiet(&self) -> bool {
        self.sessions().len() <= 1
    }

    /// A session is about to leave, and wants another ring; or it has come back.
    fn outlive(&self, wants_another: bool) {
        self.outlived.store(wants_another, Ordering::Release);
    }

    /// Whether some session goes on without this ring. Those that learn of its end first have left by now.
    fn is_needed(&self) -> bool {
        !self.sessions().is_empty() || self.outlived.load(Ordering::Acquire)
    }

    fn leave(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Event>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event into a session's mailbox. A full mailbox means a peer that sends what nobody asked for:
    /// the session loses its mailbox, and fails.
    fn deliver(&self, session: SessionId, event: Event) {
        let mut sessions = self.sessions();
        if let Some(mailbox) = sessions.get(&session)
            && mailbox.try_send(event).is_err()
        {
            sessions.remove(&session);
        }
    }

    fn deliver_all(&self, event: impl Fn() -> Event) {
        let sessions: Vec<SessionId> = self.sessions().keys().copied().collect();
        for session in sessions {
            self.deliver(session, event());
        }
    }

    /// Sends a frame to the first stage. When the hop has ended, so has the ring, and the lost stage is returned.
    ///
    /// Not to be dropped half-way: the frame would be torn.
    async fn forward(&self, body: HopBody, payload: Bytes) -> Result<(), u32> {
        let sent = self.hop.lock().await.send(body, payload).await;
        match sent {
            Ok(()) => Ok(()),
            Err(reason) => Err(self.hop_ended(1, &reason).await),
        }
    }

    /// The hop to or from `stage` has ended. Returns the stage that is to blame.
    async fn hop_ended(&self, stage: u32, reason: &EndReason) -> u32 {
        if *reason == EndReason::Finished {
            // The cause may be another stage, which is named over the link; that comes in no order with the hop.
            let _ = tokio::time::timeout(LAST_WORD, self.ended.cancelled()).await;
        }
        self.end(stage, &reason.to_string());
        self.broken().map_or(stage, |(stage, _)| stage)
    }

    /// The stage that a node hosts, from 1.
    fn stage_of(&self, node: NodeId) -> Option<u32> {
        self.stages
            .iter()
            .find(|stage| stage.member.id == node)
            .map(|stage| stage.stage)
    }

    /// The stage that was lost, and why the ring is broken, with the next step.
    fn broken(&self) -> Option<(u32, String)> {
        let broken = self.broken.lock();
        broken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ring is broken since `stage` is lost. What is said first counts: the rest follows from it.
    fn end(&self, stage: u32, reason: &str) {
        let why = lost(self, stage, reason);
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert((stage, why));
        drop(broken);
        self.ended.cancel();
    }

    /// A stage says that it cannot go on: who is to blame, and why. It knows best whether it is itself, or the one behind.
    fn blame(&self, stage: u32, code: Option<RefusalCode>, detail: &str) -> (u32, String) {
        if code != Some(RefusalCode::SuccessorLost) || stage as usize == self.stages.len() {
            return (stage, detail.to_owned());
        }
        let Member { id, name, .. } = &self.stages[stage as usize - 1].member;
        let says = format!("node {} {name:?} before it says: {detail}", id.short());
        (stage + 1, says)
    }
}

/// The coordinator's task.
struct Work {
    plan: Plan,
    /// Head and tail, and which layers they have.
    ends: Option<(Split, Arc<Supervisor>)>,
    publish: watch::Sender<State>,
    inbox: mpsc::Receiver<News>,
    /// Members that are linked.
    members: BTreeMap<NodeId, Member>,
    /// The ring that broke under requests that want to go on, until there is another.
    lost: Option<Layout>,
    /// Members that refused, and when, if people said how many stages there are; the planner's are the roster's.
    refused: HashMap<NodeId, std::time::Instant>,
    /// The reading end of the hop that comes back.
    tasks: TaskTracker,
}

impl Work {
    async fn run(mut self) {
        let mut why = None;
        loop {
            let Some(layout) = self.gather(why.take()).await else {
                return;
            };
            let id = RingId(rand::random());
            self.publish.send_replace(State::Forming {
                ring: id,
                progress: None,
            });
            match self.form(id, layout).await {
                Ok(ring) => {
                    info!(ring = %ring.id.short(), stages = ring.stages.len(), "the ring is up");
                    self.publish.send_replace(State::Up(ring.clone()));
                    self.lost = None;
                    self.loaded_by(&ring).await;
                    self.watch(&ring).await;
                    let broken = ring.broken();
                    self.outlived(&ring, broken.as_ref().map(|(stage, _)| *stage));
                    self.break_up(&ring);
                    why = broken.map(|(_, why)| Why::Lost(why));
                    if self.lost.is_some() {
                        self.report(why.as_ref());
                        continue;
                    }
                }
                Err(fault) => {
                    if let Some(node) = fault.node {
                        self.refused_by(node).await;
                    }
                    why = Some(fault.into());
                }
            }
            self.report(why.as_ref());
            tokio::time::sleep(place::pause()).await;
        }
    }

    /// Says that there is no ring.
    fn report(&self, why: Option<&Why>) {
        if let Some(why) = why {
            warn!(why = why.words(), "there is no ring");
        }
        self.publish.send_replace(State::Waiting {
            have: self.inside(),
            why: why.cloned(),
        });
    }

    fn note(&mut self, news: &News) {
        match news {
            News::Up(member) => {
                self.refused.remove(&member.id);
                self.members.insert(member.id, member.clone());
            }
            News::Lost(node, _) => {
                self.members.remove(node);
            }
            _ => {}
        }
    }

    /// Hands on what concerns sessions, until the ring is broken.
    async fn watch(&mut self, ring: &Arc<Ring>) {
        let mut review = Instant::now() + place::review();
        loop {
            let news = tokio::select! {
                () = ring.ended.cancelled() => return,
                news = self.inbox.recv() => news,
                () = tokio::time::sleep_until(review) => {
                    if self.moves(ring) {
                        return;
                    }
                    review = Instant::now() + place::review();
                    continue;
                }
            };
            let Some(news) = news else { return };
            self.note(&news);
            match news {
                News::Silent(node, silent_ms) => {
                    if let Some(stage) = ring.stage_of(node) {
                        ring.deliver_all(|| Event::PeerSilent { stage, silent_ms });
                    }
                }
                News::Lost(node, reason) => {
                    if let Some(stage) = ring.stage_of(node) {
                        return ring.end(stage, &reason.to_string());
                    }
                }
                News::Refused(node, refused) if refused.ring == ring.id => {
                    if let Some(stage) = ring.stage_of(node) {
                        let (stage, why) = ring.blame(stage, refused.code, &refused.detail);
                        return ring.end(stage, &why);
                    }
                }
                News::Failed(node, failed) if failed.at.ring == ring.id => {
                    if let Some(stage) = ring.stage_of(node) {
                        let session = failed.at.session;
                        let event = match ring.blame(stage, failed.code, &failed.detail).0 {
                            guilty if guilty == stage => Event::StageFailed { stage, failed },
                            stage => Event::LinkLost { stage },
                        };
                        ring.deliver(session, event);
                    }
                }
                News::Answer(node, answer) if answer.at.ring == ring.id => {
                    if let Some(stage) = ring.stage_of(node) {
                        ring.deliver(answer.at.session, Event::EpochAnswer { stage, answer });
                    }
                }
                News::Hop(hop) => hop.refuse(RefusalCode::NoRoom).await,
                _ => {}
            }
        }
    }

    /// Tells the stages that are left, and the sessions.
    fn break_up(&self, ring: &Ring) {
        for stage in &ring.stages {
            // Whoever is lost learns it by itself.
            let _ = self
                .plan
                .links
                .send(stage.member.id, LinkBody::CloseRing(ring.id));
        }
        // Without a broken stage it is this node that ends, and with it everybody who could be told.
        if let Some((stage, _)) = ring.broken() {
            ring.deliver_all(|| Event::LinkLost { stage });
        }
        ring.ended.cancel();
    }
}

/// Why a ring is broken, naming the stage that was lost.
fn lost(ring: &Ring, stage: u32, reason: &str) -> String {
    let host = &ring.stages[stage as usize - 1];
    let Member { id, name, .. } = &host.member;
    format!(
        "stage {stage} (layers {}) on node {} \"{name}\" is lost: {reason}; start that node again, or let \
         another one join with: myzel ticket",
        host.ready.contract.layers,
        id.short(),
    )
}

/// Hands frames from the last stage to their sessions until the hop ends.
async fn read_frames(ring: Arc<Ring>, mut hop: HopReceiver) {
    loop {
        let frame = tokio::select! {
            () = ring.ended.cancelled() => return,
            frame = hop.recv() => frame,
        };
        match frame {
            Ok((HopBody::Rows(rows), payload)) => {
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

/// Why head and tail are not there.
pub(crate) fn engine_down(error: &EngineError) -> String {
    format!("the engine with head and tail is not there: {error}")
}
