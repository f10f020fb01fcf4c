//! What peers send: frames that come back, failures, answers to epochs.

use super::{Effect, PeerFault, Phase, ReturnFault, Session, SessionFault, Span, StepKind};
use crate::frame::{Shape, clean};
use bytes::Bytes;
use proto::ring::{EpochAnswer, LinkBody, RefusalCode, Rows, RowsKind, SessionFailed};

impl Session {
    pub(super) fn take_back(
        &mut self,
        rows: Rows,
        payload: Bytes,
        now_ms: u64,
    ) -> Result<(), SessionFault> {
        let late = rows.epoch < self.epoch || rows.position < self.back_length;
        let foreign = rows.session != self.name;
        if foreign || late || rows.kind == RowsKind::Replay {
            return Ok(());
        }
        match self.judge_return(&rows, &payload) {
            Ok(span) => self.accept_return(span, payload, now_ms),
            Err(fault) => return self.blame(self.plan.stages_len(), PeerFault::BadFrame(fault)),
        }
        Ok(())
    }

    fn judge_return(&self, rows: &Rows, payload: &[u8]) -> Result<Span, ReturnFault> {
        let (got, newest) = (rows.epoch, self.epoch);
        if got > newest {
            return Err(ReturnFault::Epoch { got, newest });
        }
        let got = rows.position;
        let &(span, _) = self.flight.front().ok_or(ReturnFault::Unasked { got })?;
        if span
            != (Span {
                position: rows.position,
                rows: rows.rows,
            })
        {
            let (expected, expected_rows) = (span.position, span.rows);
            return Err(ReturnFault::Order {
                got,
                got_rows: rows.rows,
                expected,
                expected_rows,
            });
        }
        let shape = Shape {
            from_stage: self.plan.stages_len(),
            embedding_length: self.plan.embedding_length,
            positions_max: self.plan.positions_max,
        };
        shape.check(rows, payload)?;
        Ok(span)
    }

    fn accept_return(&mut self, span: Span, payload: Bytes, now_ms: u64) {
        let (_, sent_ms) = self.flight.pop_front().expect("the frame was on its way");
        let lap_ms = now_ms.saturating_sub(sent_ms.max(self.moved_ms));
        self.pace.observe(StepKind::of(span.rows), lap_ms);
        self.moved_ms = now_ms;
        self.suspected = false;
        self.back_length = span.end();
        // Rows that came back over a ring before have gone to the tail.
        if span.end() > self.returned_length {
            self.returned_length = span.end();
            self.returned.push_back((span, payload));
        }
    }

    /// Reports from before the present epoch are about frames that do not count any more. A stage that never heard of
    /// the present epoch is another matter: frames under it are sent only after every stage has answered.
    pub(super) fn stage_failed(
        &mut self,
        stage: u32,
        failed: SessionFailed,
    ) -> Result<(), SessionFault> {
        let SessionFailed {
            at, code, detail, ..
        } = failed;
        let ours = at.ring == self.plan.ring && at.session == self.name;
        let unknown = code == Some(RefusalCode::UnknownEpoch);
        let late_frame = code == Some(RefusalCode::OldEpoch) && at.epoch == self.epoch;
        if !ours || late_frame || (at.epoch < self.epoch && !unknown) {
            return Ok(());
        }
        self.blame(
            stage,
            PeerFault::Refused {
                code,
                detail: clean(&detail),
            },
        )
    }

    /// Announces the next epoch. What is in the ring does not count any more; what came back does.
    pub(super) fn resume(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.epoch = self
            .epoch
            .checked_add(1)
            .expect("a session has fewer than 2³² epochs");
        self.flight.clear();
        self.suspected = false;
        let answered = vec![false; self.plan.stages.len()];
        self.phase = Phase::Resuming {
            answered,
            since_ms: now_ms,
        };
        self.tell_all(LinkBody::Epoch, out);
    }

    /// A stage that returned rows has them in its cache, unless it lost it.
    pub(super) fn epoch_answered(
        &mut self,
        stage: u32,
        answer: EpochAnswer,
    ) -> Result<(), SessionFault> {
        let ours = answer.at.ring == self.plan.ring && answer.at.session == self.name;
        let Phase::Resuming { answered, .. } = &mut self.phase else {
            return Ok(());
        };
        if !ours || answer.at.epoch != self.epoch {
            return Ok(());
        }
        let Some(slot) = (stage as usize)
            .checked_sub(1)
            .and_then(|at| answered.get_mut(at))
        else {
            return Ok(());
        };
        *slot = true;
        let all = answered.iter().all(|&answered| answered);
        let (length, needed) = (answer.length, self.back_length);
        if length < needed {
            return self.blame(stage, PeerFault::LostCache { length, needed });
        }
        if all {
            // What has not come back is sent again, as it was: stages that computed it before repeat their outputs.
            self.phase = Phase::Running;
            self.sent_length = self.back_length;
        }
        Ok(())
    }
}
