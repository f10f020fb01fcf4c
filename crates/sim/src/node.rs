//! One node: what it is, what it has, what it says.

use crate::ads::AdRef;
use crate::liar::Liar;
use crate::weather::Place;
use identity::NodeKey;
use iroh_gossip::proto::State;
use proto::ad::{Held, Room, Speed, Standing};
use proto::ids::{Hash, NodeId};
use proto::member::Membership;
use proto::model::LayerRange;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use swarm::members::{Members, Offer};

/// The model that all requests of a world are for.
pub const MODEL: Hash = Hash([6; 32]);
/// The most links that a node takes.
pub const LINKS_MAX: usize = 64;
/// How many members a node remembers on its disk.
pub const REMEMBERED_MAX: usize = 64;

/// A node of a world, by number. On the wire it is as long as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&self.0.to_be_bytes());
        key.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [a, b, c, d, ..] = <[u8; 32]>::deserialize(deserializer)?;
        Ok(Self(u32::from_be_bytes([a, b, c, d])))
    }
}

/// What a machine really is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Memory that it offers.
    pub memory_bytes: u64,
    /// What one row takes through one layer of [`MODEL`].
    pub layer_us: u32,
    /// Layers of [`MODEL`] on its disk.
    pub on_disk: LayerRange,
}

/// What went over a node's wires.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Messages of gossip that it sent.
    pub messages: u64,
    /// Their bytes.
    pub gossip_bytes: u64,
    /// Bytes of ads that it handed to newcomers.
    pub bundle_bytes: u64,
}

/// One node. What it knows is there only while it is up.
#[derive(Debug)]
pub struct Node {
    /// Its key.
    pub key: NodeKey,
    /// Its key's public half.
    pub id: NodeId,
    /// Its proof.
    pub membership: Membership,
    /// Where it says that it is called.
    pub addr: String,
    /// Where it is.
    pub place: Place,
    /// How far its wall clock is ahead, in seconds.
    pub skew_s: i64,
    /// What it is.
    pub machine: Machine,
    /// What of its memory stages of rings that stand have taken.
    pub taken_bytes: u64,
    /// How it lies.
    pub liar: Option<Box<dyn Liar>>,
    /// Whether it takes in what it hears. Very large worlds have few nodes that do; the others pass it on.
    pub listens: bool,
    /// How often it came; its incarnation.
    pub life: u32,
    /// Whether it is there.
    pub up: bool,
    /// It will not come back.
    pub left: bool,
    /// When it came or went, in microseconds.
    pub changed_us: u64,
    /// Its gossip.
    pub gossip: Option<State<Peer, ChaCha8Rng>>,
    /// Its members.
    pub members: Option<Members>,
    /// Whom it has links with.
    pub links: BTreeSet<Peer>,
    /// Whom its gossip has connections with.
    pub conns: BTreeSet<Peer>,
    /// How many neighbours its gossip has.
    pub neighbours: u32,
    /// Whom it could call after a restart.
    pub remembered: Vec<Peer>,
    /// What it said last.
    pub own: Option<AdRef>,
    /// When it last renewed its ad, if it does not listen.
    pub renewed_us: u64,
    /// What it sent.
    pub traffic: Traffic,
}

impl Node {
    /// What it offers.
    #[must_use]
    pub fn offer(&self, standing: Standing) -> Offer {
        Offer {
            name: format!("node {}", self.id.short()),
            addrs: vec![self.addr.clone(), "192.168.1.2:7717".into()],
            relay: None,
            relays: Vec::new(),
            room: Room::Square,
            standing,
            memory_bytes: self.free_bytes(),
            cpu_class: "x86_64 AVX2".into(),
            build: "engine 1".into(),
            speeds: vec![Speed {
                model: MODEL,
                layer_us: self.machine.layer_us,
            }],
            held: vec![Held {
                model: MODEL,
                manifest: None,
                layers: vec![self.machine.on_disk],
                whole: false,
            }],
        }
    }

    /// What of its memory nobody has taken.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.machine.memory_bytes.saturating_sub(self.taken_bytes)
    }

    /// Whether it is there and honest.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        self.up && self.liar.is_none()
    }

    /// Whether it lies in this way.
    #[must_use]
    pub fn is_a(&self, name: &str) -> bool {
        self.liar.as_ref().is_some_and(|liar| liar.name() == name)
    }

    /// Whether it answers calls.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.up && self.liar.as_ref().is_none_or(|liar| liar.answers())
    }

    /// It will find this one again.
    pub fn remember(&mut self, peer: Peer) {
        if !self.remembered.contains(&peer) {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.remove(0);
            }
            self.remembered.push(peer);
        }
    }
}
