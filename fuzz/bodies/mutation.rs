//! Seeded mutations of bytes, for runs without a fuzzer.

use proptest::prelude::*;

/// What is done to a seed.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u64),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

/// One mutation; numbers are often those that lengths and counts are wrong at.
pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
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

/// Carries a mutation out.
pub(crate) fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
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
