//! Ollama's dialect.

use crate::server::{Act, Script, Server, replaced};
use api::{Fault, Finish, Prompt};
use serde_json::{Value, json};

const CHAT: &str = "/ollama/api/chat";
const GENERATE: &str = "/ollama/api/generate";
const STOP: Act = Act::Finish(Finish::Stop);

fn question(fields: Value) -> Value {
    let said = json!([{"role": "user", "content": "hi"}]);
    replaced(json!({"model": "m:latest", "messages": said}), &fields)
}

/// The lines of a stream, without times.
async fn lines(server: &Server, path: &str, body: Value) -> Vec<Value> {
    let response = server.send(path, body).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let line = |line| timeless(serde_json::from_str(line).unwrap());
    text.lines().map(line).collect()
}

/// Takes out what is another every time.
fn timeless(mut line: Value) -> Value {
    let fields = line.as_object_mut().unwrap();
    if let Some(created) = fields.remove("created_at") {
        assert!(created.as_str().unwrap().ends_with('Z'));
    }
    for name in ["total_duration", "prompt_eval_duration", "eval_duration"] {
        if let Some(time) = fields.remove(name) {
            assert!(time.is_u64(), "{name}");
        }
    }
    line
}

fn calling() -> Script {
    let said = Act::Say(b"<think>hm</think>Well.<call get>{\"a\":1}</call>");
    Script::calling(vec![said, STOP])
}

#[tokio::test]
async fn a_chat_is_streamed_unless_it_is_not_to_be() {
    let server = Server::start(calling()).await;
    let call = json!({"function": {"name": "get", "arguments": {"a": 1}}});
    let say = |message: Value| json!({"model": "m", "message": message, "done": false});
    let counts =
        json!({"done_reason": "stop", "load_duration": 0, "prompt_eval_count": 7, "eval_count": 1});
    let last = |message: Value| {
        let mut line = json!({"model": "m", "message": message, "done": true});
        for (name, value) in counts.as_object().unwrap() {
            line[name] = value.clone();
        }
        line
    };
    let silent = json!({"role": "assistant", "content": ""});
    let expected = [
        say(json!({"role": "assistant", "content": "", "thinking": "hm"})),
        say(json!({"role": "assistant", "content": "Well."})),
        say(json!({"role": "assistant", "content": "", "tool_calls": [call]})),
        last(silent),
    ];
    assert_eq!(lines(&server, CHAT, question(json!({}))).await, expected);
    let whole = server.json(CHAT, question(json!({"stream": false}))).await;
    let message =
        json!({"role": "assistant", "content": "Well.", "thinking": "hm", "tool_calls": [call]});
    assert_eq!(timeless(whole), last(message));
}

#[tokio::test]
async fn fields_and_options_arrive() {
    let server = Server::start(Script::new(vec![Act::Say(b"{}"), STOP])).await;
    let tool =
        json!({"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}});
    let messages = json!([
        {"role": "system", "content": "be kind"},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"function": {"name": "get", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "get", "content": "12"},
    ]);
    let options = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "num_predict": 5, "stop": ["END"], "num_ctx": 2048,
        "presence_penalty": 0.5, "num_thread": 4, "repeat_penalty": 1.0,
    });
    let fields = json!({
        "messages": messages, "tools": [tool], "options": options, "format": "json", "think": false, "keep_alive": "5m",
    });
    server.send(CHAT, question(fields)).await;
    let call = json!({"id": "", "type": "function", "function": {"name": "get", "arguments": "{\"a\":1}"}});
    let expected = json!({
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "assistant", "content": null, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "content": "12", "name": "get"},
        ],
        "tools": [tool], "schema": true, "template_kwargs": {"enable_thinking": false},
    });
    assert_eq!(server.conversation(), expected);
    let asked = server.script.asked.lock().unwrap().pop().unwrap();
    let found = (
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.seed,
        asked.max_tokens,
    );
    assert_eq!(found, (Some(0.5), Some(0.9), Some(7), Some(3), Some(5)));
    assert_eq!((asked.presence_penalty, asked.model.as_str()), (0.5, "m"));
}

#[tokio::test]
async fn a_prompt_is_a_question_or_raw_text() {
    let server = Server::start(Script::new(vec![Act::Say(b"on"), Act::Say(b"ce"), STOP])).await;
    let fields = json!({"model": "m", "prompt": "q", "system": "be kind"});
    let said = lines(&server, GENERATE, fields).await;
    let texts: Vec<_> = said
        .iter()
        .map(|line| line["response"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["on", "ce", ""]);
    let messages =
        json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "q"}]);
    assert_eq!(server.conversation()["messages"], messages);
    let raw = json!({"model": "m", "prompt": "q", "raw": true, "stream": false, "options": {"num_predict": -1}});
    assert_eq!(server.json(GENERATE, raw).await["response"], "once");
    let asked = server.script.asked.lock().unwrap().pop().unwrap();
    assert_eq!(
        (asked.prompt, asked.max_tokens),
        (Prompt::Text("q".into()), None)
    );
    for (path, said) in [(GENERATE, "response"), (CHAT, "message")] {
        let loaded = server.json(path, json!({"model": "m"})).await;
        assert_eq!(
            (&loaded["done_reason"], &loaded["done"]),
            (&json!("load"), &json!(true))
        );
        assert!(loaded.get(said).is_some(), "{loaded}");
    }
}

#[tokio::test]
async fn errors_have_ollamas_shape_and_nothing_is_cut_off() {
    let server = Server::start(Script::new(vec![
        Act::Say(b"a"),
        Act::Fail(Fault::peer_lost("b is gone")),
    ]))
    .await;
    for (path, body, status, word) in [
        (
            CHAT,
            question(json!({"options": {"num_ctx": 4096}})),
            400,
            "2048",
        ),
        (
            CHAT,
            question(json!({"options": {"min_p": 0.1}})),
            400,
            "min_p",
        ),
        (
            CHAT,
            question(json!({"options": {"temperature": -1}})),
            400,
            "temperature",
        ),
        (
            CHAT,
            question(json!({"options": {"num_predict": 0}})),
            400,
            "num_predict",
        ),
        (CHAT, question(json!({"format": "yaml"})), 400, "format"),
        (CHAT, question(json!({"model": "x"})), 404, "'x'"),
        (
            CHAT,
            question(json!({"messages": [{"role": "user", "content": "x", "images": ["eA=="]}]})),
            400,
            "image",
        ),
        (CHAT, question(json!({"stream": false})), 502, "b is gone"),
        (
            GENERATE,
            json!({"model": "m", "prompt": "x", "suffix": "y"}),
            400,
            "suffix",
        ),
        (
            GENERATE,
            json!({"model": "m", "prompt": "x", "context": [1]}),
            400,
            "context",
        ),
        (
            "/ollama/api/pull",
            json!({"model": "nobody's"}),
            404,
            "nobody's",
        ),
        ("/ollama/api/nothing", json!({}), 404, "/ollama/api/nothing"),
    ] {
        let response = server.send(path, body).await;
        assert_eq!(response.status(), status, "{word}");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"].as_str().unwrap().contains(word), "{body}");
    }
    let said = lines(&server, CHAT, question(json!({}))).await;
    assert_eq!(said.last().unwrap(), &json!({"error": "b is gone"}));
}

#[tokio::test]
async fn arguments_that_are_no_object_are_an_error() {
    let server = Server::start(Script::calling(vec![
        Act::Say(b"<call get>[]</call>"),
        STOP,
    ]))
    .await;
    let said = lines(&server, CHAT, question(json!({}))).await;
    assert_eq!(said.len(), 1);
    assert!(said[0]["error"].as_str().unwrap().contains("'get'"));
    assert_eq!(
        server
            .send(CHAT, question(json!({"stream": false})))
            .await
            .status(),
        500
    );
}

#[tokio::test]
async fn models_are_told_in_ollamas_words() {
    let server = Server::start(Script::new(vec![])).await;
    for path in ["/ollama", "/ollama/"] {
        assert_eq!(
            server.get(path).await.text().await.unwrap(),
            "Ollama is running"
        );
        let head = server.client.head(server.url(path)).send().await.unwrap();
        assert_eq!(head.status(), 200);
    }
    let details = json!({
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "1.5B", "quantization_level": "Q4_K_M",
    });
    let mut entry = json!({
        "name": "m", "model": "m", "modified_at": "1970-01-01T00:16:40Z", "size": 99, "digest": "ab".repeat(32),
        "details": details,
    });
    let tags: Value = server.get("/ollama/api/tags").await.json().await.unwrap();
    assert_eq!(tags["models"][0], entry);
    assert_eq!(tags["models"].as_array().unwrap().len(), 2);
    let running: Value = server.get("/ollama/api/ps").await.json().await.unwrap();
    entry["expires_at"] = running["models"][0]["expires_at"].clone();
    entry["size_vram"] = json!(0);
    entry["context_length"] = json!(2048);
    assert_eq!(running, json!({"models": [entry]}));
    for field in ["model", "name"] {
        let shown = server
            .json("/ollama/api/show", json!({field: "m:latest"}))
            .await;
        assert_eq!(shown["details"], details);
        assert_eq!(
            shown["capabilities"],
            json!(["completion", "tools", "embedding"])
        );
        assert_eq!(shown["model_info"]["llama.context_length"], 2048);
        assert_eq!(shown["template"], "{{ messages }}");
    }
    let version: Value = server
        .get("/ollama/api/version")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn a_download_tells_how_far_it_is() {
    let server = Server::start(Script::new(vec![])).await;
    let path = "/ollama/api/pull";
    let digest = format!("sha256:{}", "ab".repeat(32));
    let begin = json!({"status": "pulling manifest"});
    let fetching =
        json!({"status": "pulling abababababab", "digest": digest, "total": 10, "completed": 4});
    let verifying = json!({"status": "verifying sha256 digest"});
    let success = json!({"status": "success"});
    let told = lines(&server, path, json!({"model": "good"})).await;
    assert_eq!(
        told,
        [begin.clone(), fetching.clone(), verifying, success.clone()]
    );
    let told = lines(&server, path, json!({"name": "bad"})).await;
    assert_eq!(
        told,
        [begin, fetching, json!({"error": "the disk is full"})]
    );
    let broken = lines(&server, path, json!({"name": "broken"})).await;
    assert!(
        broken.last().unwrap()["error"]
            .as_str()
            .unwrap()
            .contains("broke off")
    );
    let quiet = |name: &str| json!({"model": name, "stream": false});
    assert_eq!(server.json(path, quiet("good")).await, success);
    for name in ["bad", "broken"] {
        assert_eq!(server.send(path, quiet(name)).await.status(), 500);
    }
}

#[tokio::test]
async fn vectors_have_both_shapes() {
    let server = Server::start(Script::new(vec![])).await;
    let made = server
        .json(
            "/ollama/api/embed",
            json!({"model": "m", "input": ["abc", "d"]}),
        )
        .await;
    let expected = json!({
        "model": "m", "embeddings": [[3.0, 0.5], [1.0, 0.5]], "load_duration": 0, "prompt_eval_count": 5,
    });
    assert_eq!(timeless(made), expected);
    let made = server
        .json(
            "/ollama/api/embeddings",
            json!({"model": "m", "prompt": "abc"}),
        )
        .await;
    assert_eq!(made, json!({"embedding": [3.0, 0.5]}));
    let other = json!({"model": "m", "input": "x", "dimensions": 3});
    assert_eq!(server.send("/ollama/api/embed", other).await.status(), 400);
}
