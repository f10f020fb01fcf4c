//! Models for the tests.

use proto::gguf::{Array, Value, ValueType};
use specimen::{Family, Shape, Weights};
use std::path::{Path, PathBuf};

/// Layers of the starter.
pub(crate) const STARTER_LAYERS: u32 = 30;
/// Numbers in an activation row of the starter.
pub(crate) const STARTER_EMBEDDING: u64 = 576;
/// The starter's name.
pub(crate) const STARTER: &str = "smollm2-135m-instruct";

/// A model that answers nonsense at once.
pub(crate) fn small(dir: &Path) -> PathBuf {
    let path = dir.join("small.gguf");
    specimen::write(&path, Family::Llama, 1).expect("the specimen is written");
    path
}

/// The same as [`small`], but with no chat template: a model that only goes on with texts.
pub(crate) fn untaught(dir: &Path) -> PathBuf {
    let good = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let bytes = specimen::bend(&good, |keys| {
        keys.retain(|key, _| key != "tokenizer.chat_template")
    });
    let path = dir.join("untaught.gguf");
    std::fs::write(&path, bytes).expect("the specimen is written");
    path
}

/// A well-formed model whose engine aborts at a letter that is not ASCII, and answers nonsense to everything else: its
/// vocabulary says that it knows every byte, and lacks those from 0x80 on, over which llama.cpp throws through C.
pub(crate) fn touchy(dir: &Path) -> PathBuf {
    let good = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let bytes = specimen::bend(&good, |keys| {
        let tokens: Vec<Value> = specimen::vocabulary::tokens()
            .iter()
            .enumerate()
            .map(|(id, token)| match id {
                0x20 => Value::text("\u{2581}"),
                0x21..0x7f => Value::text(token),
                0..0x80 => Value::text(&format!("<0x{id:02X}>")),
                0x80..0x100 => Value::text(&format!("<{id}>")),
                _ => Value::text(&token.replace('Ġ', "\u{2581}")),
            })
            .collect();
        let tokens = Array::of(ValueType::Text, &tokens).expect("all are texts");
        keys.set("tokenizer.ggml.model", Value::text("llama"));
        keys.set("tokenizer.ggml.tokens", Value::Array(tokens));
    });
    let path = dir.join("touchy.gguf");
    std::fs::write(&path, bytes).expect("the specimen is written");
    path
}

/// A well-formed model with one token twice, over which llama.cpp aborts while it loads
/// (`GGML_ASSERT(id_to_token.size() == token_to_id.size())`).
pub(crate) fn twice(dir: &Path) -> PathBuf {
    let good = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let bytes = specimen::bend(&good, |keys| {
        let tokens = specimen::vocabulary::tokens();
        let first = &tokens[..1];
        let tokens: Vec<Value> = first
            .iter()
            .chain(first)
            .chain(&tokens[2..])
            .map(|t| Value::text(t))
            .collect();
        let tokens = Array::of(ValueType::Text, &tokens).expect("all are texts");
        keys.set("tokenizer.ggml.tokens", Value::Array(tokens));
    });
    let path = dir.join("twice.gguf");
    std::fs::write(&path, bytes).expect("the specimen is written");
    path
}

/// A model that answers nonsense, and takes seconds for a context: long enough to break something meanwhile.
pub(crate) fn slow(dir: &Path) -> PathBuf {
    let shape = Shape {
        embedding: 384,
        heads: 6,
        feed_forward: 1024,
        ..Shape::SMALL
    };
    let path = dir.join("slow.gguf");
    let bytes = specimen::bytes(Family::Llama, &shape, Weights::Q8_0, 1);
    std::fs::write(&path, bytes).expect("the specimen is written");
    path
}
