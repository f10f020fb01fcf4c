//! Tables of good and bad requests.

use super::*;
use crate::backend::{ChatMessage, Role, Schema, ToolChoice};
use crate::wire::MODEL_BYTES_MAX;
use crate::wire::json::{DEPTH_MAX, VALUES_MAX};
use crate::wire::sampling::{LOGIT_BIAS_MAX, STOP_BYTES_MAX, STOPS_MAX};
use crate::wire::tools::{TOOL_NAME_BYTES_MAX, TOOLS_MAX};

const MISSING: &str = "missing_required_parameter";

/// A valid request with `fields` added or replaced.
fn with(fields: &Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

#[track_caller]
fn parsed(fields: &Value) -> Ask {
    parse(&with(fields)).unwrap().0
}

#[track_caller]
fn conversation(fields: &Value) -> Conversation {
    match parsed(fields).prompts.pop() {
        Some(Prompt::Chat(conversation)) => *conversation,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(fields: &Value, code: &str, param: &str) {
    let fault = parse(&with(fields)).expect_err(&fields.to_string());
    let found = (fault.status, fault.code, fault.param.as_deref());
    assert_eq!(found, (400, code, Some(param)), "{fault}");
    assert!(fault.message.chars().count() < 400, "{fault}");
}

#[test]
fn the_smallest_request_leaves_everything_to_the_model() {
    let request = parsed(&json!({}));
    assert_eq!(request.generate.model, "m");
    let hi = ChatMessage::new(Role::User, "hi");
    assert_eq!(conversation(&json!({})).messages, [hi]);
    let generate = &request.generate;
    assert_eq!(
        (generate.temperature, generate.top_p, generate.top_k),
        (None, None, None)
    );
    assert_eq!((generate.seed, generate.max_tokens), (None, None));
    assert_eq!((request.stream, request.choices), (false, 1));
    assert!(request.stops.is_empty());
}

#[test]
fn known_fields_arrive() {
    let request = parsed(&json!({
        "temperature": 0.5, "top_p": 1, "top_k": 40, "seed": 7, "max_tokens": 9,
        "stop": ["a", "b"], "stream": true, "n": 2, "presence_penalty": -2, "frequency_penalty": 1.5,
        "logit_bias": {"7": -100, "8": 0.5}, "logprobs": true, "top_logprobs": 3,
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
    assert!(request.stream && request.choices == 2);
    let penalties = (generate.presence_penalty, generate.frequency_penalty);
    assert_eq!(penalties, (-2.0, 1.5));
    assert_eq!(generate.logit_bias, [(7, -100.0), (8, 0.5)]);
    assert_eq!(generate.logprobs, Some(3));
    let options = json!({"stream_options": {"include_usage": true}});
    assert!(parse(&with(&options)).unwrap().1.include_usage);
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
        ("n", json!(0)),
        ("n", json!(1000)),
        ("n", json!(CHOICES_MAX + 1)),
        ("presence_penalty", json!(2.1)),
        ("frequency_penalty", json!(-3)),
        ("top_logprobs", json!(TOP_LOGPROBS_MAX + 1)),
        ("top_logprobs", json!(1)),
        ("logit_bias", json!({"7": 101})),
        ("logit_bias", json!({"7": "x"})),
        ("logit_bias", json!({"-1": 1})),
        ("logit_bias", json!({"word": 1})),
    ] {
        refused(&json!({ field: value }), "invalid_value", field);
    }
}

#[test]
fn roles_and_contents_have_their_forms() {
    let request = conversation(&json!({"messages": [
        {"role": "developer", "content": "be kind", "name": "ignored"},
        {"role": "system", "content": ""},
        {"role": "assistant", "content": "yes", "tool_calls": [], "refusal": null},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": []},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"function": {"name": "g", "arguments": {"a": 1}}},
        ], "function_call": {"name": "h"}},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "12"}]},
        {"role": "function", "name": "g", "content": "x"},
    ]}));
    let said: Vec<_> = request
        .messages
        .iter()
        .map(|m| (m.role.as_str(), m.content.as_deref().unwrap_or("-")))
        .collect();
    let expected = [
        ("system", "be kind"),
        ("system", ""),
        ("assistant", "yes"),
        ("user", "a\nb"),
        ("user", ""),
        ("assistant", "-"),
        ("tool", "12"),
        ("tool", "x"),
    ];
    assert_eq!(said, expected);
    let calling = &request.messages[5];
    assert_eq!(calling.reasoning_content.as_deref(), Some("hm"));
    let calls: Vec<_> = calling
        .tool_calls
        .iter()
        .map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str()))
        .collect();
    let expected = [("1", "f", "{}"), ("", "g", r#"{"a":1}"#), ("", "h", "{}")];
    assert_eq!(calls, expected);
    assert_eq!(request.messages[6].tool_call_id.as_deref(), Some("1"));
    assert_eq!(request.messages[7].name.as_deref(), Some("g"));
}

#[test]
fn bad_messages_name_their_place() {
    const UNKNOWN: &str = "unsupported_parameter";
    let king = json!({"role": "k".repeat(9999), "content": "x"});
    let audio = json!({"role": "user", "content": "x", "audio": {"id": "a"}});
    let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
    let image = json!([{"type": "text", "text": "x"}, image]);
    let calls = json!([{"function": {"name": "f", "arguments": 1}}]);
    for (message, code, param) in [
        (json!({"content": "x"}), MISSING, ".role"),
        (json!({"role": "user"}), MISSING, ".content"),
        (
            json!({"role": "user", "content": null}),
            MISSING,
            ".content",
        ),
        (json!({"role": "tool"}), MISSING, ".content"),
        (king, "invalid_value", ".role"),
        (json!({"role": 1, "content": "x"}), "invalid_type", ".role"),
        (
            json!({"role": "user", "content": 1}),
            "invalid_type",
            ".content",
        ),
        (
            json!({"role": "user", "content": {}}),
            "invalid_type",
            ".content",
        ),
        (
            json!({"role": "user", "content": ["x"]}),
            "invalid_type",
            ".content[0]",
        ),
        (
            json!({"role": "user", "content": image}),
            UNKNOWN,
            ".content[1].type",
        ),
        (
            json!({"role": "user", "content": [{"type": "text"}]}),
            MISSING,
            ".content[0].text",
        ),
        (
            json!({"role": "assistant", "tool_calls": [{}]}),
            MISSING,
            ".tool_calls[0].function",
        ),
        (
            json!({"role": "assistant", "tool_calls": calls}),
            "invalid_type",
            ".tool_calls[0].function.arguments",
        ),
        (audio, UNKNOWN, ".audio"),
    ] {
        refused(
            &json!({"messages": [message]}),
            code,
            &format!("messages[0]{param}"),
        );
    }
}

#[test]
fn a_model_and_messages_are_needed() {
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
        ("tool_choice", json!({"type": "allowed_tools"})),
        ("response_format", json!({"type": "grammar"})),
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
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
        let found = format!("{:?}", parsed(&fields));
        assert_eq!(found, format!("{:?}", parsed(&json!({}))), "{fields}");
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
        ("logprobs", json!(3)),
        ("tools", json!({})),
        ("tool_choice", json!(7)),
        ("logit_bias", json!([[1, 2]])),
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
    let many = format!("{{\"x\":[{}0]}}", "0,".repeat(VALUES_MAX));
    for (body, code) in [
        (&b""[..], "invalid_json"),
        (b"{", "invalid_json"),
        (b"hello", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b"{\"temperature\": NaN}", "invalid_json"),
        (b"{\"temperature\": 1e400}", "invalid_json"),
        (b"{\"temperature\": Infinity}", "invalid_json"),
        (b"{\"logit_bias\": {\"1\": -1e400}}", "invalid_json"),
        (b"{\"model\": \"\\ud800\"}", "invalid_json"),
        (b"[]", "invalid_type"),
        (b"\"x\"", "invalid_type"),
        (b"{\"model\": \"\xFF\"}", "invalid_utf8"),
        (b"{\"ignored\": \"\xC3\"}", "invalid_utf8"),
        (deep.as_bytes(), "json_too_deep"),
        (deep_field.as_bytes(), "json_too_deep"),
        (many.as_bytes(), "json_too_many_values"),
    ] {
        let fault = parse(body).expect_err(&String::from_utf8_lossy(body));
        assert_eq!((fault.status, fault.code), (400, code), "{fault}");
        assert!(
            code != "invalid_json" || fault.message.contains("line 1 column"),
            "{fault}"
        );
    }
    let brackets_in_text = json!({"x": "[{".repeat(1000), "y": "\"[\\,".repeat(VALUES_MAX)});
    parsed(&brackets_in_text);
    let fault = parse(b"{\n  \"model\": oops\n}").unwrap_err();
    assert!(fault.message.contains("line 2 column"), "{fault}");
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "z": 1, "a": 2}}})
}

#[test]
fn tools_and_their_choice_arrive() {
    let choice = |choice: Value| {
        conversation(&json!({"tools": [tool("f")], "tool_choice": choice})).tool_choice
    };
    for (given, expected) in [
        (json!(null), ToolChoice::Auto),
        (json!("auto"), ToolChoice::Auto),
        (json!("none"), ToolChoice::None),
        (json!("required"), ToolChoice::Required),
        (
            json!({"type": "function", "function": {"name": "f"}}),
            ToolChoice::Function("f".into()),
        ),
        (
            json!({"type": "function", "name": "f"}),
            ToolChoice::Function("f".into()),
        ),
    ] {
        assert_eq!(choice(given), expected);
    }
    let bare = json!({"function": {"name": "g", "description": "d", "strict": true}});
    let found = conversation(&json!({"tools": [tool("f"), bare], "parallel_tool_calls": false}));
    let expected = json!([tool("f"), {"type": "function", "function": {
        "name": "g", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": true,
    }}]);
    assert_eq!(json!(found.tools), expected);
    let text = found.tools[0].to_string();
    assert!(
        text.find("\"z\"") < text.find("\"a\""),
        "the order of fields stays: {text}"
    );
    assert_eq!(found.parallel_tool_calls, Some(false));
    let kwargs = json!({"chat_template_kwargs": {"enable_thinking": false}});
    assert_eq!(
        conversation(&kwargs).template_kwargs["enable_thinking"],
        json!(false)
    );
}

#[test]
fn bad_tools_name_their_place() {
    let long = "f".repeat(TOOL_NAME_BYTES_MAX + 1);
    for (fields, code, param) in [
        (
            json!({"tools": [{"type": "function"}]}),
            MISSING,
            "tools[0].function",
        ),
        (
            json!({"tools": [tool("")]}),
            MISSING,
            "tools[0].function.name",
        ),
        (
            json!({"tools": [tool("f"), tool("a\nb")]}),
            "invalid_value",
            "tools[1].function.name",
        ),
        (
            json!({"tools": [tool(&long)]}),
            "invalid_value",
            "tools[0].function.name",
        ),
        (
            json!({"tools": vec![tool("f"); TOOLS_MAX + 1]}),
            "invalid_value",
            "tools",
        ),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "unsupported_parameter",
            "tools[0].type",
        ),
        (
            json!({"tool_choice": "required"}),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({"tool_choice": "perhaps"}),
            "invalid_value",
            "tool_choice",
        ),
        (
            json!({"tool_choice": {"type": "function"}}),
            MISSING,
            "tool_choice.function.name",
        ),
        (
            json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "invalid_value",
            "tool_choice",
        ),
    ] {
        refused(&fields, code, param);
    }
}

#[test]
fn a_format_is_a_schema_wherever_it_stands() {
    let schema = |format: Value| conversation(&json!({"response_format": format})).schema;
    let object = json!({"type": "object"});
    let wanted = Some(Schema::Json(object.clone()));
    assert_eq!(schema(json!({"type": "text"})), None);
    assert_eq!(
        schema(json!({"type": "json_object"})),
        Some(Schema::AnyObject)
    );
    for format in [
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": object}}),
        json!({"type": "json_schema", "schema": object}),
        json!({"type": "json_object", "schema": object}),
    ] {
        assert_eq!(schema(format), wanted);
    }
    let format = |format: Value| json!({ "response_format": format });
    let missing = "missing_required_parameter";
    let nameless = format(json!({"type": "json_schema", "json_schema": {}}));
    refused(&nameless, missing, "response_format.json_schema.schema");
    let wrong = format(json!({"type": "json_schema", "schema": {"type": 7}}));
    refused(&wrong, "invalid_value", "response_format");
}

#[test]
fn a_logit_bias_has_its_limit() {
    let names = |count: usize| {
        (0..count)
            .map(|i| (i.to_string(), json!(1)))
            .collect::<Map<_, _>>()
    };
    let fits = parsed(&json!({"logit_bias": names(LOGIT_BIAS_MAX)}));
    assert_eq!(fits.generate.logit_bias.len(), LOGIT_BIAS_MAX);
    refused(
        &json!({"logit_bias": names(LOGIT_BIAS_MAX + 1)}),
        "invalid_value",
        "logit_bias",
    );
}
