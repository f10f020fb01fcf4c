//! Tables of good and bad requests.

use super::*;
use serde_json::{Value, json};

/// A valid request with `fields` added or replaced.
fn with(fields: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

#[track_caller]
fn parsed(fields: &Value) -> ChatRequest {
    ChatRequest::parse(&with(fields)).unwrap()
}

#[track_caller]
fn refused(fields: &Value, code: &str, param: &str) {
    let fault = ChatRequest::parse(&with(fields)).expect_err(&fields.to_string());
    let found = (fault.status, fault.code, fault.param.as_deref());
    assert_eq!(found, (400, code, Some(param)), "{fault}");
    assert!(fault.message.chars().count() < 400, "{fault}");
}

#[test]
fn the_smallest_request_leaves_everything_to_the_model() {
    let request = parsed(&json!({}));
    assert_eq!(request.generate.model, "m");
    let hi = ChatMessage {
        role: Role::User,
        content: "hi".into(),
    };
    assert_eq!(request.generate.messages, [hi]);
    let generate = &request.generate;
    assert_eq!(
        (generate.temperature, generate.top_p, generate.top_k),
        (None, None, None)
    );
    assert_eq!((generate.seed, generate.max_tokens), (None, None));
    assert_eq!((request.stream, request.include_usage), (false, false));
    assert!(request.stops.is_empty());
}

#[test]
fn known_fields_arrive() {
    let request = parsed(&json!({
        "temperature": 0.5, "top_p": 1, "top_k": 40, "seed": 7, "max_tokens": 9,
        "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
    }));
    let generate = &request.generate;
    assert_eq!(
        (generate.temperature, generate.top_p),
        (Some(0.5), Some(1.0))
    );
    assert_eq!(
        (generate.top_k, generate.seed, generate.max_tokens),
        (Some(40), Some(7), Some(9))
    );
    assert_eq!(request.stops, ["a", "b"]);
    assert!(request.stream && request.include_usage);
}

#[test]
fn numbers_have_their_ranges() {
    let tokens = |fields: Value| parsed(&fields).generate.max_tokens;
    assert_eq!(tokens(json!({"max_tokens": 10.0})), Some(10));
    assert_eq!(
        tokens(json!({"max_tokens": 5, "max_completion_tokens": 6})),
        Some(6)
    );
    assert_eq!(
        tokens(json!({"max_tokens": 5, "max_completion_tokens": null})),
        Some(5)
    );
    assert_eq!(tokens(json!({"max_tokens": 1_u64 << 40})), Some(u32::MAX));
    let seed = |value: Value| parsed(&json!({"seed": value})).generate.seed;
    assert_eq!(seed(json!(-1)), Some(u64::MAX));
    assert_eq!(seed(json!(u64::MAX)), Some(u64::MAX));
    let top_k = |value: Value| parsed(&json!({"top_k": value})).generate.top_k;
    assert_eq!(
        (top_k(json!(-1)), top_k(json!(0)), top_k(json!(3.0))),
        (Some(0), Some(0), Some(3))
    );
    assert!(parsed(&json!({"top_p": 1e-60})).generate.top_p.unwrap() > 0.0);

    for (field, value) in [
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("top_p", json!(0)),
        ("top_p", json!(-1)),
        ("top_p", json!(1.01)),
        ("top_k", json!(-2)),
        ("top_k", json!(1.5)),
        ("seed", json!(0.5)),
        ("seed", json!(1e30)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!(0)),
    ] {
        refused(&json!({ field: value }), "invalid_value", field);
    }
}

#[test]
fn roles_and_contents_have_their_forms() {
    let request = parsed(&json!({"messages": [
        {"role": "developer", "content": "be kind", "name": "ignored"},
        {"role": "system", "content": ""},
        {"role": "assistant", "content": "yes", "tool_calls": [], "refusal": null},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": []},
    ]}));
    let messages = request.generate.messages;
    let said: Vec<_> = messages
        .iter()
        .map(|m| (m.role.as_str(), m.content.as_str()))
        .collect();
    let expected = [
        ("system", "be kind"),
        ("system", ""),
        ("assistant", "yes"),
        ("user", "a\nb"),
        ("user", ""),
    ];
    assert_eq!(said, expected);
}

#[test]
fn bad_messages_name_their_place() {
    const MISSING: &str = "missing_required_parameter";
    let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
    for (message, code, param) in [
        (json!({"content": "x"}), MISSING, "messages[0].role"),
        (json!({"role": "user"}), MISSING, "messages[0].content"),
        (
            json!({"role": "user", "content": null}),
            MISSING,
            "messages[0].content",
        ),
        (
            json!({"role": "king", "content": "x"}),
            "invalid_value",
            "messages[0].role",
        ),
        (
            json!({"role": "k".repeat(9999), "content": "x"}),
            "invalid_value",
            "messages[0].role",
        ),
        (
            json!({"role": "tool", "content": "x"}),
            "unsupported_parameter",
            "messages[0].role",
        ),
        (
            json!({"role": 1, "content": "x"}),
            "invalid_type",
            "messages[0].role",
        ),
        (
            json!({"role": "user", "content": 1}),
            "invalid_type",
            "messages[0].content",
        ),
        (
            json!({"role": "user", "content": {}}),
            "invalid_type",
            "messages[0].content",
        ),
        (
            json!({"role": "user", "content": ["x"]}),
            "invalid_type",
            "messages[0].content[0]",
        ),
        (
            json!({"role": "user", "content": [{"type": "text", "text": "x"}, image]}),
            "unsupported_parameter",
            "messages[0].content[1].type",
        ),
        (
            json!({"role": "user", "content": [{"type": "text"}]}),
            MISSING,
            "messages[0].content[0].text",
        ),
        (
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}),
            "unsupported_parameter",
            "messages[0].tool_calls",
        ),
    ] {
        refused(&json!({"messages": [message]}), code, param);
    }
}

#[test]
fn a_model_and_messages_are_needed() {
    const MISSING: &str = "missing_required_parameter";
    refused(&json!({"messages": []}), MISSING, "messages");
    refused(&json!({"messages": null}), MISSING, "messages");
    refused(&json!({"messages": "hi"}), "invalid_type", "messages");
    refused(
        &json!({"messages": "x".repeat(9999)}),
        "invalid_type",
        "messages",
    );
    refused(&json!({"model": ""}), MISSING, "model");
    refused(&json!({"model": null}), MISSING, "model");
    refused(&json!({"model": 5}), "invalid_type", "model");
    refused(
        &json!({"model": "m".repeat(MODEL_BYTES_MAX + 1)}),
        "invalid_value",
        "model",
    );
}

#[test]
fn what_would_change_the_answer_is_refused() {
    for (field, value) in [
        ("n", json!(2)),
        ("n", json!(0)),
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("auto")),
        ("tool_choice", json!({"type": "function"})),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
        ("response_format", json!({"type": "json_object"})),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {}}),
        ),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({"50256": -100})),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-1)),
        ("repeat_penalty", json!(1.1)),
        ("repetition_penalty", json!(1.1)),
        ("min_p", json!(0.05)),
        ("typical_p", json!(0.9)),
        ("mirostat", json!(2)),
        ("grammar", json!("root ::= \"x\"")),
        ("json_schema", json!({"type": "object"})),
        ("guided_json", json!({"type": "object"})),
        ("ignore_eos", json!(true)),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy"})),
        ("web_search_options", json!({"search_context_size": "low"})),
    ] {
        refused(&json!({ field: value }), "unsupported_parameter", field);
    }
}

#[test]
fn what_changes_nothing_is_taken() {
    for fields in [
        json!({"n": 1, "tools": [], "tool_choice": "none", "functions": [], "function_call": "none"}),
        json!({"n": null, "tools": null, "tool_choice": null, "stop": null, "stream": null}),
        json!({"logprobs": false, "top_logprobs": 0, "logit_bias": {}, "response_format": {"type": "text"}}),
        json!({"frequency_penalty": 0, "presence_penalty": 0.0, "repeat_penalty": 1.0, "min_p": 0}),
        json!({"modalities": ["text"], "audio": null, "response_format": null, "grammar": ""}),
        json!({"user": "me", "store": true, "metadata": {"a": [1]}, "from_the_future": [[{}]]}),
        json!({"stream_options": null, "temperature": null, "seed": null, "max_tokens": null}),
    ] {
        assert_eq!(parsed(&fields), parsed(&json!({})), "{fields}");
    }
}

#[test]
fn stop_strings_have_their_limits() {
    let stops = |value: Value| parsed(&json!({ "stop": value })).stops;
    assert_eq!(stops(json!("x")), ["x"]);
    assert!(stops(json!([])).is_empty());
    assert_eq!(stops(json!(vec!["x"; STOPS_MAX])).len(), STOPS_MAX);
    assert_eq!(stops(json!("x".repeat(STOP_BYTES_MAX))).len(), 1);
    for value in [
        json!(""),
        json!(["a", ""]),
        json!(vec!["x"; STOPS_MAX + 1]),
        json!("x".repeat(STOP_BYTES_MAX + 1)),
    ] {
        refused(&json!({ "stop": value }), "invalid_value", "stop");
    }
    refused(&json!({"stop": 5}), "invalid_type", "stop");
    refused(&json!({"stop": ["a", 5]}), "invalid_type", "stop[1]");
}

#[test]
fn wrong_types_name_the_field() {
    for (field, value) in [
        ("temperature", json!("hot")),
        ("stream", json!("yes")),
        ("seed", json!("7")),
        ("max_tokens", json!("many")),
        ("max_tokens", json!({})),
        ("stream_options", json!(1)),
        ("response_format", json!("json")),
    ] {
        refused(&json!({ field: value }), "invalid_type", field);
    }
    let nested = json!({"stream_options": {"include_usage": 1}});
    refused(&nested, "invalid_type", "stream_options.include_usage");
}

#[test]
fn rubbish_is_refused_with_its_place() {
    let deep = "[".repeat(100_000);
    let deep_field = format!(
        "{{\"x\":{}{}}}",
        "[".repeat(DEPTH_MAX),
        "]".repeat(DEPTH_MAX)
    );
    for (body, code) in [
        (&b""[..], "invalid_json"),
        (b"{", "invalid_json"),
        (b"hello", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b"{\"temperature\": NaN}", "invalid_json"),
        (b"{\"temperature\": 1e999}", "invalid_json"),
        (b"{\"model\": \"\\ud800\"}", "invalid_json"),
        (b"[]", "invalid_type"),
        (b"\"x\"", "invalid_type"),
        (b"{\"model\": \"\xFF\"}", "invalid_utf8"),
        (b"{\"ignored\": \"\xC3\"}", "invalid_utf8"),
        (deep.as_bytes(), "json_too_deep"),
        (deep_field.as_bytes(), "json_too_deep"),
    ] {
        let fault = ChatRequest::parse(body).expect_err(&String::from_utf8_lossy(body));
        assert_eq!((fault.status, fault.code), (400, code), "{fault}");
        assert!(
            code != "invalid_json" || fault.message.contains("line 1 column"),
            "{fault}"
        );
    }
    let brackets_in_text = json!({"x": "[{".repeat(1000), "y": "\"[\\".repeat(500)});
    parsed(&brackets_in_text);
    let fault = ChatRequest::parse(b"{\n  \"model\": oops\n}").unwrap_err();
    assert!(fault.message.contains("line 2 column"), "{fault}");
}
