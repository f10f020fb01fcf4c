//! Chat completions beyond text: tools, thoughts, several choices, probabilities, schemas.

use crate::server::{Act, Script, Server, error};
use api::{ApiConfig, Finish, GenerateRequest};
use serde_json::{Value, json};

const STOP: Act = Act::Finish(Finish::Stop);

/// A model that thinks, says something, and calls twice.
fn calls() -> Vec<Act> {
    vec![
        Act::Say(b"<think>h"),
        Act::Say(b"m</think>I loo"),
        Act::Say(b"k<ca"),
        Act::Say(b"ll get>"),
        Act::Say(b"{\"a\""),
        Act::Say(b":1}</call><call now></ca"),
        Act::Say(b"ll>"),
        STOP,
    ]
}

fn tools() -> Value {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    json!({"tools": [tool("get"), tool("now")], "parallel_tool_calls": true})
}

/// The chunks of a stream; its end is checked.
async fn chunks(server: &Server, fields: Value) -> Vec<Value> {
    let events = server.stream(fields).await;
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap())
        .collect()
}

#[tokio::test]
async fn a_call_is_whole_or_comes_in_pieces_that_add_up() {
    let server = Server::start(Script::calling(calls())).await;
    let whole: Value = server.ask(tools()).await.json().await.unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let mut message = choice["message"].clone();
    for call in message["tool_calls"].as_array_mut().unwrap() {
        let id = call["id"].take();
        assert!(id.as_str().unwrap().starts_with("call_"), "{id}");
    }
    let call = |name, arguments| json!({"id": null, "type": "function", "function": {"name": name, "arguments": arguments}});
    let expected = json!({
        // The fake parser takes half a tag for text until the tag is whole; so what was said is what stays.
        "role": "assistant", "content": "I look", "reasoning_content": "hm", "refusal": null,
        "tool_calls": [call("get", "{\"a\":1}"), call("now", "{}")],
    });
    assert_eq!(message, expected);
    assert_eq!(server.conversation()["tools"][1]["function"]["name"], "now");

    let (mut deltas, mut reason) = (Vec::new(), Value::Null);
    for mut chunk in chunks(&server, tools()).await {
        reason = chunk["choices"][0]["finish_reason"].clone();
        let mut delta = chunk["choices"][0]["delta"].take();
        if let Some(id) = delta.pointer_mut("/tool_calls/0/id") {
            assert!(id.take().is_string());
        }
        deltas.push(delta);
    }
    assert_eq!(reason, "tool_calls");
    assert_eq!(deltas[0], json!({"role": "assistant", "content": ""}));
    let begun = |index, name| {
        let function = json!({"name": name, "arguments": ""});
        json!({"tool_calls": [{"index": index, "id": null, "type": "function", "function": function}]})
    };
    let at = deltas.iter().position(|delta| *delta == begun(0, "get"));
    let (before, behind) = deltas.split_at(at.expect("the call begins"));
    let joined = |deltas: &[Value], field: &str| {
        let texts = deltas.iter().filter_map(|delta| delta[field].as_str());
        texts.collect::<String>()
    };
    assert_eq!(joined(before, "reasoning_content"), "hm");
    assert!(
        joined(before, "content").starts_with("I look"),
        "{before:?}"
    );
    let second = behind
        .iter()
        .position(|delta| *delta == begun(1, "now"))
        .expect("so does the other");
    let arguments = |deltas: &[Value]| {
        let texts = deltas
            .iter()
            .filter_map(|d| d.pointer("/tool_calls/0/function/arguments")?.as_str());
        texts.collect::<String>()
    };
    assert_eq!(arguments(&behind[..second]), "{\"a\":1}");
    assert_eq!(arguments(&behind[second..]), "{}");
}

#[tokio::test]
async fn a_call_that_is_cut_off_is_told_as_far_as_it_came() {
    let acts = vec![Act::Say(b"<call get>{\"a\""), Act::Finish(Finish::Length)];
    let server = Server::start(Script::calling(acts)).await;
    let whole: Value = server.ask(tools()).await.json().await.unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"]["arguments"],
        "{\"a\""
    );
    let acts = vec![Act::Say(b"<call get>{\"a\""), STOP];
    let server = Server::start(Script::calling(acts)).await;
    error(server.ask(tools()).await, 500, "internal_error").await;
    let stop = json!({"stop": ["<call"]});
    let whole: Value = server.ask(stop).await.json().await.unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["choices"][0]["message"]["content"], "");
}

#[tokio::test]
async fn the_template_s_own_end_is_no_stop_string_of_the_caller() {
    let server = Server::start(Script::calling(vec![
        Act::Say(b"<call f>{}</call><end>x"),
        Act::Hang,
    ]))
    .await;
    let whole: Value = server.ask(tools()).await.json().await.unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    server.script.cancelled(1).await;
}

#[tokio::test]
async fn thoughts_are_counted() {
    let said: [&[u8]; 4] = [b"<think>", b"a", b"b</think>", b"c"];
    let acts = said.into_iter().map(Act::Say).chain([STOP]).collect();
    let server = Server::start(Script::calling(acts)).await;
    let whole: Value = server.ask(tools()).await.json().await.unwrap();
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!("ab"), &json!("c"))
    );
    assert_eq!(whole["usage"]["completion_tokens"], 4);
    assert_eq!(
        whole["usage"]["completion_tokens_details"]["reasoning_tokens"],
        3
    );
}

#[tokio::test]
async fn several_choices_have_their_own_seeds_and_one_prompt() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), Act::Say(b"b"), STOP])).await;
    let whole: Value = server
        .ask(json!({"n": 3, "seed": 10}))
        .await
        .json()
        .await
        .unwrap();
    let said = whole["choices"].as_array().unwrap().iter().map(|choice| {
        (
            choice["index"].as_u64().unwrap(),
            choice["message"]["content"].as_str().unwrap(),
        )
    });
    assert_eq!(said.collect::<Vec<_>>(), [(0, "ab"), (1, "ab"), (2, "ab")]);
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 0}});
    assert_eq!(whole["usage"], usage);
    let seeds = |asked: &[GenerateRequest]| asked.iter().map(|one| one.seed).collect::<Vec<_>>();
    let seeds = seeds(&server.script.asked.lock().unwrap());
    assert_eq!(seeds, [Some(10), Some(11), Some(12)]);
    let mut texts = [String::new(), String::new()];
    let mut ends = 0;
    for chunk in chunks(&server, json!({"n": 2})).await {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index] += choice["delta"]["content"].as_str().unwrap_or("");
        ends += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!((texts, ends), (["ab".into(), "ab".into()], 2));
}

#[tokio::test]
async fn every_choice_takes_a_place_and_a_failing_one_cancels_the_others() {
    let config = ApiConfig {
        requests_max: 2,
        ..ApiConfig::default()
    };
    let server = Server::configured(Script::new(vec![Act::Say(b"a"), Act::Hang]), config).await;
    error(server.ask(json!({"n": 3})).await, 503, "overloaded").await;
    server.script.cancelled(2).await;
    let stream = server.ask(json!({"n": 2, "stream": true})).await;
    assert_eq!(stream.status(), 200);
    error(server.ask(json!({})).await, 503, "overloaded").await;
    drop(stream);
    server.script.cancelled(4).await;
}

#[tokio::test]
async fn probabilities_come_with_the_text_of_their_tokens() {
    let acts = vec![
        Act::Score(b"a", -0.5),
        Act::Score(b"\xC3", -1.0),
        Act::Score(b"\xA9", f32::NEG_INFINITY),
        Act::Score(b"zST", -2.0),
        Act::Score(b"OP", -4.0),
        Act::Hang,
    ];
    let server = Server::start(Script::new(acts)).await;
    let fields = json!({"logprobs": true, "top_logprobs": 2, "stop": "STOP"});
    let whole: Value = server.ask(fields.clone()).await.json().await.unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], "aéz");
    let other = json!({"token": "\u{FFFD}", "logprob": -3.5, "bytes": [255]});
    let token = |text: &str, logprob: f64, bytes: Value| {
        let own = json!({"token": text, "logprob": logprob, "bytes": bytes});
        let mut entry = own.clone();
        entry["top_logprobs"] = json!([own, other]);
        entry
    };
    let expected = [
        token("a", -0.5, json!([97])),
        token("\u{FFFD}", -1.0, json!([195])),
        token("\u{FFFD}", -9999.0, json!([169])),
        token("zST", -2.0, json!([122, 83, 84])),
    ];
    assert_eq!(
        choice["logprobs"],
        json!({"content": expected, "refusal": null})
    );
    let mut told = Vec::new();
    for chunk in chunks(&server, fields).await {
        let scores = &chunk["choices"][0]["logprobs"];
        told.extend(scores["content"].as_array().cloned().unwrap_or_default());
        let silent = chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or("")
            .is_empty();
        assert_eq!(scores.is_null(), silent, "{chunk}");
    }
    assert_eq!(told, expected);
    assert_eq!(server.script.asked.lock().unwrap()[0].logprobs, Some(2));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_its_schema_is_an_error() {
    let schema = json!({"type": "object", "required": ["a"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let fields = json!({ "response_format": format });
    for (said, finish, code) in [
        (&b"{\"a\": 1}"[..], Finish::Stop, None),
        (b"{\"b\": 1}", Finish::Stop, Some("schema_violation")),
        (b"{\"b\": ", Finish::Stop, Some("schema_violation")),
        (b"{\"b\": ", Finish::Length, None),
    ] {
        for script in [Script::new, Script::calling] {
            let server = Server::start(script(vec![Act::Say(said), Act::Finish(finish)])).await;
            let whole = server.ask(fields.clone()).await;
            let mut streamed = fields.clone();
            streamed["stream"] = true.into();
            // Where all came at once, the failure has a status; else it is the last event.
            let text = server.ask(streamed).await.text().await.unwrap();
            match code {
                Some(code) => {
                    error(whole, 500, code).await;
                    assert!(text.contains(code) && !text.contains("[DONE]"), "{text}");
                }
                None => {
                    assert_eq!(whole.status(), 200);
                    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
                }
            }
            assert_eq!(server.conversation()["schema"], schema);
        }
    }
}

#[tokio::test]
async fn a_call_takes_the_place_of_the_text_that_a_schema_wants() {
    let mut fields = tools();
    fields["response_format"] = json!({"type": "json_object"});
    let server = Server::start(Script::calling(calls())).await;
    let whole: Value = server.ask(fields).await.json().await.unwrap();
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
}
