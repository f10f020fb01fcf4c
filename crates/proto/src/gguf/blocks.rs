//! The blocks of a model's file: which bytes belong to which, as its header alone says.

use super::cut::{SHARED_BY_LAYERS, layer_of};
use super::{Header, Piece, StagePlan};
use crate::manifest::BlockKind;
use crate::model::LAYERS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// A run of bytes of the file, and its place in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The block.
    pub kind: BlockKind,
    /// Where the run begins in the block, in bytes.
    pub in_block: u64,
    /// Where it begins in the file, in bytes.
    pub in_file: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// The blocks of one file. Every byte of the file is in exactly one run.
///
/// A tensor's block has the padding behind it too, so that all blocks together are the file, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// In the order of the file, none of them empty.
    runs: Vec<Run>,
}

impl BlockMap {
    /// The blocks of the file with this header.
    #[must_use]
    pub fn of(header: &Header) -> Self {
        let tensors = header.tensors();
        let starts: Vec<u64> = tensors
            .iter()
            .map(|tensor| header.data_offset() + tensor.offset)
            .collect();
        let first = starts.first().copied().unwrap_or(header.file_bytes());
        let mut pieces = vec![(BlockKind::Header, 0, first)];
        for (at, tensor) in tensors.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(header.file_bytes());
            pieces.push((kind_of(&tensor.name), starts[at], end - starts[at]));
        }
        let mut map = Self { runs: Vec::new() };
        let mut filled: BTreeMap<BlockKind, u64> = BTreeMap::new();
        for (kind, in_file, bytes) in pieces.into_iter().filter(|(_, _, bytes)| *bytes > 0) {
            let filled = filled.entry(kind).or_default();
            map.push(Run {
                kind,
                in_block: *filled,
                in_file,
                bytes,
            });
            *filled += bytes;
        }
        map
    }

    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.kind == run.kind => last.bytes += run.bytes,
            _ => self.runs.push(run),
        }
    }

    /// The runs in the order of the file.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The kinds of the file's blocks, in their order.
    #[must_use]
    pub fn kinds(&self) -> Vec<BlockKind> {
        let kinds: BTreeSet<_> = self.runs.iter().map(|run| run.kind).collect();
        kinds.into_iter().collect()
    }

    /// The runs of one block, in its order.
    pub fn block(&self, kind: BlockKind) -> impl Iterator<Item = Run> + '_ {
        self.runs
            .iter()
            .copied()
            .filter(move |run| run.kind == kind)
    }

    /// Where `bytes` bytes of the file from `in_file` on lie: runs cut to size, in order. Less where the file ends.
    #[must_use]
    pub fn locate(&self, in_file: u64, bytes: u64) -> Vec<Run> {
        let end = in_file.saturating_add(bytes);
        let first = self
            .runs
            .partition_point(|run| run.in_file + run.bytes <= in_file);
        let cut = |run: &Run| {
            let from = run.in_file.max(in_file);
            Run {
                in_block: run.in_block + (from - run.in_file),
                in_file: from,
                bytes: (run.in_file + run.bytes).min(end) - from,
                ..*run
            }
        };
        self.runs[first..]
            .iter()
            .take_while(|run| run.in_file < end)
            .map(cut)
            .filter(|run| run.bytes > 0)
            .collect()
    }

    /// The blocks that a stage is composed from: the header, and those that its pieces are copied from.
    #[must_use]
    pub fn needed(&self, plan: &StagePlan) -> Vec<BlockKind> {
        let mut kinds = BTreeSet::from([BlockKind::Header]);
        for piece in &plan.pieces {
            if let Piece::Copy { offset, bytes } = piece {
                kinds.extend(self.locate(*offset, *bytes).iter().map(|run| run.kind));
            }
        }
        kinds.into_iter().collect()
    }
}

fn kind_of(tensor: &str) -> BlockKind {
    match layer_of(tensor) {
        Some((layer, _)) if layer < LAYERS_MAX => BlockKind::Layer(layer),
        _ if tensor.starts_with("output") => BlockKind::Head,
        // Every stage has these few kilobytes: with the embedding, a middle stage would need all of that.
        _ if SHARED_BY_LAYERS.contains(&tensor) => BlockKind::Header,
        _ => BlockKind::Embd,
    }
}
