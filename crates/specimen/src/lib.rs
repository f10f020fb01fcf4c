//! Tiny random models of every family that a test needs. Workshop: never shipped.
//!
//! # Story
//!
//! A test asks for a [`Family`] and gets a GGUF file of at most 3 MB that the engine loads like a published one: the
//! family's tensors with random numbers, its keys, and a small but honest byte-level vocabulary with a chat template
//! ([`vocabulary`]). The same family, shape, weights and seed always give the same bytes, on every machine: numbers
//! come from [`random::Stream`], a counter-based generator with integer arithmetic and sums only.
//!
//! Which tensors a family has, and in which shape, follows its `load_arch_tensors` in the pinned llama.cpp. The
//! shapes are small and deliberately odd where a family allows it (12 layers, window 16, more query than key heads), so
//! that a cut at an odd layer meets every rule.
//!
//! Nothing here runs in the background; [`bytes`] is pure, and [`write`](fn@write) writes one file.

pub mod family;
pub mod random;
pub mod shape;
pub mod starter;
pub mod vocabulary;

pub use family::Family;
pub use shape::{Shape, Weights};
pub use starter::{chat_templates, crate_dir, starter, test_home};

use proto::gguf::{self, Metadata, NewTensor, VERSION, Value};
use random::Stream;
use std::path::Path;

/// The largest specimen of [`Shape::SMALL`], in bytes.
pub const BYTES_MAX: usize = 3_000_000;

/// Writes a specimen of [`Shape::SMALL`] with 32-bit weights to `path`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write(path: &Path, family: Family, seed: u64) -> std::io::Result<()> {
    std::fs::write(path, bytes(family, &Shape::SMALL, Weights::F32, seed))
}

/// A specimen as the bytes of its file.
#[must_use]
pub fn bytes(family: Family, shape: &Shape, weights: Weights, seed: u64) -> Vec<u8> {
    let tensors = family.tensors(shape);
    let described: Vec<NewTensor> = tensors
        .iter()
        .map(|tensor| NewTensor {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            kind: weights.kind_of(tensor),
        })
        .collect();
    let encoded = gguf::encode(VERSION, &metadata(family, shape, weights), &described)
        .expect("the shapes of specimens fit every weight type");
    let mut file = encoded.bytes;
    for (number, (tensor, described)) in tensors.iter().zip(&described).enumerate() {
        let mut stream = Stream::new(seed, number as u64);
        random::fill(&mut file, tensor, described.kind, &mut stream);
        file.resize(file.len().next_multiple_of(to_usize(encoded.alignment)), 0);
    }
    file
}

/// The same model with other keys: for files that are well-formed and still wrong.
///
/// # Panics
///
/// When `bytes` is no GGUF file.
#[must_use]
pub fn bend(bytes: &[u8], change: impl FnOnce(&mut Metadata)) -> Vec<u8> {
    let header =
        gguf::Header::from_bytes(bytes).expect("a specimen is bent, and that is a GGUF file");
    let mut keys = header.metadata().clone();
    change(&mut keys);
    let describe = |tensor: &gguf::Tensor| NewTensor {
        name: tensor.name.clone(),
        dims: tensor.dims.clone(),
        kind: tensor.kind,
    };
    let tensors: Vec<NewTensor> = header.tensors().iter().map(describe).collect();
    let encoded = gguf::encode(header.version(), &keys, &tensors);
    let mut file = encoded.expect("the shapes are as they were").bytes;
    file.extend_from_slice(&bytes[to_usize(header.data_offset())..]);
    file
}

fn metadata(family: Family, shape: &Shape, weights: Weights) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.set(gguf::KEY_ARCHITECTURE, Value::text(family.architecture()));
    // No family in the name: the engine looks for some there and then expects their published vocabulary.
    metadata.set("general.name", Value::text("Specimen"));
    metadata.set("general.file_type", Value::U32(weights.file_type()));
    for (suffix, value) in family.keys(shape) {
        metadata.set(&format!("{}.{suffix}", family.architecture()), value);
    }
    vocabulary::describe(&mut metadata);
    metadata
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a specimen fits into memory")
}
