//! Row 11: a machine that is slow and not dead.

use super::{Ring, on, world};
use crate::support::http::greedy;
use lab::wait;
use std::time::Duration;

/// Tokens of an answer.
const TOKENS: u32 = 120;
/// What is left of the machine's core.
const SHARE: f64 = 0.1;
/// How long the system may take to hold a machine back.
const HELD_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_slow_machine_is_no_dead_one_and_the_answer_goes_on() {
    let (_world, [a, b, c]) = world(111, ["a", "b", "c"]);
    let machines = [&a, &b, &c];
    on(&a, async || {
        let ring = Ring::form(&machines, 1, 1).await;
        let question = greedy("hello", TOKENS);
        let expected = ring.undisturbed(&question).await;
        let at = ring.stages()[0];
        let mut stream = ring.a().client().open(question.clone()).await.unwrap();
        let begun = stream.texts(20).await;
        let starved = machines[at].starve(SHARE).unwrap();
        let rest = stream.answer().await.unwrap();
        assert_eq!(begun + &rest.text, expected.text);
        wait::until(HELD_MAX, "the system holds it back", || {
            Ok((starved.held_back()? >= 5).then_some(()))
        })
        .unwrap();
        assert_eq!(ring.undisturbed(&question).await, expected);
        // Nobody took it for dead: it is the same process, and linked.
        ring.all_there().await;
        assert_eq!(ring.nodes[at].status().incarnation, 1);
        drop(starved);
        assert_eq!(ring.undisturbed(&question).await, expected);
    });
}
