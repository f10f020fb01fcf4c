//! What one caller asks and how it behaves, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

/// Positions of each request's context, as the node is started.
pub(super) const CONTEXT: u32 = 1_024;
/// The longest prompt that must fit, in words. A word is little more than a token, and the answer needs room.
const WORDS_MAX: u32 = 600;
/// A prompt of so many words never fits.
const WORDS_TOO_MANY: u32 = 2 * CONTEXT;
/// The longest answer, in tokens.
const TOKENS_MAX: u32 = 128;
/// The longest that a caller waits before it goes away without having read anything.
const PATIENCE_MAX_MS: u64 = 1_500;
/// The longest that a caller does not read.
const NAP_MAX_MS: u64 = 8_000;
/// The most events after which a caller goes away or naps.
const EVENTS_MAX: u32 = 64;

/// A request, and what its caller does.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Caller {
    /// The prompt.
    text: String,
    /// The most tokens of the answer.
    pub(super) tokens_max: u32,
    /// What it does while it is answered.
    pub(super) conduct: Conduct,
}

/// What a caller does while it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// Reads the whole answer.
    Reads,
    /// Closes the connection after a while, whatever came.
    Leaves(Duration),
    /// Closes the connection after so many events.
    LeavesAfter(u32),
    /// Does not read for a while after so many events, then reads on.
    Naps(u32, Duration),
    /// Asks more than fits, and must be told so.
    AsksTooMuch,
}

impl Caller {
    /// The next one.
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let events = random.random_range(1..=EVENTS_MAX);
        let mut wait = |max_ms| Duration::from_millis(random.random_range(0..=max_ms));
        let (patience, nap) = (wait(PATIENCE_MAX_MS), wait(NAP_MAX_MS));
        let conduct = match random.random_range(0..100) {
            0..15 => Conduct::Leaves(patience),
            15..40 => Conduct::LeavesAfter(events),
            40..50 => Conduct::Naps(events, nap),
            50..53 => Conduct::AsksTooMuch,
            _ => Conduct::Reads,
        };
        let words = match conduct {
            Conduct::AsksTooMuch => WORDS_TOO_MANY,
            // As many short ones as long ones, by magnitude.
            _ => f64::from(WORDS_MAX).powf(random.random_range(0.0..=1.0)) as u32,
        };
        Self {
            text: text(random, words),
            tokens_max: random.random_range(1..=TOKENS_MAX),
            conduct,
        }
    }

    /// One that asks something short and reads the answer.
    pub(super) fn short(random: &mut StdRng) -> Self {
        Self {
            text: text(random, 8),
            tokens_max: 16,
            conduct: Conduct::Reads,
        }
    }

    /// One that asks the longest there is and reads the answer.
    pub(super) fn longest(random: &mut StdRng) -> Self {
        Self {
            text: text(random, WORDS_MAX),
            ..Self::short(random)
        }
    }

    /// The body of its request to a model of that name.
    pub(super) fn body(&self, model: &str) -> Vec<u8> {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": self.text}],
            "max_tokens": self.tokens_max,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        body.to_string().into_bytes()
    }
}

/// What a stream draws from: its own, so that its callers are the same whatever the other streams do.
pub(super) fn random(seed: u64, stream: u32) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&stream.to_le_bytes());
    StdRng::from_seed(bytes)
}

fn text(random: &mut StdRng, words: u32) -> String {
    const WORDS: [&str; 16] = [
        "river", "stone", "garden", "winter", "letter", "window", "market", "bridge", "music",
        "paper", "summer", "engine", "forest", "island", "number", "people",
    ];
    let mut text = "Tell me about this:".to_owned();
    for _ in 0..words.max(1) {
        text.push(' ');
        text.push_str(WORDS[random.random_range(0..WORDS.len())]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(seed: u64, stream: u32) -> Vec<Caller> {
        let mut random = random(seed, stream);
        (0..300).map(|_| Caller::draw(&mut random)).collect()
    }

    #[test]
    fn a_seed_repeats_itself_and_streams_differ() {
        assert_eq!(callers(7, 0), callers(7, 0));
        assert_ne!(callers(7, 0), callers(7, 1));
        assert_ne!(callers(7, 0), callers(8, 0));
    }

    #[test]
    fn every_conduct_occurs() {
        let callers = callers(1, 1);
        let has = |is: fn(&Conduct) -> bool| callers.iter().any(|one| is(&one.conduct));
        assert!(has(|one| matches!(one, Conduct::Reads)));
        assert!(has(|one| matches!(one, Conduct::Leaves(_))));
        assert!(has(|one| matches!(one, Conduct::LeavesAfter(_))));
        assert!(has(|one| matches!(one, Conduct::Naps(..))));
        assert!(has(|one| matches!(one, Conduct::AsksTooMuch)));
    }

    #[test]
    fn only_who_asks_too_much_does() {
        for caller in callers(2, 1) {
            let words = caller.text.split_whitespace().count() as u32;
            let asks_too_much = words > CONTEXT;
            assert_eq!(asks_too_much, caller.conduct == Conduct::AsksTooMuch);
            assert!(asks_too_much || words + TOKENS_MAX < CONTEXT * 3 / 4);
            assert!((1..=TOKENS_MAX).contains(&caller.tokens_max));
        }
    }
}
