//! What an engine-host is told to load, and the memory that this takes.

use super::GUESSES_MAX;
use crate::gguf::TensorType;
use crate::model::Numerics;
use minicbor::{CborLen, Decode, Encode};
use std::path::Path;

/// What to load and how to run it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct LoadSpec {
    /// One whole model; or head and tail; or one middle stage.
    #[n(0)]
    pub parts: Vec<Part>,
    /// The numerics mode.
    #[n(1)]
    pub numerics: Numerics,
    /// Positions of each session's cache; 0 is as many as the model was trained for.
    #[n(2)]
    pub positions_max: u32,
    /// Sessions at once, at most [`super::SESSIONS_MAX`].
    #[n(3)]
    pub sessions_max: u32,
    /// Rows of one step at most.
    #[n(4)]
    pub step_rows_max: u32,
    /// The most threads; `None` is as many as there are cores. Within that they follow the cores that are free.
    #[n(5)]
    pub threads: Option<u32>,
    /// Hosts that a lap of the ring goes through, this one included; 1 at home. The rows of sessions that decode are
    /// computed in so many groups, so that each host of the ring has one to work on.
    #[n(8)]
    pub lanes: u32,
    /// The most address space of the process in bytes, mapped model files included; `None` is no limit. A process
    /// that would need more refuses to load, or dies; it never takes the machine's memory.
    #[n(6)]
    pub memory_bytes_max: Option<u64>,
    /// A directory whose files may be read after loading, beside the models' own.
    #[n(7)]
    pub adapters_dir: Option<String>,
    /// How cache entries are kept; anything but [`KvType::F16`] in throughput mode only.
    #[n(9)]
    pub kv: KvType,
    /// By which factor positions reach beyond those that the model was trained for, with YaRN: 1 to
    /// [`super::ROPE_SCALE_MAX`]. Without it such positions are refused.
    #[n(10)]
    pub rope_scale: Option<f32>,
    /// The most bytes of all caches together; as many sessions are set up as fit. `None` is no limit.
    #[n(11)]
    pub kv_bytes_max: Option<u64>,
    /// Tokens of a whole model that are guessed at once, at most [`GUESSES_MAX`]; 0 guesses none.
    #[n(12)]
    pub guesses_max: u32,
}

impl LoadSpec {
    /// One session, in as many positions as the model was trained for and steps of 512 rows; no limit that is not needed.
    #[must_use]
    pub fn new(parts: Vec<Part>, numerics: Numerics) -> Self {
        Self {
            parts,
            numerics,
            positions_max: 0,
            sessions_max: 1,
            step_rows_max: 512,
            threads: None,
            lanes: 1,
            memory_bytes_max: None,
            adapters_dir: None,
            kv: KvType::F16,
            rope_scale: None,
            kv_bytes_max: None,
            guesses_max: GUESSES_MAX as u32,
        }
    }
}

/// How the entries of a cache are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
pub enum KvType {
    /// Half precision.
    #[default]
    #[n(0)]
    F16,
    /// Blocks of 8 bits: about half the memory.
    #[n(1)]
    Q8_0,
    /// Blocks of 4 bits: about a quarter, and answers suffer.
    #[n(2)]
    Q4_0,
}

impl KvType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F16, Self::Q8_0, Self::Q4_0];

    /// As GGUF knows it.
    #[must_use]
    pub fn tensor_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
        }
    }

    /// The type with this name in ggml's words.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.tensor_type().name() == name)
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.tensor_type().name())
    }
}

/// A piece of a model in an engine-host.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Part {
    /// What it is for.
    #[n(0)]
    pub role: Role,
    /// Its GGUF files: one, or the splits in their order.
    #[n(1)]
    pub files: Vec<String>,
}

impl Part {
    /// All of it in one file.
    #[must_use]
    pub fn of(role: Role, file: &Path) -> Self {
        let files = vec![file.display().to_string()];
        Self { role, files }
    }
}

/// What a part of a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
pub enum Role {
    /// All layers: tokens in, logits out.
    #[n(0)]
    Whole,
    /// Embedding and first layers: tokens in, activations out.
    #[n(1)]
    Head,
    /// Layers between: activations in, activations out.
    #[n(2)]
    Middle,
    /// Last layers and output: activations in, logits out.
    #[n(3)]
    Tail,
}

/// Memory of an engine-host with a specification loaded, in bytes, as the engine itself counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Memory {
    /// Weights of all parts.
    #[n(0)]
    pub weights_bytes: u64,
    /// Caches of all sessions.
    #[n(1)]
    pub cache_bytes: u64,
    /// What one step needs while it is computed.
    #[n(2)]
    pub compute_bytes: u64,
    /// The process beside these: code, vocabulary, graphs.
    #[n(3)]
    pub process_bytes: u64,
    /// Positions of each session.
    #[n(4)]
    pub positions_max: u32,
    /// Sessions at once.
    #[n(5)]
    pub sessions_max: u32,
}

impl Memory {
    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        [
            self.weights_bytes,
            self.cache_bytes,
            self.compute_bytes,
            self.process_bytes,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}
