//! How a ring stands, and why there is none.

use super::Ring;
use super::form::FormError;
use proto::ids::RingId;
use std::sync::Arc;

/// How a ring stands.
#[derive(Debug, Clone)]
pub enum State {
    /// Too few members are linked.
    Waiting {
        /// How many are.
        have: usize,
        /// Why the ring before broke, or was not formed.
        why: Option<Why>,
    },
    /// Stages load.
    Forming {
        /// The ring that this becomes.
        ring: RingId,
        /// How far those are that must fetch their layers first, in words for people.
        progress: Option<String>,
    },
    /// Requests can run.
    Up(Arc<Ring>),
}

/// Why there is no ring, in words for people, with the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There was one, and a member of it was lost.
    Lost(String),
    /// None can be formed as things are, or the last attempt failed.
    Unformed(String),
}

impl Why {
    /// The words.
    #[must_use]
    pub fn words(&self) -> &str {
        match self {
            Self::Lost(words) | Self::Unformed(words) => words,
        }
    }
}

impl From<FormError> for Why {
    fn from(error: FormError) -> Self {
        let next = "it is tried again by itself; see: myzel status";
        Self::Unformed(format!("{error}; {next}"))
    }
}
