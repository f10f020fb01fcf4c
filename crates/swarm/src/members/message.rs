//! What the members machine is told, and what it answers.

use identity::CheckedAd;
use proto::ad::{Ad, Held, Room, Speed, Standing};
use proto::ids::{CommonsId, Hash, NodeId};
use proto::member::Membership;
use std::collections::BTreeSet;

/// The time, on both clocks of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds since any fixed moment; never goes back. Everything ages by it.
    pub mono_ms: u64,
    /// Seconds since 1970 UTC; may be wrong, and may jump. Only the dates on ads are held against it.
    pub wall_s: u64,
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The commons.
    pub commons: CommonsId,
    /// This node.
    pub node: NodeId,
    /// Grows with every start of this node.
    pub incarnation: u64,
    /// The proof that this node is a member.
    pub membership: Membership,
    /// A random number that nobody else knows. It decides whom we call, so that nobody can push himself forward.
    pub secret: u64,
}

/// What this node offers to others; the rest of its ads the machine knows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// See [`Ad::name`].
    pub name: String,
    /// See [`Ad::addrs`].
    pub addrs: Vec<String>,
    /// See [`Ad::relay`].
    pub relay: Option<String>,
    /// See [`Ad::relays`].
    pub relays: Vec<String>,
    /// See [`Ad::room`].
    pub room: Room,
    /// See [`Ad::standing`].
    pub standing: Standing,
    /// See [`Ad::memory_bytes`].
    pub memory_bytes: u64,
    /// See [`Ad::cpu_class`].
    pub cpu_class: String,
    /// See [`Ad::build`].
    pub build: String,
    /// See [`Ad::speeds`].
    pub speeds: Vec<Speed>,
    /// See [`Ad::held`].
    pub held: Vec<Held>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time passed: at least once a second.
    Tick,
    /// An ad came, and was checked.
    Heard {
        /// The ad.
        ad: CheckedAd,
        /// The neighbour who passed it on, which may be its maker.
        from: NodeId,
    },
    /// What we offer changed.
    Offer(Box<Offer>),
    /// The members that our owner named as the circle, all of them.
    Circle(BTreeSet<NodeId>),
    /// A link to a member is up; its heartbeats arrive.
    LinkUp(NodeId),
    /// A linked member missed heartbeats; the link is not given up yet.
    LinkSilent(NodeId),
    /// A link is gone.
    LinkLost(NodeId),
    /// A member could not be reached, or did not answer. Failures while it is left alone count as one.
    CallFailed(NodeId),
    /// A member was asked to load a stage, and refused, or did not get it done.
    Refused(NodeId),
    /// A member loaded a stage of ours.
    Loaded(NodeId),
    /// A member sent bytes of a model that are not what they must be, or signed for such.
    FalseBytes(NodeId),
    /// We measured the way to a member and back.
    Rtt {
        /// Which member.
        node: NodeId,
        /// Microseconds.
        rtt_us: u32,
    },
    /// How the link to a member goes at the moment.
    Way {
        /// Which member.
        node: NodeId,
        /// Whether through a relay.
        relayed: bool,
    },
    /// We measured what goes through to a member.
    Bandwidth {
        /// Which member.
        node: NodeId,
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// We measured a member as a stage of ours.
    LayerTime {
        /// Which member.
        node: NodeId,
        /// Of which model, and how long one row took through one layer, without the way.
        speed: Speed,
    },
}

/// What the node must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign this ad, and tell all others.
    Publish(Box<Ad>),
    /// An ad was not taken.
    Refuse {
        /// Whose ad.
        node: NodeId,
        /// Who passed it on.
        from: NodeId,
        /// Why.
        why: Refusal,
    },
    /// Something about a member changed.
    Member {
        /// Which one.
        node: NodeId,
        /// What.
        change: Change,
    },
    /// Link up with this member.
    Call(NodeId),
}

/// What changed about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not known before, or counted as gone.
    Joined,
    /// It started anew.
    Restarted,
    /// It says something else than before; mere renewals are not told.
    Changed,
    /// It may be gone: it fell silent, could not be reached, or others lost it.
    Suspect,
    /// It is there after all.
    Back,
    /// It is no longer counted.
    Gone(Gone),
}

/// Why a member is no longer counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It said so.
    Left,
    /// Its newest ad ended.
    Expired,
    /// It signed two different ads with one number.
    Shunned,
    /// Others took its place in a full table.
    Evicted,
}

/// Why an ad was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is our own, of an earlier life, or somebody plays it back to us.
    #[error("it is this node's own")]
    Own,
    /// It is of another commons.
    #[error("it is for another commons")]
    OtherCommons,
    /// The same ad came before.
    #[error("it is known")]
    Known,
    /// A newer one is known.
    #[error("a newer one is known")]
    Older,
    /// Its date lies in the future.
    #[error("it is dated {ahead_s} s ahead of this node's clock")]
    FutureDated {
        /// By how much, in seconds.
        ahead_s: u64,
    },
    /// It ended before it came.
    #[error("it ended {ago_s} s ago")]
    Expired {
        /// How long ago, in seconds.
        ago_s: u64,
    },
    /// It is different from another one with the same number: its maker is shunned from now on.
    #[error("its maker signed two different ads with one number")]
    Equivocation,
    /// Its maker is shunned.
    #[error("its maker is shunned")]
    Shunned,
    /// Too many members that we have no link to name the same host.
    #[error("too many members name the same host")]
    HostQuota,
    /// Too many members that we have no link to were let in by the same member.
    #[error("too many members were let in by one member")]
    IntroducerQuota,
    /// The table is full of members that come first.
    #[error("no room for another member")]
    Full,
}

impl Refusal {
    /// Whether somebody did wrong. The rest happens among honest nodes.
    #[must_use]
    pub fn is_misdeed(&self) -> bool {
        matches!(
            self,
            Self::Equivocation | Self::FutureDated { .. } | Self::OtherCommons
        )
    }
}

/// Two ads of one member with one number and different contents: proof that it lies to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The one that came first.
    pub first: CheckedAd,
    /// The other one.
    pub second: CheckedAd,
}

/// For which requests a view is.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who may see the request.
    pub room: Room,
    /// The model.
    pub model: Hash,
    /// What a node needs for one layer: weights, caches, and its engine.
    pub layer_bytes: u64,
    /// The engine build that is wanted; `None` takes any.
    pub build: Option<&'a str>,
}
