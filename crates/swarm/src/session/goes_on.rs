//! Under a new epoch: what every stage keeps, and from where it sends again.

use super::{Effect, PeerFault, Phase, Rebuild, RebuiltStage, Session, SessionFault, Span};
use crate::frame::last_row;
use proto::ids::Hash;
use proto::ring::{EpochAnswer, LinkBody, Resume};

impl Session {
    pub(super) fn epoch_answered(
        &mut self,
        stage: u32,
        answer: EpochAnswer,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        let (at, most) = (self.at(), self.head_length.max(self.guesses.reach));
        let Phase::Resuming { answers, .. } = &mut self.phase else {
            return Ok(());
        };
        let slot = (stage as usize).checked_sub(1);
        let Some(slot) = slot.and_then(|slot| answers.get_mut(slot)) else {
            return Ok(());
        };
        if answer.at != at {
            return Ok(());
        }
        let length = answer.length;
        if length > most {
            return self.blame(stage, PeerFault::Boasts { length, most });
        }
        *slot = Some(answer);
        self.settle(now_ms, out);
        Ok(())
    }

    /// Goes on, once all stages have answered; from the tokens, if too little is kept, and then not before the engine
    /// has answered what it was asked.
    pub(super) fn settle(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Phase::Resuming { answers, .. } = &self.phase else {
            return;
        };
        let Some(told) = answers.iter().copied().collect::<Option<Vec<_>>>() else {
            return;
        };
        if !self.guesses.tokens.is_empty() {
            // The tail is about to say which of them were right.
            return;
        }
        let answers: Vec<EpochAnswer> = told.iter().map(|told| self.sure_of(told)).collect();
        let returned = self.returned_length;
        let mut keep = self.kept(&answers, returned);
        let from_tokens = keep[0] < self.retained.from().unwrap_or(self.head_length);
        if from_tokens {
            if self.head.is_some() || self.tail.is_some() || !self.returned.is_empty() {
                return;
            }
            self.forget_all(out);
            keep.fill(0);
        }
        let lengths = told.iter().map(|told| told.length.min(self.tokens_len()));
        let rebuild = self.rebuild(&lengths.collect::<Vec<_>>(), returned, &keep, from_tokens);
        self.go_on(&keep, now_ms, out);
        out.push(Effect::Resumed(rebuild));
    }

    /// What a stage says, but for rows that may be of guesses.
    fn sure_of(&self, told: &EpochAnswer) -> EpochAnswer {
        let sure = self.sure_length().min(self.head_length);
        match told.length > sure {
            true => EpochAnswer {
                length: sure,
                input: None,
                output: None,
                ..*told
            },
            false => *told,
        }
    }

    /// What each stage keeps, from stage 1, and last what is here. From the last one up: who retains what its successor lacks
    /// keeps all, and who does not keeps as much as its successor.
    fn kept(&self, answers: &[EpochAnswer], here: u32) -> Vec<u32> {
        let mut keep = vec![here; answers.len() + 1];
        for at in (0..answers.len()).rev() {
            let (answer, lacks_from) = (&answers[at], keep[at + 1]);
            let before = match at.checked_sub(1) {
                Some(before) => answers[before]
                    .output
                    .filter(|_| answers[before].length == answer.length),
                None => self.head_hash(answer.length),
            };
            let other_rows =
                before.is_some_and(|row| answer.input.is_some_and(|taken| taken != row));
            keep[at] = match answer {
                _ if other_rows => 0,
                answer if answer.length <= lacks_from || answer.retained_from <= lacks_from => {
                    answer.length
                }
                _ => lacks_from,
            };
        }
        keep
    }

    /// BLAKE3 of the head's row before `length`, if it is kept.
    fn head_hash(&self, length: u32) -> Option<Hash> {
        let position = length.checked_sub(1)?;
        let kept = self.retained.around(position).is_some();
        let row = kept.then(|| self.retained.rows(position, 1, self.plan.embedding_length));
        Some(last_row(&row?.ok()?, self.plan.embedding_length))
    }

    /// Everything but the tokens.
    fn forget_all(&mut self, out: &mut Vec<Effect>) {
        self.retained.clear();
        (self.head_length, self.tail_length) = (0, 0);
        (self.returned_length, self.acked) = (0, 0);
        out.push(Effect::TrimCaches { length: 0 });
    }

    fn rebuild(&self, lengths: &[u32], returned: u32, keep: &[u32], from_tokens: bool) -> Rebuild {
        let stage = |at: usize| {
            // What is behind a place has gone through it.
            let behind = lengths[at + 1..].iter().max().copied().unwrap_or(0);
            let through = behind.max(returned);
            RebuiltStage {
                replayed: through.saturating_sub(lengths[at]),
                recomputed: lengths[at].saturating_sub(keep[at]),
            }
        };
        let above = std::iter::once(self.sent_length.min(self.head_length).max(keep[0]));
        let above = above.chain(keep.iter().copied());
        let resent = above
            .zip(keep)
            .map(|(has, lacks)| u64::from(has.saturating_sub(*lacks)));
        Rebuild {
            stages: (0..lengths.len()).map(stage).collect(),
            rows_resent: resent.sum(),
            from_tokens,
        }
    }

    fn go_on(&mut self, keep: &[u32], now_ms: u64, out: &mut Vec<Effect>) {
        self.phase = Phase::Running;
        (self.moved_ms, self.rebuilding) = (now_ms, true);
        (self.suspected, self.doubts) = (false, 0);
        let (at, wanted) = (self.at(), self.returned_length);
        for (stage, pair) in (1..).zip(keep.windows(2)) {
            let body = LinkBody::Resume(Resume {
                at,
                stage,
                keep: pair[0],
                from: pair[1],
                wanted,
            });
            out.push(Effect::Tell { stage, body });
        }
        // What is further down comes back without being sent from here.
        self.sent_length = wanted;
        while self.sent_length < keep[0] {
            let Span { position, rows } = self.span_at(self.sent_length);
            let rows = rows.min(keep[0] - position);
            self.flight.push_back((Span { position, rows }, now_ms));
            self.sent_length += rows;
        }
        self.sent_length = keep[0];
    }
}
