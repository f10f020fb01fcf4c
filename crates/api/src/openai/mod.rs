//! OpenAI's dialect, with llama-server's additions.
//!
//! The fields, their order and which of them are null rather than missing follow OpenAI's API description.

pub(crate) mod chat;
mod chunks;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod messages;
pub(crate) mod models;
pub(crate) mod tokens;

use crate::answer::{Frames, Heading, Reason, Score, Usage};
use serde_json::{Map, Value, json};

pub(crate) use messages::ToolCallWire;

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt.saturating_add(usage.completion),
        "prompt_tokens_details": {"cached_tokens": usage.reused},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

fn finish_reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::Stop | Reason::StopString(_) => "stop",
        Reason::Length => "length",
        Reason::Calls => "tool_calls",
    }
}

/// The fields that begin every object of an answer.
fn object(heading: &Heading, prefix: &str, object: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let id = format!("{prefix}-{:032x}", heading.id);
    fields.insert("id".into(), id.into());
    fields.insert("object".into(), object.into());
    fields.insert("created".into(), heading.created.into());
    fields.insert("model".into(), heading.model.as_str().into());
    if let Some(fingerprint) = &heading.fingerprint {
        fields.insert("system_fingerprint".into(), fingerprint.as_str().into());
    }
    fields
}

/// The end of a stream: a chunk of counts without choices if `counts` are wanted, and the mark.
fn close((heading, prefix, kind): (&Heading, &str, &str), counts: Option<Usage>, out: &mut Frames) {
    if let Some(counts) = counts {
        let mut chunk = object(heading, prefix, kind);
        chunk.insert("choices".into(), json!([]));
        chunk.insert("usage".into(), usage(counts));
        out.data(&chunk);
    }
    out.done();
}

/// `{"content": […]}`; null where nothing was asked for.
fn logprobs(wanted: bool, scores: &[Score]) -> Value {
    if !wanted {
        return Value::Null;
    }
    json!({"content": scores.iter().map(score).collect::<Vec<_>>(), "refusal": null})
}

/// One token with its probability.
pub(crate) fn score(score: &Score) -> Value {
    let top = score
        .top
        .iter()
        .map(|(_, piece, logprob)| token(piece, *logprob));
    let mut entry = token(&score.piece, score.logprob);
    entry["top_logprobs"] = top.collect();
    entry
}

fn token(piece: &[u8], logprob: f32) -> Value {
    // JSON has no infinity; this number is OpenAI's for "never".
    let logprob = logprob.max(-9999.0);
    json!({"token": String::from_utf8_lossy(piece), "logprob": logprob, "bytes": piece})
}
