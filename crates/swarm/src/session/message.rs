//! What a session is told, what it answers, and what it is made for.

use super::fault::{SessionFault, StageName};
use super::pace::StepKind;
use crate::draft::Costs;
use bytes::Bytes;
use proto::host::{Drawn, Run};
use proto::ids::{NodeId, RingId, SessionId};
use proto::model::{LayerRange, Sampling};
use proto::ring::{EpochAnswer, HopBody, LinkBody, Rows, STAGES_MAX, SessionFailed};

/// One request, and the ring it runs through.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPlan {
    /// The ring.
    pub ring: RingId,
    /// The session; random, never used before.
    pub session: SessionId,
    /// The first epoch.
    pub epoch: u32,
    /// The remote stages, from stage 1.
    pub stages: Vec<RemoteStage>,
    /// Numbers in an activation row.
    pub embedding_length: u32,
    /// Positions of each session's cache, in the whole ring.
    pub positions_max: u32,
    /// The prompt; not empty.
    pub prompt: Vec<i32>,
    /// Tokens to draw at most; at least 1.
    pub tokens_max: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// How often the session may go on over another ring when it loses a peer.
    pub moves_max: u32,
    /// Outputs of the head that are kept, in bytes. What is still on its way is kept in any case.
    pub retained_bytes_max: usize,
    /// Outputs that each stage keeps for this session, in bytes: [`proto::ring::RETAINED_BYTES_MAX`].
    pub stage_retained_bytes_max: usize,
    /// Sessions that the ring may compute at once, this one included; at least 1. A prompt may wait behind all others.
    pub sharers: u32,
    /// The most tokens that are guessed to follow, and go round with one that was drawn; 0 is none, more than [`proto::host::GUESSES_MAX`] are that many.
    pub guesses_max: u32,
    /// What laps with guesses are known to cost on this ring.
    pub costs: Costs,
}

/// A remote stage as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteStage {
    /// Who hosts it.
    pub node: NodeId,
    /// Its layers.
    pub layers: LayerRange,
}

impl SessionPlan {
    /// The name of a stage in messages; `None` when the ring has no such stage.
    #[must_use]
    pub fn stage_name(&self, stage: u32) -> Option<StageName> {
        let RemoteStage { node, layers } = *self.stages.get(stage.checked_sub(1)? as usize)?;
        Some(StageName {
            stage,
            node,
            layers,
        })
    }

    pub(super) fn stages_len(&self) -> u32 {
        self.stages.len() as u32
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let (prompt, positions_max) = (self.prompt.len(), self.positions_max);
        if self.stages.is_empty() || self.stages.len() > STAGES_MAX as usize {
            return Err(PlanError::Stages {
                stages: self.stages.len(),
            });
        }
        if !(1..=crate::frame::EMBEDDING_LENGTH_MAX).contains(&self.embedding_length) {
            return Err(PlanError::Embedding {
                embedding_length: self.embedding_length,
            });
        }
        if self.prompt.is_empty() {
            return Err(PlanError::EmptyPrompt);
        }
        if prompt > positions_max as usize {
            return Err(PlanError::PromptTooLong {
                prompt,
                positions_max,
            });
        }
        if self.tokens_max == 0 {
            return Err(PlanError::NoTokens);
        }
        Ok(())
    }
}

/// A request that cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The ring has no remote stage, or too many.
    #[error("{stages} remote stages, a ring has 1 to {STAGES_MAX}")]
    Stages {
        /// How many there are.
        stages: usize,
    },
    /// A row is empty or does not fit a packet.
    #[error("rows of {embedding_length} numbers, supported are 1 to {max}", max = crate::frame::EMBEDDING_LENGTH_MAX)]
    Embedding {
        /// Numbers in a row.
        embedding_length: u32,
    },
    /// Nothing to go on from.
    #[error("the prompt has no token; send some text")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error("the prompt has {prompt} tokens and the context {positions_max}; shorten the prompt")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Positions of the cache.
        positions_max: u32,
    },
    /// Nothing is wanted.
    #[error("0 tokens were asked for; ask for at least 1")]
    NoTokens,
}

/// A ring that takes the place of a lost one, or the same once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The ring.
    pub ring: RingId,
    /// Its remote stages, from stage 1. Together they have the layers that the ring before had.
    pub stages: Vec<RemoteStage>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Begin. Anything before it but [`Event::Cancel`] is ignored.
    Start,
    /// The engine carried out an [`Effect::RunHead`].
    HeadDone {
        /// [`Run::position`].
        position: u32,
        /// The activations.
        rows: Bytes,
    },
    /// The engine carried out an [`Effect::RunTail`].
    TailDone {
        /// [`Run::position`].
        position: u32,
        /// The token, if one was asked for, and those behind guesses that were right.
        drawn: Vec<Drawn>,
        /// The head's activations of the last of them, if they came along.
        head_rows: Option<Bytes>,
    },
    /// The engine did not carry out a run, or died.
    EngineFailed {
        /// For people.
        detail: String,
    },
    /// On the hop from the last stage: activations.
    Returned {
        /// What they belong to.
        rows: Rows,
        /// The values.
        payload: Bytes,
    },
    /// On the link from `stage`: it cannot go on.
    StageFailed {
        /// Whose link it came on; what the message says of its sender is not believed.
        stage: u32,
        /// The message.
        failed: SessionFailed,
    },
    /// On the link from `stage`: where it stands.
    EpochAnswer {
        /// Whose link it came on.
        stage: u32,
        /// The message.
        answer: EpochAnswer,
    },
    /// A peer's heartbeats stopped.
    PeerSilent {
        /// The stage it hosts.
        stage: u32,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// A peer's connection is closed.
    LinkLost {
        /// The stage it hosts.
        stage: u32,
    },
    /// There is another ring, after [`Effect::Strand`].
    Rejoin(Way),
    /// There is none, after [`Effect::Strand`].
    GiveUp {
        /// For people: why, and what to do.
        why: String,
    },
    /// The client went away, or has seen enough.
    Cancel,
    /// Time passed; a few times a second.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Let the engine run the head; answer with [`Event::HeadDone`] or [`Event::EngineFailed`].
    RunHead(Run),
    /// Let the engine run the tail; answer with [`Event::TailDone`] or [`Event::EngineFailed`].
    RunTail {
        /// The task.
        run: Run,
        /// The activations that go in.
        payload: Bytes,
    },
    /// Send on the hop to stage 1.
    Forward {
        /// The head.
        body: HopBody,
        /// The payload; empty unless the head is [`HopBody::Rows`].
        payload: Bytes,
    },
    /// Send on the link to a stage.
    Tell {
        /// The stage.
        stage: u32,
        /// The message.
        body: LinkBody,
    },
    /// The next token, for the client. Each comes exactly once and in order; one that ends the generation comes, too.
    Token(Drawn),
    /// The ring is slower than expected and every peer still lives: for status and logs.
    Suspect(Suspicion),
    /// A lap lasts longer than usual: ask every stage for a sign of life.
    Doubt,
    /// To compute the session again would take long: whoever stands by for a stage may be fed what all rows before this position
    /// were made of, with [`super::Session::shadow`] and [`crate::stage::Stage::shadow`].
    Shadow {
        /// The first row that is not meant.
        until: u32,
    },
    /// The session goes on, and this is what it takes.
    Resumed(Rebuild),
    /// The session left its ring for this reason. Find it another ([`Event::Rejoin`]), or say that there is none
    /// ([`Event::GiveUp`]); answers of the engine are expected all the time.
    Strand(SessionFault),
    /// Cut the session's caches in the engine here, of head and tail.
    TrimCaches {
        /// Positions that stay.
        length: u32,
    },
    /// Free the session's caches in the engine here.
    DropCaches,
    /// The session is over; nothing follows.
    Finish(FinishReason),
    /// The session is over; nothing follows.
    Fail(SessionFault),
}

/// Why a session ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its answer.
    End,
    /// As many tokens as were asked for.
    Length,
    /// The cache is full.
    Context,
    /// [`Event::Cancel`].
    Cancelled,
}

/// What it takes to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// What the stages compute that had been computed in their places before, from stage 1.
    pub stages: Vec<RebuiltStage>,
    /// Rows that are sent once more from one stage to the next.
    pub rows_resent: u64,
    /// Whether everything is computed again from the tokens.
    pub from_tokens: bool,
}

/// What one stage computes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RebuiltStage {
    /// Rows that had gone through its place and are not in its cache.
    pub replayed: u32,
    /// Rows that are in its cache, and must be computed a second time.
    pub recomputed: u32,
}

/// A frame that takes longer than frames of its kind used to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// The frame's kind.
    pub kind: StepKind,
    /// How long it has taken so far, in milliseconds.
    pub waited_ms: u64,
    /// What was expected at most, in milliseconds.
    pub deadline_ms: u64,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStatus {
    /// The epoch.
    pub epoch: u32,
    /// Positions that have gone all the way round.
    pub position: u32,
    /// Tokens drawn.
    pub tokens: u32,
    /// Frames in the ring or waiting for the tail, at most [`super::FRAMES_IN_FLIGHT_MAX`].
    pub frames_in_flight: usize,
    /// Frames that took longer than expected.
    pub suspicions: u32,
    /// Tokens that were guessed and went round, and how many of them were right.
    pub guessed: u32,
    /// Guesses that were right.
    pub guessed_right: u32,
    /// Bytes of retained outputs of the head.
    pub retained_bytes: usize,
    /// Smoothed time of a lap with one row, in milliseconds, once there was one.
    pub decode_ms: Option<u64>,
    /// Smoothed time of a lap with more rows, in milliseconds, once there was one.
    pub prefill_ms: Option<u64>,
    /// Whether the session has ended.
    pub over: bool,
}
