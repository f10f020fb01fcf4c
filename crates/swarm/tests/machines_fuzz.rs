//! The body of the fuzz target `machines` over seeded event lists.
#![allow(clippy::unwrap_used)]

#[path = "../../../fuzz/bodies/machines.rs"]
mod machines;

use machines::{Reached, run};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Event lists of one machine, of up to so many bytes.
fn many(which: u8, seeds: std::ops::Range<u64>, bytes_max: usize) -> Reached {
    let mut sum = Reached::default();
    for seed in seeds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = vec![0; 1 + random.next_u32() as usize % bytes_max];
        random.fill_bytes(&mut bytes);
        bytes[0] = which;
        let reached = run(&bytes);
        sum.tokens += reached.tokens;
        sum.finished += reached.finished;
        sum.failed += reached.failed;
        sum.strandings += reached.strandings;
        sum.resumed += reached.resumed;
        sum.computed += reached.computed;
        sum.forwarded += reached.forwarded;
        sum.refused += reached.refused;
        sum.went_on += reached.went_on;
        sum.right += reached.right;
        sum.wrong += reached.wrong;
    }
    sum
}

#[test]
fn a_session_outlives_any_events_and_these_reach_deep() {
    let reached = many(0, 0..4_000, 2_000);
    for (what, count) in [
        ("tokens", reached.tokens),
        ("ends", reached.finished),
        ("failures", reached.failed),
        ("lost rings", reached.strandings),
        ("right guesses", reached.right),
        ("wrong guesses", reached.wrong),
        ("sessions that went on", reached.resumed),
    ] {
        assert!(count >= 100, "{what}: {reached:?}");
    }
}

#[test]
fn a_stage_outlives_any_events_and_these_reach_deep() {
    let reached = many(1, 0..4_000, 2_000);
    for (what, count) in [
        ("frames computed", reached.computed),
        ("frames forwarded", reached.forwarded),
        ("refusals", reached.refused),
        ("sessions that went on", reached.went_on),
    ] {
        assert!(count >= 1_000, "{what}: {reached:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn machines_outlive_any_events(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        run(&bytes);
    }
}
