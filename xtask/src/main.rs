//! Workshop commands: what keeps the house in order, never part of what is shipped.
//!
//! `cargo xtask tidy` reads the repository as git sees it, turns every Rust file into a list of facts
//! and holds the rules of the house against them. It changes nothing, prints one block a finding and
//! ends with status 1 when there is any. The same check runs as a test of this crate, so that
//! `cargo test` alone is enough to notice.
//!
//! `cargo xtask bench` measures Myzel beside llama-server and writes `docs/benchmarks.md`, `cargo xtask token-time` what
//! distance costs a ring and writes `docs/token-time.md`. `cargo xtask soak` lets many
//! callers of every kind ask for a long time and ends with status 1 when anything is left of them.

mod bench;
mod far;
mod kills;
mod planner;
mod promises;
mod rig;
mod soak;
mod speculation;
mod tidy;
mod token_time;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Workshop commands of Myzel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold the rules of the house against the repository.
    ///
    /// Prints `file:line: [rule] what`, why the rule exists and the way out. Ends with status 1 on any
    /// finding.
    Tidy {
        /// The repository to look at [default: the one this command was built from].
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Measure Myzel beside llama-server and write the figures down.
    ///
    /// The first run builds llama-server from its source package, which takes 10 to 30 minutes.
    Bench(bench::Options),
    /// Let many callers of every kind ask for a long time, and look what is left of them.
    ///
    /// Ends with status 1 when memory grows, a place stays taken, a process is left behind, or a request ends otherwise
    /// than it should.
    Soak(soak::Options),
    /// Measure what distance costs a token of a ring, over links of known delay, and write the figures down.
    ///
    /// Needs root, since it makes network namespaces. Ends with status 1 when a token takes longer than a ring may.
    TokenTime(token_time::Options),
    /// Kill remote stages in the middle of replies, and see that the same replies go on; writes docs/kills.md.
    ///
    /// Needs root, since it makes network namespaces. Ends with status 1 when replies end, differ, or pause for too long.
    Kills(kills::Options),
    /// Ask over a far ring with guesses and without, and compare the answers and their pace; writes docs/speculation.md.
    ///
    /// Needs root, since it makes network namespaces. Ends with status 1 when answers differ, or guesses are not worth enough.
    Speculation(speculation::Options),
    /// Measure rings beside llama.cpp's RPC over distance, and take machines away from both; writes docs/far.md.
    ///
    /// Needs root, since it makes network namespaces. Ends with status 1 when rings are not as fast as they must be, or lose a reply.
    Far(far::Options),
    /// Hold the planner against exhaustive search and against splitting by memory; writes docs/planner.md.
    Planner,
    /// Write PROMISES.md from docs/promises.toml and the results of the newest test run.
    ///
    /// Ends with status 1 when a row names a test that failed or did not run, or with --check when the page is another.
    Promises(promises::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Tidy { root } => tidy_command(&root.unwrap_or_else(repository)),
        Command::Bench(options) => bench::run(&repository(), &options).map(|()| ExitCode::SUCCESS),
        Command::Soak(options) => soak::run(&repository(), &options).map(verdict),
        Command::Kills(options) => kills::run(&repository(), &options).map(verdict),
        Command::Speculation(options) => speculation::run(&repository(), &options).map(verdict),
        Command::Far(options) => far::run(&repository(), &options).map(verdict),
        Command::Planner => planner::run(&repository()).map(verdict),
        Command::Promises(options) => promises::run(&repository(), &options).map(verdict),
        Command::TokenTime(options) => token_time::run(&repository(), &options).map(verdict),
    };
    done.unwrap_or_else(|error| {
        // Nothing useful is left to do when even the error stream is closed.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::from(2)
    })
}

fn tidy_command(root: &Path) -> anyhow::Result<ExitCode> {
    let report = tidy::check(root)?;
    write!(io::stdout().lock(), "{report}")?;
    Ok(verdict(report.findings.is_empty()))
}

fn verdict(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The repository that holds this crate. Cargo names the crate's directory at run time; the path of
/// the build is the second choice, for a binary started by hand.
fn repository() -> PathBuf {
    let crate_dir = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    crate_dir
        .parent()
        .expect("xtask is a directory of the repository")
        .to_path_buf()
}
