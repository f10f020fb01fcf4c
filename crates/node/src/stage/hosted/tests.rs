use super::*;
use crate::stage::INPUTS_MAX;
use proto::ids::Hash;
use proto::member::Member;
use proto::model::{LayerRange, Numerics, WireType};
use proto::ring::Contract;

const COORDINATOR: NodeId = NodeId([1; 32]);

fn open(ring: u8, continues: Option<u8>, first: u32) -> OpenRing {
    OpenRing {
        ring: RingId([ring; 16]),
        stage: 1,
        stages: 2,
        contract: Contract {
            model: Hash([1; 32]),
            layers: LayerRange {
                first,
                end: first + 4,
            },
            build: String::new(),
            cpu_class: String::new(),
            kv_type: String::new(),
            flash_attention: false,
            chunk_rows: 256,
            numerics: Numerics::Exact,
            wire: WireType::F32,
        },
        successor: Member {
            id: COORDINATOR,
            addrs: Vec::new(),
            name: String::new(),
            relays: None,
        },
        sessions_max: 1,
        positions_max: 8,
        model_name: String::new(),
        predecessor: COORDINATOR,
        continues: continues.map(|ring| RingId([ring; 16])),
    }
}

/// A shelf with a loaded stage of ring 1, and what its task is told.
fn shelf() -> (Shelf, mpsc::Receiver<Input>) {
    let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
    let mut shelf = Shelf::default();
    let mut hosted = Hosted::new(COORDINATOR, &open(1, None, 3), inputs);
    hosted.loaded = true;
    shelf.put(hosted).unwrap();
    (shelf, inbox)
}

#[test]
fn a_stage_moves_with_its_ring_and_is_known_by_its_former_names() {
    let (mut shelf, mut inbox) = shelf();
    assert!(shelf.moves(COORDINATOR, &open(2, Some(1), 3)));
    assert!(matches!(inbox.try_recv(), Ok(Input::Move(open)) if open.ring == RingId([2; 16])));
    assert!(
        shelf.moves(COORDINATOR, &open(3, Some(1), 3)),
        "the attempt before failed"
    );
    let hosted = shelf.iter().next().unwrap();
    for (ring, known) in [(1, true), (2, true), (3, true), (4, false)] {
        assert_eq!(
            hosted.is_of(COORDINATOR, RingId([ring; 16])),
            known,
            "{ring}"
        );
    }
    assert!(!hosted.is_of(NodeId([9; 32]), RingId([3; 16])));
    assert!(shelf.inputs(RingId([3; 16]), 1).is_some());
    assert!(
        shelf.inputs(RingId([2; 16]), 1).is_none(),
        "hops are of one ring"
    );
    for ring in 4..40 {
        assert!(shelf.moves(COORDINATOR, &open(ring, Some(ring - 1), 3)));
        inbox.try_recv().unwrap();
    }
    assert!(shelf.iter().next().unwrap().former.len() <= FORMER_MAX);
}

#[test]
fn nobody_else_and_nothing_else_moves() {
    let (mut shelf, _inbox) = shelf();
    assert!(
        !shelf.moves(COORDINATOR, &open(2, None, 3)),
        "a ring of its own"
    );
    assert!(
        !shelf.moves(COORDINATOR, &open(2, Some(7), 3)),
        "another ring"
    );
    assert!(
        !shelf.moves(COORDINATOR, &open(2, Some(1), 4)),
        "other layers"
    );
    assert!(
        !shelf.moves(NodeId([9; 32]), &open(2, Some(1), 3)),
        "another coordinator"
    );
    let mut beyond = open(2, Some(1), 3);
    beyond.stage = 3;
    assert!(!shelf.moves(COORDINATOR, &beyond));
    shelf.iter().next().unwrap().stop.cancel();
    assert!(!shelf.moves(COORDINATOR, &open(2, Some(1), 3)), "it ends");
}
