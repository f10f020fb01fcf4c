//! What a stage is told, what it answers, and what it is made for.

use bytes::Bytes;
use proto::host::{Output, Role, Run, SESSIONS_MAX};
use proto::ids::{RingId, SessionId};
use proto::ring::{
    Ack, HopBody, LinkBody, NewEpoch, OpenSession, Resume, Rows, STAGES_MAX, SessionRef,
};

/// What a stage is for; fixed when its ring opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagePlan {
    /// The ring.
    pub ring: RingId,
    /// Which remote stage this is, from 1.
    pub stage: u32,
    /// How many remote stages the ring has.
    pub stages: u32,
    /// Numbers in an activation row.
    pub embedding_length: u32,
    /// Positions of each session's cache.
    pub positions_max: u32,
    /// Sessions at once.
    pub sessions_max: u32,
    /// Outputs kept for one session, in bytes: [`proto::ring::RETAINED_BYTES_MAX`], or less on a small machine.
    pub retained_bytes_max: usize,
}

/// A plan that nobody can carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// A row is empty or does not fit a packet.
    #[error("rows of {embedding_length} numbers, supported are 1 to {max}", max = crate::frame::EMBEDDING_LENGTH_MAX)]
    Embedding {
        /// Numbers in a row.
        embedding_length: u32,
    },
    /// No such stage.
    #[error("stage {stage} of {stages}, a ring has 1 to {STAGES_MAX} stages")]
    Stage {
        /// The stage.
        stage: u32,
        /// How many there are said to be.
        stages: u32,
    },
    /// No session, or more than an engine holds.
    #[error("{sessions} sessions, an engine holds 1 to {SESSIONS_MAX}")]
    Sessions {
        /// How many were asked for.
        sessions: u32,
    },
    /// A cache of length 0.
    #[error("a cache of 0 positions")]
    NoPositions,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// On the hop: a session begins.
    Open(OpenSession),
    /// On the hop: activations.
    Rows {
        /// What they belong to.
        rows: Rows,
        /// The values.
        payload: Bytes,
    },
    /// The engine carried out a [`Compute`].
    Computed {
        /// [`Compute::session`].
        session: SessionId,
        /// [`Compute::epoch`].
        epoch: u32,
        /// [`Compute::position`].
        position: u32,
        /// The activations that came out.
        output: Bytes,
    },
    /// The engine did not carry out a [`Compute`]; its caches are as before.
    ComputeFailed {
        /// [`Compute::session`].
        session: SessionId,
        /// [`Compute::epoch`].
        epoch: u32,
        /// [`Compute::position`].
        position: u32,
        /// For people.
        detail: String,
    },
    /// On the link: outputs below a position are not needed; also renews the lease.
    Ack(Ack),
    /// On the link: a new epoch. The one that is known is answered again, without effect.
    Epoch(NewEpoch),
    /// On the link: how a session goes on under an epoch that was answered.
    Resume(Resume),
    /// On the link: a session ends.
    Close(SessionRef),
    /// The hop to the next stage broke. What is forwarded from now on is lost; outputs stay retained.
    SuccessorLost,
    /// The engine was started again: all caches are gone.
    CachesLost,
    /// Time passed; about once a second.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Let the engine compute, and answer with [`Event::Computed`] or [`Event::ComputeFailed`].
    Compute(Compute),
    /// Send on the hop to the next stage, or to the coordinator from the last.
    Forward {
        /// The head.
        body: HopBody,
        /// The payload; empty unless the head is [`HopBody::Rows`].
        payload: Bytes,
    },
    /// Cut the session's cache in the engine.
    TrimCache {
        /// The session.
        session: SessionId,
        /// Positions that stay.
        length: u32,
    },
    /// Free the session's cache in the engine.
    DropCache {
        /// The session.
        session: SessionId,
    },
    /// Send on the link to the coordinator.
    Tell(LinkBody),
}

/// One call to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// The session.
    pub session: SessionId,
    /// The epoch under which the frame was taken; comes back in the answer.
    pub epoch: u32,
    /// The position of the first row; the length of the cache.
    pub position: u32,
    /// How many rows.
    pub rows: u32,
    /// The activations that go in.
    pub payload: Bytes,
}

impl Compute {
    /// The same as a task for the engine; [`Compute::payload`] goes with it.
    #[must_use]
    pub fn run(&self) -> Run {
        Run {
            session: self.session,
            role: Role::Middle,
            position: self.position,
            tokens: Vec::new(),
            output: Output::Rows,
            scope: None,
            adapters: Vec::new(),
            guesses: Vec::new(),
        }
    }
}

/// Where a session stands at a stage; for status and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageView {
    /// The newest epoch announced.
    pub epoch: u32,
    /// Positions computed: the length of the cache.
    pub length: u32,
    /// Positions accepted, computed or not.
    pub accepted: u32,
    /// Frames accepted and not computed yet, at most [`super::FRAMES_QUEUED_MAX`].
    pub queued_frames: usize,
    /// The first position whose output is retained; `length` when none is.
    pub retained_from: u32,
    /// Bytes of retained outputs.
    pub retained_bytes: usize,
}
