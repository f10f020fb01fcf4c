//! `cargo xtask token-time`: what distance costs a token of a ring.
//!
//! A token needs one lap: from the coordinator over the remote stages back to it. So on a far network it should take the
//! time of computing, one lap, and next to nothing more. [`ring`] starts real nodes on machines of a
//! [`lab::World`], whose links are calibrated first, and asks the same question at every distance in turn, round
//! after round; the distance is changed under the running nodes. Computing is what a token takes at no distance, in
//! the same round. [`forecast`] asks the planner beforehand what it expects. [`page`] turns the figures into a page with a verdict.
//! A run takes half an hour; with `--part` it is done in pieces, and [`parts`] keeps what was measured until all is there.

mod forecast;
mod page;
mod parts;
mod ring;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;

use self::parts::{Measured, Part};
use crate::rig::machine::Machine;
use crate::rig::started::Started;
use crate::rig::{product, say};

/// The page, below the repository.
const PAGE: &str = "docs/token-time.md";
/// Times from a node to another and back, in milliseconds, beyond none at all.
const RTTS_MS: [u32; 3] = [20, 50, 100];
/// What a token may take beyond computing: this share of a lap,
const LAP_SHARE_MAX: f64 = 1.15;
/// and so many milliseconds for every hop.
const HOP_MS_MAX: f64 = 1.0;
/// Rounds of a run.
const ROUNDS: usize = 5;
/// The most rounds: an hour or so.
const ROUNDS_MAX: u64 = 60;

/// What `cargo xtask token-time` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The binary to measure [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
    /// How often every distance is asked
    #[arg(long, value_name = "N", default_value_t = ROUNDS, value_parser = RangedU64ValueParser::<usize>::new().range(1..=ROUNDS_MAX))]
    rounds: usize,
    /// Measure this part only, and take the others from runs before, of the same revision [default: all]
    #[arg(long, value_name = "PART", value_enum)]
    part: Vec<Part>,
    /// Where the page is written, below the repository unless absolute
    #[arg(long, value_name = "FILE", default_value = PAGE)]
    out: PathBuf,
}

/// Measures, writes the page, and says whether every ring keeps the limit, and every forecast came true.
///
/// # Errors
///
/// When the product cannot be built or started, when a link is not as asked, when a node fails, or when the run is
/// interrupted. Nothing is written then.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Started::new()?;
    let myzel = product::binary(&started, root, options.myzel.as_deref())?;
    let model = product::model(&started, &myzel)?;
    let machine = Machine::read(&started, root)?;
    let mut measured = match options.part[..] {
        [] => Measured::new(&machine.revision, options.rounds),
        _ => Measured::read(root, &machine.revision, options.rounds)?,
    };
    let parts = match &options.part[..] {
        [] => &Part::ALL[..],
        parts => parts,
    };
    for part in parts {
        say(&format!("{part:?}, {} rounds", options.rounds));
        let (split, layers) = part.ring();
        let ring = ring::Ring::start(&started, &myzel, &model, (split, layers));
        let ring = ring.with_context(|| format!("a ring over {split} remote"))?;
        measured.add(*part, ring, &started)?;
        measured.write(root)?;
    }
    let missing = measured.missing();
    if !missing.is_empty() {
        say(&format!("no page yet, parts are missing: {missing:?}"));
        return Ok(measured.holds());
    }
    let command = format!("cargo xtask token-time --rounds {}", options.rounds);
    let opening = machine.opening(
        "Token time",
        &command,
        &format!("{} rounds", options.rounds),
    );
    let page = page::page(&opening, &measured.figures(), &measured.forecasts());
    say(&page);
    let out = root.join(&options.out);
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    say(&format!("written: {}", out.display()));
    Ok(measured.holds())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn without_options_the_page_is_written_and_nonsense_is_refused() {
        let options = Line::try_parse_from(["token-time"]).unwrap().options;
        assert_eq!((options.rounds, options.out), (ROUNDS, PAGE.into()));
        for (line, says) in [
            ("--rounds 0", "1..=60"),
            ("--myzel", "a value is required"),
            ("--part ring-3", "ring-1"),
        ] {
            let words = ["token-time"].into_iter().chain(line.split(' '));
            let error = Line::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
