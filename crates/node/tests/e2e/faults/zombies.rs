//! Row 3: a machine that freezes in the middle of an answer is taken over, and what it says when it thaws in the middle of the
//! same answer is not taken for news.

use super::{Ring, on, world};
use crate::support::http::greedy;
use crate::support::processes::state;
use crate::support::wait::eventually;

/// Tokens of an answer: it is still on its way when the machine thaws.
const TOKENS: u32 = 1_500;

#[test]
fn a_frozen_machine_is_taken_over_and_its_return_does_not_disturb_the_answer() {
    let (_world, [a, b, c, d]) = world(31, ["a", "b", "c", "d"]);
    let machines = [&a, &b, &c, &d];
    on(&a, async || {
        let ring = Ring::form(&machines, 2, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        let frozen = ring.stages()[0];
        let mut stream = ring.a().client().open(question).await.unwrap();
        let mut text = stream.texts(20).await;
        // The node and its engines, as by a closed lid.
        assert!(machines[frozen].freeze().unwrap() >= 2);
        // More than can have been on its way.
        text += &stream.texts(40).await;
        assert_eq!(state(ring.nodes[frozen].pid), Some('T'));
        let (stages, id) = (ring.stages(), ring.id());
        assert!(!stages.contains(&frozen), "{stages:?}");
        machines[frozen].thaw().unwrap();
        text += &stream.texts(20).await;
        let zombie = &ring.nodes[frozen];
        eventually("it knows that its stage is another's", || async {
            zombie.status().hosting.is_empty().then_some(())
        })
        .await;
        let rest = stream.answer().await.unwrap();
        assert_eq!(text + &rest.text, expected.text);
        assert_eq!(
            (ring.stages(), ring.id()),
            (stages, id),
            "the ring was disturbed"
        );
        ring.all_there().await;
    });
}
