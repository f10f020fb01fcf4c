use super::*;
use proptest::prelude::*;

fn check(layers: u32, stages: u32, output: u32, expected: &str) {
    let text = match split(layers, stages, output) {
        Ok(split) => {
            let all = [split.head]
                .into_iter()
                .chain(split.remote)
                .chain([split.tail]);
            all.map(|range| range.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        }
        Err(error) => format!("{error:?}"),
    };
    assert_eq!(text, expected, "{layers} layers, {stages} stages");
}

#[test]
fn everybody_has_the_same_work() {
    check(30, 1, 0, "0..14 14..29 29..30");
    check(30, 1, 8, "0..10 10..29 29..30");
    check(30, 2, 8, "0..3 3..16 16..29 29..30");
    check(30, 3, 0, "0..6 6..14 14..22 22..29 29..30");
    check(3, 1, 0, "0..1 1..2 2..3");
    check(5, 3, 0, "0..1 1..2 2..3 3..4 4..5");
}

#[test]
fn a_large_output_head_leaves_the_coordinator_two_layers() {
    check(30, 1, 100, "0..1 1..29 29..30");
    check(30, 2, u32::MAX, "0..1 1..15 15..29 29..30");
}

#[test]
fn refusals_carry_the_numbers() {
    check(
        2,
        1,
        0,
        "TooFewLayers { layers: 2, remote_stages: 1, needed: 3 }",
    );
    check(
        0,
        1,
        0,
        "TooFewLayers { layers: 0, remote_stages: 1, needed: 3 }",
    );
    check(
        4,
        3,
        0,
        "TooFewLayers { layers: 4, remote_stages: 3, needed: 5 }",
    );
    check(30, 0, 0, "NoStages");
    check(30, u32::MAX, 0, "TooManyStages { asked: 4294967295 }");
}

proptest! {
    #[test]
    fn every_layer_is_somewhere_once(layers in 0u32..2_000, stages in 0u32..80, output in 0u32..40) {
        if let Ok(split) = split(layers, stages, output) {
            let all = [&[split.head][..], &split.remote, &[split.tail]].concat();
            prop_assert_eq!(all[0].first, 0);
            prop_assert_eq!(all[all.len() - 1].end, layers);
            prop_assert!(all.iter().all(|range| !range.is_empty()));
            prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].first));
            let lengths = split.remote.iter().map(LayerRange::len);
            let (longest, shortest) = (lengths.clone().max().unwrap(), lengths.min().unwrap());
            prop_assert!(longest - shortest <= 1);
            let home = split.head.len() + split.tail.len() + output;
            let least = split.head.len() == KEPT_LAYERS || shortest == 1;
            prop_assert!(least || home <= longest && longest - home <= stages + 1, "{home}, {longest}");
        } else {
            prop_assert!(stages == 0 || stages > STAGES_MAX || layers < stages + 2);
        }
    }
}
