//! `cargo xtask soak`: many callers of every kind for a long time, and nothing may be left of them.
//!
//! One node of the release build, or a ring, answers; streams ask one request after the other, each with a length,
//! an answer and a behaviour of its own ([`caller`]), drawn from a seed that is printed. Meanwhile the resident
//! memory of every process is sampled; it had the longest requests before, so that every buffer has been used. Afterwards ([`verdict`]):
//!
//! - memory did not grow once the first quarter was over ([`slope`]),
//! - every place is free again, and as many requests at once as there are places are answered,
//! - no request ended otherwise than its behaviour allows,
//! - SIGINT ends every process ([`nodes`]).

mod caller;
mod client;
mod nodes;
mod slope;
mod verdict;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::builder::RangedU64ValueParser;

use crate::rig::started::Started;
use crate::rig::{product, say};
use caller::Caller;
use client::Tally;
use nodes::Nodes;
use slope::Sample;
use verdict::Findings;

/// How often memory is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// The shortest soak, in seconds: three quarters of it must be enough for a slope.
const SECONDS_MIN: u64 = 20;
/// The longest, in seconds: a week.
const SECONDS_MAX: u64 = 7 * 24 * 3_600;
/// The most streams: more requests at once than this are refused by a node (`api::REQUESTS_MAX`).
const STREAMS_MAX: u64 = 64;
/// The most other nodes of a ring: all of them share this machine.
const SPLIT_MAX: u64 = 4;

/// What `cargo xtask soak` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// For how long, in minutes
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = RangedU64ValueParser::<u64>::new().range(1..=SECONDS_MAX / 60))]
    minutes: u64,
    /// For how long, in seconds; a sample, for example in ./test
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = RangedU64ValueParser::<u64>::new().range(SECONDS_MIN..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// Requests that are asked at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<u32>::new().range(1..=STREAMS_MAX))]
    streams: u32,
    /// Requests that the node computes at once; the others wait
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = RangedU64ValueParser::<u32>::new().range(1..=STREAMS_MAX))]
    sessions: u32,
    /// Over a ring with so many other nodes, all on this machine
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=SPLIT_MAX))]
    split: Option<u32>,
    /// What everything random is drawn from [default: another one each time, printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The binary to start [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }
}

/// Soaks, prints what was found, and says whether all of it is as it should be.
///
/// # Errors
///
/// When the product cannot be built or started, when the system does not say what its processes do, or when the
/// run is interrupted.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Started::new()?;
    let myzel = product::binary(&started, root, options.myzel.as_deref())?;
    let model = product::model(&started, &myzel)?;
    let seed = options.seed.unwrap_or_else(rand::random);
    let split = options.split.unwrap_or(0);
    let places = options.sessions;
    let mut nodes = Nodes::start(&started, &myzel, &model, places, split)?;
    let addr = nodes.addr();
    say("warming up: as many of the longest requests as there are places, one by one");
    let mut warm = Tally::default();
    for number in 0..places {
        let number = u64::from(number);
        warm.add(client::fill(&started, addr, number, 1, Caller::longest)?);
    }
    say(&format!(
        "soaking for {} s: {} streams, {} places, {} remote stages, --seed {seed}",
        options.time().as_secs(),
        options.streams,
        options.sessions,
        split,
    ));
    let (mut tally, samples) = soak(&started, &mut nodes, options, seed)?;
    say("asking whether everything is free again");
    let taken = nodes.taken()?;
    let refill = client::fill(&started, addr, 0, places, Caller::short)?;
    let left = nodes.interrupt()?;
    tally.add(warm);
    let findings = Findings {
        seed,
        time: options.time(),
        tally,
        trend: slope::trend(&samples),
        taken,
        refill,
        left,
    };
    write!(io::stdout().lock(), "{findings}")?;
    Ok(findings.faults().is_empty())
}

/// Streams ask until the time is over; the memory is sampled until the last of them has its answer.
fn soak(
    started: &Started,
    nodes: &mut Nodes<'_>,
    options: &Options,
    seed: u64,
) -> Result<(Tally, Vec<Sample>)> {
    let begun = Instant::now();
    let until = begun + options.time();
    let addr = nodes.addr();
    thread::scope(|scope| {
        let streams: Vec<_> = (0..options.streams)
            .map(|number| scope.spawn(move || client::stream(started, addr, seed, number, until)))
            .collect();
        let mut samples = Vec::new();
        let sampled = loop {
            if Instant::now() >= until {
                break Ok(());
            }
            match nodes.resident().and_then(|bytes| {
                started.pause(SAMPLE_EVERY)?;
                Ok(bytes)
            }) {
                Ok(bytes) => samples.push(Sample {
                    at: begun.elapsed(),
                    bytes,
                }),
                Err(error) => break Err(error),
            }
        };
        let mut tally = Tally::default();
        for stream in streams {
            tally.add(stream.join().expect("a stream does not panic"));
        }
        sampled.map(|()| (tally, samples))
    })
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

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("soak").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options)
    }

    #[test]
    fn without_arguments_it_is_what_the_project_promises() {
        let options = parse("").unwrap();
        assert_eq!(options.time(), Duration::from_secs(1_800));
        assert_eq!((options.streams, options.split), (16, None));
        let options = parse("--seconds 60 --streams 3 --split 1 --seed 7").unwrap();
        assert_eq!(options.time(), Duration::from_secs(60));
        assert_eq!(
            (options.streams, options.split, options.seed),
            (3, Some(1), Some(7))
        );
    }

    #[test]
    fn nonsense_is_refused_and_says_what_is_allowed() {
        for (line, says) in [
            ("--minutes 0", "1..="),
            ("--minutes -3", "-3"),
            ("--minutes 999999999", "10080"),
            ("--seconds 19", "20..="),
            ("--seconds 60 --minutes 1", "cannot be used with"),
            ("--streams 0", "1..=64"),
            ("--streams 65", "1..=64"),
            ("--sessions 0", "1..=64"),
            ("--split 0", "1..=4"),
            ("--seed x", "x"),
            ("more", "more"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
