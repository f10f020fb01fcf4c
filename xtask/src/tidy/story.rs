//! Every crate opens with its story: what it is, how data flows, who owns which task, how it ends.

use super::Finding;
use super::layers::{Layer, place};
use super::scan::Source;

/// Lines with text that a shipped library needs at least.
const LIBRARY_STORY_LINES_MIN: usize = 5;
/// The same for a binary, whose library tells the rest, and for the workshop.
const OTHER_STORY_LINES_MIN: usize = 1;

/// Findings of one file: at most one.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let found = source.story_lines;
    let Some(needed) = lines_needed(source).filter(|needed| found < *needed) else {
        return Vec::new();
    };
    let what = format!("opens with {found} lines of `//!`, at least {needed} are due");
    vec![Finding {
        why: "a reader meets the crate here: what it is, how data flows, who owns which task"
            .into(),
        out: "tell it in `//!` lines before anything else".into(),
        ..source.finding(1, "story", what)
    }]
}

/// `None` for a file that opens no crate.
fn lines_needed(source: &Source) -> Option<usize> {
    let (_, below_crate) = source.path.split_once("src/")?;
    let is_shipped = place(&source.krate).is_none_or(|place| place.layer != Layer::Workshop);
    match below_crate {
        "lib.rs" if is_shipped => Some(LIBRARY_STORY_LINES_MIN),
        "lib.rs" | "main.rs" => Some(OTHER_STORY_LINES_MIN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_strikes, strikes};

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_strikes(&strikes(super::check, path, text), expected);
    }

    #[test]
    fn a_shipped_library_tells_five_lines_with_text() {
        let path = "crates/net/src/lib.rs";
        check(path, "//! a\n//! b\n//! c\n//! d\n//! e\n", &[]);
        check(path, "/*! a\nb\nc\nd\ne */\n", &[]);
        check(
            path,
            "//! a\n//!\n//! b\n//! c\n//! d\n",
            &["1 opens with 4 lines"],
        );
        check(
            path,
            "#![no_std]\n//! a\n//! b\n//! c\n//! d\n//! e\n",
            &["1 opens with 0 lines"],
        );
        check(path, "// a\nfn f() {}", &["1 opens with 0 lines"]);
    }

    #[test]
    fn binaries_and_the_workshop_tell_one() {
        check("crates/node/src/main.rs", "//! a\nfn main() {}", &[]);
        check(
            "crates/node/src/main.rs",
            "fn main() {}",
            &["1 opens with 0 lines"],
        );
        check("crates/specimen/src/lib.rs", "//! a", &[]);
        check("crates/net/src/hop.rs", "", &[]);
    }
}
