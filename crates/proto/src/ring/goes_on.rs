//! What a coordinator says of a session that goes on after a loss.

use super::SessionRef;
use crate::ids::{RingId, SessionId};
use crate::member::Member;
use minicbor::{CborLen, Decode, Encode};

/// A session's next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct NewEpoch {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// The session.
    #[n(1)]
    pub session: SessionId,
    /// The epoch.
    #[n(2)]
    pub epoch: u32,
    /// The session goes on over a ring in which stages may be new: who does not have it opens it for so many
    /// positions, and frames wait until [`LinkBody::Resume`](super::LinkBody::Resume) has come. Without it, frames follow at once.
    #[n(3)]
    pub positions_max: Option<u32>,
}

impl NewEpoch {
    /// The session at this epoch.
    #[must_use]
    pub fn at(&self) -> SessionRef {
        SessionRef {
            ring: self.ring,
            session: self.session,
            epoch: self.epoch,
        }
    }
}

/// Whom a stage feeds beside the next one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Shadow {
    /// The session, at its epoch.
    #[n(0)]
    pub at: SessionRef,
    /// Which stage is meant, from 1: the one that sends. A node may host several.
    #[n(1)]
    pub stage: u32,
    /// Who stands by for the stage behind it.
    #[n(2)]
    pub to: Member,
    /// The first position that need not be sent.
    #[n(3)]
    pub until: u32,
}

/// How a session goes on at a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Resume {
    /// The session, at its new epoch.
    #[n(0)]
    pub at: SessionRef,
    /// Which stage is meant, from 1: a node may host several.
    #[n(1)]
    pub stage: u32,
    /// Positions that stay in its KV cache.
    #[n(2)]
    pub keep: u32,
    /// The first position whose output the next stage lacks: retained outputs from here on go out again, earlier ones
    /// never.
    #[n(3)]
    pub from: u32,
    /// The first position that the coordinator lacks: what lies before it only rebuilds caches.
    #[n(4)]
    pub wanted: u32,
}
