//! Bodies that nobody would send, over real connections: answered or refused in the dialect's shape, and the server lives on.

#[path = "../../../../fuzz/bodies/mutation.rs"]
mod mutation;

use crate::server::{Act, Script, Server};
use api::Finish;
use mutation::{mutate, mutation};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Bodies of each kind that are sent.
const CASES: u32 = 1_000;
/// Statuses of servers that failed for other reasons than the body: not implemented, busy.
const FINE: [u16; 2] = [501, 503];

/// Where a body is sent to, and one that is answered there.
fn seeds() -> Vec<(&'static str, Value)> {
    let tool = json!({
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
    });
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]);
    let chat = json!({
        "model": "m", "messages": messages, "tools": [tool], "tool_choice": "auto", "stream": true, "n": 2, "seed": 3,
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["x"], "logprobs": true, "top_logprobs": 2,
        "logit_bias": {"5": 1.5}, "stream_options": {"include_usage": true},
    });
    let schema = json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    });
    let claude = json!({
        "model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}], "stream": true,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "stop_sequences": ["x"],
    });
    let hi = json!([{"role": "user", "content": "hi"}]);
    vec![
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", schema),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": ["a", "b"], "echo": false, "logprobs": 1}),
        ),
        (
            "/v1/embeddings",
            json!({"model": "m", "input": ["a", "b"], "encoding_format": "base64"}),
        ),
        (
            "/v1/responses",
            json!({"model": "m", "input": hi, "instructions": "i", "stream": true}),
        ),
        ("/v1/messages", claude),
        (
            "/v1/messages/count_tokens",
            json!({"model": "m", "messages": hi}),
        ),
        (
            "/tokenize",
            json!({"model": "m", "content": "text", "add_special": true, "with_pieces": true}),
        ),
        ("/detokenize", json!({"model": "m", "tokens": [104, 105]})),
        ("/apply-template", json!({"model": "m", "messages": hi})),
        (
            "/ollama/api/chat",
            json!({"model": "m", "messages": hi, "options": {"num_predict": 3}}),
        ),
        (
            "/ollama/api/generate",
            json!({"model": "m", "prompt": "hi", "format": "json"}),
        ),
        ("/ollama/api/embed", json!({"model": "m", "input": "hi"})),
        ("/ollama/api/show", json!({"model": "m"})),
    ]
}

/// What may stand where something else is expected.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!("")),
        Just(json!("\u{0}\u{ffff}")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[{"a": [1]}]]])),
        Just(json!({"type": "object", "$ref": "#"})),
        "\\PC{0,40}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
    ]
}

/// Every place in a value, as a path for [`Value::pointer_mut`].
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| places(value, &format!("{at}/{name}"), out)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(n, value)| places(value, &format!("{at}/{n}"), out)),
        _ => {}
    }
}

/// Bodies whose values are others than expected, and bodies that are hardly JSON any more.
fn bodies() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let seeds = seeds();
    let other = prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4);
    let torn = prop::collection::vec(mutation(), 0..3);
    (any::<prop::sample::Index>(), other, torn).prop_map(move |(seed, other, torn)| {
        let (path, mut body) = seeds[seed.index(seeds.len())].clone();
        for (at, value) in other {
            let mut all = Vec::new();
            places(&body, "", &mut all);
            if let Some(place) = body.pointer_mut(&all[at.index(all.len())]) {
                *place = value;
            }
        }
        let mut bytes = body.to_string().into_bytes();
        torn.into_iter().for_each(|one| mutate(&mut bytes, one));
        (path, bytes)
    })
}

async fn start() -> Server {
    let acts = vec![Act::Say(b"{}"), Act::Finish(Finish::Stop)];
    Server::start(Script::new(acts)).await
}

/// Sends a body, and reads the answer to its end.
async fn ask(server: &Server, path: &str, body: Vec<u8>) -> Result<(), String> {
    let request = server.client.post(server.url(path)).body(body);
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if status < 400 {
        return Ok(());
    }
    // The model that is played here minds no schema.
    if status >= 500 && !FINE.contains(&status) && !text.contains("schema_violation") {
        return Err(format!("{status}: {text}"));
    }
    let body: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    match body.get("error") {
        Some(_) => Ok(()),
        None => Err(format!("{status} without an error: {text}")),
    }
}

#[test]
fn the_seeds_are_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = start().await;
        for (path, body) in seeds() {
            let response = server.send(path, body).await;
            let status = response.status();
            let text = response.text().await.unwrap();
            assert_eq!(status, 200, "{path}: {text}");
        }
    });
}

#[test]
fn no_body_brings_the_server_down() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(start());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&bodies(), |(path, body)| {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let asked = runtime.block_on(ask(&server, path, body));
        asked.map_err(|why| TestCaseError::fail(format!("{path}: {why}: {shown}")))
    });
    outcome.unwrap();
    let _guard = runtime.enter();
    drop(server);
}
