//! Gossip: what one member says reaches all, though it is told to a few.
//!
//! The protocol is iroh-gossip's (HyParView and Plumtree), which is a pure machine; its messages travel over the links that are
//! there anyway. Connections of its own would outlive a peer's death by seconds, and as long as one of them is thought to be
//! alive, iroh calls the peer where it was.

use bytes::Bytes;
use iroh_gossip::TopicId;
use iroh_gossip::proto::{
    Command, Config, Event, InEvent, Message, OutEvent, PeerData, Scope, State, Timer,
};
use net::{Links, SendError};
use proto::ids::{CommonsId, Hash, NodeId};
use proto::ring::{GOSSIP_BYTES_MAX, LinkBody};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What may wait for gossip to take it in; who has more to say waits.
const ORDERS_MAX: usize = 256;
/// What may wait to be heard.
const HEARD_MAX: usize = 256;

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
    state: State<NodeId, StdRng>,
    topic: TopicId,
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
    let config = Config {
        max_message_size: GOSSIP_BYTES_MAX,
        ..Config::default()
    };
    let random = StdRng::from_rng(&mut rand::rng());
    let talk = Talk {
        state: State::new(me, PeerData::default(), config, random),
        topic: TopicId::from_bytes(Hash::of(&[b"myzel gossip v1\0", &commons.0[..]].concat()).0),
        links,
        orders: inbox,
        hear,
        timers: BTreeMap::new(),
        timers_set: 0,
    };
    (Gossip { orders }, heard, talk)
}

impl Talk {
    /// Talks until the node ends.
    pub async fn run(mut self, stop: CancellationToken) {
        let join = Command::Join(Vec::new());
        self.handle(InEvent::Command(self.topic, join)).await;
        loop {
            let due = self.timers.keys().next().map(|(at, _)| *at);
            let due = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                () = stop.cancelled() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.event(order),
                    None => return,
                },
                () = due => self.timers.pop_first().map(|(_, timer)| InEvent::TimerExpired(timer)),
            };
            if let Some(event) = event {
                self.handle(event).await;
            }
        }
    }

    fn event(&self, order: Order) -> Option<InEvent<NodeId>> {
        let command = |command| Some(InEvent::Command(self.topic, command));
        match order {
            Order::Up(peer) => command(Command::Join(vec![peer])),
            Order::Lost(peer) => Some(InEvent::PeerDisconnected(peer)),
            Order::Say(message) => command(Command::Broadcast(message, Scope::Swarm)),
            Order::Message(from, bytes) if bytes.len() <= GOSSIP_BYTES_MAX => {
                match postcard::from_bytes::<Message<NodeId>>(&bytes) {
                    Ok(message) => Some(InEvent::RecvMessage(from, message)),
                    Err(error) => {
                        debug!(from = %from.short(), %error, "gossip that cannot be read");
                        None
                    }
                }
            }
            Order::Message(from, bytes) => {
                debug!(from = %from.short(), bytes = bytes.len(), "gossip that is too long");
                None
            }
        }
    }

    /// Tells the machine, and carries out what it says.
    async fn handle(&mut self, event: InEvent<NodeId>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let out: Vec<_> = self.state.handle(event, Instant::now(), None).collect();
            for event in out {
                match event {
                    OutEvent::SendMessage(to, message) => {
                        if !self.send(to, &message) {
                            events.push_back(InEvent::PeerDisconnected(to));
                        }
                    }
                    OutEvent::ScheduleTimer(after, timer) => {
                        self.timers_set += 1;
                        let at = (Instant::now() + after, self.timers_set);
                        self.timers.insert(at, timer);
                    }
                    OutEvent::EmitEvent(_, Event::Received(message)) => {
                        let heard = Heard {
                            from: message.delivered_from,
                            message: message.content,
                        };
                        // Nobody listens any more once the node ends.
                        let _ = self.hear.send(heard).await;
                    }
                    // Links stay as they are, and where members are is told by other ways.
                    OutEvent::EmitEvent(..)
                    | OutEvent::DisconnectPeer(_)
                    | OutEvent::PeerData(..) => {}
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
