//! The Responses API.

use crate::server::{Act, Script, Server, error, named_events, refused, replaced};
use api::{Fault, Finish};
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";
const STOP: Act = Act::Finish(Finish::Stop);

fn calling() -> Script {
    let said = Act::Say(b"<think>hm</think>Well.<call get>{\"a\":1}</call>");
    Script::calling(vec![said, STOP])
}

fn tools() -> Value {
    json!([{"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": true}])
}

/// Replaces what is random or the time by null.
fn steady(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "id" | "item_id" | "call_id" | "created_at" | "completed_at" => {
                        *field = Value::Null
                    }
                    _ => steady(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(steady),
        _ => {}
    }
}

fn output(status: &str) -> Value {
    let text = json!({"type": "output_text", "text": "Well.", "annotations": [], "logprobs": []});
    json!([
        {
            "id": null, "type": "reasoning", "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}], "status": status,
        },
        {"id": null, "type": "message", "status": status, "role": "assistant", "content": [text]},
        {
            "id": null, "type": "function_call", "status": status, "call_id": null, "name": "get",
            "arguments": "{\"a\":1}",
        },
    ])
}

#[tokio::test]
async fn a_whole_response() {
    let server = Server::start(calling()).await;
    let fields = json!({
        "model": "m", "input": "hi", "instructions": "be kind", "tools": tools(), "store": true,
        "temperature": 0.5, "max_output_tokens": 9, "metadata": {"a": "b"}, "reasoning": {"effort": "low"},
    });
    let mut body = server.json(PATH, fields).await;
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert!(body["completed_at"].as_u64() >= body["created_at"].as_u64());
    steady(&mut body);
    let tool = json!({
        "type": "function", "name": "get", "description": null, "parameters": {"type": "object"}, "strict": true,
    });
    let expected = json!({
        "id": null, "object": "response", "created_at": null, "completed_at": null, "status": "completed",
        "error": null, "incomplete_details": null, "model": "m", "output": output("completed"),
        "usage": {
            "input_tokens": 7, "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 8,
        },
        "instructions": "be kind", "max_output_tokens": 9, "parallel_tool_calls": true,
        "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": false,
        "background": false, "service_tier": "default", "temperature": 0.5,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [tool], "top_logprobs": 0,
        "top_p": null, "truncation": "disabled", "metadata": {"a": "b"},
    });
    assert_eq!(body, expected);
    let said = json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]);
    assert_eq!(server.conversation()["messages"], said);
}

#[tokio::test]
async fn a_stream_has_exactly_this_order() {
    let server = Server::start(calling()).await;
    let fields = json!({"model": "m", "input": "hi", "tools": tools(), "stream": true});
    let text = server.send(PATH, fields).await.text().await.unwrap();
    let mut events = named_events(&text);
    let ids: Vec<_> = events
        .iter()
        .filter_map(|e| e["item_id"].as_str().or(e["item"]["id"].as_str()))
        .collect();
    assert!(
        ids[..6]
            .iter()
            .all(|id| *id == ids[0] && id.starts_with("rs_")),
        "{ids:?}"
    );
    let order: Vec<_> = events
        .iter()
        .map(|event| {
            let kind = event["type"]
                .as_str()
                .unwrap()
                .strip_prefix("response.")
                .unwrap();
            let text = ["delta", "text", "arguments"]
                .iter()
                .find_map(|name| event[name].as_str());
            let index = event["output_index"]
                .as_u64()
                .map_or(String::new(), |index| index.to_string());
            format!("{kind} {index} {}", text.unwrap_or_default())
        })
        .collect();
    let expected = [
        "created  ",
        "in_progress  ",
        "output_item.added 0 ",
        "content_part.added 0 ",
        "reasoning_text.delta 0 hm",
        "reasoning_text.done 0 hm",
        "content_part.done 0 ",
        "output_item.done 0 ",
        "output_item.added 1 ",
        "content_part.added 1 ",
        "output_text.delta 1 Well.",
        "output_text.done 1 Well.",
        "content_part.done 1 ",
        "output_item.done 1 ",
        "output_item.added 2 ",
        "function_call_arguments.delta 2 {\"a\":1}",
        "function_call_arguments.done 2 {\"a\":1}",
        "output_item.done 2 ",
        "completed  ",
    ];
    assert_eq!(order, expected);
    for (number, event) in events.iter_mut().enumerate() {
        assert_eq!(event["sequence_number"], number);
        steady(event);
    }
    assert_eq!(events[0]["response"]["output"], json!([]));
    assert_eq!(events[8]["item"]["content"], json!([]));
    assert_eq!(events[10]["logprobs"], json!([]));
    assert_eq!(events[16]["name"], "get");
    assert_eq!(events[18]["response"]["output"], output("completed"));
}

#[tokio::test]
async fn an_end_may_be_incomplete_or_a_failure() {
    let acts = vec![Act::Say(b"ab"), Act::Finish(Finish::Length)];
    let server = Server::start(Script::new(acts)).await;
    let body = server.json(PATH, json!({"model": "m", "input": "x"})).await;
    assert_eq!(
        (&body["status"], &body["completed_at"]),
        (&json!("incomplete"), &json!(null))
    );
    assert_eq!(
        body["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
    assert_eq!(body["output"][0]["status"], "incomplete");
    let streamed = json!({"model": "m", "input": "x", "stream": true});
    let text = server
        .send(PATH, streamed.clone())
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(
        named_events(&text).last().unwrap()["type"],
        "response.incomplete"
    );
    let acts = vec![Act::Say(b"ab"), Act::Fail(Fault::peer_lost("b is gone"))];
    let server = Server::start(Script::new(acts)).await;
    let text = server.send(PATH, streamed).await.text().await.unwrap();
    let events = named_events(&text);
    let last = events.last().unwrap();
    let expected = json!({"code": "server_error", "message": "b is gone"});
    assert_eq!(
        (&last["type"], &last["response"]["error"]),
        (&json!("response.failed"), &expected)
    );
    error(
        server.send(PATH, json!({"model": "m", "input": "x"})).await,
        502,
        "peer_lost",
    )
    .await;
}

#[tokio::test]
async fn items_become_messages() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), STOP])).await;
    let text = |kind: &str, text: &str| json!([{"type": kind, "text": text}]);
    let input = json!([
        {"role": "developer", "content": "be kind"},
        {"type": "message", "role": "user", "content": text("input_text", "q")},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": text("reasoning_text", "hm")},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": text("output_text", "w")},
        {"type": "function_call", "call_id": "c1", "name": "get", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "get", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": text("input_text", "2")},
    ]);
    let format = json!({"type": "json_schema", "name": "n", "schema": true});
    let fields = json!({
        "model": "m", "input": input, "tools": tools(), "tool_choice": {"type": "function", "name": "get"},
        "parallel_tool_calls": false, "text": {"format": format},
    });
    let failed = server.send(PATH, fields).await;
    error(failed, 500, "schema_violation").await;
    let call =
        |id| json!({"id": id, "type": "function", "function": {"name": "get", "arguments": "{}"}});
    let conversation = server.conversation();
    let expected = json!([
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "w", "tool_calls": [call("c1"), call("c2")]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "tool", "content": "2", "tool_call_id": "c2"},
    ]);
    assert_eq!(conversation["messages"], expected);
    let choice = json!({"type": "function", "function": {"name": "get"}});
    assert_eq!(
        (&conversation["tool_choice"], &conversation["schema"]),
        (&choice, &json!(true))
    );
}

#[tokio::test]
async fn what_needs_a_memory_is_refused_with_its_field() {
    let server = Server::start(Script::new(vec![STOP])).await;
    let image = json!([{"type": "input_image"}]);
    for (fields, param) in [
        (
            json!({"previous_response_id": "r"}),
            "unsupported previous_response_id",
        ),
        (
            json!({"conversation": {"id": "c"}}),
            "unsupported conversation",
        ),
        (json!({"background": true}), "unsupported background"),
        (json!({"truncation": "auto"}), "unsupported truncation"),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "unsupported tools[0].type",
        ),
        (
            json!({"input": [{"type": "item_reference"}]}),
            "unsupported input[0].type",
        ),
        (
            json!({"input": [{"role": "user", "content": image}]}),
            "unsupported input[0].content[0].type",
        ),
        (
            json!({"input": [{"role": "king"}]}),
            "invalid_value input[0].role",
        ),
        (json!({"input": null}), "missing input"),
        (json!({"input": []}), "missing input"),
    ] {
        let fields = replaced(json!({"model": "m", "input": "x"}), &fields);
        refused(server.send(PATH, fields).await, param).await;
    }
    assert!(server.script.asked.lock().unwrap().is_empty());
}
