//! A short memory of sessions that are not open any more, or never were.
//!
//! A hop and a link are different streams: frames of a session may arrive after its end, and its end before its
//! beginning. The memory tells such latecomers from strangers, and keeps an answer from being given twice.

use proto::ids::SessionId;
use std::collections::VecDeque;

/// How many sessions are remembered; the oldest is forgotten first.
pub const TOMBS_MAX: usize = 256;

/// Why a session is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tomb {
    /// The coordinator ended it: it never opens again.
    Closed,
    /// It was refused, or its lease ran out, and the coordinator was told: its frames are ignored, but it may open again.
    Answered,
}

/// Sessions that are not open, oldest first, each once.
#[derive(Debug, Default)]
pub(super) struct Tombs(VecDeque<(SessionId, Tomb)>);

impl Tombs {
    pub(super) fn get(&self, session: SessionId) -> Option<Tomb> {
        self.0
            .iter()
            .find_map(|&(id, tomb)| (id == session).then_some(tomb))
    }

    pub(super) fn put(&mut self, session: SessionId, tomb: Tomb) {
        self.remove(session);
        if self.0.len() == TOMBS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((session, tomb));
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.0.retain(|&(id, _)| id != session);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
