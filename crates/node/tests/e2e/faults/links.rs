//! Row 7: links that lose, delay and are narrow make a ring slow, and nobody is taken for lost.

use super::{Ring, on, world};
use crate::support::http::{greedy, seeded};
use lab::{Machine, World};

/// Tokens of an answer: each needs a lap of three far, lossy ways.
const TOKENS: u32 = 24;

/// Asks over clear links and over bad ones: the same answers, the same ring, everybody still there.
fn answers_are_as_over_clear_links(seed: u64, spoil: impl Fn(&World) + Send + Sync) {
    let (world, [a, b, c]) = world(seed, ["a", "b", "c"]);
    let ways: [(&Machine, &Machine); 3] = [(&a, &b), (&b, &c), (&c, &a)];
    on(&a, async || {
        let ring = Ring::form(&[&a, &b, &c], 2, 1).await;
        let questions = [greedy("hello", TOKENS), seeded("hello", 7, TOKENS)];
        let mut expected = Vec::new();
        for question in &questions {
            expected.push(ring.undisturbed(question).await);
        }
        let before = ring.id();
        spoil(&world);
        for (from, to) in ways {
            world
                .confirm(from, to, &world.way(from, to).asked())
                .unwrap();
        }
        let counts = world.links().counts();
        for (question, expected) in questions.iter().zip(expected) {
            assert_eq!(ring.undisturbed(question).await, expected);
        }
        let struck = world.links().counts();
        assert!(struck.sent > counts.sent + u64::from(TOKENS), "{struck:?}");
        let dropped = |counts: &lab::Counts| counts.lost + counts.overflowed;
        let asked = world.links().asked();
        assert!(
            asked.loss == 0.0 || dropped(&struck) > dropped(&counts),
            "{struck:?}"
        );
        assert_eq!(ring.id(), before, "the ring is another one");
        ring.all_there().await;
    });
}

#[test]
fn far_and_lossy_links_make_a_ring_slow_and_evict_nobody() {
    answers_are_as_over_clear_links(71, |world| {
        world.links().delay_ms(100).jitter_ms(15).loss(0.05);
    });
}

#[test]
fn narrow_links_make_a_ring_slow_and_evict_nobody() {
    answers_are_as_over_clear_links(72, |world| {
        world.links().rate_kbit(1_000);
    });
}
