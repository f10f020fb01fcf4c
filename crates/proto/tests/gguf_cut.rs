//! Whole -> stages -> read again: each stage has the tensors, keys and bytes that it should, and nothing else.
#![allow(clippy::unwrap_used)]

use proto::gguf::{
    Array, CutError, Header, Metadata, NewTensor, Piece, StagePlan, TensorType, Value, ValueType,
    cuttable, encode, plan,
};
use proto::host::Role;
use proto::model::LayerRange;
use specimen::{Family, Shape, Weights};
use std::collections::BTreeSet;

fn specimen_of(family: Family) -> Vec<u8> {
    specimen::bytes(
        family,
        &Shape {
            layers: 12,
            ..Shape::MINIATURE
        },
        Weights::Q4_0,
        3,
    )
}

fn range(first: u32, end: u32) -> LayerRange {
    LayerRange { first, end }
}

fn compose(source: &[u8], plan: &StagePlan) -> Vec<u8> {
    let mut file = plan.header.clone();
    for piece in &plan.pieces {
        match piece {
            Piece::Copy { offset, bytes } => {
                file.extend(&source[*offset as usize..(offset + bytes) as usize]);
            }
            Piece::Literal(bytes) => file.extend(bytes),
            Piece::Zeros(bytes) => file.resize(file.len() + *bytes as usize, 0),
        }
    }
    assert_eq!(file.len() as u64, plan.bytes);
    file
}

fn data<'a>(file: &'a [u8], header: &Header, name: &str) -> &'a [u8] {
    let tensor = header
        .tensor(name)
        .unwrap_or_else(|| panic!("no tensor {name}"));
    let start = (header.data_offset() + tensor.offset) as usize;
    &file[start..start + tensor.bytes as usize]
}

fn cut(source: &[u8], role: Role, layers: LayerRange) -> (Header, Vec<u8>) {
    let whole = Header::from_bytes(source).unwrap();
    let file = compose(source, &plan(&whole, role, layers).unwrap());
    (Header::from_bytes(&file).unwrap(), file)
}

/// Names of tensors outside the layers.
fn globals(header: &Header) -> BTreeSet<&str> {
    let names = header.tensors().iter().map(|tensor| tensor.name.as_str());
    names.filter(|name| !name.starts_with("blk.")).collect()
}

#[test]
fn every_header_is_written_back_byte_for_byte() {
    for family in Family::ALL {
        let file = specimen_of(family);
        let header = Header::from_bytes(&file).unwrap();
        assert_eq!(
            header.encode(),
            file[..header.data_offset() as usize],
            "{family:?}"
        );
    }
}

#[test]
fn layers_move_to_the_front_with_their_bytes() {
    for family in Family::ALL.into_iter().filter(|family| family.cuttable()) {
        let source = specimen_of(family);
        let whole = Header::from_bytes(&source).unwrap();
        for (role, first, end) in [
            (Role::Head, 0, 3),
            (Role::Middle, 3, 7),
            (Role::Tail, 7, 12),
        ] {
            let (stage, file) = cut(&source, role, range(first, end));
            assert_eq!(stage.layers(), end - first, "{family:?}");
            let mut expected = 0;
            for tensor in whole.tensors() {
                let Some(rest) = tensor.name.strip_prefix("blk.") else {
                    continue;
                };
                let (number, rest) = rest.split_once('.').unwrap();
                let layer: u32 = number.parse().unwrap();
                if (first..end).contains(&layer) {
                    let name = format!("blk.{}.{rest}", layer - first);
                    assert_eq!(
                        data(&file, &stage, &name),
                        data(&source, &whole, &tensor.name)
                    );
                    assert_eq!(stage.tensor(&name).unwrap().dims, tensor.dims);
                    expected += 1;
                }
            }
            let kept = stage
                .tensors()
                .iter()
                .filter(|t| t.name.starts_with("blk."))
                .count();
            assert_eq!(kept, expected, "{family:?} {role:?}");
        }
    }
}

#[test]
fn each_role_keeps_what_it_needs_of_embedding_and_output() {
    for family in Family::ALL.into_iter().filter(|family| family.cuttable()) {
        let source = specimen_of(family);
        let whole = Header::from_bytes(&source).unwrap();
        let embedding = "token_embd.weight";
        let (head, file) = cut(&source, Role::Head, range(0, 3));
        assert_eq!(
            data(&file, &head, embedding),
            data(&source, &whole, embedding),
            "{family:?}"
        );
        let ones: Vec<u8> = (0..32).flat_map(|_| 1f32.to_le_bytes()).collect();
        assert_eq!(data(&file, &head, "output_norm.weight"), ones);

        let (middle, file) = cut(&source, Role::Middle, range(3, 7));
        assert_eq!(middle.tensor(embedding).unwrap().dims, [32, 1]);
        assert_eq!(middle.tensor(embedding).unwrap().kind, TensorType::F32);
        assert_eq!(data(&file, &middle, embedding), [0; 128]);

        let (tail, file) = cut(&source, Role::Tail, range(7, 12));
        for name in globals(&whole) {
            if name == embedding && family.untied() {
                let filler = tail.tensor(name).unwrap();
                assert_eq!(
                    filler.dims,
                    whole.tensor(name).unwrap().dims,
                    "the engine compares"
                );
                assert!(data(&file, &tail, name).iter().all(|byte| *byte == 0));
            } else {
                assert_eq!(
                    data(&file, &tail, name),
                    data(&source, &whole, name),
                    "{name}"
                );
            }
        }
        assert_eq!(globals(&tail), globals(&whole));
    }
}

#[test]
fn factors_of_rotary_positions_go_to_every_stage_and_output_only_to_the_tail() {
    for (family, expected) in [
        (
            Family::Llama,
            &[
                "output_norm.weight",
                "rope_freqs.weight",
                "token_embd.weight",
            ][..],
        ),
        (
            Family::Phi3,
            &[
                "output_norm.weight",
                "rope_factors_long.weight",
                "rope_factors_short.weight",
                "token_embd.weight",
            ],
        ),
        // Their loaders insist on an output everywhere.
        (
            Family::Qwen2Moe,
            &["output.weight", "output_norm.weight", "token_embd.weight"],
        ),
        (
            Family::GptOss,
            &["output.weight", "output_norm.weight", "token_embd.weight"],
        ),
        (Family::Qwen2, &["output_norm.weight", "token_embd.weight"]),
    ] {
        let source = specimen_of(family);
        for (role, layers) in [(Role::Head, range(0, 3)), (Role::Middle, range(3, 7))] {
            let (stage, _) = cut(&source, role, layers);
            assert_eq!(
                globals(&stage).into_iter().collect::<Vec<_>>(),
                expected,
                "{family:?}"
            );
        }
    }
}

#[test]
fn only_a_middle_stage_loses_its_vocabulary() {
    let source = specimen_of(Family::Qwen3);
    let whole = Header::from_bytes(&source).unwrap();
    let keys = |header: &Header| -> BTreeSet<String> {
        header
            .metadata()
            .iter()
            .map(|(key, _)| key.to_owned())
            .collect()
    };
    for (role, layers) in [(Role::Head, range(0, 1)), (Role::Tail, range(1, 12))] {
        let (stage, _) = cut(&source, role, layers);
        assert_eq!(keys(&stage), keys(&whole));
        assert_eq!(
            stage.metadata().uint("qwen3.vocab_size"),
            whole.vocabulary()
        );
    }
    let (middle, _) = cut(&source, Role::Middle, range(1, 2));
    assert_eq!(
        middle.metadata().text("tokenizer.ggml.model"),
        Some("no_vocab")
    );
    assert_eq!(middle.metadata().uint("qwen3.vocab_size"), Some(1));
    let left: Vec<String> = keys(&middle)
        .into_iter()
        .filter(|key| key.starts_with("tokenizer."))
        .collect();
    assert_eq!(left, ["tokenizer.ggml.model"]);
}

#[test]
fn sliding_windows_are_written_out_for_the_layers_kept() {
    let pattern = |family, role, first, end| {
        let (stage, _) = cut(&specimen_of(family), role, range(first, end));
        let array = stage
            .metadata()
            .array(&stage.arch_key("attention.sliding_window_pattern"));
        let flags: Vec<bool> = array
            .unwrap()
            .iter()
            .map(|value| value == Value::Bool(true))
            .collect();
        (flags, stage.arch_uint("attention.sliding_window").unwrap())
    };
    // gemma3: layers 5 and 11 are global, and a stage of these alone has no window.
    for (role, first, end, global, window) in [
        (Role::Head, 0, 3, &[][..], 4),
        (Role::Middle, 3, 7, &[2][..], 4),
        (Role::Tail, 4, 12, &[1, 7], 4),
        (Role::Middle, 5, 6, &[0], 0),
        (Role::Tail, 11, 12, &[0], 0),
    ] {
        let expected: Vec<bool> = (0..(end - first) as usize)
            .map(|n| !global.contains(&n))
            .collect();
        assert_eq!(
            pattern(Family::Gemma3, role, first, end),
            (expected, window),
            "{first}..{end}"
        );
    }
    // gpt-oss: every other layer; one global layer alone slides with a window wider than any cache.
    assert_eq!(
        pattern(Family::GptOss, Role::Middle, 1, 4),
        (vec![false, true, false], 4)
    );
    assert_eq!(
        pattern(Family::GptOss, Role::Tail, 11, 12),
        (vec![true], 1 << 24)
    );
}

/// A model of almost no tensors, with the given keys below its architecture.
fn model(architecture: &str, layers: u32, extra: &[(&str, Value)], tensors: &[&str]) -> Vec<u8> {
    let mut keys = Metadata::default();
    keys.set("general.architecture", Value::text(architecture));
    let standard = [
        ("block_count", Value::U32(layers)),
        ("embedding_length", Value::U32(32)),
        ("attention.head_count", Value::U32(4)),
    ];
    for (suffix, value) in standard.iter().chain(extra) {
        match suffix.strip_prefix('=') {
            Some(key) => keys.set(key, value.clone()),
            None => keys.set(&format!("{architecture}.{suffix}"), value.clone()),
        }
    }
    let tensor = |name: &str, dims: &[u64]| NewTensor {
        name: name.to_owned(),
        dims: dims.to_vec(),
        kind: TensorType::F32,
    };
    let mut all = vec![
        tensor("token_embd.weight", &[32, 2]),
        tensor("output_norm.weight", &[32]),
    ];
    all.extend(tensors.iter().map(|name| tensor(name, &[8])));
    let encoded = encode(3, &keys, &all).unwrap();
    let mut file = encoded.bytes;
    let padded = encoded
        .tensor_bytes
        .iter()
        .map(|bytes| bytes.next_multiple_of(32));
    file.resize(file.len() + padded.sum::<u64>() as usize, 0);
    file
}

fn numbers(values: &[u32]) -> Value {
    let values: Vec<Value> = values.iter().map(|n| Value::U32(*n)).collect();
    Value::Array(Array::of(ValueType::U32, &values).unwrap())
}

#[test]
fn arrays_with_one_entry_a_layer_are_cut_and_others_are_not() {
    let extra = [
        ("attention.head_count", numbers(&[4, 4, 4, 4])),
        ("feed_forward_length", numbers(&[64, 64, 64, 64])),
        ("rope.dimension_sections", numbers(&[1, 2, 3, 4])),
        ("other", numbers(&[1, 2, 3])),
        ("=general.numbers", numbers(&[1, 2, 3, 4])),
    ];
    let (stage, _) = cut(&model("llama", 4, &extra, &[]), Role::Middle, range(1, 3));
    let length = |key: &str| stage.metadata().array(key).unwrap().len();
    for (key, expected) in [
        ("llama.attention.head_count", 2),
        ("llama.feed_forward_length", 2),
        ("llama.rope.dimension_sections", 4),
        ("llama.other", 3),
        ("general.numbers", 4),
    ] {
        assert_eq!(length(key), expected, "{key}");
    }
}

#[test]
fn a_pattern_in_the_file_goes_before_the_familys_own() {
    let given = |pattern| {
        let window = ("attention.sliding_window", Value::U32(8));
        model(
            "gemma3",
            4,
            &[window, ("attention.sliding_window_pattern", pattern)],
            &[],
        )
    };
    let key = "gemma3.attention.sliding_window_pattern";
    let flags = |file: &[u8]| -> Vec<Value> {
        let (stage, _) = cut(file, Role::Tail, range(1, 4));
        stage.metadata().array(key).unwrap().iter().collect()
    };
    let bools = |flags: &[bool]| flags.iter().map(|f| Value::Bool(*f)).collect::<Vec<_>>();
    assert_eq!(
        flags(&given(numbers(&[1, 0, 0, 1]))),
        bools(&[false, false, true])
    );
    assert_eq!(flags(&given(Value::U32(2))), bools(&[false, true, false]));
    assert_eq!(flags(&given(Value::U32(0))), bools(&[true, true, true]));
    let short = Header::from_bytes(&given(numbers(&[1, 0]))).unwrap();
    assert!(
        cuttable(&short)
            .unwrap_err()
            .to_string()
            .contains("one entry a layer")
    );
}

#[test]
fn what_cannot_be_cut_says_why() {
    let sizes = numbers(&[4, 8, 4]);
    for (file, says) in [
        (
            specimen_of(Family::SmolLm3),
            "rotary positions by a layer's index",
        ),
        (specimen_of(Family::Mamba), "recurrent state"),
        (model("made-up", 3, &[], &[]), "no test has shown yet"),
        (
            model("llama", 3, &[("=split.count", Value::U16(4))], &[]),
            "comes in 4 files",
        ),
        (
            model("llama", 3, &[("nextn_predict_layers", Value::U32(1))], &[]),
            "several tokens",
        ),
        (model("llama", 1, &[], &[]), "a single layer"),
        (
            model("llama", 3, &[("attention.head_count", sizes)], &[]),
            "layers differ in",
        ),
        (model("llama", 3, &[], &["cls.weight"]), "\"cls.weight\""),
        (
            model("llama", 3, &[], &["blk.3.attn_norm.weight"]),
            "\"blk.3.",
        ),
        (
            model("llama", 3, &[], &["blk.01.attn_norm.weight"]),
            "\"blk.01.",
        ),
        (
            model("llama", 3, &[("embedding_length", Value::U32(64))], &[]),
            "token_embd.weight",
        ),
        (
            model("gpt-oss", 3, &[], &["output.weight"]),
            "sliding_window is missing",
        ),
    ] {
        let header = Header::from_bytes(&file).unwrap();
        let error = cuttable(&header).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().contains("whole on one node"), "{error}");
        assert_eq!(plan(&header, Role::Head, range(0, 1)).unwrap_err(), error);
    }
}

#[test]
fn ranges_must_fit_their_role() {
    let file = specimen_of(Family::Llama);
    let header = Header::from_bytes(&file).unwrap();
    for (role, first, end) in [
        (Role::Whole, 0, 12),
        (Role::Head, 0, 12),
        (Role::Head, 1, 2),
        (Role::Head, 0, 0),
        (Role::Middle, 0, 3),
        (Role::Middle, 3, 12),
        (Role::Middle, 3, 3),
        (Role::Middle, 5, 4),
        (Role::Middle, 5, 13),
        (Role::Tail, 0, 12),
        (Role::Tail, 12, 12),
        (Role::Tail, 3, 11),
        (Role::Tail, 13, 12),
    ] {
        let error = plan(&header, role, range(first, end)).unwrap_err();
        assert!(
            matches!(error, CutError::Range { layers: 12, .. }),
            "{role:?} {first}..{end}"
        );
    }
}

/// The engine takes 62 layers for a sign of one published model, and scales its attention otherwise.
#[test]
fn a_gemma3_of_62_layers_is_cut_only_if_both_scales_are_the_same() {
    let gemma = |layers, key_length: u32| {
        let keys = [("attention.key_length", Value::U32(key_length))];
        Header::from_bytes(&model("gemma3", layers, &keys, &[])).unwrap()
    };
    for (layers, key_length, end, works) in [
        (62, 16, 3, false),
        (62, 8, 3, true),
        (63, 16, 62, false),
        (63, 16, 61, true),
    ] {
        let planned = plan(&gemma(layers, key_length), Role::Head, range(0, end));
        assert_eq!(
            planned.is_ok(),
            works,
            "{layers} layers, key length {key_length}"
        );
    }
}

#[test]
fn layers_have_a_size() {
    let header = Header::from_bytes(&specimen_of(Family::Llama)).unwrap();
    let layers: u64 = (0..12).map(|layer| header.layer_bytes(layer)).sum();
    let others: u64 = globals(&header)
        .iter()
        .map(|name| header.tensor(name).unwrap().bytes)
        .sum();
    assert_eq!(layers + others, header.tensor_bytes());
    assert_eq!(header.layer_bytes(12), 0);
}
