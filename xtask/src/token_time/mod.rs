//! `cargo xtask token-time`: what distance costs a token of a ring.
//!
//! A token needs one lap: from the coordinator over the remote stages back to it. So on a far network it should take the
//! time of computing, one lap, and next to nothing more. [`ring`] starts real nodes on machines of a
//! [`lab::World`], whose links are calibrated first, and asks the same question at every distance in turn, round
//! after round; the distance is changed under the running nodes. Computing is what a token takes at no distance, in
//! the same round. [`forecast`] asks the planner beforehand what it expects. [`page`] turns the figures into a page with a verdict.

mod forecast;
mod page;
mod ring;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;

use self::forecast::Forecasts;
use self::ring::Layers;
use crate::rig::machine::Machine;
use crate::rig::started::Started;
use crate::rig::{product, say};

/// The page, below the repository.
const PAGE: &str = "docs/token-time.md";
/// Remote stages of the rings.
const SPLITS: [u32; 2] = [1, 2];
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
    let (mut figures, mut forecasts) = (Vec::new(), Vec::new());
    for split in SPLITS {
        say(&format!(
            "a ring over {split} remote, {} rounds",
            options.rounds
        ));
        let start = |layers| {
            let ring = ring::Ring::start(&started, &myzel, &model, (split, layers));
            ring.with_context(|| format!("a ring over {split} remote"))
        };
        figures.push(start(Layers::Asked)?.measure(&started, options.rounds)?);
        let planned = start(Layers::Planned)?;
        forecasts.push(Forecasts::measure(
            &planned,
            &started,
            (split, options.rounds),
        )?);
    }
    let command = format!("cargo xtask token-time --rounds {}", options.rounds);
    let opening = machine.opening(
        "Token time",
        &command,
        &format!("{} rounds", options.rounds),
    );
    let page = page::page(&opening, &figures, &forecasts);
    say(&page);
    let out = root.join(&options.out);
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    say(&format!("written: {}", out.display()));
    let kept = figures.iter().all(ring::Figures::keeps_the_limit);
    Ok(kept && forecasts.iter().all(Forecasts::hold))
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
        for (line, says) in [("--rounds 0", "1..=60"), ("--myzel", "a value is required")] {
            let words = ["token-time"].into_iter().chain(line.split(' '));
            let error = Line::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
