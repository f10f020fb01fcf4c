//! Models for these tests: good, in splits, and bent so that the engine aborts over them.

use proto::gguf::{self, Header, Metadata, NewTensor, Value};
use specimen::{Family, Shape, Weights};
use std::path::{Path, PathBuf};

/// A model that answers nonsense at once.
pub(crate) fn small(dir: &Path) -> PathBuf {
    written(dir, "small.gguf", &good())
}

/// The same with a chat template.
pub(crate) fn with_template(dir: &Path, template: &str) -> PathBuf {
    let bytes = specimen::bend(&good(), |keys| {
        keys.set("tokenizer.chat_template", Value::text(template));
    });
    written(dir, "template.gguf", &bytes)
}

fn good() -> Vec<u8> {
    specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1)
}

fn written(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    // What our own preflight refuses never gets as far as the engine.
    Header::from_bytes(bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A model with one token twice, over which llama.cpp aborts while it loads
/// (`GGML_ASSERT(id_to_token.size() == token_to_id.size())`).
pub(crate) fn aborts_at_load(dir: &Path) -> PathBuf {
    let mut bytes = good();
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let (one, other) = (text(b"ion"), text(b"ing"));
    let at = bytes.windows(one.len()).position(|window| window == one);
    let at = at.unwrap();
    bytes[at..at + one.len()].copy_from_slice(&other);
    written(dir, "twice.gguf", &bytes)
}

/// A model with a negative epsilon, over which ggml aborts in the first step (`GGML_ASSERT(eps >= 0.0f)`).
pub(crate) fn aborts_in_a_step(dir: &Path) -> PathBuf {
    let key = "llama.attention.layer_norm_rms_epsilon";
    let bytes = specimen::bend(&good(), |keys| keys.set(key, Value::F32(-1.0)));
    written(dir, "negative.gguf", &bytes)
}

/// The small model in two files.
pub(crate) fn splits(dir: &Path) -> Vec<PathBuf> {
    let good = good();
    let header = Header::from_bytes(&good).unwrap();
    let half = header.tensors().len() / 2;
    let parts = [&header.tensors()[..half], &header.tensors()[half..]];
    let part = |(number, tensors): (usize, &[gguf::Tensor])| {
        let mut keys = match number {
            0 => header.metadata().clone(),
            _ => Metadata::default(),
        };
        keys.set("split.no", Value::U16(number as u16));
        keys.set("split.count", Value::U16(2));
        keys.set(
            "split.tensors.count",
            Value::I32(header.tensors().len() as i32),
        );
        let described: Vec<NewTensor> = tensors
            .iter()
            .map(|tensor| NewTensor {
                name: tensor.name.clone(),
                dims: tensor.dims.clone(),
                kind: tensor.kind,
            })
            .collect();
        let encoded = gguf::encode(gguf::VERSION, &keys, &described).unwrap();
        let mut bytes = encoded.bytes;
        for tensor in tensors {
            let start = (header.data_offset() + tensor.offset) as usize;
            bytes.extend_from_slice(&good[start..start + tensor.bytes as usize]);
            bytes.resize(bytes.len().next_multiple_of(encoded.alignment as usize), 0);
        }
        let path = dir.join(format!("split-0000{}-of-00002.gguf", number + 1));
        std::fs::write(&path, bytes).unwrap();
        path
    };
    parts.into_iter().enumerate().map(part).collect()
}
