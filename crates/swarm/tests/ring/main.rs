//! Coordinator and stages over a simulated network: every delivery order that a seed picks must give the tokens of one
//! machine, without a gap or a repetition in any cache.
//!
//! A stream is a queue; a step delivers from one queue that is not empty, chosen by the seed. So streams keep their
//! order, and anything may happen between streams. The engines are fakes that mix numbers as a model's layers
//! mix rows: what a layer puts out depends on every row that it ever took in, in order, so one wrong row shows in all that
//! follow.

mod coordinated;
mod engine;
mod request;
mod rewinds;
mod ring;
mod rng;
mod shadow;

use std::ops::Range;

/// Runs every seed twice where `twice` says so; the first failure ends the test with its seed.
fn run_seeds<T: PartialEq + std::fmt::Debug>(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<T, String>,
) -> Vec<T> {
    let outcome = |seed| run(seed).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    let outcomes = seeds.map(|seed| {
        let first = outcome(seed);
        if seed % 16 == 0 {
            assert_eq!(first, outcome(seed), "seed {seed} gave two outcomes");
        }
        first
    });
    outcomes.collect()
}
