//! What can go wrong with blocks.

use crate::durable::{DiskFull, FileError};
use proto::gguf::GgufError;
use proto::ids::Hash;
use proto::manifest::BlockKind;
use std::path::PathBuf;

/// Blocks that cannot be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not enough room; nothing that was kept is lost.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// The file is no model.
    #[error("{}: {source}", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: GgufError,
    },
    /// A model's file does not have the content that its name says.
    #[error("{} is not the model {} any more; check it with `myzel model verify`", path.display(), root.short())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        root: Hash,
    },
    /// A block is needed that is not here.
    #[error("the block {kind} of the model {} is not here; fetch it first", root.short())]
    Missing {
        /// Which block.
        kind: BlockKind,
        /// Of which model.
        root: Hash,
    },
    /// The manifest and the header block contradict each other: its maker lied or erred.
    #[error("the manifest of the model {} is wrong: its header says other blocks", root.short())]
    Contradiction {
        /// Which model.
        root: Hash,
    },
    /// Nobody waits for the result any more.
    #[error("the work on blocks was cancelled")]
    Cancelled,
}
