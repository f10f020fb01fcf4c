//! Small files to start from: every family that can be cut, and the oddities of the format.

use proto::gguf::{
    Array, KEY_ALIGNMENT, KEY_ARCHITECTURE, KEY_SPLIT_COUNT, Metadata, NewTensor, TensorType,
    VERSION, Value, ValueType, encode, families,
};

const WIDTH: u64 = 32;

/// Names and contents.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let cut = families()
        .iter()
        .map(|family| (family.name.to_owned(), model(family.name)));
    let odd = [
        ("other-family", model("bloom")),
        ("version-2", file(2, &keys("llama", 2), &tensors(2))),
        ("every-value", file(VERSION, &every_value(), &tensors(2))),
        ("split", file(VERSION, &split(), &tensors(2))),
        ("aligned", file(VERSION, &aligned(), &tensors(2))),
    ];
    cut.chain(odd.map(|(name, bytes)| (name.to_owned(), bytes)))
        .collect()
}

fn model(architecture: &str) -> Vec<u8> {
    file(VERSION, &keys(architecture, 3), &tensors(3))
}

fn keys(architecture: &str, layers: u32) -> Metadata {
    let mut keys = Metadata::default();
    keys.set(KEY_ARCHITECTURE, Value::text(architecture));
    for (suffix, value) in [
        ("block_count", layers),
        ("embedding_length", WIDTH as u32),
        ("attention.head_count", 2),
        ("attention.sliding_window", 4),
    ] {
        keys.set(&format!("{architecture}.{suffix}"), Value::U32(value));
    }
    keys.set("tokenizer.ggml.model", Value::text("gpt2"));
    let tokens = [Value::text("a"), Value::text("")];
    let tokens = Array::of(ValueType::Text, &tokens).expect("texts");
    keys.set("tokenizer.ggml.tokens", Value::Array(tokens));
    keys
}

fn every_value() -> Metadata {
    let mut keys = keys("llama", 2);
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.5),
        Value::Bool(true),
        Value::text("text"),
        Value::U64(4),
        Value::I64(-4),
        Value::F64(0.25),
    ];
    for (number, value) in values.iter().enumerate() {
        keys.set(&format!("value.{number}"), value.clone());
        let array = Array::of(value.kind(), &[value.clone(), value.clone()]).expect("one type");
        // Under the family's name an array of as many elements as layers is per layer.
        let key = if number % 2 == 0 { "llama" } else { "other" };
        keys.set(&format!("{key}.array.{number}"), Value::Array(array));
    }
    keys
}

fn split() -> Metadata {
    let mut keys = keys("llama", 2);
    keys.set(KEY_SPLIT_COUNT, Value::U16(2));
    keys
}

fn aligned() -> Metadata {
    let mut keys = keys("llama", 2);
    keys.set(KEY_ALIGNMENT, Value::U32(64));
    keys
}

fn tensors(layers: u32) -> Vec<NewTensor> {
    let tensor = |name: String, dims: &[u64], kind| NewTensor {
        name,
        dims: dims.to_vec(),
        kind,
    };
    let mut tensors = vec![
        tensor("token_embd.weight".into(), &[WIDTH, 2], TensorType::Q8_0),
        tensor("output_norm.weight".into(), &[WIDTH], TensorType::F32),
        tensor("output.weight".into(), &[WIDTH, 2], TensorType::Q4_0),
        tensor("rope_freqs.weight".into(), &[8], TensorType::F32),
    ];
    for layer in 0..layers {
        tensors.push(tensor(
            format!("blk.{layer}.attn_norm.weight"),
            &[WIDTH],
            TensorType::F32,
        ));
        tensors.push(tensor(
            format!("blk.{layer}.ffn_up.weight"),
            &[WIDTH, 3],
            TensorType::Q4_0,
        ));
    }
    tensors
}

/// A file whose tensors hold bytes that count up, so that a wrong copy shows.
fn file(version: u32, keys: &Metadata, tensors: &[NewTensor]) -> Vec<u8> {
    let encoded = encode(version, keys, tensors).expect("small tensors");
    let mut file = encoded.bytes;
    for bytes in encoded.tensor_bytes {
        file.extend((0..bytes).map(|n| n as u8));
        file.resize(file.len().next_multiple_of(encoded.alignment as usize), 0);
    }
    file
}
