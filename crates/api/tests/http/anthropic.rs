//! Anthropic's dialect.

use crate::server::{Act, Script, Server, named_events, replaced};
use api::{ApiConfig, Fault, Finish, Keys};
use serde_json::{Value, json};

const PATH: &str = "/v1/messages";
const STOP: Act = Act::Finish(Finish::Stop);

/// A valid request with `fields` added or replaced.
fn question(fields: Value) -> Value {
    let said = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": "m", "max_tokens": 99, "messages": said});
    replaced(body, &fields)
}

fn calling() -> Script {
    let call = Act::Say(b"<think>hm</think>Well.<call get>{\"a\":1}</call><call now></call>");
    Script::calling(vec![call, STOP])
}

fn tools() -> Value {
    let tool = |name| json!({"name": name, "description": "d", "input_schema": {"type": "object"}});
    json!([tool("get"), tool("now")])
}

#[tokio::test]
async fn a_whole_message() {
    let server = Server::start(calling()).await;
    let mut body = server
        .json(PATH, question(json!({"tools": tools(), "top_k": 5})))
        .await;
    assert!(body["id"].take().as_str().unwrap().starts_with("msg_"));
    for call in [2, 3] {
        assert!(body["content"][call]["id"].take().is_string());
    }
    let call = |name, input| json!({"type": "tool_use", "id": null, "name": name, "input": input, "caller": {"type": "direct"}});
    let expected = json!({
        "id": null, "type": "message", "role": "assistant", "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Well.", "citations": null},
            call("get", json!({"a": 1})),
            call("now", json!({})),
        ],
        "stop_reason": "tool_use", "stop_sequence": null, "stop_details": null, "container": null,
        "usage": {
            "input_tokens": 5, "cache_creation": null, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2,
            "output_tokens": 1, "output_tokens_details": null, "server_tool_use": null,
            "service_tier": "standard", "inference_geo": null,
        },
    });
    assert_eq!(body, expected);
    let asked = server.script.asked.lock().unwrap();
    assert_eq!((asked[0].max_tokens, asked[0].top_k), (Some(99), Some(5)));
}

#[tokio::test]
async fn a_stream_has_exactly_this_order() {
    let server = Server::start(calling()).await;
    let response = server
        .send(PATH, question(json!({"tools": tools(), "stream": true})))
        .await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = named_events(&response.text().await.unwrap());
    let short = |event: &Value| {
        let kind = event["type"].as_str().unwrap();
        let index = event["index"]
            .as_u64()
            .map_or(String::new(), |index| format!(" {index}"));
        let delta = &event["delta"];
        let texts = [
            "thinking",
            "signature",
            "text",
            "partial_json",
            "stop_reason",
        ];
        let text = texts.iter().find_map(|field| delta[field].as_str());
        let begun = event["content_block"]["type"].as_str();
        format!("{kind}{index} {}", text.or(begun).unwrap_or_default())
    };
    let order: Vec<_> = events.iter().map(short).collect();
    let expected = [
        "message_start ",
        "content_block_start 0 thinking",
        "content_block_delta 0 hm",
        "content_block_delta 0 ",
        "content_block_stop 0 ",
        "content_block_start 1 text",
        "content_block_delta 1 Well.",
        "content_block_stop 1 ",
        "content_block_start 2 tool_use",
        "content_block_delta 2 {\"a\":1}",
        "content_block_stop 2 ",
        "content_block_start 3 tool_use",
        "content_block_delta 3 {}",
        "content_block_stop 3 ",
        "message_delta tool_use",
        "message_stop ",
    ];
    assert_eq!(order, expected);
    assert_eq!(events[0]["message"]["content"], json!([]));
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 7);
    assert_eq!(events[14]["usage"]["output_tokens"], 1);
    assert_eq!(events[14]["usage"]["input_tokens"], 5);
    assert_eq!(events[14]["usage"]["cache_read_input_tokens"], 2);
    assert_eq!(events[3]["delta"]["type"], "signature_delta");
}

#[tokio::test]
async fn every_end_has_its_reason() {
    for (acts, reason, sequence) in [
        (vec![Act::Say(b"a"), STOP], "end_turn", json!(null)),
        (
            vec![Act::Say(b"a"), Act::Finish(Finish::Length)],
            "max_tokens",
            json!(null),
        ),
        (
            vec![Act::Say(b"aEND"), Act::Hang],
            "stop_sequence",
            json!("END"),
        ),
        (
            vec![Act::Say(b"a<end>"), Act::Hang],
            "end_turn",
            json!(null),
        ),
    ] {
        let server = Server::start(Script::new(acts)).await;
        let fields = question(json!({"stop_sequences": ["END"]}));
        let body = server.json(PATH, fields).await;
        assert_eq!(
            (&body["stop_reason"], &body["stop_sequence"]),
            (&json!(reason), &sequence)
        );
        assert_eq!(body["content"][0]["text"], "a");
    }
}

#[tokio::test]
async fn blocks_become_messages() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), STOP])).await;
    let result = |id, more: Value| {
        let mut block = json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": "12"}]});
        for (name, value) in more.as_object().unwrap() {
            block[name] = value.clone();
        }
        block
    };
    let fields = json!({
        "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "kind"}],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": tools(),
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "string"}}},
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "w"},
                {"type": "tool_use", "id": "t1", "name": "get", "input": {"b": 1, "a": 2}},
            ]},
            {"role": "user", "content": [
                result("t1", json!({})),
                result("t2", json!({"is_error": true, "content": "no"})),
                {"type": "text", "text": "so?"},
            ]},
            {"role": "assistant", "content": "I"},
        ],
    });
    server.send(PATH, question(fields)).await;
    let call = json!({"id": "t1", "type": "function", "function": {"name": "get", "arguments": "{\"b\":1,\"a\":2}"}});
    let function = |name| {
        let function = json!({"name": name, "description": "d", "parameters": {"type": "object"}});
        json!({"type": "function", "function": function})
    };
    let expected = json!({
        "messages": [
            {"role": "system", "content": "be\nkind"},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "w", "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "content": "12", "tool_call_id": "t1"},
            {"role": "tool", "content": "Error: no", "tool_call_id": "t2"},
            {"role": "user", "content": "so?"},
            {"role": "assistant", "content": "I"},
        ],
        "tools": [function("get"), function("now")],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "schema": {"type": "string"},
        "template_kwargs": {"enable_thinking": true},
        "continue_final": true,
    });
    assert_eq!(server.conversation(), expected);
    let counted = server
        .json(
            "/v1/messages/count_tokens",
            question(json!({"max_tokens": null})),
        )
        .await;
    assert_eq!(counted, json!({"input_tokens": 42}));
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    let bash = json!([{"type": "bash_20250124", "name": "bash"}]);
    let bug = Fault::internal("bug");
    for (fault, fields, status, kind) in [
        (bug.clone(), json!({}), 500, "api_error"),
        (bug.clone(), json!({"model": "x"}), 404, "not_found_error"),
        (
            bug.clone(),
            json!({"max_tokens": null}),
            400,
            "invalid_request_error",
        ),
        (
            bug.clone(),
            json!({ "messages": image }),
            400,
            "invalid_request_error",
        ),
        (
            bug.clone(),
            json!({"temperature": 1.5}),
            400,
            "invalid_request_error",
        ),
        (bug, json!({ "tools": bash }), 400, "invalid_request_error"),
        (
            Fault::overloaded("full"),
            json!({}),
            503,
            "overloaded_error",
        ),
    ] {
        let server = Server::start(Script::refusing(fault)).await;
        told(server.send(PATH, question(fields)).await, status, kind).await;
    }
    let keyed = ApiConfig {
        keys: Keys::new(["k".to_owned()]),
        ..ApiConfig::default()
    };
    let server = Server::configured(Script::new(vec![]), keyed).await;
    let response = server.send(PATH, question(json!({}))).await;
    told(response, 401, "authentication_error").await;
    let lost = vec![Act::Say(b"a"), Act::Fail(Fault::peer_lost("b is gone"))];
    let server = Server::start(Script::new(lost)).await;
    let response = server.send(PATH, question(json!({"stream": true}))).await;
    let events = named_events(&response.text().await.unwrap());
    let last = events.last().unwrap();
    let expected = json!({"type": "api_error", "message": "b is gone"});
    assert_eq!(
        (&last["type"], &last["error"]),
        (&json!("error"), &expected)
    );
}

/// Fails unless `response` is Anthropic's error of this status and type.
async fn told(response: reqwest::Response, status: u16, kind: &str) {
    assert_eq!(response.status(), status);
    let id = response.headers()["request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let retry = response.headers().contains_key("retry-after");
    assert_eq!(retry, [429, 503].contains(&status));
    let body: Value = response.json().await.unwrap();
    let found = (&body["type"], &body["error"]["type"]);
    assert_eq!(found, (&json!("error"), &json!(kind)));
    assert_eq!(body["request_id"], id);
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
}
