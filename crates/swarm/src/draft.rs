//! Guessing the next tokens from the text so far, and whether guessing pays.
//!
//! Prompt look-up: what followed the last tokens when they occurred before is likely to follow again (code, quotations,
//! summaries). The guesses are computed together with the token in one step; those that the sampler would have drawn anyway
//! stay. In exact mode rows do not depend on the shape of the step, so the answer is the same as without.
//!
//! How many tokens are guessed follows from two measurements. How often guesses are right is seen in every session, without
//! any cost: also where nothing is guessed, what would have been is compared with what was drawn. What a step with
//! guesses costs is the machine's and the model's: where memory is the limit, further rows are nearly free; where
//! computing is, each costs as much as a step of its own, and guessing hardly ever pays. Over a ring a step is a lap of it,
//! and where distance is the limit, further rows are nearly free again.

use proto::host::GUESSES_MAX;
use std::time::Duration;

/// How many of the last tokens must have occurred before, at least.
const MATCH_TOKENS: usize = 3;
/// Of more than these it is not asked whether they occurred before.
const MATCH_TOKENS_MAX: usize = 16;
/// By how much guessing must be faster, as predicted.
const GAIN_MIN: f64 = 1.05;
/// Steps without guesses between two trials, while guessing does not pay.
const TRIAL_EVERY: u32 = 256;
/// How sure the guesses of a trial are to be right, all of them.
const TRIAL_CHANCE: f64 = 0.5;
/// What is thought of a session's guesses before any is seen: by how many tokens before them were the same, from
/// [`MATCH_TOKENS`], 5 and 9 on. What has been the same for long goes on to be.
const CHANCES_FIRST: [f64; 3] = [0.3, 0.5, 0.7];
/// By how much one guess changes what is known of a session's.
const CHANCE_WEIGHT: f64 = 0.2;
/// By how much one step without guesses changes what such steps are known to take.
const PLAIN_WEIGHT: f64 = 0.2;
/// By how much one step with guesses changes its known cost. Trials are rare, and what they find is not to wait for the next.
const COST_WEIGHT: f64 = 0.5;

/// What is likely to follow a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess<'a> {
    /// The next tokens; none where nothing is likely.
    pub tokens: &'a [i32],
    /// How many tokens were the same where these followed.
    matched: usize,
}

/// What followed where the last tokens occurred before, at most `most` tokens: of all such places the one where most were the
/// same, and of those the newest.
#[must_use]
pub fn look_up(text: &[i32], most: usize) -> Guess<'_> {
    let (mut matched, mut behind) = (MATCH_TOKENS - 1, text.len());
    for end in (MATCH_TOKENS..text.len()).rev() {
        let pairs = text[..end].iter().rev().zip(text.iter().rev());
        let same = pairs.take(MATCH_TOKENS_MAX).take_while(|(a, b)| a == b);
        let same = same.count();
        if same > matched {
            (matched, behind) = (same, end);
        }
        if matched == MATCH_TOKENS_MAX {
            break;
        }
    }
    Guess {
        tokens: &text[behind..text.len().min(behind + most)],
        matched,
    }
}

/// How often the guesses of one session are right.
#[derive(Debug, Clone)]
pub struct Drafting {
    /// The chance that a guess is right, when all before it are, by how many tokens were the same.
    chances: [f64; CHANCES_FIRST.len()],
    /// How many were, before the newest guesses.
    matched: usize,
    /// What would have been guessed, had it been worth it.
    shadow: Option<i32>,
}

impl Default for Drafting {
    fn default() -> Self {
        Self {
            chances: CHANCES_FIRST,
            matched: 0,
            shadow: None,
        }
    }
}

/// The place in [`CHANCES_FIRST`].
fn class(matched: usize) -> usize {
    match matched {
        0..5 => 0,
        5..9 => 1,
        _ => 2,
    }
}

impl Drafting {
    /// How many of these guesses are worth to be computed.
    #[must_use]
    pub fn worth(&mut self, guess: &Guess<'_>, costs: &mut Costs) -> usize {
        self.matched = guess.matched;
        let chance = |at: usize| self.chances[class(guess.matched + at)];
        let count = costs.choose(chance, guess.tokens.len());
        self.shadow = guess.tokens.first().copied().filter(|_| count == 0);
        count
    }

    /// Learns from the tokens that were drawn in a step with these guesses.
    pub fn learn(&mut self, guesses: &[i32], drawn: &[i32]) {
        let shadow = self.shadow.take();
        let guesses = shadow.as_slice().iter().chain(guesses);
        for (at, (guess, token)) in guesses.zip(drawn).enumerate() {
            let known = &mut self.chances[class(self.matched + at)];
            blend(known, f64::from(guess == token), CHANCE_WEIGHT);
        }
    }
}

/// What steps with guesses cost here, as measured, whichever session they are of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    /// Seconds of a step without.
    plain_s: Option<f64>,
    /// A step with one guess, two and so on, in steps without.
    drafted: [Option<f64>; GUESSES_MAX],
    /// Steps without guesses until a trial.
    rest: u32,
}

impl Costs {
    /// Learns from a step that computed one row of one session, and so many guesses.
    pub fn learn(&mut self, guesses: usize, took: Duration) {
        let took = took.as_secs_f64();
        let (known, new, weight) = match (guesses, self.plain_s) {
            (0, _) => {
                self.rest = self.rest.saturating_sub(1);
                (&mut self.plain_s, took, PLAIN_WEIGHT)
            }
            (guesses, Some(plain)) if guesses <= GUESSES_MAX && plain > 0.0 => {
                (&mut self.drafted[guesses - 1], took / plain, COST_WEIGHT)
            }
            _ => return,
        };
        match known {
            Some(known) => blend(known, new, weight),
            None => *known = Some(new),
        }
    }

    /// How many of `most` guesses to compute, of which each is right with its chance when all before it are.
    fn choose(&mut self, chance: impl Fn(usize) -> f64, most: usize) -> usize {
        let most = most.min(GUESSES_MAX);
        let (mut best, mut gain_best) = (0, GAIN_MIN);
        let (mut tokens, mut all_right) = (1.0, 1.0);
        let mut trial = 0;
        for guesses in 1..=most {
            all_right *= chance(guesses - 1);
            tokens += all_right;
            if all_right >= TRIAL_CHANCE {
                trial = guesses;
            }
            let gain = self.of(guesses).map_or(0.0, |cost| tokens / cost);
            if gain > gain_best {
                (best, gain_best) = (guesses, gain);
            }
        }
        if best == 0 && trial > 0 && self.rest == 0 && self.plain_s.is_some() {
            self.rest = TRIAL_EVERY;
            return trial;
        }
        best
    }

    /// A step with so many guesses, in steps without; from the nearest that is known, as if each guess cost the same.
    fn of(&self, guesses: usize) -> Option<f64> {
        let known = self.drafted.iter().enumerate();
        let known = known.filter_map(|(at, cost)| Some((at + 1, (*cost)?)));
        let (count, cost) = known.min_by_key(|(count, _)| count.abs_diff(guesses))?;
        Some(1.0 + (cost - 1.0) * guesses as f64 / count as f64)
    }
}

fn blend(known: &mut f64, new: f64, weight: f64) {
    *known += weight * (new - *known);
}

#[cfg(test)]
mod tests;
