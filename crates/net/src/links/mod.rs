//! Links: one to every known member, kept up, watched, and told of to the node.
//!
//! | file | what it does |
//! | --- | --- |
//! | `table` | who is known, and who has a link; decides when two calls cross |
//! | `call` | the task per known member: dial, run the link, pause, dial again |
//! | `answer` | the task per incoming connection: first message, admission, then link or hop |
//! | `live` | a link while it is up: messages, heartbeats, silence |
//! | `meter` | how much a member may say before it is slowed down, and cut off |
//!
//! # When two calls cross
//!
//! Both members of a pair call. While a node's own call is under way it lets an incoming one of a *larger* id wait,
//! and drops it when its own came through; an incoming one of a *smaller* id it takes at once and gives its own up.
//! So both sides agree on the call of the smaller id without a message about it. An incoming call that began after
//! the link was up means that the caller has lost it: the old link goes, the new one takes its place.

mod answer;
mod call;
mod live;
mod meter;
mod table;

pub(crate) use answer::{AnswerFault, Greeting, say_last};

use crate::admission::Admission;
use crate::blobs::Serving;
use crate::dial;
use crate::door::Door;
use crate::end::EndReason;
use crate::endpoint::{Core, Net};
use crate::hop::IncomingHop;
use crate::limits::{EVENTS_MAX, HOPS_MAX, INCOMING_HOPS_MAX, MEMBERS_PER_MESSAGE};
use crate::ways::{self, Way};
use bytes::Bytes;
use proto::codec::{self, Wire};
use proto::ids::{CommonsId, NodeId};
use proto::member::{Member, Membership};
use proto::packet;
use proto::ring::{Link, LinkBody};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use table::Table;
use tokio::sync::{Semaphore, mpsc};

/// What a node is in its commons, for [`Net::start`].
#[derive(Debug, Clone)]
pub struct Standing {
    /// The commons.
    pub commons: CommonsId,
    /// The node's own proof.
    pub membership: Membership,
    /// What its owner calls it; cut to [`proto::member::NAME_CHARS_MAX`] characters.
    pub name: String,
    /// Grows with every start of the node; told with every heartbeat.
    pub incarnation: u64,
    /// Members from before: they are called for as long as the node runs.
    pub known: Vec<Member>,
}

/// What happens on links, in order for each peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link is up.
    Up {
        /// The member at its other end.
        member: Member,
    },
    /// A member said something that is not the link's own business.
    Message {
        /// Who.
        peer: NodeId,
        /// What.
        body: LinkBody,
    },
    /// Nothing was heard of a member for too long; [`LinkEvent::Lost`] follows.
    Silent {
        /// Who.
        peer: NodeId,
        /// Milliseconds since its last sign of life.
        silent_ms: u64,
    },
    /// A member was called, and nobody of that name was there. It is called again.
    Unreached {
        /// Who.
        peer: NodeId,
    },
    /// A link is down.
    Lost {
        /// Who was at its other end.
        peer: NodeId,
        /// Why.
        reason: EndReason,
    },
}

/// A message that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no link to the peer.
    #[error("there is no link to the node")]
    Closed,
    /// Too many messages wait to be written; try again later.
    #[error("the node takes messages too slowly")]
    Backoff,
    /// The message is larger than a link message may be: a bug of the caller.
    #[error(
        "the message has {bytes} bytes, at most {} are allowed",
        Link::BYTES_MAX
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// How a known member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// The link is up.
    Up,
    /// It is being called.
    Dialing,
    /// The last call failed or the link was lost; it will be called again.
    Waiting,
}

/// A known member, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member and its addresses.
    pub member: Member,
    /// How it stands.
    pub state: PeerState,
    /// For how long.
    pub since: Duration,
    /// The smoothed round-trip time between the two nodes' link tasks; `None` until measured.
    pub rtt: Option<Duration>,
    /// The peer's incarnation; `None` until heard.
    pub incarnation: Option<u64>,
    /// Why there is no link, if there is none and the reason is known.
    pub fault: Option<String>,
    /// By which way the link came about, if there is one.
    pub way: Option<Way>,
    /// Whether the link goes over a relay at the moment.
    pub relayed: bool,
}

/// What [`Net::start`] returns.
#[derive(Debug)]
pub struct Started {
    /// To speak to members.
    pub links: Links,
    /// What happens on links. A node that does not read it slows its peers down, and in the end loses its links.
    /// Ends when the node has stopped and the last [`Links`] is gone.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Hops that ask to come in. One that waits too long is refused.
    pub hops: mpsc::Receiver<IncomingHop>,
}

/// The links of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct Links {
    mesh: Arc<Mesh>,
}

/// What the tasks of all links share.
pub(crate) struct Mesh {
    pub(crate) core: Arc<Core>,
    pub(crate) standing: Standing,
    admission: Arc<dyn Admission>,
    table: Mutex<Table>,
    events: mpsc::Sender<LinkEvent>,
    pub(crate) hops: mpsc::Sender<IncomingHop>,
    door: Door,
    pub(crate) hop_slots: Arc<Semaphore>,
    /// Blocks of models, once some are offered.
    pub(crate) serving: OnceLock<Arc<Serving>>,
    /// Microseconds in heartbeats count from here.
    began: Instant,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("of", &self.core.id)
            .finish_non_exhaustive()
    }
}

impl Net {
    /// Takes calls from now on, and calls every known member.
    ///
    /// # Panics
    ///
    /// When it was called before on this endpoint: two meshes would steal each other's calls.
    #[must_use]
    pub fn start(&self, standing: Standing, admission: Arc<dyn Admission>) -> Started {
        let again = self.core.started.swap(true, Ordering::SeqCst);
        assert!(!again, "an endpoint is started once");
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (hops_in, hops) = mpsc::channel(INCOMING_HOPS_MAX);
        let mesh = Arc::new(Mesh {
            table: Mutex::new(Table::new(self.core.id)),
            core: self.core.clone(),
            admission,
            events: events_in,
            hops: hops_in,
            door: Door::default(),
            hop_slots: Arc::new(Semaphore::new(HOPS_MAX)),
            serving: OnceLock::new(),
            began: Instant::now(),
            standing,
        });
        mesh.core.ways.open(&mesh.core, mesh.standing.commons);
        mesh.core.tasks.spawn(answer::accept_all(mesh.clone()));
        mesh.core.tasks.spawn(ways::keep_present(mesh.clone()));
        mesh.core.tasks.spawn(ways::keep_told(mesh.clone()));
        mesh.core.tasks.spawn(ways::offer(mesh.clone()));
        for member in &mesh.standing.known {
            mesh.learn(member, true);
        }
        Started {
            links: Links { mesh },
            events,
            hops,
        }
    }
}

impl Links {
    /// Hands a message over for writing. It arrives in order with others to the same peer, or the link is lost.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was handed over then.
    pub fn send(&self, peer: NodeId, body: LinkBody) -> Result<(), SendError> {
        let message = encode(&body.into())?;
        let outbox = self.mesh.table().outbox(peer).ok_or(SendError::Closed)?;
        outbox.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Backoff,
            mpsc::error::TrySendError::Closed(_) => SendError::Closed,
        })
    }

    /// Asks a member for a sign of life, which it has to give at once: within [`DOUBT_MS`](crate::limits::DOUBT_MS) and a few
    /// round trips, or it counts as silent. For those who wait for it longer than usual.
    pub fn doubt(&self, peer: NodeId) {
        if let Some(vitals) = self.mesh.table().vitals(peer) {
            vitals.doubt();
        }
    }

    /// Takes note of a member by hearsay, and calls it from now on.
    pub fn know(&self, member: &Member) {
        self.mesh.learn(member, false);
    }

    /// Every known member and how it stands, in the order of their ids.
    #[must_use]
    pub fn snapshot(&self) -> Vec<PeerStatus> {
        self.mesh.table().snapshot()
    }

    pub(crate) fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// Where this node is a relay for others, if it is one.
    #[must_use]
    pub fn relay(&self) -> Option<SocketAddr> {
        self.mesh.core.ways.relays.own()
    }

    /// This node as it presents itself.
    #[must_use]
    pub fn this_member(&self) -> Member {
        self.mesh.this_member()
    }
}

impl Mesh {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn this_member(&self) -> Member {
        dial::this_member(&self.core, &self.standing.name)
    }

    /// Takes note of a member; `met` if it has proven to be one. Somebody new is called from now on.
    fn learn(self: &Arc<Self>, member: &Member, met: bool) {
        if let Err(detail) = dial::vet(member, None) {
            tracing::debug!(member = %member.id.short(), detail, "a member that cannot be");
            return;
        }
        let phase = self.table().learn(member, met);
        if let Some(phase) = phase {
            self.core
                .tasks
                .spawn(call::keep_linked(self.clone(), member.id, phase));
        }
    }

    /// Takes note of members that `peer` told of. What it says of itself counts like its hello, and if it is reached
    /// through other relays from now on, others hear of that, too: they may be unable to hear it from the peer.
    async fn heard_of(self: &Arc<Self>, peer: NodeId, members: &[Member]) {
        for member in members.iter().take(MEMBERS_PER_MESSAGE) {
            let itself = member.id == peer;
            let moves = itself && self.table().moves(member);
            self.learn(member, itself);
            if moves {
                self.use_relays(member).await;
                self.tell(member, Some(peer));
            }
        }
    }

    /// Takes note of the relays through which a member that has proven to be one is reached.
    async fn use_relays(&self, member: &Member) {
        let relays = member.relay_addrs().unwrap_or_default();
        let core = &self.core;
        core.ways.relays.learn(&core.endpoint, &relays).await;
    }

    /// Tells all linked members where this node is now.
    pub(crate) fn tell_all(&self, here: &Member) {
        self.tell(here, None);
    }

    /// Who reads too slowly hears of it with the next link.
    fn tell(&self, member: &Member, except: Option<NodeId>) {
        let Ok(message) = encode(&LinkBody::Members(vec![member.clone()]).into()) else {
            return;
        };
        for outbox in self.table().outboxes(except) {
            let _ = outbox.try_send(message.clone());
        }
    }

    pub(crate) fn is_met(&self, node: NodeId) -> bool {
        self.table().is_met(node)
    }

    /// Tells the node. Waits for it to listen, but not longer than the node runs.
    async fn emit(&self, event: LinkEvent) {
        tokio::select! {
            _ = self.events.send(event) => {}
            () = self.core.stop.cancelled() => {}
        }
    }
}

/// One packet for a link.
fn encode(link: &Link) -> Result<Bytes, SendError> {
    let bytes = codec::to_vec(link).len();
    if bytes > Link::BYTES_MAX {
        return Err(SendError::TooLarge { bytes });
    }
    Ok(packet::encode(link, &[]).into())
}
