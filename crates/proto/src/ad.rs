//! Capability ads: what a member says of itself, signed, and passed on from member to member.
//!
//! What an ad claims of its own node is a hint, and what it says of others (`links`, `lost`) is one voice among several;
//! `swarm::members` weighs both. The signature is over the very bytes of the body ([`SignedAd`]), which travel
//! unchanged: so a node that skips a newer version's fields can still check the ad and pass it on whole.

use crate::codec::{self, DecodeError, Wire};
use crate::ids::{CommonsId, Hash, NodeId};
use crate::member::{Membership, NAME_CHARS_MAX};
use crate::model::{LAYERS_MAX, LayerRange};
use crate::ticket;
use minicbor::{CborLen, Decode, Encode};
use std::net::SocketAddr;

/// How long an ad counts at least after it arrived, in seconds. In a large commons ads come more rarely and count longer.
pub const AD_LIFE_MIN_S: u32 = 120;
/// How long an ad may count at most, in seconds.
pub const AD_LIFE_MAX_S: u32 = 1_800;
/// How far the wall clocks of two members may be apart, in seconds.
pub const AD_SKEW_S: u64 = 300;
/// The longest relay address, in bytes.
pub const RELAY_BYTES_MAX: usize = 128;
/// The most relays that one ad names.
pub const AD_RELAYS_MAX: usize = 4;
/// The longest text that describes a build or a CPU, in bytes.
pub const AD_TEXT_BYTES_MAX: usize = 64;
/// The most announced speeds in one ad.
pub const AD_SPEEDS_MAX: usize = 8;
/// The most models that one ad says are held.
pub const AD_HELD_MAX: usize = 16;
/// The most layer ranges of one model in [`Held`].
pub const AD_RANGES_MAX: usize = 8;
/// The most measured neighbours in one ad.
pub const AD_LINKS_MAX: usize = 16;
/// The most lost neighbours in one ad.
pub const AD_LOST_MAX: usize = 8;

/// Who may see a request, and whom a node serves.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    CborLen,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Room {
    /// This machine.
    #[n(0)]
    Alone,
    /// Named peers.
    #[n(1)]
    Circle,
    /// Any member of the commons.
    #[n(2)]
    Square,
}

/// Whether a node takes new work.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Encode,
    Decode,
    CborLen,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It does.
    #[n(0)]
    Serving,
    /// It finishes what it has.
    #[n(1)]
    Draining,
    /// It is about to go.
    #[n(2)]
    Leaving,
}

/// What one row takes through one layer of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Speed {
    /// The model's root.
    #[n(0)]
    pub model: Hash,
    /// Measured, in microseconds.
    #[n(1)]
    pub layer_us: u32,
}

/// What a node has on disk of one model.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Held {
    /// The model's root.
    #[n(0)]
    pub model: Hash,
    /// The manifest by which its blocks are fetched, where there is one.
    #[n(1)]
    pub manifest: Option<Hash>,
    /// Layers that are there, at most [`AD_RANGES_MAX`] ranges.
    #[n(2)]
    pub layers: Vec<LayerRange>,
    /// Whether all of the model is there, embedding and head too.
    #[n(3)]
    pub whole: bool,
}

/// What the ad's node measured of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Measured {
    /// Of whom.
    #[n(0)]
    pub node: NodeId,
    /// There and back, in microseconds.
    #[n(1)]
    pub rtt_us: u32,
    /// What goes through, in bytes a second.
    #[n(2)]
    pub bytes_per_s: Option<u64>,
    /// What it took as a stage.
    #[n(3)]
    pub stage: Option<Speed>,
}

/// A neighbour that fell silent and did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Lost {
    /// Who.
    #[n(0)]
    pub node: NodeId,
    /// The incarnation that was lost.
    #[n(1)]
    pub incarnation: u64,
    /// The newest ad of it that was known; a newer one refutes the loss.
    #[n(2)]
    pub sequence: u64,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Ad {
    /// The commons.
    #[n(0)]
    pub commons: CommonsId,
    /// The member.
    #[n(1)]
    pub node: NodeId,
    /// Grows with every start of the node.
    #[n(2)]
    pub incarnation: u64,
    /// Grows with every ad of one incarnation.
    #[n(3)]
    pub sequence: u64,
    /// When it was made, by the maker's wall clock, in seconds since 1970 UTC.
    #[n(4)]
    pub issued_s: u64,
    /// How long it counts after it arrived, in seconds, [`AD_LIFE_MIN_S`] to [`AD_LIFE_MAX_S`].
    #[n(5)]
    pub life_s: u32,
    /// What its owner calls it, at most [`NAME_CHARS_MAX`] characters.
    #[n(6)]
    pub name: String,
    /// Where it is called: `ip:port` texts, at most [`ticket::TICKET_ADDRS_MAX`]. None behind a relay only.
    #[n(7)]
    pub addrs: Vec<String>,
    /// Where it relays for others, when its address is public.
    #[n(8)]
    pub relay: Option<String>,
    /// The relays that it is reached through.
    #[n(9)]
    pub relays: Vec<String>,
    /// Whom it serves; `None` is a room that this build does not know.
    #[n(10)]
    pub room: Option<Room>,
    /// Whether it takes new work; `None` is a state that this build does not know.
    #[n(11)]
    pub standing: Option<Standing>,
    /// Memory that it offers, in bytes.
    #[n(12)]
    pub memory_bytes: u64,
    /// What its numbers depend on: architecture and instruction sets.
    #[n(13)]
    pub cpu_class: String,
    /// Its engine's build.
    #[n(14)]
    pub build: String,
    /// How fast it says it is.
    #[n(15)]
    pub speeds: Vec<Speed>,
    /// What it has on disk.
    #[n(16)]
    pub held: Vec<Held>,
    /// What it measured of others.
    #[n(17)]
    pub links: Vec<Measured>,
    /// Neighbours that it lost.
    #[n(18)]
    pub lost: Vec<Lost>,
    /// That it is a member.
    #[n(19)]
    pub membership: Membership,
}

impl Wire for Ad {
    const WHAT: &'static str = "ad";
    const BYTES_MAX: usize = 8 << 10;
}

impl Ad {
    /// Which of two ads of one member is newer: the greater pair.
    #[must_use]
    pub fn age(&self) -> (u64, u64) {
        (self.incarnation, self.sequence)
    }

    /// The addresses, parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when one is not `ip:port`, or there are too many.
    pub fn socket_addrs(&self) -> Result<Vec<SocketAddr>, DecodeError> {
        ticket::parse_addrs(Self::WHAT, &self.addrs)
    }

    /// Whose word let the node in: the issuer of the last vouch.
    #[must_use]
    pub fn introducer(&self) -> Option<NodeId> {
        let last = self.membership.chain.last();
        last.map(|vouch| NodeId(vouch.issuer))
    }

    /// Checks what the types alone do not say: numbers of entries, lengths of texts, ranges, addresses.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] that names the first field that is out of bounds.
    pub fn check_bounds(&self) -> Result<(), DecodeError> {
        let texts = [&self.cpu_class, &self.build];
        let relays = || self.relay.iter().chain(&self.relays);
        let ranges = || self.held.iter().flat_map(|held| &held.layers);
        let life = AD_LIFE_MIN_S..=AD_LIFE_MAX_S;
        let bounds = [
            ("life_s", life.contains(&self.life_s)),
            ("name", self.name.chars().count() <= NAME_CHARS_MAX),
            ("relays", self.relays.len() <= AD_RELAYS_MAX),
            ("relays", relays().all(|relay| is_relay(relay))),
            (
                "build or cpu_class",
                texts.iter().all(|text| text.len() <= AD_TEXT_BYTES_MAX),
            ),
            ("speeds", self.speeds.len() <= AD_SPEEDS_MAX),
            ("held", self.held.len() <= AD_HELD_MAX),
            (
                "held layers",
                self.held
                    .iter()
                    .all(|held| held.layers.len() <= AD_RANGES_MAX),
            ),
            (
                "held layers",
                ranges().all(|range| !range.is_empty() && range.end <= LAYERS_MAX),
            ),
            ("links", self.links.len() <= AD_LINKS_MAX),
            ("lost", self.lost.len() <= AD_LOST_MAX),
        ];
        if let Some((field, _)) = bounds.iter().find(|(_, holds)| !holds) {
            return Err(DecodeError::Invalid {
                what: Self::WHAT,
                why: format!("{field} is out of bounds"),
            });
        }
        self.socket_addrs().map(|_| ())
    }
}

/// Whether a text could be a relay's address; only calling it tells whether it is one.
fn is_relay(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= RELAY_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An ad as it travels: the body's bytes and a signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct SignedAd {
    /// The CBOR of an [`Ad`], perhaps of a newer version.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Ed25519 by the ad's node over [`SignedAd::signed_bytes`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Wire for SignedAd {
    const WHAT: &'static str = "signed ad";
    const BYTES_MAX: usize = Ad::BYTES_MAX + 80;
}

impl SignedAd {
    /// The bytes that the node signs: the body under a context string of its own.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [b"myzel ad v1\0", &self.body[..]].concat()
    }

    /// The body, with its bounds checked. The signature is not checked here (`identity` does).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it is no ad, or one out of bounds.
    pub fn ad(&self) -> Result<Ad, DecodeError> {
        let ad: Ad = codec::from_slice(&self.body)?;
        ad.check_bounds()?;
        Ok(ad)
    }
}
