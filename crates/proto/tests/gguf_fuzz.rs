//! The body of the fuzz target over its corpus, and over seeded mutations of it.
#![allow(clippy::unwrap_used)]

#[path = "../../../fuzz/bodies/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/bodies/mutation.rs"]
mod mutation;
#[path = "../../../fuzz/bodies/seeds.rs"]
mod seeds;

use mutation::{mutate, mutation};
use proptest::prelude::*;
use proto::gguf::{Header, cuttable};
use std::path::PathBuf;

fn corpus() -> PathBuf {
    specimen::crate_dir().join("../../fuzz/corpus/gguf")
}

#[test]
fn the_corpus_holds_the_seeds() {
    for (name, bytes) in seeds::seeds() {
        let path = corpus().join(&name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bytes,
            "{name}: run with BLESS=1"
        );
    }
}

#[test]
fn every_file_of_the_corpus_passes() {
    let mut files = 0;
    for entry in std::fs::read_dir(corpus()).unwrap() {
        gguf::run(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= seeds::seeds().len());
}

#[test]
fn seeds_are_accepted_and_most_can_be_cut() {
    let headers = seeds::seeds()
        .into_iter()
        .map(|(_, bytes)| Header::from_bytes(&bytes).unwrap());
    let cut = headers.filter(|header| cuttable(header).is_ok()).count();
    assert!(
        cut >= proto::gguf::families().len(),
        "mutations would not reach the cut"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_files_never_panic(
        seed in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let seeds = seeds::seeds();
        let mut bytes = seeds[seed.index(seeds.len())].1.clone();
        mutations.into_iter().for_each(|mutation| mutate(&mut bytes, mutation));
        gguf::run(&bytes);
    }
}
