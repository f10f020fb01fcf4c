use super::*;
use swarm::members::{Estimate, Reach, Source};

#[test]
fn only_members_with_the_same_engine_are_asked_for() {
    let shape = Shape {
        layers: 4,
        layer_bytes: 5,
        ends_bytes: 6,
        engine_bytes: 7,
        output_layers: 1.0,
    };
    let ask = ask((Room::Square, &shape), Hash([1; 32]), "b1");
    assert_eq!((ask.layer_bytes, ask.build), (12, Some("b1")));
}

fn seen(n: u16, memory_bytes: u64, layer_us: u64, why_not: Option<WhyNot>) -> Seen {
    let [a, b] = n.to_be_bytes();
    let mut key = [0; 32];
    (key[0], key[1]) = (a, b);
    let known = |value| Estimate {
        value,
        source: Source::Measured,
    };
    Seen {
        node: NodeId(key),
        name: String::new(),
        incarnation: 1,
        addrs: Vec::new(),
        relays: Vec::new(),
        relayed: false,
        memory_bytes,
        layer_us: known(layer_us),
        rtt_us: known(1_000),
        bytes_per_s: None,
        on_disk: Vec::new(),
        whole: false,
        reach: Reach::Linked,
        age_ms: 0,
        why_not,
    }
}

const SHAPE: Shape = Shape {
    layers: 8,
    layer_bytes: 100,
    ends_bytes: 0,
    engine_bytes: 10,
    output_layers: 1.0,
};

#[test]
fn what_hosts_hold_for_us_is_free_for_another_ring_of_ours() {
    let full = Some(WhyNot::TooLittleMemory {
        memory_bytes: 5,
        needed_bytes: 110,
    });
    let all = [
        seen(1, 5, 1, full),
        seen(2, 7, 1, full),
        seen(3, 900, 1, None),
        seen(4, 900, 1, Some(WhyNot::Suspect)),
    ];
    let hosts = [(all[0].node, 3), (all[2].node, 1), (all[3].node, 1)].into();
    let found = candidates(&all, (&SHAPE, &hosts), |_| true);
    let found: Vec<_> = found.iter().map(|one| (one.id, one.memory_bytes)).collect();
    assert_eq!(found, [(all[0].node, 310), (all[2].node, 900)]);
}

#[test]
fn of_too_many_those_that_promise_most_are_weighed() {
    let all: Vec<Seen> = (0..CANDIDATES_MAX as u16 + 3)
        .map(|n| seen(n, 900, if n < 3 { 9_000 } else { 100 }, None))
        .collect();
    let found = candidates(&all, (&SHAPE, &BTreeMap::new()), |_| true);
    assert_eq!(found.len(), CANDIDATES_MAX);
    assert!(found.iter().all(|one| one.layer_ms < 1.0));
}
