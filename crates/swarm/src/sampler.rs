//! Drawing a token from logits, as a pure function of (logits, settings, position).
//!
//! # Story
//!
//! The truth of a request lives at its coordinator, and part of it is the sampler: whoever knows the seed and a position
//! can repeat the draw, on any machine. So there is no state that advances from token to token; the random number of a
//! position is word 0 of the ChaCha8 stream whose key holds the seed and whose stream number is the position
//! ([`number`]); word 1 is there for a second draw at the same position. And no step depends on the platform's mathematics library or on the order of a sum: `e^x` is computed
//! here with the four basic operations of IEEE 754, and a token's weight is a whole number of 2⁻⁴⁰ths.
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

use candidate::{Candidate, keep_best, largest};
use proto::model::Sampling;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use weight::Scale;

/// The longest row of logits, in tokens; the largest published vocabularies have about 260,000. It also bounds the sum
/// of all weights below 2⁶³.
pub const VOCABULARY_MAX: usize = 1 << 22;

/// What separates this use of ChaCha8 from any other with the same seed; fills the key behind the seed.
const KEY_LABEL: &[u8; 24] = b"myzel counter sampler v1";
/// How many candidates are ranked first in search of the `top_p` set; most sets are smaller.
const NUCLEUS_FIRST: usize = 64;
/// By how much the number grows when the set is larger.
const NUCLEUS_GROWTH: usize = 8;
/// Weights that are summed together in search of the drawn one.
const BLOCK: usize = 256;

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
    numbers(seed, position).next_u64()
}

/// The next number of the same stream.
fn second_number(seed: u64, position: u32) -> u64 {
    let mut stream = numbers(seed, position);
    stream.next_u64();
    stream.next_u64()
}

fn numbers(seed: u64, position: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(KEY_LABEL);
    let mut stream = ChaCha8Rng::from_seed(key);
    stream.set_stream(u64::from(position));
    stream
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
    /// The weight of every token, by id, where all are candidates.
    weights: Vec<u64>,
    /// The candidates that `top_k` or `top_p` keeps.
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
        self.draw(logits, sampling, || number(sampling.seed, position))
    }

    /// Draws at a position where a first token was drawn and cannot stand, from logits that forbid it and perhaps others.
    /// Its random number has nothing to do with the first one's: whoever draws by [`Self::sample`], and again when what
    /// was drawn is forbidden, draws as the softmax of the allowed tokens says, where `top_k` and `top_p` keep all.
    ///
    /// # Errors
    ///
    /// [`SampleError`].
    pub fn sample_again(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<i32, SampleError> {
        self.draw(logits, sampling, || second_number(sampling.seed, position))
    }

    fn draw(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        number: impl FnOnce() -> u64,
    ) -> Result<i32, SampleError> {
        check_settings(logits, sampling)?;
        let none = SampleError::NoCandidate {
            vocabulary: logits.len(),
        };
        let (id, peak) = largest(logits).ok_or(none)?;
        if sampling.temperature == 0.0 {
            return Ok(id as i32);
        }
        let scale = Scale::new(peak, sampling.temperature);
        let number = number();
        match (sampling.top_k as usize, sampling.top_p) {
            (k, top_p) if k > 0 && k < logits.len() => {
                let total = self.keep_k(logits, scale, k);
                if top_p < 1.0 {
                    let found = self.cut_nucleus(wanted(total, top_p));
                    debug_assert!(
                        found,
                        "all candidates together reach any share of themselves"
                    );
                }
            }
            (_, top_p) => {
                self.weights.clear();
                self.weights
                    .extend(logits.iter().map(|&logit| scale.weight(logit)));
                let total = self.weights.iter().sum();
                if top_p >= 1.0 {
                    return Ok(pick_of_all(&self.weights, share(number, total)));
                }
                self.keep_nucleus(logits, wanted(total, top_p));
            }
        }
        Ok(pick(&mut self.best, number))
    }

    /// Keeps the k best and weighs them; returns the sum.
    fn keep_k(&mut self, logits: &[f32], scale: Scale, k: usize) -> u64 {
        keep_best(&mut self.best, logits, k);
        self.best
            .iter_mut()
            .for_each(|candidate| candidate.weight = scale.weight(candidate.logit));
        self.best.iter().map(|candidate| candidate.weight).sum()
    }

    /// Keeps the best of all until their weights reach `wanted`.
    fn keep_nucleus(&mut self, logits: &[f32], wanted: u64) {
        let mut ranked = NUCLEUS_FIRST;
        loop {
            keep_best(&mut self.best, logits, ranked);
            for candidate in &mut self.best {
                candidate.weight = self.weights[candidate.id as usize];
            }
            if self.cut_nucleus(wanted) || ranked >= logits.len() {
                return;
            }
            ranked *= NUCLEUS_GROWTH;
        }
    }

    /// Drops the last candidates by rank that are not needed to reach `wanted`; says whether it is reached.
    ///
    /// Halves the range in which the last one lies, as quickselect does, so that large sets need no sorting.
    fn cut_nucleus(&mut self, wanted: u64) -> bool {
        let (mut low, mut high, mut left) = (0, self.best.len(), wanted);
        while low < high {
            let half = (high - low - 1) / 2;
            let range = &mut self.best[low..high];
            range.select_nth_unstable_by(half, Candidate::rank);
            let sum = range[..=half]
                .iter()
                .map(|candidate| candidate.weight)
                .sum();
            if left > sum {
                left -= sum;
                low += half + 1;
            } else if high - low > 1 {
                high = low + half + 1;
            } else {
                self.best.truncate(high);
                return true;
            }
        }
        false
    }
}

/// The weight that the `top_p` set must reach; at least that of the best token.
fn wanted(total: u64, top_p: f32) -> u64 {
    ((f64::from(top_p) * total as f64).ceil() as u64).clamp(1, total)
}

/// Maps a random number to 0 to `total` − 1: the high half of a 128-bit product, off by less than 2⁻⁶⁴.
fn share(number: u64, total: u64) -> u64 {
    ((u128::from(number) * u128::from(total)) >> 64) as u64
}

/// Picks one of the candidates, in the order of their ids.
fn pick(candidates: &mut [Candidate], number: u64) -> i32 {
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    let mut left = share(
        number,
        candidates.iter().map(|candidate| candidate.weight).sum(),
    );
    let drawn = candidates
        .iter()
        .find(|candidate| falls_into(&mut left, candidate.weight));
    drawn
        .expect("the number is below the sum of the weights")
        .token()
}

/// Picks one of all tokens.
fn pick_of_all(weights: &[u64], mut left: u64) -> i32 {
    let mut blocks = weights.chunks(BLOCK).enumerate();
    let block = blocks.find(|(_, block)| falls_into(&mut left, block.iter().sum()));
    let (at, block) = block.expect("the number is below the sum of the weights");
    let within = block
        .iter()
        .position(|&weight| falls_into(&mut left, weight));
    (at * BLOCK + within.expect("the number is below the sum of the block")) as i32
}

/// Whether what is `left` of the number falls into `weight`; if not, takes the weight off.
fn falls_into(left: &mut u64, weight: u64) -> bool {
    match left.checked_sub(weight) {
        Some(rest) => {
            *left = rest;
            false
        }
        None => true,
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
