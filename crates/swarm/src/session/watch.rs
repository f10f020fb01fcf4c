//! What time and memory demand: deadlines, leases, acknowledgements.

use super::{
    Effect, LEASE_RENEWAL_MS, PeerFault, Phase, Session, SessionFault, StepKind, Suspicion,
};
use crate::frame::row_bytes;
use proto::ring::{Ack, CHUNK_ROWS, LinkBody};

impl Session {
    pub(super) fn tick(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<(), SessionFault> {
        if now_ms.saturating_sub(self.renewed_ms) >= LEASE_RENEWAL_MS {
            self.renewed_ms = now_ms;
            self.tell_acked(out);
        }
        if let Phase::Resuming { answers, since_ms } = &self.phase {
            let waited_ms = now_ms.saturating_sub(*since_ms);
            let missing = answers.iter().position(Option::is_none);
            if let Some(at) = missing
                && waited_ms >= StepKind::Decode.limit_ms(1)
            {
                return self.blame(at as u32 + 1, PeerFault::NoAnswer { waited_ms });
            }
            self.doubt(StepKind::Decode, waited_ms, out);
            return Ok(());
        }
        self.watch_lap(now_ms, out)
    }

    fn watch_lap(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> Result<(), SessionFault> {
        let Some(&(span, sent_ms)) = self.flight.front() else {
            return Ok(());
        };
        let kind = match self.rebuilding {
            true => StepKind::Prefill,
            false => StepKind::of(self.lap_rows(span)),
        };
        let waited_ms = now_ms.saturating_sub(sent_ms.max(self.moved_ms));
        if waited_ms >= kind.limit_ms(self.plan.sharers) {
            let all = (1..=self.plan.stages_len()).filter_map(|stage| self.plan.stage_name(stage));
            return Err(SessionFault::Late {
                kind,
                waited_ms,
                stages: all.collect(),
            });
        }
        self.doubt(kind, waited_ms, out);
        let deadline_ms = self.pace.deadline_ms(kind);
        if waited_ms > deadline_ms && !self.suspected {
            self.suspected = true;
            self.suspicions += 1;
            out.push(Effect::Suspect(Suspicion {
                kind,
                waited_ms,
                deadline_ms,
            }));
        }
        Ok(())
    }

    /// Asks for signs of life, again and again while nothing moves.
    fn doubt(&mut self, kind: StepKind, waited_ms: u64, out: &mut Vec<Effect>) {
        let due = waited_ms / self.pace.doubt_ms(kind);
        if due > self.doubts {
            self.doubts = due;
            out.push(Effect::Doubt);
        }
    }

    /// Lets the stages forget their oldest chunks, once what they keep fills more than half of their store.
    pub(super) fn acknowledge(&mut self, out: &mut Vec<Effect>) {
        let half = self.plan.stage_retained_bytes_max / 2;
        let half_rows = half / row_bytes(self.plan.embedding_length);
        let kept_rows = (self.tail_length - self.acked) as usize;
        if kept_rows <= half_rows {
            return;
        }
        let wanted = self.acked + (kept_rows - half_rows) as u32;
        let whole_chunks = wanted.next_multiple_of(CHUNK_ROWS);
        let done_chunks = self.tail_length - self.tail_length % CHUNK_ROWS;
        let acked = whole_chunks.min(done_chunks);
        if acked > self.acked {
            self.acked = acked;
            self.tell_acked(out);
        }
    }

    fn tell_acked(&self, out: &mut Vec<Effect>) {
        let position = self.acked;
        self.tell_all(|at| LinkBody::Ack(Ack { at, position }), out);
    }
}
