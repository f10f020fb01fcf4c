//! `cargo xtask speculation`: whether guessing ahead over a far ring changes an answer, and what it is worth.
//!
//! Two coordinators ask the same two remote stages, over links of a known delay: one guesses tokens ahead, the other does not. Both are asked
//! every question of [`questions`], one after the other, the first one of a pair in turn. Every token's bytes and the last bit of
//! its probability must be the same; what a token takes is compared question by question. [`page`] turns that into a page with a
//! verdict.

mod page;
mod questions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::builder::RangedU64ValueParser;
use lab::{Machine, Node, World, wait};
use serde_json::json;

use self::page::Figures;
use self::questions::{Kind, QUESTIONS, question};
use crate::rig::heard::{Heard, hear};
use crate::rig::machine::Machine as Host;
use crate::rig::started::Started;
use crate::rig::{http, product, say};

/// The page, below the repository.
const PAGE: &str = "docs/speculation.md";
/// From a node to another and back, in milliseconds.
const RTT_MS: u32 = 50;
/// Remote stages.
const SPLIT: u32 = 2;
/// Tokens of an answer at most.
const TOKENS: u32 = 32;
/// Tokens of an answer whose pace is compared: of a shorter one, the first few would decide.
const TOKENS_MIN: usize = 16;
/// Positions of a context.
const POSITIONS: &str = "1024";
/// The chances of a world; none are taken here, since these links neither lose nor vary.
const SEED: u64 = 7;
/// How long nodes may take to know each other.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// What `cargo xtask speculation` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The binary to measure [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
    /// How many questions, of all kinds in turn; fewer than all write no page
    #[arg(long, value_name = "N", default_value_t = QUESTIONS, value_parser = RangedU64ValueParser::<u32>::new().range(1..=u64::from(QUESTIONS)))]
    questions: u32,
    /// Where the page is written, below the repository unless absolute
    #[arg(long, value_name = "FILE", default_value = PAGE)]
    out: PathBuf,
}

/// One question, and what came of it.
#[derive(Debug, Clone, PartialEq)]
struct Pair {
    kind: Kind,
    /// How the answers differ.
    differs: Option<String>,
    /// Milliseconds of a token behind the first, with guesses and without; `None` for short answers.
    token_ms: Option<(f64, f64)>,
}

/// Measures, writes the page, and says whether all answers are equal and quick enough.
///
/// # Errors
///
/// When the product cannot be built or started, when a link is not as asked, when an answer fails, or when the run is
/// interrupted. Nothing is written then.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Started::new()?;
    let myzel = product::binary(&started, root, options.myzel.as_deref())?;
    let model = product::model(&started, &myzel)?;
    let machine = Host::read(&started, root)?;
    let rings = Rings::start(&myzel, &model)?;
    rings.place(&started)?;
    let mut pairs = Vec::new();
    for number in 0..options.questions {
        started.check()?;
        let pair = rings.ask(number)?;
        say(&pair.words(number, options.questions));
        pairs.push(pair);
    }
    let figures = Figures {
        pairs,
        guessed: rings.guessed()?,
    };
    let command = "cargo xtask speculation";
    let count = format!("{} questions", options.questions);
    let page = figures.page(&machine.opening("Speculation", command, &count));
    say(&page);
    if options.questions == QUESTIONS {
        let out = root.join(&options.out);
        std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
        say(&format!("written: {}", out.display()));
    }
    Ok(figures.are_good())
}

/// Two coordinators that share their stages.
struct Rings {
    // Dropped in this order: coordinators notice the loss of the others.
    guessing: Node,
    plain: Node,
    _stages: Vec<Node>,
    model: String,
    machines: Vec<Machine>,
    world: World,
}

impl Rings {
    fn start(myzel: &Path, model: &Path) -> Result<Self> {
        let mut world = World::new(SEED)?;
        let machines = world.machines(["guessing", "plain", "b", "c"])?;
        let model = model.to_str().context("the model's path is text")?;
        let setup = |machine: &Machine| {
            let setup = machine.myzel(myzel).model(model).exact();
            setup.arg("--context", POSITIONS).arg("--sessions", "2")
        };
        // Coordinators compute for nobody else, so that both have the same stages.
        let coordinator = |machine: &Machine, guesses: &str| {
            let setup = setup(machine).split(SPLIT).arg("--serve", "alone");
            setup.arg("--guesses", guesses)
        };
        let guessing = coordinator(&machines[0], "8").up()?;
        let mut stages = Vec::new();
        for machine in &machines[2..] {
            stages.push(setup(machine).join(&guessing).up()?);
        }
        let plain = coordinator(&machines[1], "0").join(&guessing).up()?;
        for node in [&guessing, &plain] {
            wait::until(JOIN_MAX, "the ring is up", || {
                Ok((node.status()?["answers"] == "ring").then_some(()))
            })?;
        }
        let api = guessing.api();
        let model = machines[0].inside(|| http::model_name(api))??;
        Ok(Self {
            guessing,
            plain,
            _stages: stages,
            model,
            machines: machines.into(),
            world,
        })
    }

    /// Puts the machines at their distance, and confirms it.
    fn place(&self, started: &Started) -> Result<()> {
        self.world.links().delay_ms(f64::from(RTT_MS) / 2.0);
        let [guessing, plain, b, c] = &self.machines[..] else {
            unreachable!("four machines were made");
        };
        for (from, to) in [(guessing, b), (plain, b), (b, c), (c, guessing), (c, plain)] {
            started.check()?;
            self.world
                .confirm(from, to, &self.world.way(from, to).asked())?;
        }
        Ok(())
    }

    /// Asks both, the first one in turn.
    fn ask(&self, number: u32) -> Result<Pair> {
        let (kind, text) = question(number);
        let ask = |node: &Node| -> Result<Heard> {
            let body = json!({
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": TOKENS,
                "stream": true,
                "logprobs": true,
                // Every other question of a kind is drawn by chance, with a seed.
                "temperature": f64::from(number / Kind::ALL.len() as u32 % 2) * 0.7,
                "seed": number,
            });
            let heard = node
                .machine()
                .inside(|| hear(node.api(), &body, |_| {}))??;
            ensure!(
                heard.is_whole(),
                "question {number} failed: {:?}",
                heard.error
            );
            Ok(heard)
        };
        let (guessed, plain) = match number / Kind::ALL.len() as u32 % 2 {
            0 => {
                let guessed = ask(&self.guessing)?;
                (guessed, ask(&self.plain)?)
            }
            _ => {
                let plain = ask(&self.plain)?;
                (ask(&self.guessing)?, plain)
            }
        };
        let long = plain.tokens.len() >= TOKENS_MIN;
        let times = token_ms(&guessed).zip(token_ms(&plain));
        Ok(Pair {
            kind,
            differs: guessed.differs(&plain, TOKENS),
            token_ms: times.filter(|_| long),
        })
    }

    /// Tokens that were guessed, and how many of them were right.
    fn guessed(&self) -> Result<(u64, u64)> {
        let status = self.guessing.status()?;
        let count = |name: &str| {
            let count = status["ring"][name].as_u64();
            count.with_context(|| format!("no {name} in the status: {}", status["ring"]))
        };
        Ok((count("guessed")?, count("guessed_right")?))
    }
}

fn token_ms(heard: &Heard) -> Option<f64> {
    let (first, last) = (heard.tokens.first()?, heard.tokens.last()?);
    let behind = heard.tokens.len() - 1;
    let took = last.1 - first.1;
    (behind > 0).then(|| took.as_secs_f64() * 1e3 / behind as f64)
}

impl Pair {
    /// How much faster the answer was with guesses.
    fn ratio(&self) -> Option<f64> {
        self.token_ms.map(|(guessed, plain)| plain / guessed)
    }

    fn words(&self, number: u32, all: u32) -> String {
        let pace = self.token_ms.map_or_else(
            || "short".to_owned(),
            |(guessed, plain)| format!("{guessed:.1} ms a token, {plain:.1} without guesses"),
        );
        let verdict = self.differs.as_deref().unwrap_or("equal");
        format!(
            "{} of {all}: {}, {pace}, {verdict}",
            number + 1,
            self.kind.words()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::heard::tests::heard;

    #[test]
    fn the_time_of_a_token_is_that_of_those_behind_the_first() {
        assert_eq!(
            token_ms(&heard(&["a", "b", "c"])).map(f64::round),
            Some(10.0)
        );
        assert_eq!(token_ms(&heard(&["a"])), None);
    }
}
