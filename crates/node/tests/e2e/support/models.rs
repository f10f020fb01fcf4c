//! Models for the tests.

use specimen::{Family, Shape, Weights};
use std::path::{Path, PathBuf};

/// Layers of the starter.
pub(crate) const STARTER_LAYERS: u32 = 30;
/// Numbers in an activation row of the starter.
pub(crate) const STARTER_EMBEDDING: u64 = 576;
/// The starter's name.
pub(crate) const STARTER: &str = "smollm2-135m-instruct";

/// A model that answers nonsense at once.
pub(crate) fn small(dir: &Path) -> PathBuf {
    let path = dir.join("small.gguf");
    specimen::write(&path, Family::Llama, 1).expect("the specimen is written");
    path
}

/// A model that answers nonsense, and takes seconds for a context: long enough to break something meanwhile.
pub(crate) fn slow(dir: &Path) -> PathBuf {
    let shape = Shape {
        embedding: 384,
        heads: 6,
        feed_forward: 1024,
        ..Shape::SMALL
    };
    let path = dir.join("slow.gguf");
    let bytes = specimen::bytes(Family::Llama, &shape, Weights::Q8_0, 1);
    std::fs::write(&path, bytes).expect("the specimen is written");
    path
}
