//! Row 8: a commons that is parted answers in each part as far as it can, and is one again when the parts meet.

use super::{Ring, linked, member, on, world};
use crate::support::http::greedy;
use crate::support::models::slow;
use crate::support::node::Node;

/// Tokens of an answer: enough to cut somebody off in the middle.
const TOKENS: u32 = 400;

/// Who has the one stage of a node's ring.
fn host(node: &Node) -> String {
    let stages = node.status().ring.unwrap().stages;
    assert_eq!(stages.len(), 1, "{stages:?}");
    stages[0].name.clone()
}

#[test]
fn both_parts_of_a_commons_answer_and_are_one_again_when_they_meet() {
    let (world, [a, b, c, d]) = world(81, ["a", "b", "c", "d"]);
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let question = || greedy("hello", 48);
    let story = async || {
        let first = member(&a, &model).split(1).up().await;
        let second = member(&c, &model).split(1).join(&first).up().await;
        let others = [
            member(&b, &model).join(&first).up().await,
            member(&d, &model).join(&first).up().await,
        ];
        for node in [&first, &second, &others[0], &others[1]] {
            linked(node, 3).await;
        }
        first.ring_up().await;
        second.ring_up().await;
        let expected = first.client().stream(question()).await.unwrap();

        let partition = world.partition(&[&a, &b], &[&c, &d]).unwrap();
        let clear = lab::Shape::default();
        let measured = world.measure(&a, &c, &clear).unwrap();
        assert_eq!(measured.loss, 1.0, "the partition parts");
        world.confirm(&a, &b, &clear).unwrap();
        for node in [&first, &second] {
            linked(node, 1).await;
            node.ring_up().await;
        }
        assert_eq!(
            (host(&first), host(&second)),
            ("b".to_owned(), "d".to_owned())
        );
        assert_eq!(first.client().stream(question()).await.unwrap(), expected);
        let other = on(&c, async || {
            second.client().stream(question()).await.unwrap()
        });
        assert_eq!(other, expected, "the other part answers, too");

        assert!(
            partition.dropped().unwrap() > measured.probes as u64,
            "nodes called each other"
        );
        partition.heal().unwrap();
        world.confirm(&a, &c, &clear).unwrap();
        for node in [&first, &second, &others[0], &others[1]] {
            linked(node, 3).await;
        }
        assert_eq!(first.client().stream(question()).await.unwrap(), expected);
    };
    on(&a, story);
}

#[test]
fn a_stage_that_hears_and_is_not_heard_is_taken_over_once() {
    let (world, [a, b, c, d]) = world(82, ["a", "b", "c", "d"]);
    let machines = [&a, &b, &c, &d];
    on(&a, async || {
        let ring = Ring::form(&machines, 2, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        let mute = ring.stages()[1];
        let mut stream = ring.a().client().open(question.clone()).await.unwrap();
        let begun = stream.texts(20).await;
        // To nobody: what it sends is lost on every way.
        for other in machines
            .iter()
            .filter(|other| other.name() != machines[mute].name())
        {
            world.way(machines[mute], other).cut();
        }
        let rest = stream.answer().await.unwrap();
        assert_eq!(begun + &rest.text, expected.text);
        assert!(!ring.stages().contains(&mute), "{:?}", ring.stages());
        let to_a = world.way(machines[mute], &a);
        assert!(to_a.counts().cut > 0, "{:?}", to_a.counts());
        world.calibrate(machines[mute], &a).unwrap();

        let after = ring.id();
        for _ in 0..2 {
            assert_eq!(ring.undisturbed(&question).await, expected);
        }
        assert_eq!(ring.id(), after, "it was taken back and lost again");
        for other in machines
            .iter()
            .filter(|other| other.name() != machines[mute].name())
        {
            world.way(machines[mute], other).mend();
        }
        ring.all_there().await;
        assert_eq!(ring.undisturbed(&question).await, expected);
    });
}

#[test]
fn two_stages_that_lose_each_other_do_not_keep_the_answer_from_going_on() {
    let (world, [a, b, c, d]) = world(83, ["a", "b", "c", "d"]);
    let machines = [&a, &b, &c, &d];
    on(&a, async || {
        let ring = Ring::form(&machines, 2, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        let stages = ring.stages();
        let mut stream = ring.a().client().open(question).await.unwrap();
        let begun = stream.texts(20).await;
        // The coordinator goes on hearing both of them.
        let (first, second) = (machines[stages[0]], machines[stages[1]]);
        world.cut(first, second);
        let rest = stream.answer().await.unwrap();
        assert_eq!(begun + &rest.text, expected.text);
        let counts = world.link(first, second).counts();
        assert!(counts.cut > 0, "{counts:?}");
        assert_ne!(ring.stages(), stages, "the answer went through a cut link");
        world.mend(first, second);
        ring.all_there().await;
    });
}
