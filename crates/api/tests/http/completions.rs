//! Text without a conversation, vectors, tokens, templates.

use crate::server::{Act, Script, Server, error, events, refused, replaced};
use api::{Finish, Prompt};
use serde_json::{Value, json};

const PATH: &str = "/v1/completions";

async fn server() -> Server {
    let acts = vec![
        Act::Score(b"on", -0.5),
        Act::Score(b"ce", -1.0),
        Act::Finish(Finish::Stop),
    ];
    Server::start(Script::new(acts)).await
}

#[tokio::test]
async fn every_prompt_is_answered() {
    let server = server().await;
    for (prompt, prompts) in [
        (json!("x"), vec![Prompt::Text("x".into())]),
        (
            json!(["x", "y"]),
            vec![Prompt::Text("x".into()), Prompt::Text("y".into())],
        ),
        (json!([1, 2]), vec![Prompt::Tokens(vec![1, 2])]),
        (
            json!([[1], [2, 3]]),
            vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])],
        ),
    ] {
        server.script.asked.lock().unwrap().clear();
        let body = server
            .json(PATH, json!({"model": "m", "prompt": prompt}))
            .await;
        let asked = server.script.asked.lock().unwrap();
        let found: Vec<_> = asked.iter().map(|request| request.prompt.clone()).collect();
        assert_eq!(found, prompts);
        let choices = (0..prompts.len()).map(|index| {
            json!({"text": "once", "index": index, "logprobs": null, "finish_reason": "stop"})
        });
        assert_eq!(body["choices"], choices.collect::<Value>());
        assert_eq!(body["usage"]["prompt_tokens"], 7 * prompts.len());
        assert_eq!(body["object"], "text_completion");
        assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
    }
}

#[tokio::test]
async fn echo_probabilities_and_streams_have_the_old_shape() {
    let server = server().await;
    let echo = server
        .json(
            PATH,
            json!({"model": "m", "prompt": "at ", "echo": true, "n": 2}),
        )
        .await;
    for index in [0, 1] {
        assert_eq!(echo["choices"][index]["text"], "at once");
    }
    let scored = server
        .json(PATH, json!({"model": "m", "prompt": "x", "logprobs": 1}))
        .await;
    let expected = json!({
        "text_offset": [0, 2], "token_logprobs": [-0.5, -1.0], "tokens": ["on", "ce"],
        "top_logprobs": [{"on": -0.5, "\u{FFFD}": -3.5}, {"ce": -1.0, "\u{FFFD}": -3.5}],
    });
    assert_eq!(scored["choices"][0]["logprobs"], expected);
    let fields = json!({
        "model": "m", "prompt": "at ", "echo": true, "stream": true, "stream_options": {"include_usage": true},
    });
    let text = server.send(PATH, fields).await.text().await.unwrap();
    let events = events(&text);
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|c| serde_json::from_str(c).unwrap())
        .collect();
    let texts: Vec<_> = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(texts, ["at ", "on", "ce", ""]);
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (&chunks[4]["choices"], &chunks[4]["usage"]["total_tokens"]),
        (&json!([]), &json!(9))
    );
}

#[tokio::test]
async fn what_cannot_be_completed_is_refused_with_its_field() {
    let server = server().await;
    let many = vec!["x"; 17];
    for (fields, param) in [
        (json!({"model": null}), "missing model"),
        (json!({"prompt": null}), "missing prompt"),
        (json!({"prompt": []}), "missing prompt"),
        (json!({"prompt": [[]]}), "missing prompt"),
        (json!({"prompt": [1, "x"]}), "invalid_type prompt"),
        (json!({ "prompt": many }), "invalid_value prompt"),
        (
            json!({"prompt": ["x", "y"], "n": 9}),
            "invalid_value prompt",
        ),
        (json!({"n": 1000}), "invalid_value n"),
        (json!({"logprobs": 6}), "invalid_value logprobs"),
        (json!({"suffix": "y"}), "unsupported suffix"),
        (json!({"best_of": 2}), "unsupported best_of"),
        (json!({"prompt": [1], "echo": true}), "unsupported echo"),
    ] {
        refused(server.send(PATH, with(&fields)).await, param).await;
    }
    assert!(server.script.asked.lock().unwrap().is_empty());
    let fine = json!({"best_of": 1, "suffix": null, "user": "me"});
    server.json(PATH, with(&fine)).await;
}

/// A valid request with `fields` added or replaced.
fn with(fields: &Value) -> Value {
    replaced(json!({"model": "m", "prompt": "x"}), fields)
}

#[tokio::test]
async fn vectors_are_numbers_or_packed() {
    let server = server().await;
    let path = "/v1/embeddings";
    let plain = server
        .json(
            path,
            json!({"model": "m", "input": ["abc", "d"], "dimensions": 2}),
        )
        .await;
    let expected = json!({
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [3.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.5]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    });
    assert_eq!(plain, expected);
    let packed = json!({"model": "m", "input": [[7, 8]], "encoding_format": "base64"});
    let packed = server.json(path, packed).await;
    // 2.0 and -0.5 as little-endian floats: 00 00 00 40, 00 00 00 BF.
    assert_eq!(packed["data"][0]["embedding"], "AAAAQAAAAL8=");
    for (fields, param) in [
        (json!({"input": null}), "missing input"),
        (json!({"input": vec!["x"; 2049]}), "invalid_value input"),
        (json!({"dimensions": 3}), "unsupported dimensions"),
        (
            json!({"encoding_format": "hex"}),
            "invalid_value encoding_format",
        ),
    ] {
        let fields = replaced(json!({"model": "m", "input": "x"}), &fields);
        refused(server.send(path, fields).await, param).await;
    }
}

#[tokio::test]
async fn tokens_and_templates_have_llama_servers_shapes() {
    let server = server().await;
    for (path, fields, expected) in [
        (
            "/tokenize",
            json!({"content": "hi"}),
            json!({"tokens": [104, 105]}),
        ),
        (
            "/tokenize",
            json!({"content": "é", "add_special": true, "with_pieces": true}),
            json!({"tokens": [
                {"id": 1000, "piece": "<s>"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]},
            ]}),
        ),
        (
            "/detokenize",
            json!({"tokens": [104, 255]}),
            json!({"content": "h\u{FFFD}"}),
        ),
        (
            "/apply-template",
            json!({"messages": [{"role": "user", "content": "x"}]}),
            json!({"prompt": r#"{"messages":[{"role":"user","content":"x"}]}"#}),
        ),
    ] {
        let mut named = fields.clone();
        named["model"] = "m".into();
        assert_eq!(server.json(path, named).await, expected);
        // This node has two models, so none is meant by silence.
        error(
            server.send(path, fields).await,
            400,
            "missing_required_parameter",
        )
        .await;
    }
    let unknown = json!({"model": "m", "tokens": [1000]});
    error(
        server.send("/detokenize", unknown).await,
        400,
        "invalid_value",
    )
    .await;
}
