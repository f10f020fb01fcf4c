//! Drawing a token from logits, as a pure function of (logits, settings, position).
//!
//! # Story
//!
//! The truth of a request lives at its coordinator, and part of it is the sampler: whoever knows the seed and a position
//! can repeat the draw, on any machine. So there is no state that advances from token to token; the random number of a
//! position is word 0 of the ChaCha8 stream whose key holds the seed and whose stream number is the position
//! ([`number`]). And no step depends on the platform's mathematics library or on the order of a sum: `e^x` is computed
//! here with the four basic operations of IEEE 754, and a token's weight is a whole number ([`weight`]).
//!
//! The order of the settings is fixed:
//!
//! 1. `temperature` = 0 takes the largest logit, of equal ones the lowest id. The rest is skipped.
//! 2. `top_k` keeps the k largest logits, of equal ones the lower ids.
//! 3. The softmax of what is left, logits divided by `temperature`.
//! 4. `top_p` keeps the smallest set of most probable tokens whose probabilities add up to at least `top_p`; never less
//!    than one token.
//! 5. The number of the position picks one of them, in the order of their ids, with its share.
//!
//! A logit that is NaN or −∞ is no candidate. +∞ is larger than everything else; several of them share evenly.

mod candidate;
#[cfg(test)]
mod tests;
mod weight;

use candidate::{Candidate, keep_best};
use proto::model::Sampling;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weight::weight;

/// The longest row of logits, in tokens; the largest published vocabularies have about 260,000. It also bounds the sum
/// of all weights below 2⁶³.
pub const VOCABULARY_MAX: usize = 1 << 22;

/// What separates this use of ChaCha8 from any other with the same seed; fills the key behind the seed.
const KEY_LABEL: &[u8; 24] = b"myzel counter sampler v1";
/// How many candidates are ranked first in search of the `top_p` set; most sets are smaller.
const NUCLEUS_FIRST: usize = 64;
/// By how much the number grows when the set is larger.
const NUCLEUS_GROWTH: usize = 8;

/// Why no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// There are no logits, or each is NaN or −∞.
    #[error(
        "none of the {vocabulary} logits is a number to choose; the model's output is unusable"
    )]
    NoCandidate {
        /// How many logits there were.
        vocabulary: usize,
    },
    /// More logits than [`VOCABULARY_MAX`].
    #[error("{vocabulary} logits, at most {VOCABULARY_MAX} are supported")]
    TooManyLogits {
        /// How many logits there were.
        vocabulary: usize,
    },
    /// The temperature is negative or not finite.
    #[error("temperature {0} is outside 0 to {max}", max = f32::MAX)]
    BadTemperature(f32),
    /// `top_p` is not a share.
    #[error("top_p {0} is outside 0 to 1")]
    BadTopP(f32),
}

/// The random number of a position: uniform over `u64`, independent between positions and between seeds.
///
/// ChaCha with 8 rounds (<https://cr.yp.to/chacha.html>), 64-bit counter 0, 64-bit stream number `position`; the key is
/// the seed in little-endian order followed by a fixed label.
#[must_use]
pub fn number(seed: u64, position: u32) -> u64 {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(KEY_LABEL);
    let mut stream = ChaCha8Rng::from_seed(key);
    stream.set_stream(u64::from(position));
    stream.next_u64()
}

/// Draws once. [`Sampler`] does the same and keeps its buffers between draws.
///
/// # Errors
///
/// [`SampleError`].
pub fn sample(logits: &[f32], sampling: &Sampling, position: u32) -> Result<i32, SampleError> {
    Sampler::new().sample(logits, sampling, position)
}

/// Buffers for draws, reused from one to the next. They hold nothing that a later draw depends on.
///
/// ```
/// use proto::model::Sampling;
/// use swarm::sampler::Sampler;
///
/// let mut sampler = Sampler::new();
/// let logits = [0.5, 3.0, -1.0];
/// assert_eq!(sampler.sample(&logits, &Sampling::GREEDY, 7), Ok(1));
///
/// let warm = Sampling { temperature: 0.8, top_k: 0, top_p: 1.0, seed: 42 };
/// assert_eq!(sampler.sample(&logits, &warm, 7), sampler.sample(&logits, &warm, 7));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    /// Tokens that can be drawn, by id.
    candidates: Vec<Candidate>,
    /// The best of them, where `top_p` asks.
    best: Vec<Candidate>,
}

impl Sampler {
    /// A sampler that has reserved nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Draws the token of `position` from the logits of the row before it.
    ///
    /// # Errors
    ///
    /// [`SampleError`].
    pub fn sample(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<i32, SampleError> {
        check_settings(logits, sampling)?;
        let peak = largest(logits).ok_or(SampleError::NoCandidate {
            vocabulary: logits.len(),
        })?;
        if sampling.temperature == 0.0 {
            return Ok(peak.token());
        }
        let total = self.weigh(logits, peak.logit, sampling);
        let (total, last) = self.nucleus(total, sampling.top_p);
        // The high half of a 128-bit product maps the number to 0..total with an error below 2⁻⁶⁴.
        let number = number(sampling.seed, position);
        let mut left = ((u128::from(number) * u128::from(total)) >> 64) as u64;
        let drawn = self
            .candidates
            .iter()
            .filter(|candidate| last.is_none_or(|last| candidate.rank(&last).is_le()))
            .find(|candidate| match left.checked_sub(candidate.weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
        Ok(drawn
            .expect("the number is below the sum of the weights")
            .token())
    }

    /// Lists the candidates that `top_k` keeps, with their weights; returns the sum.
    fn weigh(&mut self, logits: &[f32], peak: f32, sampling: &Sampling) -> u64 {
        let Self { candidates, .. } = self;
        let every = logits.iter().enumerate().map(Candidate::unweighted);
        let temperature = f64::from(sampling.temperature);
        let weighted = |candidate: Candidate| Candidate {
            weight: weight(candidate.logit, peak, temperature),
            ..candidate
        };
        match sampling.top_k as usize {
            k if k > 0 && k < logits.len() => {
                keep_best(candidates, every.filter(Candidate::is_possible), k);
                candidates.sort_unstable_by_key(|candidate| candidate.id);
                candidates
                    .iter_mut()
                    .for_each(|candidate| *candidate = weighted(*candidate));
            }
            _ => {
                candidates.clear();
                candidates.extend(every.map(weighted).filter(|candidate| candidate.weight > 0));
            }
        }
        candidates.iter().map(|candidate| candidate.weight).sum()
    }

    /// The least probable candidate that `top_p` keeps, and the sum of the weights down to it.
    fn nucleus(&mut self, total: u64, top_p: f32) -> (u64, Option<Candidate>) {
        if top_p >= 1.0 {
            return (total, None);
        }
        let wanted = ((f64::from(top_p) * total as f64).ceil() as u64).clamp(1, total);
        let mut ranked = NUCLEUS_FIRST;
        loop {
            keep_best(&mut self.best, self.candidates.iter().copied(), ranked);
            self.best.sort_unstable_by(Candidate::rank);
            let mut sum = 0;
            for candidate in &self.best {
                sum += candidate.weight;
                if sum >= wanted {
                    return (sum, Some(*candidate));
                }
            }
            ranked *= NUCLEUS_GROWTH;
        }
    }
}

fn check_settings(logits: &[f32], sampling: &Sampling) -> Result<(), SampleError> {
    if logits.len() > VOCABULARY_MAX {
        return Err(SampleError::TooManyLogits {
            vocabulary: logits.len(),
        });
    }
    if !sampling.temperature.is_finite() || sampling.temperature < 0.0 {
        return Err(SampleError::BadTemperature(sampling.temperature));
    }
    if !(0.0..=1.0).contains(&sampling.top_p) {
        return Err(SampleError::BadTopP(sampling.top_p));
    }
    Ok(())
}

/// The largest logit, of equal ones the lowest id. Comparisons with NaN are false, so NaN never wins.
fn largest(logits: &[f32]) -> Option<Candidate> {
    let mut found = None;
    let mut best = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best {
            best = logit;
            found = Some(id);
        }
    }
    found.map(|id| Candidate::unweighted((id, &best)))
}
