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
pub mod guessing;
mod laps;
mod loads;
mod mend;
mod place;
mod recoveries;
mod seek;
pub mod session;
mod standbys;
mod state;
mod up;

pub use place::Placing;
pub use recoveries::{RECOVERIES_MAX, Recoveries, Resent};
pub use state::{State, Why};
pub use up::{Ring, StageHost};

use crate::content::Cuts;
use crate::home::EngineSettings;
use crate::rooms::Rooms;
use crate::status::RingStatus;
use engine::{EngineError, Supervisor};
use guessing::Counted;
use net::{EndReason, IncomingHop, Links, Net};
use place::Layout;
use proto::ids::{NodeId, RingId};
use proto::member::{Member, Membership};
use proto::ring::{
    EpochAnswer, LinkBody, RefusalCode, RingProgress, RingReady, RingRefused, SessionFailed,
    StandingBy,
};
use standbys::Standbys;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use swarm::session::Event;
use swarm::split::Split;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
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
    /// A member says how it stands with a stage that it keeps.
    StandingBy(NodeId, StandingBy),
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
    /// What the losses of stages took.
    pub recoveries: Recoveries,
    standbys: Standbys,
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
        let (tasks, recoveries) = (TaskTracker::new(), Recoveries::default());
        let standbys = Standbys::default();
        let work = Work {
            plan,
            ends: None,
            publish,
            inbox,
            members,
            lost: None,
            recovery: None,
            recoveries: recoveries.clone(),
            standbys: standbys.clone(),
            refused,
            tasks,
        };
        Self {
            state,
            news,
            placing,
            recoveries,
            standbys,
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

    /// The layers that each host of the ring that is up has, and the memory that head and tail have here, in bytes.
    #[must_use]
    pub fn holds(&self) -> (BTreeMap<NodeId, u32>, u64) {
        let kept_bytes = match &self.placing {
            Placing::Asked(_) => 0,
            Placing::Weighed(placement) => placement.kept_bytes(),
        };
        let hosts = self.up().map(|ring| ring.layout.layers());
        (hosts.unwrap_or_default(), kept_bytes)
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
        let counted = ring.as_ref().map(|ring| ring.guessing.counted());
        let Counted { guessed, right } = counted.unwrap_or_default();
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
            standbys: self.standbys.all(),
            guessed,
            guessed_right: right,
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

/// A ring that broke under requests. Those of its hosts that are left keep their stages, for the ring that goes on for it.
#[derive(Debug)]
struct Lost {
    ring: RingId,
    layout: Layout,
    since: Instant,
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
    lost: Option<Lost>,
    /// The recovery that is under way.
    recovery: Option<u64>,
    recoveries: Recoveries,
    standbys: Standbys,
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
                    if let Some(number) = self.recovery.take() {
                        self.recoveries.formed(number);
                    }
                    self.publish.send_replace(State::Up(ring.clone()));
                    self.let_go(&ring.layout.hosts);
                    self.loaded_by(&ring).await;
                    self.watch(&ring).await;
                    let broken = ring.broken();
                    self.outlived(&ring, broken.as_ref().map(|broken| &broken.loss));
                    self.break_up(&ring);
                    why = broken.map(|broken| Why::Lost(broken.why));
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
        let mut ask = Instant::now();
        loop {
            let news = tokio::select! {
                () = ring.ended.cancelled() => return,
                news = self.inbox.recv() => news,
                () = tokio::time::sleep_until(ask) => {
                    self.ask_standbys(ring);
                    ask += standbys::ASK_AGAIN;
                    continue;
                }
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
                News::Up(_) => ask = Instant::now(),
                News::StandingBy(node, said) => self.stands_by(ring, node, &said),
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
                    if let Some(stage) = ring.stage_at(node, failed.stage) {
                        let session = failed.at.session;
                        let event = match ring.blame(stage, failed.code, &failed.detail).0 {
                            guilty if guilty == stage => Event::StageFailed { stage, failed },
                            stage => Event::LinkLost { stage },
                        };
                        ring.deliver(session, event);
                    }
                }
                News::Answer(node, answer) if answer.at.ring == ring.id => {
                    if let Some(stage) = ring.stage_at(node, answer.stage) {
                        ring.deliver(answer.at.session, Event::EpochAnswer { stage, answer });
                    }
                }
                News::Hop(hop) => hop.refuse(RefusalCode::NoRoom).await,
                _ => {}
            }
        }
    }

    /// Tells the sessions, and the stages that are left, unless another ring goes on for this one.
    fn break_up(&self, ring: &Ring) {
        if self.lost.is_none() {
            ring.stages
                .iter()
                .for_each(|stage| self.close(stage.member.id, ring.id));
        }
        // Without a broken stage it is this node that ends, and with it everybody who could be told.
        if let Some(broken) = ring.broken() {
            let stage = broken.loss.stage;
            ring.deliver_all(|| Event::LinkLost { stage });
        }
        ring.ended.cancel();
    }

    /// Closes a ring at one of its hosts.
    fn close(&self, node: NodeId, ring: RingId) {
        // Whoever is lost learns it by itself.
        let _ = self.plan.links.send(node, LinkBody::CloseRing(ring));
    }

    /// The ring that was lost will not be gone on for any more, but by those who have a place in the next one.
    fn let_go(&mut self, next: &[Member]) {
        let Some(lost) = self.lost.take() else { return };
        let stays = |host: &&Member| next.iter().any(|other| other.id == host.id);
        for host in lost.layout.hosts.iter().filter(|host| !stays(host)) {
            self.close(host.id, lost.ring);
        }
    }
}

/// Why head and tail are not there.
pub(crate) fn engine_down(error: &EngineError) -> String {
    format!("the engine with head and tail is not there: {error}")
}
