//! What peers send: frames that come back, failures.

use super::{PeerFault, ReturnFault, Session, SessionFault, Span};
use crate::frame::{Shape, clean};
use bytes::Bytes;
use proto::ring::{RefusalCode, Rows, RowsKind, SessionFailed};

impl Session {
    pub(super) fn take_back(
        &mut self,
        rows: Rows,
        payload: Bytes,
        now_ms: u64,
    ) -> Result<(), SessionFault> {
        let late = rows.epoch < self.epoch || rows.position < self.returned_length;
        let foreign = rows.session != self.plan.session;
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
        let (got, got_rows) = (rows.position, rows.rows);
        let expected = self.returned_length;
        if self.flight.is_empty() {
            return Err(ReturnFault::Unasked { got });
        }
        // A stage that sends again may cut rows in other frames than they were sent in.
        let most = self.sent_length.saturating_sub(expected);
        if got != expected || got_rows > most {
            return Err(ReturnFault::Order {
                got,
                got_rows,
                expected,
                most,
            });
        }
        let shape = Shape {
            from_stage: self.plan.stages_len(),
            embedding_length: self.plan.embedding_length,
            positions_max: self.plan.positions_max,
        };
        shape.check(rows, payload)?;
        let span = Span {
            position: got,
            rows: got_rows,
        };
        // Rows of guesses are of use together only, and nobody has a reason to part them.
        match self.tears_guesses(span) {
            true => Err(ReturnFault::Order {
                got,
                got_rows,
                expected,
                most,
            }),
            false => Ok(span),
        }
    }

    fn accept_return(&mut self, span: Span, payload: Bytes, now_ms: u64) {
        while let Some((sent, sent_ms)) = self.flight.pop_front() {
            if sent.end() > span.end() {
                let position = span.end();
                let rows = sent.end() - position;
                self.flight.push_front((Span { position, rows }, sent_ms));
                break;
            }
            if sent.end() == span.end() && !self.rebuilding {
                let lap_ms = now_ms.saturating_sub(sent_ms.max(self.moved_ms));
                self.pace.observe(self.lap_rows(sent), lap_ms);
            }
        }
        (self.moved_ms, self.rebuilding) = (now_ms, false);
        (self.suspected, self.doubts) = (false, 0);
        self.returned_length = span.end();
        self.trust();
        self.returned.push_back((span, payload));
    }

    /// What a lap counts as: one with guesses takes the place of one with a single row.
    pub(super) fn lap_rows(&self, span: Span) -> u32 {
        match span.end() > self.tokens_len() {
            true => 1,
            false => span.rows,
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
        let ours = at.ring == self.plan.ring && at.session == self.plan.session;
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
}
