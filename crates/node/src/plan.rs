//! What `myzel plan` shows: who would compute which layers of a model, why, and how fast that is expected to be.

use crate::daemon::Node;
use crate::placement::{self, Chosen, Placement};
use crate::stage::header;
use anyhow::Context;
use proto::ad::Room;
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;
use serde::{Deserialize, Serialize};
use store::models::Model;
use store::reference::Reference;
use swarm::members::{Reach, Seen, Source};
use swarm::plan::{Forecast, Goal, Placed};

/// A question for a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The model; the node's own without.
    pub model: Option<String>,
    /// Whether many requests count, and not the next token of one.
    pub throughput: bool,
}

/// The planner's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The model.
    pub model: String,
    /// Its root.
    pub blake3: Hash,
    /// Its layers.
    pub layers: u32,
    /// Memory of one layer with caches for all sessions, in bytes.
    pub layer_bytes: u64,
    /// Memory of embedding and output, in bytes.
    pub ends_bytes: u64,
    /// Memory that every engine takes beside, in bytes.
    pub engine_bytes: u64,
    /// Who may see requests.
    pub room: Room,
    /// This node.
    pub home: HomeReport,
    /// The other members.
    pub members: Vec<MemberReport>,
    /// What was chosen; `None` when the model has no place.
    pub choice: Option<ChoiceReport>,
    /// Why nothing could be chosen.
    pub why: Option<String>,
}

/// This node in a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HomeReport {
    /// Memory that nothing else has taken, in bytes.
    pub memory_bytes: u64,
    /// One row through one layer, in milliseconds.
    pub layer_ms: f64,
}

/// Another member in a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its key.
    pub node: NodeId,
    /// What its owner calls it.
    pub name: String,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// One row through one layer, in milliseconds.
    pub layer_ms: f64,
    /// How that is known: `measured`, `reported`, `announced` or `assumed`.
    pub layer_known: String,
    /// There and back, in milliseconds.
    pub rtt_ms: f64,
    /// How that is known.
    pub rtt_known: String,
    /// The layers that it would compute.
    pub layers: Option<LayerRange>,
    /// Why it would not, or what else is to be said of it.
    pub why: Option<String>,
}

/// What the planner chose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChoiceReport {
    /// Layers on this node.
    pub home_layers: u32,
    /// Remote stages.
    pub stages: u32,
    /// Layers that others must fetch first.
    pub fetch_layers: u32,
    /// Computing one token, in milliseconds.
    pub compute_ms: f64,
    /// The lap of the ring, in milliseconds.
    pub lap_ms: f64,
    /// One token of one request, in milliseconds.
    pub token_ms: f64,
    /// The time between two tokens with many requests under way, in milliseconds.
    pub pace_ms: f64,
}

impl Node {
    /// Plans a model over the members that are linked.
    ///
    /// # Errors
    ///
    /// When the model is not here, or its needs cannot be found out.
    pub async fn plan(&self, wanted: &PlanRequest) -> anyhow::Result<PlanReport> {
        let model = self.model_for(wanted.model.as_deref())?;
        let header = header(&model.path)?;
        let mut engine = self.engine.clone();
        engine.numerics = proto::model::Numerics::Exact;
        let store = (&self.data.models, &self.files);
        let shape = placement::shape(&engine, store, &model, &header).await?;
        let goal = match wanted.throughput {
            true => Goal::Throughput,
            false => self.goal,
        };
        // What the ring that is up has would be free for the one that is planned.
        let ring = self
            .requests
            .ring()
            .filter(|_| model.blake3 == self.model.blake3);
        let (hosts, taken_bytes) = ring.map(|ring| ring.holds()).unwrap_or_default();
        let placement = Placement::new(
            (model.clone(), shape),
            (self.rooms.room, goal),
            (self.net.id(), self.roster.clone()),
            (self.budget.clone(), taken_bytes),
        );
        let chosen = placement.choose_beside(&hosts, |_| true);
        Ok(report(&placement, chosen))
    }

    fn model_for(&self, name: Option<&str>) -> anyhow::Result<Model> {
        let own = || Model {
            path: self.model_path.clone(),
            blake3: self.model.blake3,
            name: self.model.name.clone(),
            bytes: self.model.bytes,
            licence: None,
            sampling: None,
        };
        match name {
            None => Ok(own()),
            Some(name) if name == self.model.name => Ok(own()),
            Some(name) => {
                let wanted: Reference = name.parse()?;
                let stored = self.data.models.show(&wanted)?;
                let found = self.data.models.find_by_hash(stored.record.blake3);
                found.with_context(|| {
                    format!("the file of {name} cannot be used; see: myzel model verify {name}")
                })
            }
        }
    }
}

fn report(
    placement: &Placement,
    chosen: Result<Chosen, (swarm::plan::PlanError, Vec<Seen>)>,
) -> PlanReport {
    let (model, shape) = (&placement.model, placement.shape);
    let (choice, why, seen, stages) = match chosen {
        Ok(Chosen { plan, seen, .. }) => {
            let choice = choice(
                &plan.forecast,
                plan.home_layers,
                plan.stages.len(),
                plan.fetch_layers,
            );
            (Some(choice), None, seen, plan.stages)
        }
        Err((error, seen)) => (None, Some(error.to_string()), seen, Vec::new()),
    };
    let home = placement.home();
    PlanReport {
        model: model.name.clone(),
        blake3: model.blake3,
        layers: shape.layers,
        layer_bytes: shape.layer_bytes,
        ends_bytes: shape.ends_bytes,
        engine_bytes: shape.engine_bytes,
        room: placement.room,
        home: HomeReport {
            memory_bytes: home.memory_bytes,
            layer_ms: home.layer_ms,
        },
        members: seen.iter().map(|seen| member(seen, &stages)).collect(),
        choice,
        why,
    }
}

fn choice(forecast: &Forecast, home_layers: u32, stages: usize, fetch_layers: u32) -> ChoiceReport {
    ChoiceReport {
        home_layers,
        stages: stages as u32,
        fetch_layers,
        compute_ms: forecast.compute_ms,
        lap_ms: forecast.lap_ms,
        token_ms: forecast.token_ms(),
        pace_ms: forecast.pace_ms,
    }
}

fn member(seen: &Seen, stages: &[Placed]) -> MemberReport {
    let placed = stages.iter().find(|stage| stage.node == seen.node);
    let why = match (&seen.why_not, placed) {
        (_, Some(_)) => None,
        (Some(why), None) => Some(why.to_string()),
        (None, None) => {
            Some("the model goes faster without it, or as fast with fewer nodes".to_owned())
        }
    };
    let reach = match seen.reach {
        Reach::Linked => None,
        Reach::Silent => Some("it does not answer at the moment"),
        Reach::Unlinked => Some("there is no link to it yet"),
    };
    MemberReport {
        node: seen.node,
        name: seen.name.clone(),
        memory_bytes: seen.memory_bytes,
        layer_ms: seen.layer_us.value as f64 / 1_000.0,
        layer_known: known(seen.layer_us.source).to_owned(),
        rtt_ms: seen.rtt_us.value as f64 / 1_000.0,
        rtt_known: known(seen.rtt_us.source).to_owned(),
        layers: placed.map(|stage| stage.layers),
        why: why.or(reach.map(str::to_owned)),
    }
}

/// How well a number is known, in one word.
#[must_use]
pub fn known(source: Source) -> &'static str {
    match source {
        Source::Measured => "measured",
        Source::Reported => "reported",
        Source::Announced => "announced",
        Source::Assumed => "assumed",
    }
}
