//! Tokens that are guessed to follow, and go round with the one that was drawn.

use super::{Effect, Phase, Session, Span};
use crate::draft::{Costs, Drafting, look_up};
use crate::frame::frame_rows;
use proto::host::{Drawn, GUESSES_MAX};
use std::time::Duration;

/// What is guessed, and what is known of guessing.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    /// Those behind the newest token; none of them is known to be right.
    pub(super) tokens: Vec<i32>,
    drafting: Drafting,
    costs: Costs,
    /// When the newest token was drawn, if its lap is an ordinary one.
    drawn_ms: Option<u64>,
    /// Nobody else uses the ring.
    lone: bool,
    /// From here on stages may have rows of wrong guesses, until a row from here on has come back.
    doubtful: Option<u32>,
    /// Where the head's cache is to be cut once the engine has answered.
    cut_at: Option<u32>,
    /// The end of the rows that were ever sent.
    pub(super) reach: u32,
    /// How many went round, and how many of them were right.
    pub(super) made: u32,
    pub(super) right: u32,
}

impl Guesses {
    pub(super) fn new(costs: Costs) -> Self {
        Self {
            costs,
            ..Self::default()
        }
    }
}

impl Session {
    /// Says whether the ring computes for nobody else. Until it is said, others are taken to be there.
    pub fn set_lone(&mut self, lone: bool) {
        self.guesses.lone = lone;
    }

    /// What laps with guesses were found to cost.
    #[must_use]
    pub fn costs(&self) -> &Costs {
        &self.guesses.costs
    }

    /// Guesses what follows the token that was just drawn, if that pays.
    pub(super) fn guess(&mut self) {
        let calm = self.phase == Phase::Running && !self.rebuilding && self.guesses.lone;
        if !calm {
            self.guesses.drawn_ms = None;
            return;
        }
        let position = self.tokens_len() - 1;
        let grid = frame_rows(self.plan.embedding_length);
        // All rows travel in one frame, have a place in the caches, and give no more tokens than are wanted.
        let room = [
            self.plan.guesses_max,
            GUESSES_MAX as u32,
            grid - 1 - position % grid,
            self.plan.positions_max.saturating_sub(self.tokens_len()),
            (self.plan.tokens_max - self.tokens_drawn()).saturating_sub(1),
        ];
        let most = room.into_iter().min().unwrap_or(0);
        let Guesses {
            drafting, costs, ..
        } = &mut self.guesses;
        let guess = look_up(&self.tokens, most as usize);
        let worth = drafting.worth(&guess, costs);
        self.guesses.tokens = guess.tokens[..worth].to_vec();
    }

    /// Takes in what was drawn behind the rows of `span` and the guesses in it.
    pub(super) fn judge_guesses(&mut self, span: Span, drawn: &[Drawn], now_ms: u64) {
        let guesses = std::mem::take(&mut self.guesses.tokens);
        let right = drawn.len() as u32 - 1;
        self.tail_length = span.end() - guesses.len() as u32 + right;
        let tokens: Vec<i32> = drawn.iter().map(|drawn| drawn.token).collect();
        self.guesses.drafting.learn(&guesses, &tokens);
        if let Some(begun_ms) = self.guesses.drawn_ms.replace(now_ms)
            && self.guesses.lone
        {
            let took = Duration::from_millis(now_ms.saturating_sub(begun_ms));
            self.guesses.costs.learn(guesses.len(), took);
        }
        self.guesses.made += guesses.len() as u32;
        self.guesses.right += right;
        if right < guesses.len() as u32 {
            // The engine has taken the rows back by itself.
            self.forget_guesses(self.tail_length);
            self.returned_length = self.tail_length;
        }
    }

    /// No more comes of guesses that have not come back: their ring is lost.
    pub(super) fn drop_guesses(&mut self, out: &mut Vec<Effect>) {
        let sure = self.tokens_len();
        self.guesses.drawn_ms = None;
        if self.guesses.tokens.is_empty() || self.returned_length >= sure {
            return;
        }
        self.guesses.tokens.clear();
        match self.head {
            // A cache is cut when the engine is done with it.
            Some(_) => self.guesses.cut_at = Some(sure),
            None => self.cut_head(sure, out),
        }
        self.forget_guesses(sure);
    }

    /// The head has answered; what it made of guesses that were dropped meanwhile goes.
    pub(super) fn head_answered(&mut self, out: &mut Vec<Effect>) {
        if let Some(length) = self.guesses.cut_at.take() {
            self.cut_head(length, out);
        }
    }

    /// Takes rows of guesses back from the head.
    fn cut_head(&mut self, length: u32, out: &mut Vec<Effect>) {
        if self.head_length > length {
            self.forget_guesses(length);
            out.push(Effect::TrimCaches { length });
        }
    }

    /// Rows from `length` on are of no use; stages may have some.
    fn forget_guesses(&mut self, length: u32) {
        self.head_length = self.head_length.min(length);
        self.retained.cut(length, self.plan.embedding_length);
        if self.guesses.reach > length {
            let doubtful = self.guesses.doubtful.unwrap_or(length);
            self.guesses.doubtful = Some(doubtful.min(length));
        }
        self.sent_length = self.sent_length.min(length);
    }

    /// Rows that came back went through every stage.
    pub(super) fn trust(&mut self) {
        let returned = self.returned_length;
        self.guesses.doubtful = self.guesses.doubtful.filter(|from| returned <= *from);
    }

    /// Up to where a stage's rows are of tokens that were drawn.
    pub(super) fn sure_length(&self) -> u32 {
        let doubtful = self.guesses.doubtful.unwrap_or(u32::MAX);
        self.tokens_len().min(doubtful)
    }

    /// The frame of the newest token and the guesses behind it, if that is the next; `Some(None)` while the head works on it.
    pub(super) fn guessed_span(&self) -> Option<Option<Span>> {
        let position = self.tokens_len() - 1;
        if self.guesses.tokens.is_empty() || self.sent_length != position {
            return None;
        }
        let rows = 1 + self.guesses.tokens.len() as u32;
        let ready = self.head_length == self.known_len();
        Some(ready.then_some(Span { position, rows }))
    }

    /// What the head takes at `span`.
    pub(super) fn tokens_of(&self, span: Span) -> Vec<i32> {
        let all = self.tokens.iter().chain(&self.guesses.tokens);
        let from = all.skip(span.position as usize);
        from.take(span.rows as usize).copied().collect()
    }

    /// Whether rows that came back are some of those that were sent with guesses, and not all of them.
    pub(super) fn tears_guesses(&self, span: Span) -> bool {
        let guessed = !self.guesses.tokens.is_empty() && span.end() >= self.tokens_len();
        guessed && span.end() != self.known_len()
    }
}
