//! What every specimen must be: small, the same every time, and a file that the reader takes.
#![allow(clippy::unwrap_used)]

use proto::gguf::{Header, cuttable};
use proto::ids::Hash;
use specimen::{BYTES_MAX, Family, Shape, Weights, bytes, vocabulary};

const ALL_WEIGHTS: [Weights; 3] = [Weights::F32, Weights::Q8_0, Weights::Q4_0];

#[test]
fn specimens_are_small_valid_and_cut_as_they_say() {
    for family in Family::ALL {
        for weights in ALL_WEIGHTS {
            let file = bytes(family, &Shape::SMALL, weights, 5);
            assert!(
                file.len() <= BYTES_MAX,
                "{family:?} {weights:?}: {} bytes",
                file.len()
            );
            let header = Header::from_bytes(&file).unwrap();
            assert_eq!(header.architecture(), family.architecture());
            assert_eq!(header.layers(), Shape::SMALL.layers);
            assert_eq!(header.vocabulary(), Some(vocabulary::TOKENS.into()));
            assert_eq!(cuttable(&header).is_ok(), family.cuttable(), "{family:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_file_and_another_another() {
    let file = |seed| bytes(Family::Llama, &Shape::MINIATURE, Weights::Q8_0, seed);
    assert_eq!(file(1), file(1));
    assert_ne!(file(1), file(2));
}

/// Figures measured with a specimen stay comparable: whoever changes one does so on purpose.
#[test]
fn specimens_do_not_change_by_accident() {
    let hash = |weights| Hash::of(&bytes(Family::Llama, &Shape::MINIATURE, weights, 1)).short();
    assert_eq!(
        ALL_WEIGHTS.map(hash),
        ["b167c1ae93", "e9a8b3c26b", "169ebd1463"]
    );
}
