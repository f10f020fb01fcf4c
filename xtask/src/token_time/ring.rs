//! A ring on machines of a lab, asked at every distance in turn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Machine, Node, World};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HOP_MS_MAX, LAP_SHARE_MAX, RTTS_MS};
use crate::rig::ask::{Ask, Sample, ask};
use crate::rig::started::Started;
use crate::rig::stats::Series;
use crate::rig::{http, say};

/// What is asked; the answer is longer than we let it be.
pub(super) const TEXT: &str = "Tell a very long story about a river.";
/// Tokens of an answer whose time is taken.
pub(super) const TOKENS: u32 = 64;
/// Tokens of the answer before it, in which the connections learn the new distance.
pub(super) const WARM_TOKENS: u32 = 16;
/// Positions of a context, and requests at once: one, which is all that is asked.
const ROOM: (&str, &str) = ("512", "1");
/// The same where the planner must have a reason to share: caches for so many requests, so that layers need far more memory
/// than embedding and head do.
const ROOM_PLANNED: (&str, &str) = ("2048", "16");
/// Rest between two questions, so that what the one left behind is done.
const REST: Duration = Duration::from_millis(300);
/// The chances of a world; none are taken here, since these links neither lose nor vary.
const SEED: u64 = 5;
/// What the node beside the ring may take, in bytes: far more than the starter needs.
const ALONE_BYTES: u64 = 4 << 30;

/// Who says which layers the remote stages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    /// We do: as many for each.
    Asked,
    /// The planner: each node has memory for its share alone, and a little more.
    Planned,
    /// The same, and all nodes are on one machine and speak over its loopback.
    Together,
}

/// A ring that is up, and beside it a node that computes alone.
pub(super) struct Ring {
    // Dropped in this order: the coordinator notices the loss of the others.
    coordinator: Node,
    _stages: Vec<Node>,
    alone: Node,
    model: String,
    /// Those of the ring, the coordinator's first.
    machines: Vec<Machine>,
    world: World,
}

/// What was measured of a ring, in milliseconds, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Remote stages.
    pub(super) split: u32,
    /// A token of the whole model on one node.
    pub(super) alone_ms: Series,
    /// A token of the ring at no distance.
    pub(super) compute_ms: Series,
    /// At each distance.
    pub(super) far: Vec<Far>,
}

/// What was measured at one distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Far {
    /// From a node to another and back, as asked.
    pub(super) rtt_ms: u32,
    /// The lap that calibration measured, packets of ours.
    pub(super) lap_ms: f64,
    /// A token.
    pub(super) token_ms: Series,
}

impl Figures {
    /// Hops of a token.
    pub(super) fn hops(&self) -> u32 {
        self.split + 1
    }

    /// The lap that was asked for, in milliseconds.
    pub(super) fn lap_ms(&self, far: &Far) -> f64 {
        f64::from(self.hops() * far.rtt_ms) / 2.0
    }

    /// What a token takes at this distance beyond computing, round by round.
    pub(super) fn beyond_ms(&self, far: &Far) -> Series {
        far.token_ms.less(&self.compute_ms)
    }

    /// What it may take beyond computing.
    pub(super) fn limit_ms(&self, far: &Far) -> f64 {
        LAP_SHARE_MAX * self.lap_ms(far) + HOP_MS_MAX * f64::from(self.hops())
    }

    /// Whether the median of the rounds keeps that.
    pub(super) fn keeps(&self, far: &Far) -> bool {
        self.beyond_ms(far).median() <= self.limit_ms(far)
    }

    /// Whether it does at every distance.
    pub(super) fn keeps_the_limit(&self) -> bool {
        self.far.iter().all(|far| self.keeps(far))
    }
}

impl Ring {
    /// Starts the nodes, one thread each, and waits until answers go over the ring.
    pub(super) fn start(
        started: &Started,
        myzel: &Path,
        model: &Path,
        (split, layers): (u32, Layers),
    ) -> Result<Self> {
        let mut world = World::new(SEED)?;
        let machine = |n: u32| format!("m{n}");
        let machines: Vec<Machine> = (0..=split)
            .map(|n| world.machine(&machine(n)))
            .collect::<Result<_>>()?;
        let apart = world.machine("alone")?;
        let model = model.to_str().context("the model's path is text")?;
        let setup = |machine: &Machine| {
            let setup = match layers {
                Layers::Asked | Layers::Planned => machine.myzel(myzel),
                Layers::Together => machines[0]
                    .myzel(myzel)
                    .data(&machine.dir().join("data"))
                    .arg("--name", machine.name())
                    .arg("--listen", "127.0.0.1:0"),
            };
            let (positions, sessions) = match layers {
                Layers::Asked => ROOM,
                Layers::Planned | Layers::Together => ROOM_PLANNED,
            };
            let setup = setup.model(model).exact();
            setup
                .arg("--context", positions)
                .arg("--sessions", sessions)
                // What a lap costs is measured, and a guess that was right saves one.
                .arg("--guesses", "0")
        };
        let alone = setup(&apart).arg("--memory", &kib(ALONE_BYTES)).up()?;
        let (first, others) = (setup(&machines[0]), &machines[1..]);
        let (coordinator, stages) = match layers {
            Layers::Asked => {
                let coordinator = first.split(split).up()?;
                let join = |machine: &Machine| setup(machine).join(&coordinator).up();
                let stages = each(started, others, join)?;
                (coordinator, stages)
            }
            Layers::Planned | Layers::Together => {
                let needs = Needs::of(&alone, ALONE_BYTES)?;
                let share = needs.share(split);
                let stage = |machine: &Machine| setup(machine).arg("--memory", &kib(share.stage));
                let founder = stage(&others[0]).up()?;
                let join = |machine: &Machine| stage(machine).join(&founder).up();
                let mut stages = each(started, &others[1..], join)?;
                stages.insert(0, founder);
                let first = first.arg("--memory", &kib(share.coordinator));
                (first.join(&stages[0]).up()?, stages)
            }
        };
        coordinator.ring_up()?;
        let api = coordinator.api();
        let model = machines[0].inside(|| http::model_name(api))??;
        Ok(Self {
            coordinator,
            _stages: stages,
            alone,
            model,
            machines,
            world,
        })
    }

    /// Calibrates every distance, then asks at each of them in every round, each round beginning with another one.
    pub(super) fn measure(self, started: &Started, rounds: usize) -> Result<Figures> {
        let rtts: Vec<u32> = [0].into_iter().chain(RTTS_MS).collect();
        let laps: Vec<f64> = rtts
            .iter()
            .map(|rtt| self.lap(started, *rtt))
            .collect::<Result<_>>()?;
        let (mut alone, mut tokens) = (Vec::new(), vec![Vec::new(); rtts.len()]);
        for round in 0..rounds {
            for turn in 0..rtts.len() {
                let at = (round + turn) % rtts.len();
                self.place(rtts[at]);
                self.ask(started, &self.coordinator, WARM_TOKENS)?;
                tokens[at].push(self.ask(started, &self.coordinator, TOKENS)?);
            }
            alone.push(self.ask(started, &self.alone, TOKENS)?);
            let status = self.coordinator.status()?;
            ensure!(
                status["answers"] == "ring",
                "the ring is not up any more: {status}"
            );
            say(&format!("round {} of {rounds} is done", round + 1));
        }
        let mut far = rtts
            .iter()
            .zip(laps)
            .zip(tokens)
            .map(|((rtt, lap_ms), tokens)| Far {
                rtt_ms: *rtt,
                lap_ms,
                token_ms: Series::new(tokens),
            });
        let near = far.next().expect("no distance is the first");
        Ok(Figures {
            split: self.machines.len() as u32 - 1,
            alone_ms: Series::new(alone),
            compute_ms: near.token_ms,
            far: far.collect(),
        })
    }

    /// Puts the machines at a distance.
    pub(super) fn place(&self, rtt_ms: u32) {
        self.world.links().delay_ms(f64::from(rtt_ms) / 2.0);
    }

    /// Confirms a distance on every hop of the ring; returns the lap as it was measured, in milliseconds.
    pub(super) fn lap(&self, started: &Started, rtt_ms: u32) -> Result<f64> {
        started.check()?;
        self.place(rtt_ms);
        let next = self.machines.iter().cycle().skip(1);
        let hops = self
            .machines
            .iter()
            .zip(next)
            .map(|(from, to)| -> Result<f64> {
                let asked = self.world.way(from, to).asked();
                let measured = self.world.confirm(from, to, &asked)?;
                let delay = measured.delay.context("packets arrived")?;
                Ok(delay.as_secs_f64() * 1e3)
            });
        hops.sum()
    }

    /// The node that computes for itself, over the ring.
    pub(super) fn coordinator(&self) -> &Node {
        &self.coordinator
    }

    /// Milliseconds of a token behind the first.
    pub(super) fn ask(&self, started: &Started, node: &Node, tokens_max: u32) -> Result<f64> {
        started.pause(REST)?;
        let (model, text) = (self.model.as_str(), TEXT);
        let question = Ask {
            model,
            text,
            tokens_max,
        };
        let asked = node.machine().inside(|| ask(node.api(), &question))?;
        started.check()?;
        token_ms(&asked?, tokens_max)
    }
}

/// Starts a node on each machine, unless somebody interrupts.
fn each(
    started: &Started,
    machines: &[Machine],
    start: impl Fn(&Machine) -> Result<Node>,
) -> Result<Vec<Node>> {
    let start = |machine| {
        started.check()?;
        start(machine)
    };
    machines.iter().map(start).collect()
}

/// What the model takes, in bytes, by `myzel plan`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Needs {
    layers: u64,
    layer_bytes: u64,
    ends_bytes: u64,
    engine_bytes: u64,
    /// Of a node that has all of it.
    whole_bytes: u64,
}

/// What nodes may take, in bytes, so that each has its share and no more than half a layer beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    coordinator: u64,
    stage: u64,
}

impl Needs {
    /// Asks a node that has the whole model, and gives so many bytes.
    fn of(node: &Node, total_bytes: u64) -> Result<Self> {
        let plan = plan(node)?;
        let number = |value: &Value, name: &str| {
            let number = value[name].as_u64();
            number.with_context(|| format!("no {name} in the plan: {value}"))
        };
        let free_bytes = number(&plan["home"], "memory_bytes")?;
        Ok(Self {
            layers: number(&plan, "layers")?,
            layer_bytes: number(&plan, "layer_bytes")?,
            ends_bytes: number(&plan, "ends_bytes")?,
            engine_bytes: number(&plan, "engine_bytes")?,
            whole_bytes: total_bytes.saturating_sub(free_bytes),
        })
    }

    /// Everybody computes as many layers. A stage has the whole model for itself, too.
    fn share(&self, split: u32) -> Share {
        let each = self.layers.div_ceil(u64::from(split) + 1);
        let bytes = self.engine_bytes + self.layer_bytes * each + self.layer_bytes / 2;
        Share {
            coordinator: bytes + self.ends_bytes,
            stage: bytes + self.whole_bytes,
        }
    }
}

/// What `myzel plan --json` says.
pub(super) fn plan(node: &Node) -> Result<Value> {
    let text = node.cli(&["plan", "--json"])?;
    serde_json::from_str(&text).context("what `plan --json` printed")
}

/// As `--memory` takes it.
fn kib(bytes: u64) -> String {
    format!("{}KiB", bytes.div_ceil(1024))
}

fn token_ms(sample: &Sample, tokens: u32) -> Result<f64> {
    ensure!(
        sample.answer_tokens == tokens,
        "an answer has {} tokens, not {tokens}: times of answers of other lengths do not compare",
        sample.answer_tokens
    );
    let rate = sample.decode_rate().context("an answer of many tokens")?;
    Ok(1e3 / rate)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ring over two remote stages that computes in 10 ms.
    pub(in crate::token_time) fn figures(at_20: f64, at_100: f64) -> Figures {
        let series = |value: f64| Series::new(vec![value, value + 1.0, value + 2.0]);
        let far = |rtt_ms, token| Far {
            rtt_ms,
            lap_ms: f64::from(rtt_ms) * 1.5 + 0.2,
            token_ms: series(token),
        };
        Figures {
            split: 2,
            alone_ms: series(9.0),
            compute_ms: series(10.0),
            far: vec![far(20, at_20), far(100, at_100)],
        }
    }

    #[test]
    fn a_token_may_take_computing_a_lap_and_a_little() {
        // Laps of 30 and 150 ms: 37.5 and 175.5 ms beyond 10 ms of computing.
        let good = figures(47.5, 185.5);
        assert!(good.keeps_the_limit());
        assert_eq!(good.lap_ms(&good.far[0]), 30.0);
        assert_eq!(good.limit_ms(&good.far[1]), 175.5);
        assert_eq!(good.beyond_ms(&good.far[0]).median(), 37.5);
        for bad in [figures(47.6, 185.5), figures(47.5, 185.6)] {
            assert!(!bad.keeps_the_limit());
        }
    }

    #[test]
    fn everybody_has_memory_for_a_share_and_nobody_for_more() {
        let needs = Needs {
            layers: 30,
            layer_bytes: 100,
            ends_bytes: 7,
            engine_bytes: 1_000,
            whole_bytes: 5_000,
        };
        let share = needs.share(2);
        assert_eq!((share.coordinator, share.stage), (2_057, 7_050));
        assert_eq!(needs.share(3).coordinator, 1_857);
        assert_eq!(kib(2_049), "3KiB");
    }

    #[test]
    fn answers_of_another_length_do_not_count() {
        let sample = |answer_tokens| Sample {
            prompt_tokens: 9,
            answer_tokens,
            first: Duration::from_millis(100),
            last: Duration::from_millis(730),
        };
        assert_eq!(token_ms(&sample(64), 64).unwrap(), 10.0);
        let error = token_ms(&sample(63), 64).unwrap_err().to_string();
        assert!(error.contains("63") && error.contains("64"), "{error}");
    }
}
