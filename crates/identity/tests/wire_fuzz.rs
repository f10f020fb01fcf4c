//! The body of the fuzz target `wire` over its corpus, and over seeded mutations of it.
#![allow(clippy::unwrap_used)]

#[path = "../../../fuzz/bodies/mutation.rs"]
mod mutation;
#[path = "../../../fuzz/bodies/wire.rs"]
mod wire;

use mutation::{mutate, mutation};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Every frozen encoding, from `proto/tests/golden.rs`.
static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let dir = specimen::crate_dir().join("../../fuzz/corpus/wire");
    let files = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
});

#[test]
fn every_seed_is_taken_by_some_type() {
    assert!(CORPUS.len() >= 30, "{}", CORPUS.len());
    for seed in CORPUS.iter() {
        assert!(wire::run(seed) > 0, "{seed:02x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_structures_never_panic(
        seed in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut bytes = CORPUS[seed.index(CORPUS.len())].clone();
        mutations.into_iter().for_each(|mutation| mutate(&mut bytes, mutation));
        wire::run(&bytes);
    }

    #[test]
    fn other_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        wire::run(&bytes);
    }
}
