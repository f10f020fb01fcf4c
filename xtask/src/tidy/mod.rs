//! The rules of the house, as code.
//!
//! [`check`] runs in three steps. [`tree`] lists the files that git tracks (or would track). [`scan`]
//! parses every Rust file once into a flat list of facts: paths named, methods called, functions with
//! their lengths, unsafe code. Then each rule module turns facts into [`Finding`]s; a rule is a pure
//! function, so its test is a table of small sources and the lines where it must strike.
//!
//! | module | what it keeps |
//! | --- | --- |
//! | [`layers`] | arrows between crates point downwards; pure crates stay free of runtimes and FFI |
//! | [`manifests`] | workspace lints, the lock file, exact pins |
//! | [`purity`] | no sockets, files, clocks, threads or OS randomness in minds and words |
//! | [`calls`] | banned calls, each with a reason |
//! | [`unsafety`] | `unsafe` and FFI only in `engine-host` |
//! | [`size`] | lines a function, a file, the whole |
//! | [`story`] | every crate opens with what it is |
//! | [`names`] | no `Manager`, `Helper`, `Util` |
//! | [`repo`] | large files, paths of a machine, the golden vectors |

mod bans;
mod calls;
mod layers;
mod manifests;
mod names;
mod purity;
mod repo;
mod scan;
mod size;
mod story;
mod tokens;
mod tree;
mod unsafety;
mod visitor;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use scan::Source;
use tree::Tree;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path below the repository's root, with forward slashes.
    file: String,
    /// Line, from 1; 0 when the finding is about the file as a whole.
    line: usize,
    /// The rule's short name.
    rule: &'static str,
    /// What was found.
    what: String,
    /// Why the rule exists.
    why: String,
    /// How to satisfy it.
    out: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        writeln!(f, " [{}] {}", self.rule, self.what)?;
        writeln!(f, "    why: {}", self.why)?;
        writeln!(f, "    out: {}", self.out)
    }
}

/// Everything one run found, with what it looked at.
#[derive(Debug)]
pub(crate) struct Report {
    /// Sorted by file and line.
    pub(crate) findings: Vec<Finding>,
    files: usize,
    rust_lines: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let (files, lines) = (self.files, self.rust_lines);
        match self.findings.len() {
            0 => writeln!(
                f,
                "tidy: {files} files, {lines} lines of Rust, nothing to say"
            ),
            1 => writeln!(f, "tidy: {files} files, {lines} lines of Rust, 1 finding"),
            n => writeln!(
                f,
                "tidy: {files} files, {lines} lines of Rust, {n} findings"
            ),
        }
    }
}

/// Holds every rule against the repository at `root`.
///
/// # Errors
///
/// When the files cannot be listed or `cargo metadata` fails; a broken rule is a finding, not an error.
pub(crate) fn check(root: &Path) -> Result<Report> {
    let tree = Tree::read(root).with_context(|| format!("cannot list {}", root.display()))?;
    let (sources, mut findings) = scan::sources(&tree);
    findings.extend(layers::check(&layers::Graph::from_cargo(root)?));
    findings.extend(manifests::check(&tree));
    findings.extend(repo::check(&tree));
    findings.extend(size::whole(&sources));
    for source in &sources {
        findings.extend(per_source(source));
    }
    findings.sort();
    findings.dedup();
    let rust_lines = sources.iter().map(|source| source.lines).sum();
    Ok(Report {
        findings,
        files: tree.files.len(),
        rust_lines,
    })
}

fn per_source(source: &Source) -> Vec<Finding> {
    let rules = [
        purity::check,
        calls::check,
        unsafety::check,
        size::check,
        story::check,
        names::check,
    ];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs one rule over one source and returns `line what` for each finding.
    pub(super) fn strikes(
        rule: fn(&Source) -> Vec<Finding>,
        path: &str,
        text: &str,
    ) -> Vec<String> {
        let (sources, broken) = scan::sources(&Tree::of(&[(path, text)]));
        assert_eq!(broken, [], "the fixture must parse");
        let findings = sources.iter().flat_map(rule);
        findings
            .map(|finding| format!("{} {}", finding.line, finding.what))
            .collect()
    }

    /// Each expected line must be the start of exactly one finding, in order.
    #[track_caller]
    pub(super) fn assert_strikes(found: &[String], expected: &[&str]) {
        let fits = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, start)| found.starts_with(start));
        assert!(fits, "found {found:#?}\nexpected {expected:#?}");
    }

    #[test]
    fn a_finding_shows_place_reason_and_way_out() {
        let finding = Finding {
            file: "crates/a/src/lib.rs".into(),
            line: 3,
            rule: "size",
            what: "too long".into(),
            why: "people read it".into(),
            out: "split it".into(),
        };
        let text = finding.to_string();
        let expected =
            "crates/a/src/lib.rs:3: [size] too long\n    why: people read it\n    out: split it\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn this_repository_is_tidy() {
        let report = check(&crate::repository()).expect("the repository can be read");
        assert!(report.findings.is_empty(), "\n{report}");
    }
}
