//! The page.

use std::fmt;

use super::results::{Outcome, Results};
use super::rows::{Row, Rows};
use crate::rig::table::Table;

/// The page, and which rows are not what they claim to be.
#[derive(Debug)]
pub(super) struct Page<'a> {
    rows: &'a Rows,
    lines: Vec<Line<'a>>,
}

#[derive(Debug)]
struct Line<'a> {
    row: &'a Row,
    /// Tests that failed or did not run, in words.
    faults: Vec<String>,
    /// How many ran.
    passed: usize,
}

impl<'a> Page<'a> {
    pub(super) fn new(rows: &'a Rows, results: &Results) -> Self {
        let lines = rows.rows.iter().map(|row| Line::new(row, results));
        Self {
            rows,
            lines: lines.collect(),
        }
    }

    /// What is not kept, in words.
    pub(super) fn broken(&self) -> Vec<String> {
        let broken = |line: &Line<'_>| {
            let number = line.row.number;
            (!line.faults.is_empty()).then(|| format!("row {number}: {}", line.faults.join(", ")))
        };
        self.lines.iter().filter_map(broken).collect()
    }
}

impl<'a> Line<'a> {
    fn new(row: &'a Row, results: &Results) -> Self {
        let (mut faults, mut passed) = (Vec::new(), 0);
        for test in &row.tests {
            match results.of(test) {
                Outcome::Passed(count) => passed += count,
                Outcome::Failed => faults.push(format!("`{test}` failed")),
                Outcome::Missing => faults.push(format!("`{test}` did not run")),
            }
        }
        Self {
            row,
            faults,
            passed,
        }
    }

    fn status(&self) -> String {
        match (&self.faults[..], &self.row.lacks) {
            ([], None) => "**promised**".to_owned(),
            ([], Some(lacks)) => format!("not yet promised: {lacks}"),
            (faults, _) => format!("**red**: {}", faults.join(", ")),
        }
    }

    fn shown_by(&self) -> String {
        let tests = self.row.tests.iter().map(|test| format!("`{test}`"));
        let mut text = tests.collect::<Vec<_>>().join(", ");
        if self.passed > self.row.tests.len() {
            text += &format!(" ({} tests)", self.passed);
        }
        if let Some(figures) = &self.row.figures {
            text += if text.is_empty() { "" } else { "; " };
            text += figures;
        }
        if text.is_empty() {
            "–".to_owned()
        } else {
            text
        }
    }
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Promises\n")?;
        writeln!(
            f,
            "Written by `cargo xtask promises` from docs/promises.toml and the results of the tests; do not edit by hand.\n"
        )?;
        writeln!(f, "{}\n", self.rows.opening.trim())?;
        let promised = |line: &&Line<'_>| line.faults.is_empty() && line.row.lacks.is_none();
        let count = self.lines.iter().filter(promised).count();
        writeln!(f, "{count} of {} rows are promised.\n", self.lines.len())?;
        let mut table = Table::new(&["#", "fault", "what holds", "status", "shown by"]);
        for line in &self.lines {
            table.row([
                line.row.number.to_string(),
                line.row.fault.clone(),
                line.row.promise.clone(),
                line.status(),
                line.shown_by(),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"
        opening = "Words."
        [[row]]
        number = 1
        fault = "a fault"
        promise = "it holds"
        tests = ["net::net a"]
        figures = "12 ms by `cargo xtask kills`"
        [[row]]
        number = 2
        fault = "another"
        promise = "some of it holds"
        lacks = "the rest"
        tests = ["net::net b"]
    "#;

    fn page(results: &str) -> (String, Vec<String>) {
        let rows = Rows::parse(ROWS).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("junit.xml");
        std::fs::write(&path, results).unwrap();
        let results = Results::read(&path).unwrap();
        let page = Page::new(&rows, &results);
        (page.to_string(), page.broken())
    }

    #[test]
    fn rows_say_what_their_tests_show() {
        let suite = |tests: &str| format!(r#"<testsuite name="net::net">{tests}</testsuite>"#);
        let (text, broken) = page(&suite(r#"<testcase name="a"/><testcase name="b"/>"#));
        assert!(text.contains("1 of 2 rows are promised."), "{text}");
        assert!(text.contains("**promised**") && text.contains("not yet promised: the rest"));
        assert!(text.contains("12 ms by") && broken.is_empty());

        let failed = r#"<testcase name="a"><failure/></testcase><testcase name="b"/>"#;
        let (text, broken) = page(&suite(failed));
        assert!(text.contains("0 of 2 rows are promised."), "{text}");
        assert!(text.contains("**red**: `net::net a` failed"), "{text}");
        assert_eq!(broken, ["row 1: `net::net a` failed"]);

        let (_, broken) = page(&suite(r#"<testcase name="a"/>"#));
        assert_eq!(broken, ["row 2: `net::net b` did not run"]);
    }
}
