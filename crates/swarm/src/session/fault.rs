//! Why a session failed, in words that name the peer and the next step.

use super::pace::StepKind;
use crate::frame::ShapeFault;
use proto::ids::NodeId;
use proto::model::LayerRange;
use proto::ring::RefusalCode;
use std::fmt;

/// A remote stage, as messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageName {
    /// Which stage, from 1.
    pub stage: u32,
    /// Who hosts it.
    pub node: NodeId,
    /// Its layers.
    pub layers: LayerRange,
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stage {} (layers {}, node {})",
            self.stage,
            self.layers,
            self.node.short()
        )
    }
}

/// Why a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// The engine on this machine.
    #[error("the engine here failed: {detail}; ask again, and see the log if it repeats")]
    Engine {
        /// What it said.
        detail: String,
    },
    /// One peer.
    #[error("{stage} {cause}")]
    Peer {
        /// Which.
        stage: StageName,
        /// Why.
        cause: PeerFault,
    },
    /// One peer, and no other ring could take the session on.
    #[error("{lost}; no other nodes took over: {why}")]
    Stranded {
        /// Why the ring was left.
        lost: Box<SessionFault>,
        /// Why there is no other.
        why: String,
    },
    /// Every peer gives signs of life, and no activations come back.
    #[error(
        "no activations came back for {waited_ms} ms in {kind} from {}; look for an overloaded machine, then ask again",
        names(.stages)
    )]
    Late {
        /// What was awaited.
        kind: StepKind,
        /// How long, in milliseconds.
        waited_ms: u64,
        /// Where it may be stuck.
        stages: Vec<StageName>,
    },
}

impl SessionFault {
    /// The stage that is to blame, if one is.
    #[must_use]
    pub fn stage(&self) -> Option<StageName> {
        match self {
            Self::Peer { stage, .. } => Some(*stage),
            Self::Stranded { lost, .. } => lost.stage(),
            Self::Engine { .. } | Self::Late { .. } => None,
        }
    }
}

fn names(stages: &[StageName]) -> String {
    stages
        .iter()
        .map(StageName::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What went wrong at a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// No heartbeat.
    #[error(
        "has been silent for {silent_ms} ms; see that its node runs and is reachable, then ask again"
    )]
    Silent {
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// No connection.
    #[error("closed its connection; see that its node runs and is reachable, then ask again")]
    LinkLost,
    /// It said so.
    #[error("cannot go on: {}: {detail}; ask again", code_text(.code))]
    Refused {
        /// The reason; `None` is one that this build does not know.
        code: Option<RefusalCode>,
        /// What it said.
        detail: String,
    },
    /// What it sent cannot be right.
    #[error(
        "sent activations that cannot be right: {0}; ask again, without this node if it repeats"
    )]
    BadFrame(#[source] ReturnFault),
    /// It says that it has rows that nobody can have given it.
    #[error(
        "says that it has {length} positions of {most}; ask again, without this node if it repeats"
    )]
    Boasts {
        /// Positions that it claims.
        length: u32,
        /// Positions that there are.
        most: u32,
    },
    /// It did not answer an epoch.
    #[error("did not answer for {waited_ms} ms when the session was to resume; ask again")]
    NoAnswer {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
}

fn code_text(code: &Option<RefusalCode>) -> String {
    code.map_or_else(
        || "a reason this version does not know".into(),
        |code| code.to_string(),
    )
}

/// What is wrong with a frame that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReturnFault {
    /// Its shape.
    #[error(transparent)]
    Shape(#[from] ShapeFault),
    /// An epoch that was never announced.
    #[error("epoch {got}, the newest is {newest}")]
    Epoch {
        /// The frame's epoch.
        got: u32,
        /// The session's epoch.
        newest: u32,
    },
    /// Nothing was sent, so nothing can come back.
    #[error("position {got}, and nothing is on its way")]
    Unasked {
        /// The frame's position.
        got: u32,
    },
    /// Not the frame whose turn it is.
    #[error("{got_rows} rows at position {got}, expected at most {most} at {expected}")]
    Order {
        /// The frame's position.
        got: u32,
        /// The frame's rows.
        got_rows: u32,
        /// The position that is next.
        expected: u32,
        /// The rows that are on their way from there.
        most: u32,
    },
}
