//! Lengths: a function fits a screen, a file fits a sitting, the whole fits a weekend.

use super::Finding;
use super::scan::{Fact, Source};

/// Lines of a function, from the signature's first to the closing brace; tests included.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file.
const FILE_LINES_MAX: usize = 600;
/// Lines of Rust in what is shipped. Files of tests and the workshop beside it have no limit of their own: one reads the
/// node to understand it, and a test when it fails.
const WHOLE_LINES_MAX: usize = 60_000;

/// What is never shipped.
const WORKSHOP: [&str; 5] = ["xtask", "fuzz", "specimen", "sim", "lab"];

const RULE: &str = "size";

/// Findings of one file.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let functions = source
        .sightings
        .iter()
        .filter_map(|sighting| match &sighting.fact {
            Fact::Function { name, lines } if *lines > FUNCTION_LINES_MAX => {
                Some(too_long(source, sighting.line, name, *lines))
            }
            _ => None,
        });
    let file = (source.lines > FILE_LINES_MAX).then(|| Finding {
        why: "a file is read in one sitting".into(),
        out: "give each concern in it a module of its own".into(),
        ..source.finding(
            0,
            RULE,
            format!("{} lines, limit {FILE_LINES_MAX}", source.lines),
        )
    });
    functions.chain(file).collect()
}

fn too_long(source: &Source, line: usize, name: &str, lines: usize) -> Finding {
    let what = format!("`fn {name}` has {lines} lines, limit {FUNCTION_LINES_MAX}");
    Finding {
        why: "a function is understood as a whole or not at all".into(),
        out: "name its steps and make each a function; a long table of cases may be a constant"
            .into(),
        ..source.finding(line, RULE, what)
    }
}

/// The finding about all files of the node together.
pub(crate) fn whole(sources: &[Source]) -> Option<Finding> {
    let shipped = |source: &&Source| {
        let tests = source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
        !tests && !WORKSHOP.contains(&source.krate.as_str())
    };
    let lines: usize = sources
        .iter()
        .filter(shipped)
        .map(|source| source.lines)
        .sum();
    (lines > WHOLE_LINES_MAX).then(|| Finding {
        file: "Cargo.toml".into(),
        line: 0,
        rule: RULE,
        what: format!("{lines} lines of Rust in the node, limit {WHOLE_LINES_MAX}"),
        why: "the whole node stays readable in a weekend".into(),
        out: "delete, or use a well-kept crate instead of our own code".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::super::tests::{assert_strikes, strikes};
    use super::super::tree::Tree;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_strikes(
            &strikes(super::check, "crates/net/src/a.rs", text),
            expected,
        );
    }

    fn body(lines: usize) -> String {
        format!("{{{}}}", "\n".repeat(lines - 1))
    }

    #[test]
    fn a_function_is_measured_from_signature_to_brace() {
        check(&format!("fn f() {}", body(70)), &[]);
        check(&format!("fn f() {}", body(71)), &["1 `fn f` has 71 lines"]);
        check(&format!("/// doc\n#[inline]\npub fn f() {}", body(70)), &[]);
        check(
            &format!("fn f(\n) {}", body(70)),
            &["1 `fn f` has 71 lines"],
        );
        check(&format!("impl A {{ fn m() {} }}", body(71)), &["1 `fn m`"]);
        check(&format!("trait A {{ fn m() {} }}", body(71)), &["1 `fn m`"]);
        check(&format!("#[test]\nfn t() {}", body(71)), &["2 `fn t`"]);
        check(
            &format!("proptest! {{\nfn p(a in 0..3) {} }}", body(71)),
            &["2 `fn p`"],
        );
    }

    #[test]
    fn a_file_has_a_limit() {
        check(&"//\n".repeat(600), &[]);
        check(&"//\n".repeat(601), &["0 601 lines"]);
    }

    #[test]
    fn the_whole_has_a_limit() {
        let lines_of = |file: &str, lines: usize| {
            let text = "\n".repeat(lines);
            super::whole(&scan::sources(&Tree::of(&[(file, &text)])).0)
        };
        assert_eq!(lines_of("crates/node/src/a.rs", 60_000), None);
        let finding = lines_of("crates/node/src/a.rs", 60_001).unwrap();
        assert!(finding.what.starts_with("60001 lines"));
        assert_eq!(lines_of("crates/node/tests/a.rs", 60_001), None);
        assert_eq!(lines_of("crates/node/src/a/tests.rs", 60_001), None);
        assert!(lines_of("crates/node/src/tests_of.rs", 60_001).is_some());
        assert_eq!(lines_of("xtask/src/a.rs", 60_001), None);
        assert_eq!(lines_of("crates/specimen/src/a.rs", 60_001), None);
    }
}
