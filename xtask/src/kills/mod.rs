//! `cargo xtask kills`: remote stages are killed in the middle of replies, and the very same replies must go on.
//!
//! Every kill is drawn from a seed of its own ([`draw`]): which ring, whose node, when, under which question. Kills are taken in the order
//! of their rings, so that nodes stay between them ([`nodes`]) and only who was killed starts again. A node beside the ring, with
//! the whole model, says what the undisturbed reply is ([`crate::rig::heard`]). What came of a kill is a line of a file ([`record`]); a campaign that
//! was interrupted goes on where it was. [`page`] turns the lines into a page with a verdict. With `--crowd` many replies are
//! asked for at once ([`crowd`]); with `--losses` stages are lost in other ways ([`losses`]).

mod crowd;
mod draw;
mod losses;
mod nodes;
mod page;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::builder::RangedU64ValueParser;

use self::crowd::Crowd;
use self::draw::{Kill, Kind, Question, Shape};
use self::nodes::{Alone, Nodes, When};
use self::page::Figures;
use self::record::Record;
use crate::rig::heard::Heard;
use crate::rig::machine::Machine;
use crate::rig::started::Started;
use crate::rig::{product, say};

/// The page, below the repository.
const PAGE: &str = "docs/kills.md";
/// The file of results, below the repository.
const RESULTS: &str = "docs/kills.jsonl";
/// The page of many replies at once, below the repository.
const PAGE_CROWD: &str = "docs/kills-crowd.md";
/// The page of other losses, below the repository.
const PAGE_LOSSES: &str = "docs/losses.md";
/// Kills of a campaign, and of a sample of it.
const KILLS: u32 = 1_000;
const KILLS_SAMPLE: u32 = 10;
/// The most kills: a day or so.
const KILLS_MAX: u64 = 10_000;
/// How often a kill is drawn again that did not strike.
const VOIDS_MAX: u32 = 10;
/// How often in a row nodes may fail to come back as they were until the campaign ends.
const REBUILDS_MAX: u32 = 3;
/// Tokens of the reply by which a ring is held against the node that computes alone.
const TOKENS_PROOF: u32 = 16;

/// What `cargo xtask kills` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many kills [default: 1000; 10 with --sample]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=KILLS_MAX))]
    kills: Option<u32>,
    /// What they are drawn from
    #[arg(long, value_name = "N", default_value_t = 6)]
    seed: u64,
    /// Repeat the one kill that was drawn from this seed; nothing is written
    #[arg(long, value_name = "N", conflicts_with_all = ["kills", "seed", "sample"])]
    only_seed: Option<u64>,
    /// Write nothing, and hold no times against their bars, as in ./test
    #[arg(long)]
    sample: bool,
    /// Kill N times in the midst of 50 replies at once, half of them over another ring; writes docs/kills-crowd.md
    #[arg(long, value_name = "N", conflicts_with_all = ["kills", "seed", "only_seed", "sample"], value_parser = RangedU64ValueParser::<u32>::new().range(1..=KILLS_MAX))]
    crowd: Option<u32>,
    /// Freeze a stage N times, let one leave N times, and kill one N times whose layers nobody else has; writes docs/losses.md
    #[arg(long, value_name = "N", conflicts_with_all = ["kills", "seed", "only_seed", "sample", "crowd"], value_parser = RangedU64ValueParser::<u32>::new().range(1..=KILLS_MAX))]
    losses: Option<u32>,
    /// Where results are kept, below the repository unless absolute; what is there already is not killed again
    #[arg(long, value_name = "FILE", default_value = RESULTS)]
    results: PathBuf,
    /// Where the page is written, below the repository unless absolute
    #[arg(long, value_name = "FILE", default_value = PAGE)]
    out: PathBuf,
    /// The binary to kill [default: the release build of this repository, built first]
    #[arg(long, value_name = "FILE")]
    myzel: Option<PathBuf>,
}

impl Options {
    fn count(&self) -> u32 {
        let default = if self.sample { KILLS_SAMPLE } else { KILLS };
        self.kills.unwrap_or(default)
    }

    fn writes(&self) -> bool {
        !self.sample && self.only_seed.is_none()
    }

    /// The kills that are to be done, with their numbers, in the order of their rings.
    fn kills(&self, done: &[Record]) -> Result<Vec<(Option<u32>, Kill)>> {
        if let Some(seed) = self.only_seed {
            return Ok(vec![(None, Kill::draw(seed, 0))]);
        }
        let seeds: BTreeMap<u64, u32> = (0..self.count())
            .map(|n| (draw::seed_of(self.seed, n), n))
            .collect();
        let is_done: BTreeSet<u64> = done.iter().map(|record| record.seed).collect();
        ensure!(
            is_done.iter().all(|seed| seeds.contains_key(seed)),
            "{} is of other kills than these; name another file with --results, or move it away",
            self.results.display()
        );
        let due = seeds
            .into_iter()
            .filter(|(seed, _)| !is_done.contains(seed));
        let mut kills: Vec<_> = due
            .map(|(seed, n)| (Some(n), Kill::draw(seed, 0)))
            .collect();
        kills.sort_by_key(|(n, kill)| (kill.shape, *n));
        Ok(kills)
    }
}

/// Kills, writes lines and the page, and says whether replies went on as they must.
///
/// # Errors
///
/// When the product cannot be built or started, when nodes do not come back, or when the run is interrupted. Lines that
/// were written stay.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Started::new()?;
    let myzel = product::binary(&started, root, options.myzel.as_deref())?;
    if let Some(rounds) = options.crowd {
        return crowded(&started, root, &myzel, rounds);
    }
    let model = product::model(&started, &myzel)?;
    let model = model.to_str().context("the model's path is text")?;
    if let Some(rounds) = options.losses {
        return lose(&started, root, (&myzel, model), rounds);
    }
    let machine = Machine::read(&started, root)?;
    let results = root.join(&options.results);
    let mut records = match options.writes() {
        true => record::read(&results)?,
        false => Vec::new(),
    };
    let kills = options.kills(&records)?;
    if !kills.is_empty() {
        let mut campaign = Campaign::start(&started, &myzel, model, &kills)?;
        for (at, (n, kill)) in kills.iter().enumerate() {
            let mut record = campaign.kill(kill)?;
            (record.n, record.revision) = (*n, machine.revision.clone());
            say(&format!(
                "{} of {}: {}",
                at + 1,
                kills.len(),
                words(&record)
            ));
            if options.writes() {
                record::append(&results, &record)?;
            }
            records.push(record);
        }
    }
    let command = format!(
        "cargo xtask kills --kills {} --seed {}",
        options.count(),
        options.seed
    );
    let opening = machine.opening("Kills", &command, &format!("{} kills", records.len()));
    let page = page::page(&opening, &records);
    say(&page);
    if options.writes() {
        let out = root.join(&options.out);
        std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
        say(&format!(
            "written: {} and {}",
            out.display(),
            results.display()
        ));
    }
    let figures = Figures::of(records.iter()).context("something was killed")?;
    Ok(figures.go_on() && (!options.writes() || figures.are_quick()))
}

/// Kills in the midst of many replies, and writes their page.
fn crowded(started: &Started, root: &Path, myzel: &Path, rounds: u32) -> Result<bool> {
    let machine = Machine::read(started, root)?;
    let figures = Crowd::start(started, myzel)?.rounds(started, rounds)?;
    let command = format!("cargo xtask kills --crowd {rounds}");
    let count = format!("{rounds} kills, {} replies at once", 2 * crowd::EACH);
    let page = figures.page(&machine.opening("Kills in a crowd", &command, &count));
    say(&page);
    let out = root.join(PAGE_CROWD);
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(figures.are_good())
}

/// Loses stages in other ways, and writes their page.
fn lose(started: &Started, root: &Path, product: (&Path, &str), rounds: u32) -> Result<bool> {
    let machine = Machine::read(started, root)?;
    let outcomes = losses::rounds(started, product, rounds)?;
    let command = format!("cargo xtask kills --losses {rounds}");
    let count = format!("{rounds} rounds each");
    let page = losses::page(
        &machine.opening("Other losses", &command, &count),
        &outcomes,
    );
    say(&page);
    let out = root.join(PAGE_LOSSES);
    std::fs::write(&out, page).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(outcomes.iter().all(losses::Outcome::is_good))
}

/// A kill in a line.
fn words(record: &Record) -> String {
    let Record {
        seed,
        shape,
        victim,
        kind,
        after,
        tokens,
        gap_ms,
        voids,
        ..
    } = record;
    let spare = if shape.spare { " and a spare one" } else { "" };
    let how = match (record.finished, record.equal) {
        (true, true) => "equal".to_owned(),
        (true, false) => format!(
            "NOT EQUAL: {}",
            record.differs.as_deref().unwrap_or_default()
        ),
        _ => format!(
            "NOT FINISHED: {}",
            record.error.as_deref().unwrap_or_default()
        ),
    };
    format!(
        "seed {seed}, stage {victim} of {}{spare}, {}, token {after} of {tokens}: gap {gap_ms:.0} ms, {how}; {voids} void; {}",
        shape.stages,
        kind.words(),
        record.told,
    )
}

/// What a run of kills stands on.
struct Campaign<'a> {
    started: &'a Started,
    myzel: &'a Path,
    model: &'a str,
    alone: Alone,
    /// How many tokens are ever asked for.
    needs: BTreeMap<Question, u32>,
    /// Undisturbed replies, as long as that.
    expected: BTreeMap<Question, Heard>,
    ring: Option<Ring>,
}

/// A ring, and how long its prefills take.
struct Ring {
    nodes: Nodes,
    first: BTreeMap<Question, Duration>,
}

impl<'a> Campaign<'a> {
    fn start(
        started: &'a Started,
        myzel: &'a Path,
        model: &'a str,
        kills: &[(Option<u32>, Kill)],
    ) -> Result<Self> {
        let mut needs = BTreeMap::new();
        for (_, kill) in kills {
            let need = needs.entry(kill.question).or_insert(TOKENS_PROOF);
            *need = kill.tokens.max(*need);
        }
        Ok(Self {
            started,
            myzel,
            model,
            alone: Alone::start(myzel, model)?,
            needs,
            expected: BTreeMap::new(),
            ring: None,
        })
    }

    /// Kills, and draws again what did not strike.
    fn kill(&mut self, kill: &Kill) -> Result<Record> {
        for voids in 0..VOIDS_MAX {
            let kill = Kill::draw(kill.seed, voids);
            match self.strike(&kill)? {
                Ok(record) => return Ok(Record { voids, ..record }),
                Err(why) => say(&format!("void, {}: {why}", kind_words(&kill))),
            }
        }
        bail!("the kill of seed {} never strikes", kill.seed)
    }

    /// One kill, or why it is void.
    fn strike(&mut self, kill: &Kill) -> Result<Result<Record, String>> {
        self.started.check()?;
        self.expect(kill)?;
        self.raise(kill.shape)?;
        let Some(ring) = &mut self.ring else {
            bail!("there is a ring once it was raised");
        };
        let expected = &self.expected[&kill.question];
        let first = ring.first(kill, expected)?;
        let length = kill.tokens.min(expected.tokens.len() as u32);
        let when = match kill.kind {
            Kind::Prefill => When::Prefill(first.mul_f64(kill.prefill_share())),
            _ => match kill.after(length) {
                Some(after) => When::Tokens(after),
                None => return Ok(Err(format!("the undisturbed reply has {length} tokens"))),
            },
        };
        let struck = ring.nodes.strike(kill, when)?;
        Ok(Record::of(kill, &struck, expected, first))
    }

    /// Sees to it that the undisturbed reply is known, as long as it will ever be needed.
    fn expect(&mut self, kill: &Kill) -> Result<()> {
        let need = self.needs.entry(kill.question).or_insert(TOKENS_PROOF);
        let is_known = self.expected.contains_key(&kill.question) && *need >= kill.tokens;
        if !is_known {
            *need = kill.tokens.max(*need);
            let heard = self.alone.ask(&kill.question, *need)?;
            self.expected.insert(kill.question, heard);
        }
        Ok(())
    }

    /// Sees to it that the ring is as asked, with everybody there; nodes that do not come back are replaced by others.
    fn raise(&mut self, shape: Shape) -> Result<()> {
        let mut ring = self.ring.take().filter(|ring| ring.nodes.shape == shape);
        for _ in 0..REBUILDS_MAX {
            let raised = match ring.take() {
                Some(mut ring) => ring.nodes.whole(self.started).map(|()| ring),
                None => Nodes::start(self.started, self.myzel, self.model, shape).map(Ring::new),
            };
            match raised {
                Ok(ring) => {
                    self.ring = Some(ring);
                    return Ok(());
                }
                Err(error) => say(&format!("the nodes are replaced: {error:#}")),
            }
            self.started.check()?;
        }
        bail!("a ring over {} remote does not come up", shape.stages)
    }
}

impl Ring {
    fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            first: BTreeMap::new(),
        }
    }

    /// How long the first token takes over this ring when nothing disturbs it; the reply begins as the node alone said.
    fn first(&mut self, kill: &Kill, expected: &Heard) -> Result<Duration> {
        if let Some(first) = self.first.get(&kill.question) {
            return Ok(*first);
        }
        let heard = self.nodes.ask(&kill.question, TOKENS_PROOF)?;
        if let Some(differs) = heard.differs(expected, TOKENS_PROOF) {
            bail!("undisturbed, a ring does not say what a node says alone: {differs}");
        }
        let (_, at) = heard.tokens.first().context("a reply has a token")?;
        let first = *at - heard.asked;
        self.first.insert(kill.question, first);
        Ok(first)
    }
}

fn kind_words(kill: &Kill) -> String {
    format!("seed {}, {}", kill.seed, kill.kind.words())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::record::tests::record;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        let words = ["kills"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().options
    }

    #[test]
    fn a_campaign_writes_and_a_sample_or_a_repeated_kill_does_not() {
        let campaign = options("");
        assert_eq!((campaign.count(), campaign.writes()), (1_000, true));
        let sample = options("--sample");
        assert_eq!((sample.count(), sample.writes()), (10, false));
        let one = options("--only-seed 77");
        assert!(!one.writes());
        let kills = one.kills(&[]).unwrap();
        assert_eq!(kills, [(None, Kill::draw(77, 0))]);
        for line in ["--kills 0", "--only-seed 1 --kills 3"] {
            let words = ["kills"].into_iter().chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_campaign_goes_on_where_it_was_and_not_with_another_ones_file() {
        let options = options("--kills 50 --seed 3");
        let all = options.kills(&[]).unwrap();
        assert_eq!(all.len(), 50);
        assert!(all.windows(2).all(|two| two[0].1.shape <= two[1].1.shape));
        let done = Record {
            seed: all[20].1.seed,
            ..record()
        };
        let rest = options.kills(std::slice::from_ref(&done)).unwrap();
        assert_eq!(rest.len(), 49);
        assert!(!rest.contains(&all[20]));
        let other = Record { seed: 1, ..done };
        assert!(options.kills(&[other]).is_err());
    }
}
