//! What is promised, and what must have shown it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// All rows, in the order of their numbers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rows {
    /// What stands above the table.
    pub(super) opening: String,
    #[serde(rename = "row")]
    pub(super) rows: Vec<Row>,
}

/// A fault, and what is promised of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) number: u32,
    pub(super) fault: String,
    /// What holds under the fault, as far as the tests show it.
    pub(super) promise: String,
    /// What is missing until the row is a promise; none when it is one.
    pub(super) lacks: Option<String>,
    /// Tests, as nextest names them: `binary test`, or `binary module::*` for all below a module.
    #[serde(default)]
    pub(super) tests: Vec<String>,
    /// What was measured, and by which command.
    pub(super) figures: Option<String>,
}

impl Rows {
    /// # Errors
    ///
    /// When the file is not there, is none of rows, or a row promises without a test.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let rows: Self = toml::from_str(text)?;
        for (at, row) in rows.rows.iter().enumerate() {
            let number = row.number;
            ensure!(number as usize == at + 1, "row {number} is out of order");
            ensure!(
                row.lacks.is_some() || !row.tests.is_empty(),
                "row {number} is promised without a test"
            );
            for test in &row.tests {
                ensure!(
                    test.split_once(' ').is_some(),
                    "row {number}: {test:?} is not a binary and a test"
                );
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &str, says: &str) {
        let text = format!("opening = \"\"\n[[row]]\nfault = \"f\"\npromise = \"p\"\n{row}\n");
        let error = Rows::parse(&text).map_or_else(|error| format!("{error:#}"), |_| "fine".into());
        assert!(error.contains(says), "{row}: {error}");
    }

    #[test]
    fn a_promise_needs_a_test() {
        check("number = 1\ntests = [\"a b\"]", "fine");
        check("number = 1\nlacks = \"all\"", "fine");
        check("number = 1", "without a test");
        check("number = 2\nlacks = \"all\"", "out of order");
        check("number = 1\ntests = [\"ab\"]", "not a binary and a test");
        check("number = 1\nlacks = \"all\"\nfoo = 1", "unknown field");
    }
}
