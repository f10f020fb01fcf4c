use super::*;
use crate::ids::CommonsId;
use crate::member::{VOUCH_CHAIN_MAX, Vouch};
use proptest::prelude::*;

fn block(kind: BlockKind) -> Block {
    Block {
        kind,
        hash: Hash([9; 32]),
        bytes: 7,
    }
}

fn manifest(blocks: Vec<Block>) -> Manifest {
    let contents = Contents {
        root: Hash([1; 32]),
        bytes: blocks.iter().map(|block| block.bytes).sum(),
        blocks,
    };
    Manifest {
        version: MANIFEST_VERSION,
        contents,
        name: "m".into(),
        licence: None,
        maker: NodeId([2; 32]),
        membership: None,
        issued_s: 5,
        signature: [3; 64],
    }
}

fn small() -> Manifest {
    use BlockKind::{Embd, Head, Header, Layer};
    manifest([Header, Embd, Layer(0), Layer(1), Head].map(block).to_vec())
}

#[test]
fn the_largest_manifest_fits() {
    let mut blocks = vec![block(BlockKind::Header), block(BlockKind::Embd)];
    blocks.extend((0..LAYERS_MAX).map(|layer| block(BlockKind::Layer(layer))));
    blocks.push(block(BlockKind::Head));
    blocks
        .iter_mut()
        .for_each(|block| block.bytes = u64::MAX >> 12);
    let vouch = Vouch {
        commons: CommonsId([1; 32]),
        subject: NodeId([1; 32]),
        issuer: [1; 32],
        issued_s: u64::MAX,
        signature: [1; 64],
    };
    let large = Manifest {
        name: "\u{1F344}".repeat(MODEL_NAME_CHARS_MAX),
        licence: Some("\u{1F344}".repeat(LICENCE_CHARS_MAX)),
        membership: Some(Membership {
            chain: vec![vouch; VOUCH_CHAIN_MAX],
        }),
        issued_s: u64::MAX,
        ..manifest(blocks)
    };
    assert_eq!(large.contents.blocks.len(), MODEL_BLOCKS_MAX);
    assert!(codec::to_vec(&large.contents).len() <= Contents::BYTES_MAX);
    assert_eq!(Manifest::from_bytes(&codec::to_vec(&large)).unwrap(), large);
    let answer = ModelAnswer::new(large, &[true; MODEL_BLOCKS_MAX]);
    assert_eq!(
        codec::from_slice::<ModelAnswer>(&codec::to_vec(&answer)).unwrap(),
        answer
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    type Strike = fn(&mut Manifest);
    let cases: [(Strike, &str); 13] = [
        (|m| m.version = 2, "version 2"),
        (|m| m.version = 0, "version 0"),
        (|m| m.name = "n".repeat(129), "name"),
        (|m| m.name = "a\nb".into(), "name"),
        (|m| m.name.clear(), "name"),
        (|m| m.licence = Some("l".repeat(129)), "licence"),
        (|m| m.contents.bytes += 1, "together"),
        (|m| m.contents.blocks.clear(), "header"),
        (|m| m.contents.blocks.swap(0, 1), "header"),
        (|m| m.contents.blocks.swap(2, 3), "behind"),
        (
            |m| m.contents.blocks[2].kind = BlockKind::Layer(1),
            "behind",
        ),
        (
            |m| m.contents.blocks[3].kind = BlockKind::Layer(LAYERS_MAX),
            "blk",
        ),
        (|m| m.contents.blocks[1].bytes = 0, "empty"),
    ];
    assert_eq!(
        Manifest::from_bytes(&codec::to_vec(&small())).unwrap(),
        small()
    );
    for (strike, says) in cases {
        let mut bad = small();
        strike(&mut bad);
        let error = Manifest::from_bytes(&codec::to_vec(&bad))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{says:?} not in {error}");
    }
}

#[test]
fn an_answer_tells_block_by_block_what_is_held() {
    let held = [true, false, true, false, false, false, false, false, true];
    let answer = ModelAnswer::new(small(), &held);
    let read: Vec<bool> = (0..10).map(|at| answer.holds(at)).collect();
    assert_eq!((&read[..9], read[9]), (&held[..], false));
}

#[test]
fn parts_cover_a_block_without_a_gap() {
    for (bytes, parts) in [
        (1, 1),
        (PART_BYTES, 1),
        (PART_BYTES + 1, 2),
        (3 * PART_BYTES, 3),
    ] {
        let block = Block {
            bytes,
            ..block(BlockKind::Embd)
        };
        assert_eq!(block.parts(), parts);
        let sum: u64 = (0..=parts).map(|part| block.part_bytes(part)).sum();
        assert_eq!((sum, block.part_bytes(parts)), (bytes, 0));
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, flip: u8) {
        let _ = Manifest::from_bytes(&bytes);
        let _ = codec::from_slice::<ModelAnswer>(&bytes);
        let mut real = codec::to_vec(&small());
        let at = at % real.len();
        real[at] ^= flip;
        let _ = Manifest::from_bytes(&real);
        let _ = Manifest::from_bytes(&real[..at]);
    }
}
