//! What is asked.

/// The system text of every request. Named, because the two servers would put different ones in by themselves.
pub(super) const SYSTEM: &str = "You are a helpful assistant.";

/// A short question whose answer is long.
pub(super) const SHORT: &str =
    "Write a very long and detailed story about a lighthouse keeper and her three children.";

/// Words of a long prompt: a little more than one token each.
const LONG_WORDS: usize = 1_050;

/// Common words, so that each is one token in most vocabularies.
const WORDS: [&str; 48] = [
    "river", "stone", "garden", "winter", "letter", "window", "market", "bridge", "music", "paper",
    "summer", "engine", "forest", "island", "mother", "number", "people", "school", "silver",
    "street", "travel", "village", "water", "yellow", "animal", "bottle", "circle", "doctor",
    "evening", "family", "green", "house", "kitchen", "language", "morning", "nature", "ocean",
    "picture", "question", "road", "simple", "table", "under", "voice", "walk", "young", "bread",
    "cloud",
];

/// A long text. Each `number` gives another one, from its first word on, so that no server can use what it
/// computed for another; all servers get the same.
pub(super) fn long(number: u64) -> String {
    let mut text = format!("Text {number}. Say in one word what it is about.\n");
    let mut state = number;
    for _ in 0..LONG_WORDS {
        // Knuth's linear congruential generator (The Art of Computer Programming, volume 2, 3.3.4, MMIX).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_prompts_are_repeatable_and_differ_early() {
        assert_eq!(long(7), long(7));
        let (a, b) = (long(7), long(8));
        let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        assert!(common < 8, "{common} bytes in common");
        let words = |text: &str| text.split_whitespace().count();
        assert!((1_050..1_100).contains(&words(&a)), "{}", words(&a));
    }
}
