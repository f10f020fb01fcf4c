//! What is asked.

/// A short question whose answer is long.
pub(super) const SHORT: &str =
    "Write a very long and detailed story about a lighthouse keeper and her three children.";

/// Words of a long prompt: a little more than one token each.
const LONG_WORDS: usize = 1_050;

/// What the answers of both are compared on: each task with each subject.
const TASKS: [&str; 10] = [
    "What is {}?",
    "Write one sentence about {}.",
    "Explain {} to a child of six years.",
    "Name three facts about {}.",
    "Write a short poem about {}.",
    "Translate into French: I have read a book about {}.",
    "Write a Python function whose name has to do with {}.",
    "Who would want to know about {}, and why?",
    "Answer with yes or no: is {} older than the telephone?",
    "Continue: Once upon a time there was a man who knew nothing of {}, until",
];
const SUBJECTS: [&str; 5] = ["the moon", "bread", "music", "the Roman Empire", "gravity"];

/// Words of a story's prompt: two of its title, the others to be told about.
const STORY_WORDS: usize = 14;

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
    for word in words(number).take(LONG_WORDS) {
        text.push_str(word);
        text.push(' ');
    }
    text
}

/// Fifty questions of many kinds.
pub(super) fn questions() -> impl Iterator<Item = String> {
    let of = |task: &'static str| {
        SUBJECTS
            .iter()
            .map(move |subject| task.replace("{}", subject))
    };
    TASKS.into_iter().flat_map(of)
}

/// A short question whose answer is long. Each `number` gives another one, from its first words on.
pub(super) fn story(number: u64) -> String {
    let words: Vec<&str> = words(number).take(STORY_WORDS).collect();
    let (title, others) = words.split_at(2);
    format!(
        "{} {} {number}: write a very long and detailed story under this title. In it there are: {}. \
         Tell everything that happens, one thing after the other.",
        title[0],
        title[1],
        others.join(", ")
    )
}

/// Words without end, others for each `number`.
fn words(number: u64) -> impl Iterator<Item = &'static str> {
    let mut state = number;
    std::iter::repeat_with(move || {
        // Knuth's linear congruential generator (The Art of Computer Programming, volume 2, 3.3.4, MMIX).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % WORDS.len()]
    })
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

    #[test]
    fn there_are_fifty_questions() {
        let mut all: Vec<String> = questions().collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|question| !question.contains(['{', '}'])));
    }

    #[test]
    fn no_two_stories_begin_alike() {
        let mut beginnings: Vec<String> = (0..2_000)
            .map(|number| story(number).split_once(':').unwrap().0.to_owned())
            .collect();
        assert_eq!(story(7), story(7));
        beginnings.sort();
        beginnings.dedup();
        assert_eq!(beginnings.len(), 2_000);
    }
}
