//! The body of the fuzz target over its corpus, and over seeded mutations of it.
#![allow(clippy::unwrap_used)]

#[path = "../../../fuzz/bodies/gguf.rs"]
mod gguf;
#[path = "../../../fuzz/bodies/seeds.rs"]
mod seeds;

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

#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u64),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<prop::sample::Index>();
    let number = prop_oneof![
        Just(0u64),
        Just(1),
        Just(u64::MAX),
        Just(1 << 63),
        Just(u64::from(u32::MAX)),
        any::<u64>(),
        0u64..70_000,
    ];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        4 => (at(), number).prop_map(|(at, number)| Mutation::Set(at, number)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, v)| Mutation::Insert(at, v)),
        1 => (at(), 1usize..40).prop_map(|(at, n)| Mutation::Remove(at, n)),
        1 => at().prop_map(Mutation::Cut),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match mutation {
        Mutation::Flip(at, bits) => bytes[at.index(len)] ^= bits,
        Mutation::Set(at, number) => {
            let at = at.index(len);
            let end = (at + 8).min(len);
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        Mutation::Insert(at, new) => {
            let at = at.index(len);
            bytes.splice(at..at, new);
        }
        Mutation::Remove(at, count) => {
            let at = at.index(len);
            bytes.drain(at..(at + count).min(len));
        }
        Mutation::Cut(at) => bytes.truncate(at.index(len)),
    }
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
