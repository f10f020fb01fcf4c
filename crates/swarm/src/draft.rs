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

/// How many of the last tokens must have occurred before.
const MATCH_TOKENS: usize = 3;
/// By how much guessing must be faster, as predicted.
const GAIN_MIN: f64 = 1.05;
/// Steps without guesses between two trials, while guessing does not pay.
const TRIAL_EVERY: u32 = 256;
/// How sure the guesses of a trial are to be right, all of them.
const TRIAL_CHANCE: f64 = 0.5;
/// What is thought of a session's guesses before any is seen.
const CHANCE_FIRST: f64 = 0.3;
/// By how much one guess changes what is known of a session's.
const CHANCE_WEIGHT: f64 = 0.2;
/// By how much one step without guesses changes what such steps are known to take.
const PLAIN_WEIGHT: f64 = 0.2;
/// By how much one step with guesses changes its known cost. Trials are rare, and what they find is not to wait for the next.
const COST_WEIGHT: f64 = 0.5;

/// What followed the newest earlier occurrence of the last tokens: at most `most` tokens, none if there was no occurrence.
#[must_use]
pub fn look_up(text: &[i32], most: usize) -> &[i32] {
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

/// How often the guesses of one session are right.
#[derive(Debug, Clone)]
pub struct Drafting {
    /// The chance that a guess is right, when all before it are.
    chance: f64,
    /// What would have been guessed, had it been worth it.
    shadow: Option<i32>,
}

impl Default for Drafting {
    fn default() -> Self {
        Self {
            chance: CHANCE_FIRST,
            shadow: None,
        }
    }
}

impl Drafting {
    /// How many of these guesses are worth to be computed.
    #[must_use]
    pub fn worth(&mut self, guesses: &[i32], costs: &mut Costs) -> usize {
        let count = costs.choose(self.chance, guesses.len());
        self.shadow = guesses.first().copied().filter(|_| count == 0);
        count
    }

    /// Learns from the tokens that were drawn in a step with these guesses.
    pub fn learn(&mut self, guesses: &[i32], drawn: &[i32]) {
        let shadow = self.shadow.take();
        let guesses = shadow.as_slice().iter().chain(guesses);
        for (guess, token) in guesses.zip(drawn) {
            blend(&mut self.chance, f64::from(guess == token), CHANCE_WEIGHT);
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

    /// How many of `most` guesses to compute, each right with this chance when all before it are.
    fn choose(&mut self, chance: f64, most: usize) -> usize {
        let most = most.min(GUESSES_MAX);
        let (mut best, mut gain_best) = (0, GAIN_MIN);
        let (mut tokens, mut all_right) = (1.0, 1.0);
        let mut trial = 0;
        for guesses in 1..=most {
            all_right *= chance;
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
