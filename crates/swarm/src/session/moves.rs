//! From a ring that is lost to the next one.

use super::{Effect, PeerFault, Phase, Session, SessionFault, Way};
use crate::frame::clean;
use proto::ring::LinkBody;

impl Session {
    /// Whether a fault is of the ring and not of the session, and all rows are here to be sent over another.
    ///
    /// A peer that sends what cannot be right is no accident, and would be met again.
    pub(super) fn may_move(&self, fault: &SessionFault) -> bool {
        let accident = match fault {
            SessionFault::Peer { cause, .. } => !matches!(cause, PeerFault::BadFrame(_)),
            _ => false,
        };
        let whole = self.head_length == 0 || self.retained.from() == Some(0);
        accident && whole && self.moves < self.plan.moves_max
    }

    /// Leaves the ring. What came back from it stays.
    pub(super) fn strand(&mut self, fault: SessionFault, out: &mut Vec<Effect>) {
        self.tell_all(LinkBody::CloseSession, out);
        self.moves += 1;
        self.flight.clear();
        self.suspected = false;
        self.phase = Phase::Stranded(fault.clone());
        out.push(Effect::Strand(fault));
    }

    /// Opens the session on another ring, and sends all rows from the first.
    pub(super) fn rejoin(
        &mut self,
        way: Way,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        if !matches!(self.phase, Phase::Stranded(_)) || way.stages.is_empty() {
            return Ok(());
        }
        (self.plan.ring, self.name, self.plan.stages) = (way.ring, way.session, way.stages);
        self.phase = Phase::Running;
        (self.sent_length, self.back_length, self.acked) = (0, 0, 0);
        (self.renewed_ms, self.moved_ms) = (now_ms, now_ms);
        self.open(out);
        Ok(())
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
