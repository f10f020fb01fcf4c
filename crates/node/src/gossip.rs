//! Gossip: what one member says reaches all, though it is told to a few.
//!
//! The protocol is iroh-gossip's (HyParView and Plumtree), which is a pure machine; its messages travel over the links that are
//! there anyway. Connections of its own would outlive a peer's death by seconds, and as long as one of them is thought to be
//! alive, iroh calls the peer where it was.

use bytes::Bytes;
use iroh_gossip::TopicId;
use iroh_gossip::proto::{
    Command, Config, Event, InEvent, Message, OutEvent, PeerData, PlumtreeConfig, Scope, State,
    Timer,
};
use net::{Links, SendError};
use proto::ids::{CommonsId, Hash, NodeId};
use proto::ring::{GOSSIP_BYTES_MAX, LinkBody};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What may wait for gossip to take it in; who has more to say waits.
const ORDERS_MAX: usize = 256;
/// What may wait to be heard.
const HEARD_MAX: usize = 256;
/// How long something that a neighbour announced may still come by itself before it is asked for: longer than light takes
/// round the earth in glass, so that what is merely far away does not come twice.
const GRAFT_FIRST: Duration = Duration::from_millis(400);
/// How long an answer to that may take before the next neighbour is asked: a way round the earth.
const GRAFT_NEXT: Duration = Duration::from_millis(200);

/// Something that was said by gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The neighbour that passed it on; its author may be another.
    pub from: NodeId,
    /// What was said.
    pub message: Bytes,
}

#[derive(Debug)]
enum Order {
    Up(NodeId),
    Lost(NodeId),
    Message(NodeId, Vec<u8>),
    Say(Bytes),
}

/// The speaking end of gossip. Clones share it.
#[derive(Debug, Clone)]
pub struct Gossip {
    orders: mpsc::Sender<Order>,
}

impl Gossip {
    /// A member is linked: it may become a neighbour.
    pub async fn up(&self, peer: NodeId) {
        self.order(Order::Up(peer)).await;
    }

    /// A member's link is lost.
    pub async fn lost(&self, peer: NodeId) {
        self.order(Order::Lost(peer)).await;
    }

    /// A neighbour sent a message of the protocol.
    pub async fn message(&self, from: NodeId, message: Vec<u8>) {
        self.order(Order::Message(from, message)).await;
    }

    /// Says something to everybody. Nobody confirms that it arrived.
    pub async fn say(&self, message: Bytes) {
        self.order(Order::Say(message)).await;
    }

    async fn order(&self, order: Order) {
        // Nobody takes orders any more once the node ends.
        let _ = self.orders.send(order).await;
    }
}

/// The task that feeds the machine.
pub struct Talk {
    speech: Speech,
    links: Links,
    orders: mpsc::Receiver<Order>,
    hear: mpsc::Sender<Heard>,
    /// What is due when; a number tells apart what is due at once.
    timers: BTreeMap<(Instant, u64), Timer<NodeId>>,
    timers_set: u64,
}

impl std::fmt::Debug for Talk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Talk").finish_non_exhaustive()
    }
}

/// The gossip of a commons, for the node `me`: what speaks, what is heard, and the task between.
#[must_use]
pub fn gossip(
    me: NodeId,
    commons: CommonsId,
    links: Links,
) -> (Gossip, mpsc::Receiver<Heard>, Talk) {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let (hear, heard) = mpsc::channel(HEARD_MAX);
    let talk = Talk {
        speech: Speech::new(me, commons, StdRng::from_rng(&mut rand::rng())),
        links,
        orders: inbox,
        hear,
        timers: BTreeMap::new(),
        timers_set: 0,
    };
    (Gossip { orders }, heard, talk)
}

/// The protocol's machine, and what it does not remember: whether anybody could hear what was said last.
struct Speech {
    state: State<NodeId, StdRng>,
    topic: TopicId,
    neighbours: BTreeSet<NodeId>,
    said: Option<Bytes>,
}

/// What is to be done.
enum Deed {
    Send(NodeId, Message<NodeId>),
    Wait(Duration, Timer<NodeId>),
    Hear(Heard),
}

impl Speech {
    fn new(me: NodeId, commons: CommonsId, random: StdRng) -> Self {
        let config = Config {
            max_message_size: GOSSIP_BYTES_MAX,
            broadcast: PlumtreeConfig {
                graft_timeout_1: GRAFT_FIRST,
                graft_timeout_2: GRAFT_NEXT,
                ..PlumtreeConfig::default()
            },
            ..Config::default()
        };
        let topic = Hash::of(&[b"myzel gossip v1\0", &commons.0[..]].concat());
        Self {
            state: State::new(me, PeerData::default(), config, random),
            topic: TopicId::from_bytes(topic.0),
            neighbours: BTreeSet::new(),
            said: None,
        }
    }

    fn command(&mut self, command: Command<NodeId>, now: Instant) -> Vec<Deed> {
        self.handle(InEvent::Command(self.topic, command), now)
    }

    fn say(&mut self, message: Bytes, now: Instant) -> Vec<Deed> {
        self.said = Some(message.clone());
        self.command(Command::Broadcast(message, Scope::Swarm), now)
    }

    fn handle(&mut self, event: InEvent<NodeId>, now: Instant) -> Vec<Deed> {
        let alone = self.neighbours.is_empty();
        let out: Vec<_> = self.state.handle(event, now, None).collect();
        let mut deeds = Vec::new();
        for event in out {
            match event {
                OutEvent::SendMessage(to, message) => deeds.push(Deed::Send(to, message)),
                OutEvent::ScheduleTimer(after, timer) => deeds.push(Deed::Wait(after, timer)),
                OutEvent::EmitEvent(_, Event::Received(message)) => deeds.push(Deed::Hear(Heard {
                    from: message.delivered_from,
                    message: message.content,
                })),
                OutEvent::EmitEvent(_, Event::NeighborUp(peer)) => {
                    self.neighbours.insert(peer);
                }
                OutEvent::EmitEvent(_, Event::NeighborDown(peer)) => {
                    self.neighbours.remove(&peer);
                }
                // Links stay as they are, and where members are is told by other ways.
                OutEvent::DisconnectPeer(_) | OutEvent::PeerData(..) => {}
            }
        }
        // What was said to nobody, nobody heard.
        if alone
            && !self.neighbours.is_empty()
            && let Some(message) = self.said.clone()
        {
            deeds.extend(self.say(message, now));
        }
        deeds
    }
}

impl Talk {
    /// Talks until the node ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let join = Command::Join(Vec::new());
        let deeds = self.speech.command(join, Instant::now());
        self.carry_out(deeds).await;
        loop {
            let due = self.timers.keys().next().map(|(at, _)| *at);
            let due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let deeds = tokio::select! {
                () = stop.cancelled() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = due => match self.timers.pop_first() {
                    Some((_, timer)) => {
                        self.speech.handle(InEvent::TimerExpired(timer), Instant::now())
                    }
                    None => Vec::new(),
                },
            };
            self.carry_out(deeds).await;
        }
    }

    fn obey(&mut self, order: Order) -> Vec<Deed> {
        let (speech, now) = (&mut self.speech, Instant::now());
        match order {
            Order::Up(peer) => speech.command(Command::Join(vec![peer]), now),
            Order::Lost(peer) => speech.handle(InEvent::PeerDisconnected(peer), now),
            Order::Say(message) => speech.say(message, now),
            Order::Message(from, bytes) if bytes.len() <= GOSSIP_BYTES_MAX => {
                match postcard::from_bytes::<Message<NodeId>>(&bytes) {
                    Ok(message) => speech.handle(InEvent::RecvMessage(from, message), now),
                    Err(error) => {
                        debug!(from = %from.short(), %error, "gossip that cannot be read");
                        Vec::new()
                    }
                }
            }
            Order::Message(from, bytes) => {
                debug!(from = %from.short(), bytes = bytes.len(), "gossip that is too long");
                Vec::new()
            }
        }
    }

    async fn carry_out(&mut self, deeds: Vec<Deed>) {
        let mut deeds = VecDeque::from(deeds);
        while let Some(deed) = deeds.pop_front() {
            match deed {
                Deed::Send(to, message) => {
                    if !self.send(to, &message) {
                        let gone = InEvent::PeerDisconnected(to);
                        deeds.extend(self.speech.handle(gone, Instant::now()));
                    }
                }
                Deed::Wait(after, timer) => {
                    self.timers_set += 1;
                    let at = (Instant::now() + after, self.timers_set);
                    self.timers.insert(at, timer);
                }
                Deed::Hear(heard) => {
                    // Nobody listens any more once the node ends.
                    let _ = self.hear.send(heard).await;
                }
            }
        }
    }

    /// False when there is no link to the peer.
    fn send(&self, to: NodeId, message: &Message<NodeId>) -> bool {
        let bytes = match postcard::to_allocvec(message) {
            Ok(bytes) => bytes,
            Err(error) => {
                debug!(%error, "a message of gossip was not written");
                return true;
            }
        };
        match self.links.send(to, LinkBody::Gossip(bytes)) {
            Err(SendError::Closed) => false,
            Err(error) => {
                // What counts is said again and again.
                debug!(to = %to.short(), %error, "a message of gossip was not sent");
                true
            }
            Ok(()) => true,
        }
    }
}

#[cfg(test)]
mod tests;
