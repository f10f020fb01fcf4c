//! Placement: what this node's model needs, who could give it, and what the planner makes of that.
//!
//! What a layer takes the engine itself says, over stages that have a header and no weights. Speeds and delays
//! are what was measured where anybody has, see `swarm::members`.

use crate::home::EngineSettings;
use crate::memory::{Budget, Reserved, TooLittle};
use crate::roster::Roster;
use crate::scales::{Scales, Slice};
use engine::EngineError;
use proto::ad::Room;
use proto::gguf::{Header, Tensor};
use proto::host::{Memory, Role};
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use store::models::{Model, Models};
use store::stages::{Hollow, StageError, StageRequest, Stages};
use swarm::members::{Ask, Event, Seen, WhyNot};
use swarm::plan::{
    CANDIDATES_MAX, Candidate, Delays, Goal, Plan, PlanError, Question, Shape, plan,
};

/// What handing a row on to the next stage costs beside the way itself, in milliseconds; measured on loopback.
pub const HOP_MS: f64 = 0.65;
/// What a layer takes here as long as nobody knows anything better, in microseconds.
const LAYER_US_ASSUMED: u64 = 2_000;
/// How long the ads of hosts that were let go may say otherwise: a look of theirs, the pause between two news, and the way.
const FREED_FOR: Duration = Duration::from_secs(20);
/// The fewest layers of a model that can be measured as stages.
pub const LAYERS_MIN: u32 = 4;

/// Why the needs of a model are not known.
#[derive(Debug, thiserror::Error)]
pub enum NeedsError {
    /// No stage can be cut.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The engine does not take it.
    #[error("the engine cannot say how much memory the model takes: {0}")]
    Engine(#[from] EngineError),
    /// Too few layers to give any away.
    #[error(
        "the model has {0} layers; a model with fewer than {LAYERS_MIN} runs whole on one node"
    )]
    TooFewLayers(u32),
}

/// What is asked of those who compute a model.
///
/// # Errors
///
/// [`NeedsError`].
pub async fn shape(
    engine: &EngineSettings,
    (models, files): (&Models, &Stages),
    model: &Model,
    header: &Header,
) -> Result<Shape, NeedsError> {
    let layers = header.layers();
    if layers < LAYERS_MIN {
        return Err(NeedsError::TooFewLayers(layers));
    }
    let scales = Scales {
        engine,
        models,
        model: model.blake3,
    };
    let measure = Measure {
        scales,
        files,
        model,
    };
    let one = measure.stages(&[(Role::Middle, 1, 2)]).await?;
    let two = measure.stages(&[(Role::Middle, 1, 3)]).await?;
    let ends = [(Role::Head, 0, 1), (Role::Tail, layers - 1, layers)];
    let ends = measure.stages(&ends).await?;
    let cache = two.cache_bytes.saturating_sub(one.cache_bytes);
    let step = two.compute_bytes.saturating_sub(one.compute_bytes);
    let largest = (0..layers).map(|layer| weights_bytes(header, layer)).max();
    let layer_bytes = largest
        .unwrap_or(0)
        .saturating_add(cache)
        .saturating_add(step);
    // What of a stage with a single layer is not that layer.
    let engine_bytes = one
        .total_bytes()
        .saturating_sub(one.weights_bytes)
        .saturating_sub(cache)
        .saturating_sub(step);
    let both = engine_bytes.saturating_add(layer_bytes.saturating_mul(2));
    Ok(Shape {
        layers,
        layer_bytes,
        ends_bytes: ends.total_bytes().saturating_sub(both),
        engine_bytes,
        output_layers: f64::from(output_layers(header)),
    })
}

/// How many layers cost as much as the output head does: a row multiplies with each weight of either once.
#[must_use]
pub fn output_layers(header: &Header) -> u32 {
    let weights = |tensor: &Tensor| tensor.dims.iter().product::<u64>();
    let tied = || header.tensor("token_embd.weight");
    let output = header.tensor("output.weight").or_else(tied);
    let in_layers = header
        .tensors()
        .iter()
        .filter(|tensor| tensor.name.starts_with("blk."));
    let layer = in_layers.map(weights).sum::<u64>() / u64::from(header.layers().max(1));
    let heads = (output.map_or(0, weights) + layer / 2) / layer.max(1);
    u32::try_from(heads).unwrap_or(u32::MAX)
}

fn weights_bytes(header: &Header, layer: u32) -> u64 {
    let prefix = format!("blk.{layer}.");
    let tensors = header.tensors().iter();
    let bytes = tensors
        .filter(|tensor| tensor.name.starts_with(&prefix))
        .filter_map(|tensor| tensor.kind.bytes_of(&tensor.dims));
    bytes.fold(0, u64::saturating_add)
}

/// Weighs stages that are cut for it alone.
struct Measure<'a> {
    scales: Scales<'a>,
    files: &'a Stages,
    model: &'a Model,
}

impl Measure<'_> {
    /// The memory of an engine-host with these stages, from first layer to the one behind the last.
    async fn stages(&self, stages: &[(Role, u32, u32)]) -> Result<Memory, NeedsError> {
        let slice = |&(role, first, end): &(Role, u32, u32)| (role, LayerRange { first, end });
        let slices: Vec<Slice> = stages.iter().map(slice).collect();
        self.scales.weigh(&slices, self.hollows(&slices)).await
    }

    async fn hollows(&self, slices: &[Slice]) -> Result<Vec<Hollow>, NeedsError> {
        let mut hollows = Vec::new();
        for &(role, layers) in slices {
            let request = StageRequest {
                source: self.model.path.clone(),
                model: self.model.blake3,
                role,
                layers,
            };
            hollows.push(self.files.hollow(request).await?);
        }
        Ok(hollows)
    }
}

/// What the planner is asked about, again and again.
#[derive(Debug)]
pub struct Placement {
    /// The model.
    pub model: Model,
    /// What it asks of those who compute it.
    pub shape: Shape,
    /// Who may see requests.
    pub room: Room,
    /// What counts.
    pub goal: Goal,
    roster: Roster,
    me: NodeId,
    budget: Budget,
    /// What head and tail take here.
    kept: Mutex<Option<(u64, Reserved)>>,
    /// What a ring that is up takes here; for one in place of it that is free.
    taken_bytes: u64,
    /// Who held how many layers of a ring that was given up for a better one, and when that was.
    freed: Mutex<Option<(Instant, BTreeMap<NodeId, u32>)>>,
}

fn nobody() -> (Instant, BTreeMap<NodeId, u32>) {
    (Instant::now(), BTreeMap::new())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the planner chose, and from whom.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Who computes what.
    pub plan: Plan,
    /// All other members.
    pub seen: Vec<Seen>,
}

impl Placement {
    /// Places `model` over this node, `me`, and others of its commons. Of the budget so many bytes are taken by a ring that would
    /// be given up.
    #[must_use]
    pub fn new(
        (model, shape): (Model, Shape),
        (room, goal): (Room, Goal),
        (me, roster): (NodeId, Roster),
        (budget, taken_bytes): (Budget, u64),
    ) -> Arc<Self> {
        Arc::new(Self {
            model,
            shape,
            room,
            goal,
            roster,
            me,
            budget,
            kept: Mutex::default(),
            taken_bytes,
            freed: Mutex::default(),
        })
    }

    /// Asks the planner; of the others, only the `able` are considered.
    ///
    /// # Errors
    ///
    /// [`PlanError`], with the numbers, and all other members.
    pub fn choose(&self, able: impl Fn(&NodeId) -> bool) -> Result<Chosen, (PlanError, Vec<Seen>)> {
        let freed = lock(&self.freed).clone();
        let freed = freed.filter(|(at, _)| at.elapsed() < FREED_FOR);
        self.choose_beside(&freed.unwrap_or_else(nobody).1, able)
    }

    /// These are let go, with so many layers each: for a while that memory counts as free, until they say so themselves.
    pub fn frees(&self, hosts: BTreeMap<NodeId, u32>) {
        *lock(&self.freed) = Some((Instant::now(), hosts));
    }

    /// As [`Self::choose`], while these hold so many layers for this node: for a ring in place of theirs that memory is
    /// free, though they do not offer it.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn choose_beside(
        &self,
        hosts: &BTreeMap<NodeId, u32>,
        able: impl Fn(&NodeId) -> bool,
    ) -> Result<Chosen, (PlanError, Vec<Seen>)> {
        let build = self.roster.offered().build;
        let ask = ask((self.room, &self.shape), self.model.blake3, &build);
        let seen = self.roster.view(&ask);
        let others = candidates(&seen, (&self.shape, hosts), able);
        let home = self.home();
        let delays = Delays::new(others.len(), |from, to| self.delay_ms(&others, from, to));
        let question = Question {
            shape: self.shape,
            home: &home,
            others: &others,
            delays: &delays,
            hop_ms: HOP_MS,
            goal: self.goal,
        };
        match plan(&question) {
            Ok(plan) => Ok(Chosen { plan, seen }),
            Err(error) => Err((error, seen)),
        }
    }

    /// Of these members, those that nothing bars, with the layers that each has memory for; the fastest first.
    #[must_use]
    pub fn room_of(&self, members: &BTreeSet<NodeId>) -> Vec<(NodeId, u32)> {
        let build = self.roster.offered().build;
        let ask = ask((self.room, &self.shape), self.model.blake3, &build);
        let mut seen = self.roster.view(&ask);
        seen.retain(|seen| {
            members.contains(&seen.node) && !seen.why_not.is_some_and(|why| why.bars())
        });
        seen.sort_by_key(|seen| (seen.layer_us.value, seen.node));
        let room = |seen: &Seen| {
            let bytes = seen.memory_bytes.saturating_sub(self.shape.engine_bytes);
            u32::try_from(bytes / self.shape.layer_bytes.max(1)).unwrap_or(u32::MAX)
        };
        seen.iter().map(|seen| (seen.node, room(seen))).collect()
    }

    /// Tells the roster what came of a plan.
    pub async fn tell(&self, event: Event) {
        self.roster.tell(event).await;
    }

    /// This node: it has the model, and the memory that nothing else has taken.
    #[must_use]
    pub fn home(&self) -> Candidate {
        let speeds = self.roster.offered().speeds;
        let measured = speeds
            .iter()
            .find(|speed| speed.model == self.model.blake3)
            .map(|speed| u64::from(speed.layer_us));
        let taken_bytes = self.kept_bytes().saturating_add(self.taken_bytes);
        Candidate {
            id: self.me,
            memory_bytes: self.budget.free_bytes().saturating_add(taken_bytes),
            layer_ms: measured.unwrap_or(LAYER_US_ASSUMED) as f64 / 1_000.0,
            on_disk: vec![LayerRange {
                first: 0,
                end: self.shape.layers,
            }],
            relayed: false,
        }
    }

    /// What is taken here for head and tail, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        lock(&self.kept).as_ref().map_or(0, |(bytes, _)| *bytes)
    }

    /// One way between two nodes of a question.
    fn delay_ms(&self, others: &[Candidate], from: usize, to: usize) -> f64 {
        if from == to {
            return 0.0;
        }
        let node = |at: usize| match at.checked_sub(1) {
            None => self.me,
            Some(other) => others[other].id,
        };
        self.roster.rtt_us(node(from), node(to)).value as f64 / 2_000.0
    }

    /// Takes memory for head and tail with so many layers, instead of what was taken for them before.
    ///
    /// # Errors
    ///
    /// [`TooLittle`]; nothing is taken then.
    pub fn keep(&self, layers: u32) -> Result<(), TooLittle> {
        let Shape {
            layer_bytes,
            ends_bytes,
            engine_bytes,
            ..
        } = self.shape;
        let bytes = layer_bytes
            .saturating_mul(u64::from(layers))
            .saturating_add(ends_bytes)
            .saturating_add(engine_bytes);
        let mut kept = lock(&self.kept);
        *kept = None;
        *kept = Some((bytes, self.budget.reserve(bytes)?));
        Ok(())
    }
}

/// What a stage's host must be: with another engine build it would refuse, and the bits would be others.
fn ask<'a>((room, shape): (Room, &Shape), model: Hash, build: &'a str) -> Ask<'a> {
    Ask {
        room,
        model,
        layer_bytes: shape.layer_bytes.saturating_add(shape.engine_bytes),
        build: Some(build),
    }
}

/// Those that may be asked, at most [`CANDIDATES_MAX`]: of more, those that promise most.
fn candidates(
    seen: &[Seen],
    (shape, hosts): (&Shape, &BTreeMap<NodeId, u32>),
    able: impl Fn(&NodeId) -> bool,
) -> Vec<Candidate> {
    let holds = |node: &NodeId| {
        let layers = hosts.get(node).copied();
        let bytes = |layers: u32| shape.layer_bytes.saturating_mul(layers.into());
        layers.map_or(0, |layers| bytes(layers).saturating_add(shape.engine_bytes))
    };
    let bars = |seen: &Seen| match seen.why_not {
        // It has the memory already.
        Some(WhyNot::TooLittleMemory { .. }) => !hosts.contains_key(&seen.node),
        Some(why) => why.bars(),
        None => false,
    };
    let usable = seen.iter().filter(|seen| !bars(seen) && able(&seen.node));
    let mut usable: Vec<&Seen> = usable.collect();
    if usable.len() > CANDIDATES_MAX {
        usable.sort_by_key(|seen| {
            (
                seen.layer_us.value.saturating_add(seen.rtt_us.value),
                seen.node,
            )
        });
        usable.truncate(CANDIDATES_MAX);
    }
    let candidate = |seen: &Seen| {
        // Not the sum: its ad may say already that this is free again.
        let memory_bytes = seen.memory_bytes.max(holds(&seen.node));
        Candidate {
            memory_bytes,
            ..candidate(seen)
        }
    };
    usable.into_iter().map(candidate).collect()
}

fn candidate(seen: &Seen) -> Candidate {
    Candidate {
        id: seen.node,
        memory_bytes: seen.memory_bytes,
        layer_ms: seen.layer_us.value as f64 / 1_000.0,
        on_disk: seen.on_disk.clone(),
        relayed: seen.relayed,
    }
}

#[cfg(test)]
mod tests;
