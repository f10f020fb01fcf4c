//! Membership: who vouched for whom, and what a newcomer and a member say to each other.
//!
//! A member proves itself with a chain of [`Vouch`]es from the commons' own key down to its node key. That it holds
//! the node key is proven by the QUIC handshake, whose identity it is.

use crate::codec::{DecodeError, Wire};
use crate::ids::{CommonsId, NodeId};
use crate::ticket;
use minicbor::{CborLen, Decode, Encode};
use std::net::SocketAddr;

/// The longest chain of vouches from the commons' key to a member.
pub const VOUCH_CHAIN_MAX: usize = 8;
/// The most members that one [`Link::Members`] names.
pub const MEMBERS_MAX: usize = 256;
/// The longest name of a member, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// The ALPN of links between members: joining, member lists, heartbeats and ring control.
pub const ALPN_LINK: &[u8] = b"myzel/link/1";
/// The ALPN of hops: activations between neighbouring stages of a ring.
pub const ALPN_HOP: &[u8] = b"myzel/hop/1";
/// How often a linked member is told that we are alive, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;
/// After how long without any sign of life a peer counts as lost, in milliseconds.
pub const SUSPECT_MS: u64 = 3 * HEARTBEAT_MS;

/// One member's (or the commons' key's) signed word that a node belongs to the commons.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Vouch {
    /// The commons.
    #[n(0)]
    pub commons: CommonsId,
    /// Who is let in.
    #[n(1)]
    pub subject: NodeId,
    /// Who signs: the commons' key in the first vouch of a chain, then the subject of the one before.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub issuer: [u8; 32],
    /// When it was given, in seconds since 1970 UTC.
    #[n(3)]
    pub issued_s: u64,
    /// Ed25519 by the issuer over the CBOR of this structure with 64 zeros here.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Wire for Vouch {
    const WHAT: &'static str = "vouch";
    const BYTES_MAX: usize = 320;
}

impl Vouch {
    /// The bytes that the issuer signs, under a context string of their own.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"myzel vouch v1\0".to_vec();
        bytes.extend(crate::codec::to_vec(&Self {
            signature: [0; 64],
            ..self.clone()
        }));
        bytes
    }
}

/// The proof of membership: vouches from the commons' key to the member, at most [`VOUCH_CHAIN_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Membership {
    /// The chain, the commons' own vouch first.
    #[n(0)]
    pub chain: Vec<Vouch>,
}

impl Wire for Membership {
    const WHAT: &'static str = "proof of membership";
    const BYTES_MAX: usize = VOUCH_CHAIN_MAX * Vouch::BYTES_MAX + 16;
}

/// A member as other members know it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Member {
    /// Its key.
    #[n(0)]
    pub id: NodeId,
    /// Where it was last reached: `ip:port` texts.
    #[n(1)]
    pub addrs: Vec<String>,
    /// What its owner calls it, at most [`NAME_CHARS_MAX`] characters.
    #[n(2)]
    pub name: String,
    /// Relays through which it is reached, its own if it offers one: `ip:port` texts, at most [`ticket::RELAYS_MAX`].
    #[n(3)]
    pub relays: Option<Vec<String>>,
}

impl Wire for Member {
    const WHAT: &'static str = "member";
    const BYTES_MAX: usize = 2 << 10;
}

impl Member {
    /// The addresses, parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when one is not `ip:port`, or there are too many.
    pub fn socket_addrs(&self) -> Result<Vec<SocketAddr>, DecodeError> {
        ticket::parse_addrs("member", &self.addrs)
    }

    /// The relays, parsed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when one is not `ip:port`, or there are too many.
    pub fn relay_addrs(&self) -> Result<Vec<SocketAddr>, DecodeError> {
        ticket::parse_relays("member", self.relays.as_deref())
    }
}

/// The most addresses in one [`Whereabouts`].
pub const WHEREABOUTS_ADDRS_MAX: usize = 8;

/// Where a member is, as it says in the BitTorrent DHT: the value of a mutable item (BEP 44, at most 1,000 bytes), whose
/// key is the member's own and whose signature covers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Whereabouts {
    /// Its addresses: `ip:port` texts, at most [`WHEREABOUTS_ADDRS_MAX`].
    #[n(0)]
    pub addrs: Vec<String>,
    /// Relays through which it is reached: `ip:port` texts, at most [`ticket::RELAYS_MAX`].
    #[n(1)]
    pub relays: Option<Vec<String>>,
}

impl Wire for Whereabouts {
    const WHAT: &'static str = "whereabouts";
    const BYTES_MAX: usize = 900;
}

/// The first message on a link, from the side that called.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Hello {
    /// The newest protocol version that the caller speaks.
    #[n(0)]
    pub version: u32,
    /// The caller as a member.
    #[n(1)]
    pub member: Member,
    /// Its proof, when it is a member already.
    #[n(2)]
    pub membership: Option<Membership>,
    /// The ticket that it wants to join with.
    #[n(3)]
    pub ticket: Option<ticket::Ticket>,
    /// The oldest protocol version that the caller still speaks; without it, every older one.
    #[n(4)]
    pub oldest: Option<u32>,
}

impl Wire for Hello {
    const WHAT: &'static str = "hello";
    const BYTES_MAX: usize = 8 << 10;
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Welcome {
    /// The callee as a member.
    #[n(0)]
    pub member: Option<Member>,
    /// The callee's own proof.
    #[n(1)]
    pub membership: Option<Membership>,
    /// The caller's proof, when it joined just now.
    #[n(2)]
    pub yours: Option<Membership>,
    /// Why the caller was turned away; every other field is then empty.
    #[n(3)]
    pub refused: Option<JoinRefusal>,
}

impl Wire for Welcome {
    const WHAT: &'static str = "welcome";
    const BYTES_MAX: usize = 16 << 10;
}

/// Why a caller was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen, thiserror::Error)]
pub enum JoinRefusal {
    /// The ticket ended.
    #[error("the ticket has expired; ask for a new one with `myzel ticket`")]
    #[n(0)]
    Expired,
    /// The ticket or proof is for another commons.
    #[error("the ticket is for another commons")]
    #[n(1)]
    OtherCommons,
    /// The ticket was used as often as it may be.
    #[error("the ticket was already used; ask for a new one with `myzel ticket`")]
    #[n(2)]
    UsedUp,
    /// A signature does not verify, or somebody else issued the ticket.
    #[error("the ticket or proof of membership is not genuine")]
    #[n(3)]
    NotGenuine,
    /// Neither a ticket nor a proof was shown.
    #[error("no ticket was shown; join with `myzel up --join TICKET`")]
    #[n(4)]
    NothingShown,
    /// The callee has as many links as it allows.
    #[error("the node has no room for another link; try again later")]
    #[n(5)]
    Full,
    /// The callee's own proof is as long as a proof may be.
    #[error("the node may not let others in; ask a member nearer to the founder for a ticket")]
    #[n(6)]
    ChainFull,
    /// The introducer took the ticket back.
    #[error("the ticket was revoked by who gave it; ask for a new one")]
    #[n(7)]
    Revoked,
    /// Too many have joined from the caller's network in the last minutes.
    #[error("too many machines have asked to join from this network; try again in a minute")]
    #[n(8)]
    TooMany,
    /// The caller no longer speaks what the callee speaks.
    #[error(
        "the node speaks an older protocol than this one still does; its owner must update myzel there"
    )]
    #[n(9)]
    TooNew,
}
