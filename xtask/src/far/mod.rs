//! `cargo xtask far`: rings of ours beside llama.cpp's RPC, over distance.
//!
//! Both run on machines of a [`lab::World`] whose links are calibrated: the same model, the same number of machines, the same
//! questions, one after the other. [`ring`] starts either and asks it, at every distance, with one stream and with several;
//! [`losses`] takes a machine away in the middle of a reply. [`page`] and [`plot`] turn the figures into a page with verdicts and a picture.

mod losses;
mod page;
mod plot;
mod ring;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::losses::Outcome;
use self::ring::{Ring, Who};
use crate::bench::llama_server;
use crate::rig::machine::Machine;
use crate::rig::started::Started;
use crate::rig::{product, say};

/// The page and its picture, below the repository.
const PAGE: &str = "docs/far.md";
const PICTURE: &str = "docs/far.svg";
/// From a machine to another and back, in milliseconds.
const RTTS_MS: [u32; 4] = [0, 10, 50, 100];
/// Remote stages of ours, workers of the peer.
const SPLITS: [u32; 3] = [1, 2, 3];
/// Replies at once.
const STREAMS: [usize; 2] = [1, 8];
/// Threads of each process that are tried.
const THREADS: [u32; 2] = [1, 2];

/// What `cargo xtask far` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The binary to measure [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
    /// Measure with this many remote stages only; writes no page [default: 1, 2 and 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3))]
    split: Option<u32>,
}

/// What was measured of one ring at one distance.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    who: Who,
    split: u32,
    rtt_ms: u32,
    streams: usize,
    /// Milliseconds to the first token: the median over the streams.
    first_ms: f64,
    /// Tokens a second behind the first, of all streams together.
    decode: f64,
    /// Bytes on all links that a token more costs, IP headers included; with one stream only.
    token_bytes: Option<f64>,
}

/// What a ring is, beside its pace.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Standing {
    who: Who,
    split: u32,
    /// Threads of each process.
    threads: u32,
    /// Memory of all processes, in bytes.
    memory_bytes: u64,
}

/// All of a run.
#[derive(Debug, Default)]
struct Figures {
    cells: Vec<Cell>,
    standings: Vec<Standing>,
    losses: Vec<(Who, Outcome)>,
}

/// Measures, writes the page and the picture, and says whether rings of ours keep what they must.
///
/// # Errors
///
/// When a program cannot be built or started, when a link is not as asked, when an answer fails that nothing disturbs, or when the
/// run is interrupted. Nothing is written then.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Started::new()?;
    let myzel = product::binary(&started, root, options.myzel.as_deref())?;
    let model = product::model(&started, &myzel)?;
    let peer = llama_server::get(&started, true)?;
    let rpc = peer
        .rpc
        .as_ref()
        .context("the peer was built with workers")?;
    let machine = Machine::read(&started, root)?;
    let programs = ring::Programs {
        myzel: &myzel,
        server: &rpc.program,
        worker: &rpc.worker,
        model: model.to_str().context("the model's path is text")?,
    };
    let mut figures = Figures::default();
    let splits = SPLITS
        .iter()
        .filter(|split| options.split.is_none_or(|one| one == **split));
    for split in splits {
        for who in Who::ALL {
            let threads = best_threads(&started, &programs, (who, *split))?;
            measure(&started, &programs, (who, *split, threads), &mut figures)?;
        }
    }
    for who in Who::ALL {
        for outcome in losses::all(&started, &programs, who)? {
            say(&format!("{who:?}: {outcome:?}"));
            figures.losses.push((who, outcome));
        }
    }
    let opening = machine.opening("Far rings", "cargo xtask far", &peer.version);
    let page = page::page(&opening, &figures);
    say(&page);
    if options.split.is_none() {
        for (name, text) in [(PAGE, page), (PICTURE, plot::picture(&figures.cells))] {
            let out = root.join(name);
            std::fs::write(&out, text)
                .with_context(|| format!("cannot write {}", out.display()))?;
            say(&format!("written: {}", out.display()));
        }
    }
    Ok(page::is_good(&figures))
}

/// With how many threads a process is quickest, by one stream at no distance.
fn best_threads(
    started: &Started,
    programs: &ring::Programs<'_>,
    (who, split): (Who, u32),
) -> Result<u32> {
    let mut tried = Vec::new();
    for threads in THREADS {
        let ring = Ring::start(started, programs, (who, split, threads), false)?;
        tried.push((ring.measure(started, 1)?.decode, threads));
    }
    say(&format!(
        "{who:?}, {split} remote: tokens a second by threads: {tried:?}"
    ));
    let best = tried.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    Ok(best.context("something was tried")?.1)
}

/// Asks one ring at all distances.
fn measure(
    started: &Started,
    programs: &ring::Programs<'_>,
    (who, split, threads): (Who, u32, u32),
    figures: &mut Figures,
) -> Result<()> {
    let ring = Ring::start(started, programs, (who, split, threads), false)?;
    for rtt_ms in RTTS_MS {
        ring.place(started, rtt_ms)?;
        for streams in STREAMS {
            let pace = ring.measure(started, streams)?;
            let cell = Cell {
                who,
                split,
                rtt_ms,
                streams,
                first_ms: pace.first_ms,
                decode: pace.decode,
                token_bytes: pace.token_bytes,
            };
            say(&format!("{cell:?}"));
            figures.cells.push(cell);
        }
    }
    figures.standings.push(Standing {
        who,
        split,
        threads,
        memory_bytes: ring.memory_bytes()?,
    });
    Ok(())
}
