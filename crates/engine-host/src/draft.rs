//! Guessing the next tokens from the text so far, and whether guessing pays.
//!
//! Prompt look-up: what followed the last tokens when they occurred before is likely to follow again (code, quotations,
//! summaries). The guesses are computed together with the token in one step; those that the sampler would have drawn anyway
//! stay. In exact mode rows do not depend on the shape of the step, so the answer is the same as without.
//!
//! How many tokens are guessed follows from what it brought: the rate with guesses is measured against the rate without.

use std::time::Duration;

/// How many of the last tokens must have occurred before.
const MATCH_TOKENS: usize = 3;
/// The most tokens of one guess: a step of so many rows and one more costs at most a few steps of one row.
pub(crate) const DRAFT_TOKENS_MAX: usize = 8;
/// Tokens without a guess after guessing did not pay; each further time twice as many.
const REST_TOKENS_MIN: u32 = 16;
/// The longest rest, in tokens.
const REST_TOKENS_MAX: u32 = 512;
/// By how much one step changes a measured rate.
const WEIGHT: f64 = 0.2;

/// What followed the newest earlier occurrence of the last tokens: at most `most` tokens, none if there was no occurrence.
pub(crate) fn look_up(text: &[i32], most: usize) -> &[i32] {
    let Some(start) = text.len().checked_sub(MATCH_TOKENS) else {
        return &[];
    };
    let last = &text[start..];
    let earlier = text[..text.len() - 1].windows(MATCH_TOKENS);
    match earlier.rev().position(|window| window == last) {
        Some(back) => {
            let behind = text.len() - 1 - back;
            &text[behind..text.len().min(behind + most)]
        }
        None => &[],
    }
}

/// Decides how many tokens to guess in one session.
#[derive(Debug, Clone)]
pub(crate) struct Drafting {
    most: usize,
    /// Seconds a token, without guesses and with.
    plain_s: Option<f64>,
    drafted_s: Option<f64>,
    rest: u32,
    next_rest: u32,
}

impl Default for Drafting {
    fn default() -> Self {
        Self {
            most: DRAFT_TOKENS_MAX / 2,
            plain_s: None,
            drafted_s: None,
            rest: 0,
            next_rest: REST_TOKENS_MIN,
        }
    }
}

impl Drafting {
    /// The most tokens to guess now; 0 while guessing does not pay, or before a step without is measured.
    pub(crate) fn most(&self) -> usize {
        if self.rest > 0 || self.plain_s.is_none() {
            0
        } else {
            self.most
        }
    }

    /// A step without guesses.
    pub(crate) fn plain(&mut self, took: Duration) {
        self.rest = self.rest.saturating_sub(1);
        blend(&mut self.plain_s, took.as_secs_f64());
    }

    /// A step with `drafted` guesses of which `right` were right.
    pub(crate) fn drafted(&mut self, drafted: usize, right: usize, took: Duration) {
        blend(&mut self.drafted_s, took.as_secs_f64() / (right + 1) as f64);
        self.most = if right == drafted {
            (self.most * 2).min(DRAFT_TOKENS_MAX)
        } else {
            (right + 1).min(DRAFT_TOKENS_MAX)
        };
        if self.drafted_s > self.plain_s {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST_TOKENS_MAX);
            self.drafted_s = None;
        } else {
            self.next_rest = REST_TOKENS_MIN;
        }
    }
}

fn blend(rate: &mut Option<f64>, sample: f64) {
    *rate = Some(rate.map_or(sample, |old| old + WEIGHT * (sample - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_last_time_is_guessed() {
        let check = |text: &[i32], most: usize, expected: &[i32]| {
            assert_eq!(look_up(text, most), expected, "{text:?}");
        };
        check(&[1, 2, 3, 4, 5, 6, 1, 2, 3], 3, &[4, 5, 6]);
        check(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 2, &[5, 1]);
        check(&[1, 2, 3, 4, 1, 2, 3], 9, &[4, 1, 2, 3]);
        check(&[7, 7, 7, 7], 9, &[7]);
        check(&[1, 2, 3, 4, 2, 3], 9, &[]);
        check(&[1, 2, 3], 9, &[]);
        check(&[1, 2], 9, &[]);
        check(&[], 9, &[]);
    }

    const STEP: Duration = Duration::from_millis(10);

    #[test]
    fn right_guesses_grow_and_wrong_ones_rest() {
        let mut drafting = Drafting::default();
        assert_eq!(drafting.most(), 0, "nothing to compare with yet");
        drafting.plain(STEP);
        assert_eq!(drafting.most(), 4);
        drafting.drafted(4, 4, 2 * STEP);
        assert_eq!(drafting.most(), DRAFT_TOKENS_MAX);
        drafting.drafted(8, 2, STEP);
        assert_eq!(drafting.most(), 3);
        for _ in 0..9 {
            drafting.drafted(3, 0, 3 * STEP);
        }
        assert_eq!(drafting.most(), 0);
        for _ in 0..REST_TOKENS_MAX {
            drafting.plain(STEP);
        }
        assert_eq!(drafting.most(), 1, "it is tried again");
    }

    #[test]
    fn the_rest_grows_while_guessing_does_not_pay() {
        let mut drafting = Drafting::default();
        drafting.plain(STEP);
        let mut rests = Vec::new();
        for _ in 0..7 {
            drafting.drafted(1, 0, 2 * STEP);
            let mut rest = 0;
            while drafting.most() == 0 {
                drafting.plain(STEP);
                rest += 1;
            }
            rests.push(rest);
        }
        assert_eq!(rests, [16, 32, 64, 128, 256, 512, 512]);
    }
}
