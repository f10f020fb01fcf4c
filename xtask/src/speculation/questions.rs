//! Two hundred questions: to copy, to change a little, to tell, and to answer.

/// How many there are.
pub(super) const QUESTIONS: u32 = 200;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A text once more, as it is.
    Copy,
    /// A text once more, with a small change.
    Change,
    /// A story.
    Tell,
    /// An answer in a sentence or two.
    Answer,
}

impl Kind {
    /// In the order in which they are asked in turn.
    pub(super) const ALL: [Self; 4] = [Self::Copy, Self::Change, Self::Tell, Self::Answer];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Change => "change a little",
            Self::Tell => "tell",
            Self::Answer => "answer",
        }
    }
}

const THINGS: [&str; 10] = [
    "river",
    "lighthouse",
    "market",
    "engine",
    "garden",
    "library",
    "bridge",
    "kitchen",
    "winter",
    "orchestra",
];
const PLACES: [&str; 5] = [
    "on an island",
    "in the mountains",
    "near the harbour",
    "at school",
    "in an old town",
];

/// The question of this number, below [`QUESTIONS`]; all differ.
pub(super) fn question(number: u32) -> (Kind, String) {
    let kind = Kind::ALL[number as usize % Kind::ALL.len()];
    let at = number as usize / Kind::ALL.len();
    let (thing, place) = (THINGS[at % THINGS.len()], PLACES[at / THINGS.len()]);
    let text = match kind {
        Kind::Copy => format!(
            "Repeat this text word for word, and nothing else:\n\nThe {thing} {place} opens at {hour} in the morning. \
             Every visitor of the {thing} {place} gets a ticket with the number {at}. \
             Whoever loses the ticket with the number {at} has to wait until the {thing} {place} closes.",
            hour = 6 + at % 5
        ),
        Kind::Change => format!(
            "Write this program again, and change nothing but the name of the function to open_{thing}:\n\n\
             def visit_{thing}(visitors, tickets):\n    for visitor in visitors:\n        if visitor not in tickets:\n            \
             print(\"no ticket {at}\", visitor)\n        else:\n            print(\"welcome {place}\", visitor)\n    return len(visitors)\n"
        ),
        Kind::Tell => format!("Tell a long story about a {thing} {place}."),
        Kind::Answer => {
            format!("What would somebody do with a {thing} {place}? Answer in two sentences.")
        }
    };
    (kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_questions_are_the_same() {
        let all: BTreeSet<String> = (0..QUESTIONS).map(|number| question(number).1).collect();
        assert_eq!(all.len(), QUESTIONS as usize);
        let copies = (0..QUESTIONS).filter(|number| question(*number).0 == Kind::Copy);
        assert_eq!(copies.count(), 50);
    }
}
