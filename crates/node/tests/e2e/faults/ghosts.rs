//! Row 10: who crashes and is back within seconds is one member with one stage at most.

use super::{Ring, on, world};
use crate::support::http::greedy;
use crate::support::processes::lives;

/// Tokens of an answer: enough to lose somebody in the middle.
const TOKENS: u32 = 400;

#[test]
fn a_node_that_crashes_and_is_back_at_once_is_one_member_with_one_stage_at_most() {
    let (_world, [a, b, c]) = world(101, ["a", "b", "c"]);
    on(&a, async || {
        let mut ring = Ring::form(&[&a, &b, &c], 1, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        for crash in 1..=2 {
            let at = ring.stages()[0];
            let before = ring.nodes[at].status().incarnation;
            let mut stream = ring.a().client().open(question.clone()).await.unwrap();
            let begun = stream.texts(20).await;
            ring.nodes[at].kill9();
            assert!(!lives(ring.nodes[at].pid));
            let again = ring.nodes[at].setup().clone().up().await;
            ring.nodes[at] = again;
            let rest = stream.answer().await.unwrap();
            assert_eq!(begun + &rest.text, expected.text, "crash {crash}");
            ring.all_there().await;
            ring.a().ring_up().await;
            one_member_one_stage(&ring, at, before);
        }
    });
}

/// Nobody knows it twice, and the ring's stage is hosted once.
fn one_member_one_stage(ring: &Ring, ghost: usize, before: u64) {
    let id = ring.ids[ghost];
    let status = ring.nodes[ghost].status();
    assert_eq!((status.node, status.incarnation), (id, before + 1));
    let others = ring.nodes.iter().enumerate().filter(|(at, _)| *at != ghost);
    for (_, other) in others {
        let nodes = other.status().nodes;
        let known = nodes
            .iter()
            .filter(|node| node.node == id || node.name == status.name);
        assert_eq!(known.count(), 1, "{nodes:?}");
    }
    let asked = ring.id().unwrap();
    let hosting = |node: &crate::support::node::Node| {
        let hosting = node.status().hosting;
        hosting.iter().filter(|stage| stage.ring == asked).count()
    };
    let hosted: Vec<usize> = ring.nodes.iter().map(hosting).collect();
    assert_eq!(hosted.iter().sum::<usize>(), 1, "{hosted:?}");
}
