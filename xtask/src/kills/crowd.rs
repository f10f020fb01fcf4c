//! Many replies at once while a stage dies: only those that go through it pay.
//!
//! Two coordinators share a commons, each with a circle of its own: the first computes over one of two members, the second over
//! another. Both answer as many callers at once; in every round the first one's stage is killed in the midst of all. What the
//! second one's callers hear then is held against what they hear when nothing dies. The model is a tiny one, for both rings share this
//! machine.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Machine, Node, Setup, World, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use specimen::{Family, Shape, Weights};

use super::page::{percent, quantile};
use crate::rig::heard::{Heard, hear};
use crate::rig::started::Started;
use crate::rig::table::Table;
use crate::rig::{http, say};

/// Replies at once over each of the two rings.
pub(super) const EACH: usize = 25;
/// Tokens of a reply.
const TOKENS: u32 = 120;
/// Tokens that every reply has when the stage is killed, unless it ends before.
const BEFORE: usize = 10;
/// How long nodes may take to be as they were.
const WHOLE_MAX: Duration = Duration::from_secs(90);
/// The chances of a world; none are taken here.
const SEED: u64 = 17;

/// The two rings.
pub(super) struct Crowd {
    first: Coordinator,
    second: Coordinator,
    hosts: Vec<Node>,
    _world: World,
    _model: tempfile::TempDir,
}

struct Coordinator {
    node: Node,
    model: String,
    /// What it answers, question by question, when nothing dies.
    expected: Vec<Heard>,
}

/// The replies over one ring, question by question.
type Replies = Vec<Result<Heard>>;

/// What came of the replies over one ring, in all rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Outcome {
    replies: usize,
    finished: usize,
    equal: usize,
    /// The longest pause of each, from the kill on.
    gaps_ms: Vec<f64>,
}

/// What came of all rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figures {
    rounds: u32,
    through: Outcome,
    beside: Outcome,
    /// Nothing died.
    through_undisturbed: Outcome,
    beside_undisturbed: Outcome,
}

impl Crowd {
    /// Starts five nodes, two of them again as coordinators, and asks what they answer when nothing dies.
    pub(super) fn start(started: &Started, myzel: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let model = dir.path().join("tiny.gguf");
        let shape = Shape {
            embedding: 384,
            heads: 6,
            feed_forward: 1024,
            ..Shape::SMALL
        };
        std::fs::write(
            &model,
            specimen::bytes(Family::Llama, &shape, Weights::Q8_0, 1),
        )?;
        let model = model.to_str().context("the model's path is text")?;
        let mut world = World::new(SEED)?;
        let setup = |machine: &Machine| {
            let setup = machine.myzel(myzel).model(model).exact();
            setup
                .arg("--context", "512")
                .arg("--sessions", &EACH.to_string())
        };
        let [a, b, c, d, e] = world.machines(["a", "b", "c", "d", "e"])?;
        let founder = setup(&a).up()?;
        let mut hosts = Vec::new();
        for machine in [&b, &e, &d] {
            started.check()?;
            hosts.push(setup(machine).join(&founder).up()?);
        }
        let second = setup(&c).join(&founder).up()?;
        let ids = hosts.iter().map(id).collect::<Result<Vec<_>>>()?;
        let first = again(founder, &ids[..2])?;
        let second = again(second, &ids[2..])?;
        let (first, second) = (Coordinator::of(first)?, Coordinator::of(second)?);
        Ok(Self {
            first,
            second,
            hosts,
            _world: world,
            _model: dir,
        })
    }

    /// Asks all questions over both rings so often, and kills the first one's stage every time.
    pub(super) fn rounds(&mut self, started: &Started, rounds: u32) -> Result<Figures> {
        let mut figures = Figures {
            rounds,
            ..Figures::default()
        };
        let (through, beside, _) = self.ask_all(None)?;
        (self.first.expected, self.second.expected) = (heard(through)?, heard(beside)?);
        for round in 1..=rounds {
            started.check()?;
            let (through, beside, at) = self.ask_all(None)?;
            figures
                .through_undisturbed
                .add(&through, &self.first.expected, at);
            figures
                .beside_undisturbed
                .add(&beside, &self.second.expected, at);
            let (before, other) = (ring(&self.first.node)?, ring(&self.second.node)?);
            let victim = self.host(&before.1)?;
            let pid = self.hosts[victim].process().pid();
            let (through, beside, at) = self.ask_all(Some(Pid::from_raw(pid)))?;
            let process = self.hosts[victim].process();
            wait::until(WHOLE_MAX, "the victim is gone", || process.ended())?;
            ensure!(
                ring(&self.first.node)?.0 != before.0,
                "the kill did not strike the first ring"
            );
            ensure!(
                ring(&self.second.node)? == other,
                "the second ring is another one"
            );
            figures.through.add(&through, &self.first.expected, at);
            figures.beside.add(&beside, &self.second.expected, at);
            self.hosts[victim] = self.hosts[victim].setup().clone().up()?;
            self.whole()?;
            say(&format!("round {round} of {rounds} is done"));
        }
        Ok(figures)
    }

    fn host(&self, wanted: &str) -> Result<usize> {
        for (at, host) in self.hosts.iter().enumerate() {
            if id(host)? == wanted {
                return Ok(at);
            }
        }
        bail!("the first ring's stage is on none of its members")
    }

    fn whole(&self) -> Result<()> {
        let others = self.hosts.len() + 1;
        wait::until(WHOLE_MAX, "everybody is there", || {
            let status = self.first.node.status()?;
            let nodes = status["nodes"].as_array().into_iter().flatten();
            let up = nodes.filter(|node| node["state"] == "up").count();
            Ok((up == others && status["answers"] == "ring").then_some(()))
        })
    }

    /// Asks all questions over both rings at once. When every reply has begun, the victim is killed; returns when that was.
    fn ask_all(&self, victim: Option<Pid>) -> Result<(Replies, Replies, Instant)> {
        let (begun, struck) = (AtomicUsize::new(0), Mutex::new(None));
        let has_begun = || {
            if begun.fetch_add(1, Ordering::AcqRel) + 1 == 2 * EACH {
                if let Some(victim) = victim {
                    // It is ours, and was not waited for.
                    let _ = kill(victim, Signal::SIGKILL);
                }
                *struck.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        };
        let (through, beside) = thread::scope(|scope| {
            let ask = |coordinator: &'_ Coordinator| -> Vec<_> {
                let (machine, api) = (coordinator.node.machine().clone(), coordinator.node.api());
                let one = |n: usize| {
                    let (machine, has_begun) = (machine.clone(), &has_begun);
                    let body = question(&coordinator.model, n);
                    scope.spawn(move || machine.inside(|| one(api, &body, has_begun))?)
                };
                (0..EACH).map(one).collect()
            };
            let (through, beside) = (ask(&self.first), ask(&self.second));
            let all = |threads: Vec<thread::ScopedJoinHandle<'_, Result<Heard>>>| -> Vec<_> {
                let each = threads.into_iter();
                each.map(|one| one.join().expect("asking does not panic"))
                    .collect()
            };
            (all(through), all(beside))
        });
        let struck = struck.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((through, beside, struck.context("not every reply began")?))
    }
}

/// One reply, whose beginning is told once.
fn one(api: SocketAddr, body: &Value, has_begun: &(impl Fn() + Sync)) -> Result<Heard> {
    let mut is_told = false;
    let tell = |is_told: &mut bool| {
        if !std::mem::replace(is_told, true) {
            has_begun();
        }
    };
    let heard = hear(api, body, |tokens| {
        if tokens >= BEFORE {
            tell(&mut is_told);
        }
    });
    tell(&mut is_told);
    heard
}

fn question(model: &str, n: usize) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": format!("Call {n}.")}],
        "max_tokens": TOKENS,
        "stream": true,
        "logprobs": true,
        "temperature": 0,
    })
}

impl Coordinator {
    fn of(node: Node) -> Result<Self> {
        let model = node.machine().inside(|| http::model_name(node.api()))??;
        Ok(Self {
            node,
            model,
            expected: Vec::new(),
        })
    }
}

impl Outcome {
    fn add(&mut self, replies: &[Result<Heard>], expected: &[Heard], at: Instant) {
        for (reply, expected) in replies.iter().zip(expected) {
            self.replies += 1;
            let Some(heard) = reply.as_ref().ok().filter(|heard| heard.is_whole()) else {
                continue;
            };
            self.finished += 1;
            self.equal += usize::from(heard.differs(expected, TOKENS).is_none());
            self.gaps_ms
                .extend(heard.pause(at).map(|pause| pause.as_secs_f64() * 1e3));
        }
    }

    fn is_good(&self) -> bool {
        self.equal == self.replies
    }

    fn cells(&self) -> [String; 6] {
        let share = |part: usize| percent(part as f64 / self.replies.max(1) as f64);
        let gap = |share| format!("{:.0}", quantile(&self.gaps_ms, share));
        [
            self.replies.to_string(),
            share(self.finished),
            share(self.equal),
            gap(0.5),
            gap(0.95),
            gap(1.0),
        ]
    }
}

impl Figures {
    /// Whether every reply came to its end as it would have.
    pub(super) fn are_good(&self) -> bool {
        self.through.is_good() && self.beside.is_good()
    }

    /// The whole page.
    pub(super) fn page(&self, opening: &str) -> String {
        let mut table = Table::new(&[
            "replies",
            "",
            "finish",
            "equal",
            "longest pause p50",
            "p95",
            "max",
        ]);
        for (name, outcome) in [
            ("through the stage that dies", &self.through),
            ("over the other ring meanwhile", &self.beside),
            ("through it when nothing dies", &self.through_undisturbed),
            (
                "over the other one when nothing dies",
                &self.beside_undisturbed,
            ),
        ] {
            let [replies, finished, equal, p50, p95, max] = outcome.cells();
            table.row([name.into(), replies, finished, equal, p50, p95, max]);
        }
        format!("{opening}\n{table}\n{METHOD}")
    }
}

const METHOD: &str = "\
Two coordinators of one commons, each with a circle of its own, answer 25 callers each at the same time over a ring with one remote stage. When every \
reply has ten tokens, the first one's stage gets SIGKILL; a spare member of its circle takes over. The longest pause of a reply is \
from then on, in milliseconds; when nothing dies, from the same moment on. All nodes share one machine, each in a network namespace of its own and with one thread, and the \
model is a random one of 12 layers, so pauses also show what taking over costs the machine that all of them share. A reply is equal \
when every token's bytes and the last bit of its probability are those of the same question among as many at once when nothing dies. \
The other ring must be the same one after every round.
";

fn heard(replies: Replies) -> Result<Vec<Heard>> {
    let replies = replies.into_iter().collect::<Result<Vec<Heard>>>()?;
    ensure!(
        replies.iter().all(Heard::is_whole),
        "a reply fails although nothing dies"
    );
    Ok(replies)
}

/// A node once more, which computes over a ring of one of these others.
fn again(node: Node, circle: &[String]) -> Result<Node> {
    let setup: Setup = node.setup().clone().split(1);
    drop(node);
    let setup = setup
        .arg("--room", "circle")
        .arg("--circle", &circle.join(","));
    let node = setup.up()?;
    node.ring_up()?;
    Ok(node)
}

fn id(node: &Node) -> Result<String> {
    let status = node.status()?;
    Ok(status["node"]
        .as_str()
        .context("a node has a key")?
        .to_owned())
}

/// A ring's name, and who has its one stage.
fn ring(node: &Node) -> Result<(String, String)> {
    let status = node.status()?;
    let name = status["ring"]["ring"].as_str();
    let host = status["ring"]["stages"][0]["node"].as_str();
    let both = name
        .zip(host)
        .with_context(|| format!("no ring: {}", status["ring"]))?;
    Ok((both.0.to_owned(), both.1.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::heard::tests::heard;

    #[test]
    fn all_must_end_as_they_would_have() {
        let at = Instant::now();
        let expected = [heard(&["a", "b"]), heard(&["a", "b"])];
        let mut outcome = Outcome::default();
        outcome.add(
            &[Ok(heard(&["a", "b"])), Ok(heard(&["a", "c"]))],
            &expected,
            at,
        );
        assert_eq!(
            (outcome.replies, outcome.finished, outcome.equal),
            (2, 2, 1)
        );
        assert!(!outcome.is_good());
        let mut good = Outcome::default();
        good.add(&[Ok(heard(&["a", "b"]))], &expected, at);
        assert!(good.is_good());
        good.add(&[Err(anyhow::anyhow!("gone"))], &expected, at);
        assert_eq!((good.replies, good.finished), (2, 1));
        let figures = Figures {
            through: good,
            ..Figures::default()
        };
        assert!(!figures.are_good());
        let page = figures.page("# Crowd\n");
        assert!(
            page.contains("| through the stage that dies") && page.contains("50.0 %"),
            "{page}"
        );
    }
}
