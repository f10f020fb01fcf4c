//! The way of rows through head, ring and tail.

use super::{Effect, FRAMES_IN_FLIGHT_MAX, FinishReason, Phase, Session, SessionFault, Span};
use crate::frame::{check_payload, chunk_of, frame_rows};
use crate::retained::Record;
use crate::spill::Kept;
use bytes::Bytes;
use proto::host::{Draw, Drawn, Output, Role, Run};
use proto::ring::{HopBody, OpenSession, Rows, RowsKind};

impl Session {
    /// Opens the session along the ring; the first frame follows it on the same stream.
    pub(super) fn start(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.phase = Phase::Running;
        self.renewed_ms = now_ms;
        self.open(out);
    }

    /// Positions that the session will use at most.
    pub(super) fn positions_asked(&self) -> u32 {
        let prompt = self.plan.prompt.len() as u32;
        let used = prompt.saturating_add(self.plan.tokens_max);
        used.min(self.plan.positions_max)
    }

    fn open(&self, out: &mut Vec<Effect>) {
        let body = HopBody::Open(OpenSession {
            session: self.plan.session,
            epoch: self.epoch,
            positions_max: self.positions_asked(),
        });
        out.push(Effect::Forward {
            body,
            payload: Bytes::new(),
        });
    }

    /// Gives ring and engine what they can do next.
    pub(super) fn pump(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        self.send_due(now_ms, out);
        if self.phase == Phase::Running {
            out.extend(self.next_head());
        }
        if self.phase != Phase::Over {
            out.extend(self.next_tail());
            out.extend(self.next_shadow());
        }
    }

    fn next_head(&mut self) -> Option<Effect> {
        let known = self.head_length < self.known_len();
        if !known || self.head.is_some() || self.frames_in_flight() >= FRAMES_IN_FLIGHT_MAX {
            return None;
        }
        let span = self.next_span(self.head_length);
        self.head = Some(span);
        Some(Effect::RunHead(Run {
            session: self.plan.session,
            role: Role::Head,
            position: span.position,
            tokens: self.tokens_of(span),
            output: Output::Rows,
            scope: None,
            adapters: Vec::new(),
            guesses: Vec::new(),
        }))
    }

    fn next_tail(&mut self) -> Option<Effect> {
        if self.tail.is_some() {
            return None;
        }
        let (span, payload) = self.returned.pop_front()?;
        self.tail = Some(span);
        let guesses = match self.draws(span) {
            true => self.guesses.tokens.clone(),
            false => Vec::new(),
        };
        let run = Run {
            session: self.plan.session,
            role: Role::Tail,
            position: span.position,
            tokens: Vec::new(),
            output: self.tail_output(span),
            scope: None,
            adapters: Vec::new(),
            guesses,
        };
        Some(Effect::RunTail { run, payload })
    }

    /// A token is drawn behind the last token that is known. The head runs on it at once if its row will be needed.
    fn tail_output(&self, span: Span) -> Output {
        if !self.draws(span) {
            return Output::Nothing;
        }
        let more_wanted = self.tokens_drawn() + 1 < self.plan.tokens_max;
        let then_head = more_wanted && self.tokens_len() < self.plan.positions_max;
        Output::Token(Draw {
            sampling: self.plan.sampling,
            burst: 1,
            then_head,
        })
    }

    fn draws(&self, span: Span) -> bool {
        span.end() == self.known_len()
    }

    pub(super) fn head_done(
        &mut self,
        position: u32,
        rows: Bytes,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        let span = self.head.take().filter(|span| span.position == position);
        let span = span.ok_or_else(|| unasked("head", position))?;
        self.keep(span, rows)?;
        self.head_answered(out);
        Ok(())
    }

    /// Takes what came out of the head, wherever it was run.
    fn keep(&mut self, span: Span, output: Bytes) -> Result<(), SessionFault> {
        check_payload(&output, span.rows, self.plan.embedding_length, 0).map_err(|fault| {
            SessionFault::Engine {
                detail: fault.to_string(),
            }
        })?;
        self.head_length = span.end();
        let (position, rows) = (span.position, span.rows);
        self.retained.push(Record {
            position,
            rows,
            input: None,
            replaced: 0,
            output: Kept::Here(output.clone()),
        });
        self.retained
            .shrink(self.plan.retained_bytes_max, self.returned_length);
        Ok(())
    }

    /// Sends what this ring has not had: what only rebuilds caches at once, the rest a few frames at a time.
    fn send_due(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        while self.phase == Phase::Running && self.sent_length < self.head_length {
            let wanted = self.sent_length >= self.returned_length;
            if wanted && self.frames_in_flight() >= FRAMES_IN_FLIGHT_MAX {
                return;
            }
            let span = match self.guessed_span() {
                Some(Some(span)) => span,
                Some(None) => return,
                None => self.span_at(self.sent_length),
            };
            let (position, length) = (span.position, self.plan.embedding_length);
            let payload = self.retained.rows(position, span.rows, length);
            let payload = payload.expect("the head's outputs stay in memory");
            self.sent_length = span.end();
            self.guesses.reach = self.guesses.reach.max(span.end());
            let kind = match wanted {
                false => RowsKind::Replay,
                true if self.draws(span) => RowsKind::Decode,
                true => RowsKind::Prefill,
            };
            if wanted {
                self.flight.push_back((span, now_ms));
            }
            let guessed = span.end().saturating_sub(self.tokens_len());
            out.push(self.frame(span, (kind, guessed), payload));
        }
    }

    /// The next frame from `position` on. Rows that came back once go in frames of the grid; the others as they came
    /// out of the head.
    pub(super) fn span_at(&self, position: u32) -> Span {
        let grid = frame_rows(self.plan.embedding_length);
        let end = match position < self.returned_length {
            true => (position + grid - position % grid).min(self.returned_length),
            false => {
                let record = self.retained.around(position);
                record.expect("what is on its way is kept").end()
            }
        };
        let rows = end - position;
        Span { position, rows }
    }

    /// A frame for stage 1.
    fn frame(&self, span: Span, (kind, guessed): (RowsKind, u32), payload: Bytes) -> Effect {
        let body = HopBody::Rows(Rows {
            session: self.plan.session,
            epoch: self.epoch,
            position: span.position,
            rows: span.rows,
            chunk: chunk_of(span.position),
            stage: 0,
            kind,
            guessed,
        });
        Effect::Forward { body, payload }
    }

    pub(super) fn tail_done(
        &mut self,
        position: u32,
        (drawn, head_rows): (Vec<Drawn>, Option<Bytes>),
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        let span = self.tail.take().filter(|span| span.position == position);
        let span = span.ok_or_else(|| unasked("tail", position))?;
        if !self.draws(span) && drawn.is_empty() {
            self.tail_length = span.end();
            self.acknowledge(out);
            return Ok(());
        }
        if !self.draws(span) || !self.follows(&drawn) {
            let detail = format!("it answered {drawn:?} to the tail's run at {position}");
            return Err(SessionFault::Engine { detail });
        }
        self.judge_guesses(span, &drawn, now_ms);
        self.acknowledge(out);
        self.take_tokens(drawn, head_rows, out)?;
        self.guess();
        Ok(())
    }

    /// Whether these are tokens behind those that are known: guesses that were right, and one more.
    fn follows(&self, drawn: &[Drawn]) -> bool {
        let Some((_, right)) = drawn.split_last() else {
            return false;
        };
        let right = right.iter().map(|drawn| (drawn.token, drawn.end));
        let guesses = self.guesses.tokens.iter().map(|token| (*token, false));
        let mut places = (self.tokens_len()..).zip(drawn);
        right.eq(guesses.take(drawn.len() - 1)) && places.all(|(at, drawn)| drawn.position == at)
    }

    fn take_tokens(
        &mut self,
        drawn: Vec<Drawn>,
        head_rows: Option<Bytes>,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        let mut ended = false;
        for drawn in drawn {
            ended = drawn.end;
            self.tokens.push(drawn.token);
            out.push(Effect::Token(drawn));
        }
        if ended {
            self.finish(FinishReason::End, out);
        } else if self.tokens_drawn() >= self.plan.tokens_max {
            self.finish(FinishReason::Length, out);
        } else if self.tokens_len() > self.plan.positions_max {
            self.finish(FinishReason::Context, out);
        } else if let Some(rows) = head_rows {
            let position = self.tokens_len() - 1;
            return self.keep(Span { position, rows: 1 }, rows);
        }
        Ok(())
    }
}

fn unasked(part: &str, position: u32) -> SessionFault {
    let detail = format!("it answered for the {part} at position {position} and was not asked");
    SessionFault::Engine { detail }
}
