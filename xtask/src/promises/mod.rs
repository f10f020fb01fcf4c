//! `cargo xtask promises`: the page of promises, from what tests and campaigns have shown.
//!
//! [`rows`] reads `docs/promises.toml`, which says of each fault what is promised, and which tests must have passed.
//! [`results`] reads what the newest test run has left behind (JUnit, written by nextest). [`page`] puts both together:
//! nothing on that page is written by hand, so a test that is renamed, removed, skipped or red cannot leave a promise behind.

mod page;
mod results;
mod rows;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::page::Page;
use self::results::Results;
use self::rows::Rows;
use crate::rig::say;

/// What is promised, below the repository.
const ROWS: &str = "docs/promises.toml";
/// The page, below the repository.
const PAGE: &str = "PROMISES.md";
/// What nextest writes, below the repository wherever build products go; see `.config/nextest.toml`.
const JUNIT: &str = "target/nextest/default/junit.xml";

/// What `cargo xtask promises` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the page is not what the results say
    #[arg(long)]
    check: bool,
    /// The results of a whole test run [default: those of the newest run of nextest]
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Writes the page, or checks it. Says whether every row is as good as it claims to be.
///
/// # Errors
///
/// When rows or results cannot be read, or the page cannot be written.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let rows = Rows::read(&root.join(ROWS))?;
    let junit = options.junit.clone();
    let results = Results::read(&junit.unwrap_or_else(|| root.join(JUNIT)))?;
    let page = Page::new(&rows, &results);
    for broken in page.broken() {
        say(&format!("not kept: {broken}"));
    }
    let (path, text) = (root.join(PAGE), page.to_string());
    if options.check {
        let there = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if there != text {
            say(&format!(
                "{PAGE} is not what the results say; write it anew with: cargo xtask promises"
            ));
        }
        return Ok(there == text && page.broken().is_empty());
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("written: {}", path.display()));
    Ok(page.broken().is_empty())
}
