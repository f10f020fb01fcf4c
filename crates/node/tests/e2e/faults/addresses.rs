//! Row 23: a machine gets another address in the middle of an answer.

use super::{Ring, linked, on, world};
use crate::support::http::greedy;
use node::status::Status;
use proto::ids::NodeId;

/// Tokens of an answer, and pieces that have come when the machine moves.
const TOKENS: u32 = 300;
const BEFORE: usize = 40;

#[test]
fn a_stage_that_moves_to_another_address_ends_no_answer_and_comes_back() {
    let (mut world, [a, b, c]) = world(231, ["a", "b", "c"]);
    on(&a, async || {
        let ring = Ring::form(&[&a, &b, &c], 1, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        let stood_by = |status: &Status| !status.ring.as_ref().unwrap().standbys.is_empty();
        let what = "somebody stands by";
        ring.a().status_when(what, stood_by).await;
        let moved = [&a, &b, &c][ring.stages()[0]];
        let before = moved.addr();
        let mut stream = ring.a().client().open(question.clone()).await.unwrap();
        let mut text = stream.texts(BEFORE).await;
        let after = world.readdress(moved).unwrap();
        assert_ne!(after, before);
        text += &stream.answer().await.unwrap().text;
        assert_eq!(text, expected.text);
        // The same members, one of them at its new address.
        for node in &ring.nodes {
            linked(node, 2).await;
        }
        let status = ring.a().status();
        let there = |id: &NodeId| status.nodes.iter().any(|node| node.node == *id);
        assert!(ring.ids[1..].iter().all(there), "{:?}", status.nodes);
        assert_eq!(ring.undisturbed(&question).await, expected);
    });
}
