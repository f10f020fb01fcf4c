//! What `myzel status` shows, as JSON and for people.

use crate::content::FetchStatus;
use proto::host::SandboxLevel;
use proto::ids::{CommonsId, Hash, NodeId, RingId};
use proto::model::{LayerRange, Numerics};
use serde::{Deserialize, Serialize};

/// Everything about a running node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of Myzel.
    pub version: String,
    /// The node's key.
    pub node: NodeId,
    /// What its owner calls it.
    pub name: String,
    /// The commons.
    pub commons: CommonsId,
    /// The OpenAI-compatible endpoint.
    pub api: String,
    /// Relays through which this node is reached, its own if it offers one.
    pub relays: Vec<String>,
    /// Grows with every start.
    pub incarnation: u64,
    /// Seconds since the node was ready; `None` before.
    pub ready_s: Option<u64>,
    /// The model.
    pub model: ModelStatus,
    /// Where requests are answered now.
    pub answers: Answers,
    /// The ring, where `--split` asks for one.
    pub ring: Option<RingStatus>,
    /// The newest losses of stages that requests survived, or did not; oldest first, at most
    /// [`crate::ring::RECOVERIES_MAX`].
    #[serde(default)]
    pub recoveries: Vec<RecoveryStatus>,
    /// Layers that this node hosts for others.
    pub hosting: Vec<HostingStatus>,
    /// Layers that are loaded here in case that another member is lost; the node is their coordinator.
    #[serde(default)]
    pub standing_by: Vec<StandbyStatus>,
    /// How far the engine is locked up.
    pub sandbox: SandboxStatus,
    /// The journals of streamed answers; `None` where the owner wants none.
    pub journal: Option<JournalStatus>,
    /// Models that are not tried any more.
    pub quarantine: Vec<QuarantineStatus>,
    /// Models that other members can have from here, or parts of them.
    pub handed_on: Vec<Hash>,
    /// The newest fetches of models from other members.
    pub fetches: Vec<FetchStatus>,
    /// The other members that this node knows.
    pub nodes: Vec<NodeStatus>,
    /// How fast it goes.
    pub rates: Rates,
}

/// Where requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answers {
    /// The whole model on this machine.
    Home,
    /// Over the ring.
    Ring,
    /// Nowhere: the ring is broken, or the engine is starting.
    Nowhere,
}

/// The model of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// BLAKE3 of its file.
    pub blake3: Hash,
    /// Size of its file.
    pub bytes: u64,
    /// Its layers.
    pub layers: u32,
    /// The numerics mode.
    pub numerics: Numerics,
    /// Positions of each request's context; `None` while the engine starts.
    pub context: Option<u32>,
    /// Requests computed at once.
    pub sessions_max: u32,
    /// Requests that are being answered.
    pub sessions: u32,
}

/// A ring that this node coordinates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RingStatus {
    /// How many remote stages there are or, before, were asked for; 0 before the planner has chosen.
    pub split: u32,
    /// Whether the planner chooses the stages.
    pub planned: bool,
    /// What one token of one request was expected to take when the ring was planned, in milliseconds.
    pub predicted_token_ms: Option<f64>,
    /// In one word: `waiting`, `forming`, `loading` while stages fetch their layers, `up` or `impossible`.
    pub state: String,
    /// Why it is not up, with the next step; or how far it is.
    pub why: Option<String>,
    /// The ring's name, when there is one.
    pub ring: Option<RingId>,
    /// The layers that stay here at the beginning.
    pub head: Option<LayerRange>,
    /// The layers that stay here at the end.
    pub tail: Option<LayerRange>,
    /// The remote stages in their order.
    pub stages: Vec<StageStatus>,
    /// Who has loaded a stage in case that its host is lost.
    #[serde(default)]
    pub standbys: Vec<StandbyStatus>,
    /// Tokens that requests over this ring guessed, of those that have ended.
    #[serde(default)]
    pub guessed: u64,
    /// Guesses that were right.
    #[serde(default)]
    pub guessed_right: u64,
}

/// A stage that is loaded beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// Who keeps it, or for whom.
    pub node: NodeId,
    /// Which stage it would become.
    pub stage: u32,
    /// Its layers.
    pub layers: LayerRange,
    /// The model's name.
    pub model: String,
}

/// A remote stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStatus {
    /// Which, from 1.
    pub stage: u32,
    /// Who hosts it.
    pub node: NodeId,
    /// What its owner calls it.
    pub name: String,
    /// Its layers.
    pub layers: LayerRange,
    /// How long it took to load, in milliseconds.
    pub load_ms: u64,
    /// Whether its machine is of the same class as this one, so that equal bits are promised.
    pub same_class: bool,
}

/// One loss of a stage under requests, and what it took to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// When the loss was certain, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// The stage that was lost, from 1.
    pub stage: u32,
    /// Why it counts as lost, in few words.
    pub cause: String,
    /// From the last frame that came back to the certainty, in milliseconds.
    pub detected_ms: u64,
    /// From the certainty to the next ring, in milliseconds; `None` while there is none.
    pub formed_ms: Option<u64>,
    /// From the certainty to the first row that came back over the next ring, in milliseconds.
    pub resumed_ms: Option<u64>,
    /// Rows that were computed to rebuild caches that were lost with their stage.
    pub rows_replayed: u64,
    /// Rows that stages which are still there computed a second time.
    pub rows_recomputed: u64,
    /// The same by stage of the next ring.
    pub stages: Vec<RebuiltStage>,
    /// Bytes of activations that were sent a second time.
    pub bytes_resent: u64,
    /// Requests that went on.
    pub sessions: u32,
}

/// What a stage of the next ring computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuiltStage {
    /// Which, from 1.
    pub stage: u32,
    /// Rows that had gone through its place and were not in its caches.
    pub replayed: u64,
    /// Rows that were in its caches, and were computed a second time.
    pub recomputed: u64,
}

/// Recoveries since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryTotals {
    /// Stages that were lost under requests.
    pub losses: u64,
    /// Requests that went on.
    pub sessions: u64,
    /// See [`RecoveryStatus::rows_replayed`].
    pub rows_replayed: u64,
    /// See [`RecoveryStatus::rows_recomputed`].
    pub rows_recomputed: u64,
    /// See [`RecoveryStatus::bytes_resent`].
    pub bytes_resent: u64,
}

/// Layers hosted for another coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostingStatus {
    /// The ring.
    pub ring: RingId,
    /// Its coordinator.
    pub coordinator: NodeId,
    /// Which stage this node is, from 1.
    pub stage: u32,
    /// Its layers.
    pub layers: LayerRange,
    /// The model's name.
    pub model: String,
    /// Sessions whose caches are here.
    #[serde(default)]
    pub sessions: u32,
}

/// How far the engine is locked up, and what follows for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// In one word; `None` while no engine runs.
    pub level: Option<SandboxLevel>,
    /// What is missing for the full level.
    pub missing: Vec<String>,
    /// Whether the owner lets others be served all the same.
    pub allow_unsandboxed: bool,
    /// Why no stages are served for others, with the next step.
    pub hosting_refused: Option<String>,
}

/// A model that is not tried any more, since engine-hosts died with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// BLAKE3 of its file.
    pub model: Hash,
    /// Its name.
    pub name: String,
    /// Since when, in seconds since 1970 UTC.
    pub since_s: u64,
    /// Why, with the next step.
    pub why: String,
}

/// Journals of streamed answers, by which they can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Answers that have one now.
    pub streams: usize,
    /// Bytes of all of them on disk.
    pub bytes: u64,
    /// Answers since the start that went on without one.
    pub without: u64,
    /// Why the newest of those did.
    pub why: Option<String>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its key.
    pub node: NodeId,
    /// What its owner calls it.
    pub name: String,
    /// `up`, `dialing` or `waiting`.
    pub state: String,
    /// For how long, in seconds.
    pub since_s: u64,
    /// Round trip in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// Where it was last reached.
    pub addrs: Vec<String>,
    /// Why there is no link.
    pub why: Option<String>,
    /// How the link came about: `known`, `lan`, `dht`, `relay` or `called`.
    pub way: Option<String>,
    /// What it offers, where its ad is known.
    pub offer: Option<OfferStatus>,
}

/// What a member offers for the model of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfferStatus {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// One row through one layer, in milliseconds.
    pub layer_ms: f64,
    /// How that is known: `measured`, `reported`, `announced` or `assumed`.
    pub layer_known: String,
    /// Whether it has the whole model on disk.
    pub whole: bool,
    /// Why it is not used, or what else is to be said of it.
    pub why_not: Option<String>,
}

/// Counters and rates since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests answered or failed.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens answered.
    pub tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens a second of the newest answer, without its first token.
    pub decode_tokens_per_s: f64,
    /// Milliseconds to the first token of the newest answer.
    pub first_token_ms: u64,
    /// Threads of the engine's newest step.
    pub threads: u32,
    /// Resident memory of the engine-host, in bytes.
    pub engine_bytes: u64,
}
