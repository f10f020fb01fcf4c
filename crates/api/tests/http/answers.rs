//! What a client reads: whole answers, streams, lists.

use crate::server::{Act, Script, Server, error};
use api::{ApiConfig, Fault, Finish, HealthState};
use serde_json::{Value, json};
use std::time::Duration;

const HELLO: &[Act] = &[
    Act::Say(b"Hel"),
    Act::Say(b"lo \xE2"),
    Act::Say(b"\x82\xAC"),
    Act::Say(b"!"),
    Act::Finish(Finish::Length),
];

async fn hello() -> Server {
    Server::start(Script::new(HELLO.to_vec())).await
}

#[tokio::test]
async fn a_whole_answer() {
    let server = hello().await;
    let response = server.ask(json!({"seed": 3, "temperature": 0})).await;
    assert_eq!(
        (
            response.status().as_u16(),
            &response.headers()["content-type"] == "application/json"
        ),
        (200, true)
    );
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin")
    );
    let mut body: Value = response.json().await.unwrap();
    let id = body["id"].take();
    assert!(id.as_str().unwrap().starts_with("chatcmpl-"), "{id}");
    assert!(body["created"].take().as_u64().unwrap() > 1_700_000_000);
    let expected = json!({
        "id": null, "object": "chat.completion", "created": null, "model": "m", "system_fingerprint": "fp",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello €!", "refusal": null},
            "logprobs": null,
            "finish_reason": "length",
        }],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 0}},
    });
    assert_eq!(body, expected);
    let said = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(server.conversation(), said);
    let asked = server.script.asked.lock().unwrap();
    assert_eq!((asked[0].seed, asked[0].temperature), (Some(3), Some(0.0)));
}

#[tokio::test]
async fn a_stream_has_exactly_this_shape() {
    let server = hello().await;
    let events = server.stream(json!({})).await;
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let first: Value = serde_json::from_str(&chunks[0]).unwrap();
    let (id, created) = (&first["id"], &first["created"]);
    let chunk = |choice: &str| {
        format!(
            r#"{{"id":{id},"object":"chat.completion.chunk","created":{created},"model":"m","system_fingerprint":"fp","choices":[{{"index":0,{choice}}}]}}"#
        )
    };
    let golden = [
        r#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#,
        r#""delta":{"content":"Hel"},"logprobs":null,"finish_reason":null"#,
        r#""delta":{"content":"lo "},"logprobs":null,"finish_reason":null"#,
        r#""delta":{"content":"€"},"logprobs":null,"finish_reason":null"#,
        r#""delta":{"content":"!"},"logprobs":null,"finish_reason":null"#,
        r#""delta":{},"logprobs":null,"finish_reason":"length""#,
    ];
    assert_eq!(chunks, golden.map(chunk));
}

#[tokio::test]
async fn counts_come_in_a_chunk_of_their_own() {
    let server = hello().await;
    let events = server
        .stream(json!({"stream_options": {"include_usage": true}}))
        .await;
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect();
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let counts = json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 0}});
    assert_eq!(last["usage"], counts);
    for chunk in others {
        assert_eq!(chunk.get("usage"), Some(&Value::Null), "{chunk}");
    }
}

/// The text and the reason for the end, first whole, then streamed; fails if they differ.
async fn both(acts: &[Act], fields: Value) -> (String, String) {
    let server = Server::start(Script::new(acts.to_vec())).await;
    let whole: Value = server.ask(fields.clone()).await.json().await.unwrap();
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap().to_owned();
    let reason = choice["finish_reason"].as_str().unwrap().to_owned();
    let (mut streamed, mut last) = (String::new(), Value::Null);
    for event in server
        .stream(fields)
        .await
        .iter()
        .filter(|event| *event != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(event).unwrap();
        streamed += chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or("");
        last = chunk["choices"][0]["finish_reason"].clone();
    }
    assert_eq!(
        (streamed.as_str(), last.as_str()),
        (text.as_str(), Some(reason.as_str()))
    );
    (text, reason)
}

#[tokio::test]
async fn stop_strings_end_the_answer_and_the_rest_is_flushed() {
    use Act::{Finish as End, Say};
    let length = End(Finish::Length);
    for (acts, stop, text, reason) in [
        (
            vec![Say(b"a\nU"), Say(b"ser:"), Act::Hang],
            json!("\nUser:"),
            "a",
            "stop",
        ),
        (
            vec![Say(b"a\nU"), Say(b"se"), length.clone()],
            json!("\nUser:"),
            "a\nUse",
            "length",
        ),
        (vec![Say(b"abc"), Act::Hang], json!(["c", "b"]), "a", "stop"),
        (
            vec![Say(b"a"), Say(b"\xE2\x82"), length],
            json!(null),
            "a\u{FFFD}",
            "length",
        ),
        (vec![End(Finish::Stop)], json!([]), "", "stop"),
    ] {
        let found = both(&acts, json!({ "stop": stop })).await;
        assert_eq!(found, (text.to_owned(), reason.to_owned()));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_and_without_done() {
    let lost = Fault::peer_lost("peer b, layers 10 to 20, is gone");
    let acts = vec![Act::Say(b"a"), Act::Fail(lost)];
    let server = Server::start(Script::new(acts)).await;
    let events = server.stream(json!({})).await;
    let error: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    let expected = json!({"error": {
        "message": "peer b, layers 10 to 20, is gone", "type": "server_error", "param": null, "code": "peer_lost",
    }});
    assert_eq!((events.len(), error), (3, expected));
}

#[tokio::test]
async fn failures_before_the_first_token_have_a_status() {
    let lost = Fault::peer_lost("gone");
    for (script, status, code) in [
        (
            Script::refusing(Fault::context_exceeded(9, 8)),
            400,
            "context_length_exceeded",
        ),
        (
            Script::refusing(Fault::overloaded("full")),
            503,
            "overloaded",
        ),
        (Script::new(vec![Act::Fail(lost)]), 502, "peer_lost"),
        (Script::new(vec![]), 500, "internal_error"),
    ] {
        let server = Server::start(script).await;
        for stream in [false, true] {
            let response = server.ask(json!({ "stream": stream })).await;
            let retry = response.headers().contains_key("retry-after");
            assert_eq!(retry, status == 503, "{code}");
            error(response, status, code).await;
        }
    }
    let server = Server::start(Script::new(vec![
        Act::Say(b"a"),
        Act::Fail(Fault::internal("bug")),
    ]))
    .await;
    error(server.ask(json!({})).await, 500, "internal_error").await;
    error(
        server.ask(json!({"model": "x"})).await,
        404,
        "model_not_found",
    )
    .await;
}

#[tokio::test]
async fn comments_keep_a_silent_stream_alive() {
    let config = ApiConfig {
        keep_alive: Duration::from_millis(5),
        ..ApiConfig::default()
    };
    let server = Server::configured(Script::new(vec![Act::Hang]), config).await;
    let mut response = server.ask(json!({"stream": true})).await;
    let mut text = String::new();
    while text.matches("\n\n").count() < 3 {
        let piece = response.chunk().await.unwrap().expect("the stream goes on");
        text += std::str::from_utf8(&piece).unwrap();
    }
    let blocks: Vec<_> = text.split("\n\n").collect();
    assert!(blocks[0].starts_with("data: {"), "{text}");
    assert!(
        blocks[1].starts_with(": ") && !blocks[1].contains('\n'),
        "{text}"
    );
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let server = hello().await;
    let entry = |id| {
        let mut entry = json!({"id": id, "object": "model", "created": 1000, "owned_by": "test"});
        if id == "m" {
            entry["meta"] =
                json!({"n_ctx": 2048, "n_embd": 2, "n_params": 1_500_000_000, "size": 99});
        }
        entry
    };
    let list: Value = server.get("/v1/models").await.json().await.unwrap();
    assert_eq!(
        list,
        json!({"object": "list", "data": [entry("m"), entry("owner/other model")]})
    );
    for (path, id) in [
        ("/v1/models/m", "m"),
        ("/v1/models/owner/other%20model", "owner/other model"),
        ("/v1/models/owner%2Fother%20model", "owner/other model"),
    ] {
        let found: Value = server.get(path).await.json().await.unwrap();
        assert_eq!(found, entry(id), "{path}");
    }
    error(server.get("/v1/models/x").await, 404, "model_not_found").await;
    error(server.get("/v1/models/%FF").await, 400, "invalid_value").await;
}

#[tokio::test]
async fn health_says_why_it_is_not_well() {
    let server = hello().await;
    for (state, reasons, status, word) in [
        (HealthState::Ok, vec![], 200, "ok"),
        (HealthState::Starting, vec!["loading m"], 503, "starting"),
        (
            HealthState::Degraded,
            vec!["b is gone", "c is gone"],
            503,
            "degraded",
        ),
    ] {
        server.script.set_health(state, &reasons);
        let response = server.get("/health").await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body, json!({"status": word, "reasons": reasons}));
    }
}

#[tokio::test]
async fn the_root_points_at_the_endpoints() {
    let server = hello().await;
    let response = server.get("/").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    for path in ["/v1/chat/completions", "/v1/models", "/health"] {
        assert!(text.contains(path), "{text}");
    }
}
