//! Rules about files of any kind.

use super::Finding;
use super::tree::{TEXT_BYTES_MAX, Tree, TreeFile};

/// The encodings that every release must keep reading.
const GOLDEN_VECTORS: &str = "crates/proto/tests/golden.rs";

/// Letters and signs that may stand before a path's first slash when it is part of a longer path.
const JOINERS: [char; 8] = ['.', '_', '-', '~', '}', ')', '$', '*'];

/// All findings about files as files.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let per_file = tree
        .files
        .iter()
        .flat_map(|file| large(file).into_iter().chain(homes(file)));
    per_file.chain(golden(tree)).collect()
}

fn finding(file: &str, line: usize, what: String, why: &str, out: &str) -> Finding {
    let (file, why, out) = (file.to_owned(), why.to_owned(), out.to_owned());
    Finding {
        file,
        line,
        rule: "repo",
        what,
        why,
        out,
    }
}

fn large(file: &TreeFile) -> Option<Finding> {
    let what = format!("{} bytes, limit {TEXT_BYTES_MAX}", file.bytes);
    let why = "every clone carries it for ever";
    let out = "let the build or a test make or fetch it";
    (file.bytes > TEXT_BYTES_MAX).then(|| finding(&file.path, 0, what, why, out))
}

/// Paths that exist on one machine only.
fn homes(file: &TreeFile) -> Vec<Finding> {
    let lines = file.text.as_deref().unwrap_or_default().lines().zip(1..);
    let found = lines.filter_map(|(line, number)| {
        let what = format!("names the path `{}` of a machine", home(line)?);
        let why = "it is wrong on every other machine and tells who built this";
        Some(finding(
            &file.path,
            number,
            what,
            why,
            "use a relative path, or an environment variable",
        ))
    });
    found.collect()
}

/// The first absolute path below somebody's home or workplace.
fn home(line: &str) -> Option<&str> {
    let starts = line.match_indices('/').map(|(at, _)| at);
    starts
        .filter(|at| is_absolute(&line[..*at]))
        .find_map(|at| {
            let rest = &line[at + 1..];
            let (first, below) = rest.split_once('/')?;
            let length = match first {
                "root" | "work" => first.len() + 2,
                "home" => {
                    let name = below
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()?;
                    let is_directory = !name.is_empty() && below[name.len()..].starts_with('/');
                    is_directory.then_some(first.len() + name.len() + 3)?
                }
                _ => return None,
            };
            line.get(at..at + length)
        })
}

/// Whether a slash after `before` begins a path rather than continuing one.
fn is_absolute(before: &str) -> bool {
    !before.ends_with(|c: char| c.is_alphanumeric() || JOINERS.contains(&c))
}

fn golden(tree: &Tree) -> Option<Finding> {
    let is_there = tree
        .text(GOLDEN_VECTORS)
        .is_some_and(|text| text.contains("#[test]"));
    let what = "there is no golden vector".to_owned();
    let why = "a changed encoding must break a test on purpose, not a peer by accident";
    let out = "freeze one encoding of every wire and disk type as hex";
    (!is_there).then(|| finding(GOLDEN_VECTORS, 0, what, why, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: (&str, &str) = (GOLDEN_VECTORS, "#[test] fn t() {}");

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let found = super::check(&Tree::of(files));
        let found: Vec<String> = found
            .iter()
            .map(|f| format!("{}:{} {}", f.file, f.line, f.what))
            .collect();
        super::super::tests::assert_strikes(&found, expected);
    }

    /// The samples are put together here because this file is looked at too.
    fn sample(template: &str) -> String {
        template.replace('|', "/")
    }

    #[test]
    fn a_path_of_a_machine_is_found() {
        let found = [
            ("cd |root|x", "names the path `|root|`"),
            ("a = \"|work|main\"", "names the path `|work|`"),
            ("file:||||home|ada|src", "names the path `|home|ada|`"),
            ("(|home|ada_l|x)", "names the path `|home|ada_l|`"),
        ];
        for (line, expected) in found {
            let expected = format!("a.md:2 {}", sample(expected));
            check(
                &[GOLDEN, ("a.md", &format!("\n{}", sample(line)))],
                &[&expected],
            );
        }
        for line in [
            "https:||host|work|x",
            "crate|root|x",
            "~|work|x",
            "|home|<x>|",
            "|rooted|x",
            "$HOME|work|",
        ] {
            check(&[GOLDEN, ("a.md", &sample(line))], &[]);
        }
    }

    #[test]
    fn golden_vectors_are_there() {
        check(
            &[],
            &["crates/proto/tests/golden.rs:0 there is no golden vector"],
        );
        check(
            &[(GOLDEN_VECTORS, "// later")],
            &["crates/proto/tests/golden.rs:0 there is"],
        );
        check(&[GOLDEN], &[]);
    }

    #[test]
    fn a_large_file_is_found() {
        let file = |bytes| TreeFile {
            path: "a.bin".into(),
            bytes,
            text: None,
        };
        assert!(large(&file(TEXT_BYTES_MAX)).is_none());
        assert!(large(&file(TEXT_BYTES_MAX + 1)).is_some());
    }
}
