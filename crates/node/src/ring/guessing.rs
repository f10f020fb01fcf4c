//! What requests over a ring found out about guessing ahead, for those after them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use swarm::draft::Costs;
use swarm::session::Session;

/// Tokens that were guessed over a ring, and how many of them were right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Tokens that went round on a guess.
    pub guessed: u64,
    /// Those that were right.
    pub right: u64,
}

/// What is known of guessing on a ring.
#[derive(Debug, Default)]
pub struct Guessing {
    /// The most tokens of a guess; 0 is none.
    pub most: u32,
    known: Mutex<(Costs, Counted)>,
}

impl Guessing {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, (Costs, Counted)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What laps with guesses cost.
    #[must_use]
    pub fn costs(&self) -> Costs {
        self.known().0.clone()
    }

    /// How many were guessed in requests that have ended.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.known().1
    }

    /// Takes over what a request found out, at its end.
    pub(super) fn learn(&self, session: &Session) {
        let status = session.status();
        let mut known = self.known();
        known.0 = session.costs().clone();
        known.1.guessed += u64::from(status.guessed);
        known.1.right += u64::from(status.guessed_right);
    }
}
