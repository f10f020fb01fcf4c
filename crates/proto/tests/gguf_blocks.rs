//! File -> blocks -> the same file, and stages from blocks alone.
#![allow(clippy::unwrap_used)]

use proto::gguf::{BlockMap, Header, Piece, StagePlan, plan};
use proto::host::Role;
use proto::manifest::BlockKind::{self, Embd, Head, Header as HeaderBlock, Layer};
use proto::model::LayerRange;
use specimen::{Family, Shape, Weights};
use std::collections::BTreeMap;

const LAYERS: u32 = 12;

fn specimen_of(family: Family) -> Vec<u8> {
    let shape = Shape {
        layers: LAYERS,
        ..Shape::MINIATURE
    };
    specimen::bytes(family, &shape, Weights::Q4_0, 3)
}

fn cut(file: &[u8], map: &BlockMap) -> BTreeMap<BlockKind, Vec<u8>> {
    let bytes = |kind| {
        let mut block = Vec::new();
        for run in map.block(kind) {
            assert_eq!(run.in_block as usize, block.len(), "{kind}");
            block.extend(&file[run.in_file as usize..(run.in_file + run.bytes) as usize]);
        }
        block
    };
    map.kinds()
        .into_iter()
        .map(|kind| (kind, bytes(kind)))
        .collect()
}

/// Copies a piece of the file out of blocks; fails on a block that is not there.
fn read(blocks: &BTreeMap<BlockKind, Vec<u8>>, map: &BlockMap, at: u64, bytes: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for run in map.locate(at, bytes) {
        let from = run.in_block as usize;
        out.extend(&blocks[&run.kind][from..from + run.bytes as usize]);
    }
    assert_eq!(out.len() as u64, bytes);
    out
}

fn compose(plan: &StagePlan, copy: impl Fn(u64, u64) -> Vec<u8>) -> Vec<u8> {
    let mut file = plan.header.clone();
    for piece in &plan.pieces {
        match piece {
            Piece::Copy { offset, bytes } => file.extend(copy(*offset, *bytes)),
            Piece::Literal(bytes) => file.extend(bytes),
            Piece::Zeros(bytes) => file.resize(file.len() + *bytes as usize, 0),
        }
    }
    file
}

fn range(first: u32, end: u32) -> LayerRange {
    LayerRange { first, end }
}

#[test]
fn the_blocks_of_every_family_together_are_the_file() {
    for family in Family::ALL {
        let file = specimen_of(family);
        let header = Header::from_bytes(&file).unwrap();
        let map = BlockMap::of(&header);
        let blocks = cut(&file, &map);
        assert_eq!(
            read(&blocks, &map, 0, file.len() as u64),
            file,
            "{family:?}"
        );
        let sum: usize = blocks.values().map(Vec::len).sum();
        assert_eq!(sum, file.len(), "{family:?}: bytes in no block, or in two");
        let mut expected = vec![HeaderBlock, Embd];
        expected.extend((0..LAYERS).map(Layer));
        expected.push(Head);
        assert_eq!(map.kinds(), expected, "{family:?}");
        // The header block alone says what all blocks are.
        let first = &blocks[&HeaderBlock];
        let again = Header::read(&first[..], file.len() as u64).unwrap();
        assert_eq!(BlockMap::of(&again), map, "{family:?}");
    }
}

#[test]
fn a_stage_of_every_family_needs_few_blocks_and_is_byte_equal_from_them() {
    for family in Family::ALL {
        let file = specimen_of(family);
        let header = Header::from_bytes(&file).unwrap();
        if proto::gguf::cuttable(&header).is_err() {
            continue;
        }
        let map = BlockMap::of(&header);
        let all = cut(&file, &map);
        let tied = header.tensor("output.weight").is_none();
        for (role, layers, more) in [
            (Role::Head, range(0, 5), vec![Embd]),
            (Role::Middle, range(5, 6), vec![]),
            (
                Role::Tail,
                range(6, 12),
                if tied { vec![Embd, Head] } else { vec![Head] },
            ),
        ] {
            let plan = plan(&header, role, layers).unwrap();
            let needed = map.needed(&plan);
            let mut expected = vec![HeaderBlock];
            expected.extend((layers.first..layers.end).map(Layer));
            expected.extend(more);
            expected.sort();
            assert_eq!(needed, expected, "{family:?} {role:?}");
            let some: BTreeMap<_, _> = needed
                .iter()
                .map(|kind| (*kind, all[kind].clone()))
                .collect();
            let from_blocks = compose(&plan, |at, bytes| read(&some, &map, at, bytes));
            let from_file = compose(&plan, |at, bytes| {
                file[at as usize..(at + bytes) as usize].to_vec()
            });
            assert!(from_blocks == from_file, "{family:?} {role:?}");
        }
    }
}

#[test]
fn a_piece_behind_the_end_is_cut_off_and_one_outside_is_empty() {
    let file = specimen_of(Family::Llama);
    let map = BlockMap::of(&Header::from_bytes(&file).unwrap());
    let end = file.len() as u64;
    let sum = |at, bytes| -> u64 { map.locate(at, bytes).iter().map(|run| run.bytes).sum() };
    assert_eq!(sum(end - 3, 10), 3);
    assert_eq!(sum(end, 10), 0);
    assert_eq!(sum(u64::MAX, u64::MAX), 0);
    assert_eq!(sum(0, u64::MAX), end);
    assert_eq!(map.locate(7, 0), []);
}
