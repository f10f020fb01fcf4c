//! `cargo xtask bench`: Myzel beside llama-server, measured over HTTP.
//!
//! Both answer the same requests on the same machine in the same run. [`llama_server`] builds the peer once
//! from its source package, [`llama_rpc`] what it needs to spread a model; [`subject`] says what is measured and with which flags; [`server`] starts it and
//! waits until it answers. [`rounds`] then asks every server in turn, round after round, so that whatever else
//! the machine does falls on all alike; a ratio is always between two answers of the same round. [`report`]
//! turns the figures into a page, marks included: nothing on that page is written by hand.
//!
//! [`many`] does the same from several connections at once. [`agreement`] compares what both answer, [`overhead`] the
//! node with its own engine. Every process belongs to
//! [`Started`], which ends it by its own number, whether the run succeeds, fails or is interrupted.
//!
//! What is fair here, and how it is kept:
//!
//! - Equal work: the same file, system and user text, context, slots, and greedy choice; prompts must come to
//!   the same number of tokens on every server and answers to [`ANSWER_TOKENS`], or the run fails.
//! - No prompt is computed before its turn: llama-server is told not to reuse prompts, and each round's long
//!   prompt is new.
//! - Both get their best: threads are swept for both and the better of each is compared; both caches that
//!   llama-server has for many requests are tried, and the faster is used.

mod agreement;
mod engine;
pub(crate) mod llama_rpc;
pub(crate) mod llama_server;
mod many;
mod ours;
mod overhead;
mod phases;
mod prompts;
mod report;
mod rounds;
mod server;
mod subject;

use std::cell::OnceCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;

use crate::rig::machine::Machine;
use crate::rig::say;
use crate::rig::started::Started;
use phases::Phase;

/// Tokens of an answer whose decode rate is measured.
const ANSWER_TOKENS: u32 = 128;
/// Rounds of a run, and of a quick one.
const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;
/// The most rounds: a day or so.
const ROUNDS_MAX: u64 = 100;
/// The page, below the repository.
const PAGE: &str = "docs/benchmarks.md";

/// What `cargo xtask bench` takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Where the page is written, below the repository unless absolute [default: docs/benchmarks.md, or the
    /// standard output with --phase]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Fewer rounds: figures to work with, not to publish
    #[arg(long)]
    quick: bool,
    /// How often every server is asked [default: 7]
    #[arg(long, value_name = "N", conflicts_with = "quick", value_parser = RangedU64ValueParser::<usize>::new().range(1..=ROUNDS_MAX))]
    rounds: Option<usize>,
    /// Only this part, for work; may be given several times
    #[arg(long, value_name = "NAME", value_enum)]
    phase: Vec<Phase>,
    /// The binary to measure [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
}

impl Options {
    fn rounds(&self) -> usize {
        let usual = if self.quick { ROUNDS_QUICK } else { ROUNDS };
        self.rounds.unwrap_or(usual)
    }
}

/// What an invocation asks for.
#[derive(Debug, PartialEq)]
struct Plan {
    /// In their order, each once.
    phases: Vec<Phase>,
    /// The page; `None` is the standard output.
    out: Option<PathBuf>,
}

impl Plan {
    /// # Errors
    ///
    /// When a part of the figures would replace the published page.
    fn of(root: &Path, options: &Options) -> Result<Self> {
        let mut phases = options.phase.clone();
        phases.sort_unstable();
        phases.dedup();
        let all = phases.is_empty() || phases == Phase::value_variants();
        let published = root.join(PAGE);
        let out = options.out.as_ref().map(|out| root.join(out));
        if !all && out.as_ref().is_some_and(|out| same(out, &published)) {
            bail!(
                "{PAGE} holds the figures of whole runs, and --phase leaves some out; name another --out, or leave it \
                 away to read the figures here"
            );
        }
        Ok(if all {
            let phases = Phase::value_variants().to_vec();
            let out = Some(out.unwrap_or(published));
            Self { phases, out }
        } else {
            Self { phases, out }
        })
    }
}

/// Whether two paths are one file, whatever way they go.
fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(a) == real(b)
}

/// Measures everything, or the phases that were named, and writes the page.
///
/// # Errors
///
/// When the options contradict each other, when the peer or the product cannot be built or started, when a server
/// fails or answers with another number of tokens than the others, when the run is interrupted. Nothing is written
/// then.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let plan = Plan::of(root, options)?;
    let started = Started::new()?;
    let rounds = options.rounds();
    let peer = llama_server::get(&started, plan.phases.contains(&Phase::Rpc))?;
    let ours = ours::get(&started, root, options.myzel.as_deref())?;
    let machine = Machine::read(&started, root)?;
    let bench = phases::Bench {
        started: &started,
        peer: &peer,
        ours: &ours,
        rounds,
        trial: OnceCell::new(),
    };
    let figures = bench.run(&plan.phases)?;
    let page = report::page(&report::Facts {
        command: &command(options),
        rounds,
        machine: &machine,
        peer: &peer,
        ours: &ours,
        figures: &figures,
    });
    let Some(out) = plan.out else {
        io::stdout().write_all(page.as_bytes())?;
        return Ok(());
    };
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    say(&format!("written: {}", out.display()));
    Ok(())
}

fn command(options: &Options) -> String {
    let mut text = "cargo xtask bench".to_owned();
    if options.quick {
        text.push_str(" --quick");
    }
    if let Some(rounds) = options.rounds {
        text.push_str(&format!(" --rounds {rounds}"));
    }
    for phase in &options.phase {
        text.push_str(&format!(" --phase {}", phase.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(phase: &[Phase], out: Option<&str>) -> Result<Plan> {
        let options = Options {
            phase: phase.to_vec(),
            out: out.map(PathBuf::from),
            ..Options::default()
        };
        Plan::of(Path::new("/repo"), &options)
    }

    #[test]
    fn a_whole_run_is_published_and_a_part_is_shown() {
        let whole = plan(&[], None).unwrap();
        assert_eq!(whole.phases, Phase::value_variants());
        assert_eq!(whole.out, Some("/repo/docs/benchmarks.md".into()));
        assert_eq!(plan(Phase::value_variants(), None).unwrap(), whole);

        let part = plan(&[Phase::Rpc, Phase::Single, Phase::Rpc], None).unwrap();
        assert_eq!(part.phases, [Phase::Single, Phase::Rpc]);
        assert_eq!(part.out, None);
        let elsewhere = plan(&[Phase::Rpc], Some("x.md")).unwrap();
        assert_eq!(elsewhere.out, Some("/repo/x.md".into()));
    }

    #[test]
    fn a_part_never_replaces_the_page() {
        for out in ["docs/benchmarks.md", "/repo/docs/benchmarks.md"] {
            let error = plan(&[Phase::Rpc], Some(out)).unwrap_err().to_string();
            assert!(error.contains("name another --out"), "{error}");
        }
        // The file is the same whatever way leads to it.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        std::fs::write(dir.path().join(PAGE), "").unwrap();
        let options = Options {
            phase: vec![Phase::Rpc],
            out: Some("docs/../docs/benchmarks.md".into()),
            ..Options::default()
        };
        assert!(Plan::of(dir.path(), &options).is_err());
    }

    #[test]
    fn the_command_is_named_as_it_was_given() {
        let options = Options {
            quick: true,
            phase: vec![Phase::Streams, Phase::Rpc],
            ..Options::default()
        };
        assert_eq!(
            command(&options),
            "cargo xtask bench --quick --phase streams --phase rpc"
        );
        let options = Options {
            rounds: Some(9),
            ..Options::default()
        };
        assert_eq!(command(&options), "cargo xtask bench --rounds 9");
        assert_eq!(options.rounds(), 9);
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn nonsense_is_refused_and_says_what_is_allowed() {
        for (line, says) in [
            ("--rounds 0", "1..=100"),
            ("--rounds 3 --quick", "cannot be used with"),
            ("--phase fast", "possible values: single, rings"),
            ("--phase", "a value is required"),
            ("more", "more"),
        ] {
            let words = std::iter::once("bench").chain(line.split_whitespace());
            let error = Line::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
