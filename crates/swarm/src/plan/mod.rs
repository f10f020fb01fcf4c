//! Placement: which nodes compute which layers of a model.
//!
//! The coordinator, here *home*, keeps the embedding, the first and the last layer and the output head. A model that
//! fits there whole stays there. Otherwise every set of candidates is weighed: each gets one layer, the rest goes where
//! it is computed fastest as far as memory allows, and the nodes are put in the order of the shortest lap. Among sets
//! that are nearly as good as the best, fewer nodes win, then those that have their layers on disk, then direct ways.
//! More candidates than can be weighed in every combination are first narrowed down, greedily.
//!
//! Every speed, delay and memory size is passed in, and ought to be measured: what a node says of itself is a hint.

mod lap;
mod moving;
mod shares;
mod shortlist;
mod spare;
#[cfg(test)]
mod tests;

pub use moving::{BETTER, is_worth_moving};
pub use spare::{HOLDERS_ENOUGH, spare};

use crate::split::{KEPT_LAYERS, Split};
use lap::{Laps, cycle_ms, rounded};
use proto::ids::NodeId;
use proto::model::LayerRange;
use proto::ring::STAGES_MAX;
use shares::{Host, Shares};

/// The most candidates of which every set is weighed.
pub const WEIGHED_MAX: usize = 12;
/// How much worse than the best a plan may be for having fewer nodes, less to fetch, or direct ways.
pub const NEARLY: f64 = 1.05;
/// How often a plan over many candidates is improved at most.
const ROUNDS_MAX: usize = 4;
/// The least part of the cost that an improvement must save for another round.
const GAIN_MIN: f64 = 0.001;
/// The most candidates of one question.
pub const CANDIDATES_MAX: usize = 1_024;

/// What a model asks of those who compute it, in the context that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Layers.
    pub layers: u32,
    /// Bytes of one layer, the largest: weights, and caches for all sessions.
    pub layer_bytes: u64,
    /// Bytes of embedding and output head, at home only.
    pub ends_bytes: u64,
    /// Bytes that every engine takes beside its layers.
    pub engine_bytes: u64,
    /// The work of the output head, in layers.
    pub output_layers: f64,
}

/// A node that could compute.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its key.
    pub id: NodeId,
    /// Memory that it has for this, in bytes.
    pub memory_bytes: u64,
    /// What one row takes through one layer, in milliseconds.
    pub layer_ms: f64,
    /// Layers of this model that it has on disk.
    pub on_disk: Vec<LayerRange>,
    /// Whether it is reached by way of others only.
    pub relayed: bool,
}

/// Delays between all nodes of a question, one way, in milliseconds. Node 0 is home, node `i + 1` candidate `i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Delays {
    nodes: usize,
    one_way_ms: Vec<f64>,
}

impl Delays {
    /// Delays between home and so many candidates.
    pub fn new(candidates: usize, one_way_ms: impl Fn(usize, usize) -> f64) -> Self {
        let nodes = candidates + 1;
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        Self {
            nodes,
            one_way_ms: pairs.map(|(from, to)| one_way_ms(from, to)).collect(),
        }
    }

    fn ms(&self, from: usize, to: usize) -> f64 {
        self.one_way_ms[from * self.nodes + to]
    }
}

/// What a plan is to be good at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Goal {
    /// The next token of one request soon.
    #[default]
    Latency,
    /// Many tokens of many requests: the slowest node sets the pace.
    Throughput,
}

/// What is to be placed where.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The model.
    pub shape: Shape,
    /// The coordinator.
    pub home: &'a Candidate,
    /// The others, at most [`CANDIDATES_MAX`].
    pub others: &'a [Candidate],
    /// Delays between all of them.
    pub delays: &'a Delays,
    /// What handing a row on costs beside the way itself, in milliseconds a hop.
    pub hop_ms: f64,
    /// What counts.
    pub goal: Goal,
}

/// One remote stage of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The candidate's index in [`Question::others`].
    pub candidate: usize,
    /// Its key.
    pub node: NodeId,
    /// Its layers.
    pub layers: LayerRange,
}

/// What a plan is expected to do, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Forecast {
    /// Computing one token, everywhere together.
    pub compute_ms: f64,
    /// One lap of the ring, with handing on.
    pub lap_ms: f64,
    /// What the slowest host computes for one token: with many requests under way, the time between two tokens.
    pub pace_ms: f64,
}

impl Forecast {
    /// One token of one request.
    #[must_use]
    pub fn token_ms(&self) -> f64 {
        self.compute_ms + self.lap_ms
    }

    fn cost(&self, goal: Goal) -> f64 {
        match goal {
            Goal::Latency => self.token_ms(),
            Goal::Throughput => self.pace_ms,
        }
    }
}

/// Who computes what.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The remote stages in ring order; none when the model is whole at home.
    pub stages: Vec<Placed>,
    /// Layers at home.
    pub home_layers: u32,
    /// Layers that remote nodes must fetch first.
    pub fetch_layers: u32,
    /// What is expected.
    pub forecast: Forecast,
}

impl Plan {
    /// The cut of the model, when it is one.
    #[must_use]
    pub fn split(&self) -> Option<Split> {
        let (first, last) = (self.stages.first()?, self.stages.last()?);
        Some(Split {
            head: LayerRange {
                first: 0,
                end: first.layers.first,
            },
            remote: self.stages.iter().map(|stage| stage.layers).collect(),
            tail: LayerRange {
                first: last.layers.end,
                end: last.layers.end + KEPT_LAYERS,
            },
        })
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Home cannot even hold what must be there.
    #[error(
        "this node needs {needed_bytes} bytes for the model's first and last layer and its vocabulary, and has \
         {memory_bytes}; give it more memory (--memory), or ask a larger node"
    )]
    Home {
        /// For that.
        needed_bytes: u64,
        /// What home has.
        memory_bytes: u64,
    },
    /// All together cannot hold the model.
    #[error(
        "{missing} of the model's {layers} layers have no place: all nodes together lack {missing_bytes} bytes of \
         memory; let more nodes join, ask for a shorter context, or take a smaller model"
    )]
    NoRoom {
        /// Layers that nobody can hold.
        missing: u32,
        /// Layers of the model.
        layers: u32,
        /// What these take.
        missing_bytes: u64,
    },
    /// More candidates than are weighed at once.
    #[error("{candidates} candidates, at most {CANDIDATES_MAX} are weighed: pass the nearest ones")]
    TooMany {
        /// How many.
        candidates: usize,
    },
}

/// Decides who computes what.
///
/// # Errors
///
/// [`PlanError`], with the numbers.
///
/// # Panics
///
/// When the delays are of another number of nodes: our own bug.
pub fn plan(question: &Question<'_>) -> Result<Plan, PlanError> {
    let candidates = question.others.len();
    assert_eq!(question.delays.nodes, candidates + 1, "delays of all nodes");
    if candidates > CANDIDATES_MAX {
        return Err(PlanError::TooMany { candidates });
    }
    let home = Host::home(question);
    if home.most >= question.shape.layers {
        return Ok(whole(question, home));
    }
    if home.most < 2 * KEPT_LAYERS {
        return Err(no_home(question));
    }
    let chosen = shortlist::shortlist(question)?;
    if chosen.len() > WEIGHED_MAX {
        // So many small nodes that only all of them together hold the model: there is nothing to choose.
        let ring = rounded(question.delays, chosen);
        let shares = Shares::of(question, &ring);
        let shares = shares.expect("a shortlist holds the model");
        return Ok(settle(question, &ring, &shares));
    }
    let first = weigh(question, &chosen);
    let first =
        first.expect("the shortlist holds the model, so at least the whole of it was weighed");
    if candidates <= WEIGHED_MAX {
        return Ok(first);
    }
    let others = shortlist::others(question);
    let others = others.iter().filter_map(|chosen| weigh(question, chosen));
    let cost = |plan: &Plan| plan.forecast.cost(question.goal);
    let best = others.fold(first, |best, plan| match cost(&plan) < cost(&best) {
        true => plan,
        false => best,
    });
    Ok(improved(question, best))
}

/// Looks around a plan: its nodes, and those that would fit it best, are weighed together, as long as that helps.
fn improved(question: &Question<'_>, mut best: Plan) -> Plan {
    for _ in 0..ROUNDS_MAX {
        let ring: Vec<usize> = best.stages.iter().map(|stage| stage.candidate).collect();
        let around = shortlist::around(question, &ring);
        let Some(next) = weigh(question, &around) else {
            return best;
        };
        let (now, before) = (
            next.forecast.cost(question.goal),
            best.forecast.cost(question.goal),
        );
        if now >= before * (1.0 - GAIN_MIN) {
            return best;
        }
        best = next;
    }
    best
}

fn whole(question: &Question<'_>, home: Host) -> Plan {
    let layers = question.shape.layers;
    let compute_ms = home.ms(layers);
    Plan {
        stages: Vec::new(),
        home_layers: layers,
        fetch_layers: 0,
        forecast: Forecast {
            compute_ms,
            lap_ms: 0.0,
            pace_ms: compute_ms,
        },
    }
}

fn no_home(question: &Question<'_>) -> PlanError {
    let shape = question.shape;
    let layers = shape.layer_bytes.saturating_mul(2 * u64::from(KEPT_LAYERS));
    PlanError::Home {
        needed_bytes: layers
            .saturating_add(shape.ends_bytes)
            .saturating_add(shape.engine_bytes),
        memory_bytes: question.home.memory_bytes,
    }
}

/// Weighs every set of the chosen candidates; `None` when not even all of them hold the model.
fn weigh(question: &Question<'_>, chosen: &[usize]) -> Option<Plan> {
    let laps = Laps::new(question.delays, chosen);
    let mut sets = Vec::new();
    for set in 1..1_u32 << chosen.len() {
        let members = members(chosen, set);
        let hops = members.len() as f64 + 1.0;
        if let Some(shares) = Shares::of(question, &members) {
            let lap_ms = laps.shortest(set) + hops * question.hop_ms;
            sets.push((set, shares.forecast(lap_ms).cost(question.goal), shares));
        }
    }
    let best = sets
        .iter()
        .map(|(_, cost, _)| *cost)
        .fold(f64::INFINITY, f64::min);
    sets.retain(|(set, cost, _)| *cost <= best * NEARLY && set.count_ones() > 0);
    let fewest = sets.iter().map(|(set, ..)| set.count_ones()).min();
    let plans = sets
        .into_iter()
        .filter(|(set, ..)| Some(set.count_ones()) == fewest)
        .flat_map(|(set, _, shares)| {
            let there = laps.order(set);
            let back: Vec<usize> = there.iter().rev().copied().collect();
            [there, back].map(|ring| settle(question, &ring, &shares))
        })
        .filter(|plan| plan.forecast.cost(question.goal) <= best * NEARLY);
    let key = |plan: &Plan| {
        let others = question.others;
        let relayed = plan
            .stages
            .iter()
            .filter(|stage| others[stage.candidate].relayed);
        (plan.fetch_layers, relayed.count())
    };
    plans.min_by(|a, b| {
        let cost = |plan: &Plan| plan.forecast.cost(question.goal);
        // A lap costs the same both ways round where delays do; one of the two is to be chosen always.
        let first = |plan: &Plan| plan.stages.first().map(|stage| stage.node);
        let cheaper = key(a).cmp(&key(b)).then(cost(a).total_cmp(&cost(b)));
        cheaper.then(first(a).cmp(&first(b)))
    })
}

/// The chosen candidates that are in a set.
fn members(chosen: &[usize], set: u32) -> Vec<usize> {
    let inside = |(at, _): &(usize, &usize)| set & (1 << at) != 0;
    let members = chosen.iter().enumerate().filter(inside);
    members.map(|(_, candidate)| *candidate).collect()
}

/// Lays a model out along a ring.
fn settle(question: &Question<'_>, ring: &[usize], shares: &Shares) -> Plan {
    let mut end = shares.home - KEPT_LAYERS;
    let mut fetch_layers = 0;
    let stages = ring.iter().map(|&candidate| {
        let first = end;
        end += shares.remote[&candidate];
        let (layers, node) = (LayerRange { first, end }, &question.others[candidate]);
        fetch_layers += layers.len() - held(layers, &node.on_disk);
        Placed {
            candidate,
            node: node.id,
            layers,
        }
    });
    let stages: Vec<Placed> = stages.collect();
    debug_assert!(stages.len() <= STAGES_MAX as usize);
    let hops = ring.len() as f64 + 1.0;
    let lap_ms = cycle_ms(question.delays, ring) + hops * question.hop_ms;
    Plan {
        stages,
        home_layers: shares.home,
        fetch_layers,
        forecast: shares.forecast(lap_ms),
    }
}

/// How many of these layers are on disk.
fn held(layers: LayerRange, on_disk: &[LayerRange]) -> u32 {
    let held = |layer: &u32| {
        on_disk
            .iter()
            .any(|range| (range.first..range.end).contains(layer))
    };
    (layers.first..layers.end).filter(held).count() as u32
}
