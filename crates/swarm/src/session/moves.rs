//! From a ring that is lost to the next one.

use super::{Effect, PeerFault, Phase, Session, SessionFault, Way};
use crate::frame::clean;
use proto::ring::{LinkBody, NewEpoch};

impl Session {
    /// Whether a fault is of the ring and not of the session.
    ///
    /// A peer that sends what cannot be right is no accident, and would be met again.
    pub(super) fn may_move(&self, fault: &SessionFault) -> bool {
        let accident = match fault {
            SessionFault::Peer { cause, .. } => {
                !matches!(cause, PeerFault::BadFrame(_) | PeerFault::Boasts { .. })
            }
            _ => false,
        };
        accident && self.moves < self.plan.moves_max
    }

    /// Leaves the ring. What came back from it stays, and what its stages have stays there.
    pub(super) fn strand(&mut self, fault: SessionFault, out: &mut Vec<Effect>) {
        self.moves += 1;
        self.drop_guesses(out);
        self.flight.clear();
        (self.suspected, self.shadowed) = (false, 0);
        self.phase = Phase::Stranded(fault.clone());
        out.push(Effect::Strand(fault));
    }

    /// Announces the next epoch on the ring that was found. What was on its way does not count any more.
    pub(super) fn rejoin(&mut self, way: Way, now_ms: u64, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Stranded(_)) || way.stages.is_empty() {
            return;
        }
        (self.plan.ring, self.plan.stages) = (way.ring, way.stages);
        let next = self.epoch.checked_add(1);
        self.epoch = next.expect("a session has fewer than 2³² epochs");
        self.phase = Phase::Resuming {
            answers: vec![None; self.plan.stages.len()],
            since_ms: now_ms,
        };
        (self.renewed_ms, self.moved_ms, self.doubts) = (now_ms, now_ms, 0);
        let positions_max = Some(self.positions_asked());
        let announce = |at: proto::ring::SessionRef| {
            LinkBody::Epoch(NewEpoch {
                ring: at.ring,
                session: at.session,
                epoch: at.epoch,
                positions_max,
            })
        };
        self.tell_all(announce, out);
    }

    pub(super) fn give_up(&self, why: &str) -> Result<(), SessionFault> {
        match &self.phase {
            Phase::Stranded(lost) => Err(SessionFault::Stranded {
                lost: Box::new(lost.clone()),
                why: clean(why),
            }),
            _ => Ok(()),
        }
    }
}
