//! `cargo xtask bench`: Myzel beside llama-server, measured over HTTP.
//!
//! Both answer the same requests on the same machine in the same run. [`llama_server`] builds the peer once
//! from its source package; [`subject`] says what is measured and with which flags; [`server`] starts it and
//! waits until it answers. [`rounds`] then asks every server in turn, round after round, so that whatever else
//! the machine does falls on all alike; a ratio is always between two answers of the same round. [`report`]
//! turns the figures into a page, marks included: nothing on that page is written by hand.
//!
//! Every process belongs to [`started::Started`], which ends it by its own number, whether the run succeeds,
//! fails or is interrupted.
//!
//! What is fair here, and how it is kept:
//!
//! - Equal work: the same file, system and user text, context, slots, and greedy choice; prompts must come to
//!   the same number of tokens on every server and answers to [`ANSWER_TOKENS`], or the run fails.
//! - No prompt is computed before its turn: llama-server is told not to reuse prompts, and each round's long
//!   prompt is new.
//! - Both get their best: threads are swept for both and the better of each is compared.

mod ask;
mod engine;
mod events;
mod http;
mod llama_server;
mod machine;
mod memory;
mod ours;
mod phases;
mod prompts;
mod report;
mod rounds;
mod server;
mod started;
mod stats;
mod subject;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use started::Started;

/// Tokens of an answer whose decode rate is measured.
const ANSWER_TOKENS: u32 = 128;
/// Rounds of a run, and of a quick one.
const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the page is written, below the repository unless absolute
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    out: PathBuf,
    /// Fewer rounds: figures to work with, not to publish
    #[arg(long)]
    quick: bool,
    /// The binary to measure [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
}

/// Measures everything and writes the page.
///
/// # Errors
///
/// When the peer or the product cannot be built or started, when a server fails or answers with another
/// number of tokens than the others, when the run is interrupted. Nothing is written then.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let started = Started::new()?;
    let rounds = if options.quick { ROUNDS_QUICK } else { ROUNDS };
    let peer = llama_server::get(&started)?;
    let ours = ours::get(&started, root, options.myzel.as_deref())?;
    let machine = machine::Machine::read(&started, root)?;
    let bench = phases::Bench {
        started: &started,
        peer: &peer,
        ours: &ours,
        rounds,
    };
    let figures = bench.all()?;
    let page = report::page(&report::Facts {
        command: &command(options),
        rounds,
        machine: &machine,
        peer: &peer,
        ours: &ours,
        figures: &figures,
    });
    let out = root.join(&options.out);
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    say(&format!("written: {}", out.display()));
    Ok(())
}

fn command(options: &Options) -> String {
    let quick = if options.quick { " --quick" } else { "" };
    format!("cargo xtask bench{quick}")
}

/// Tells the person who waits; when nobody reads there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
