//! What stands around the dialects: keys, metrics, the description of it all, and hostile callers.

use crate::server::{Act, Script, Server, error, question};
use api::{ApiConfig, DEPTH_MAX, Finish, Keys};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn hello() -> Script {
    Script::new(vec![Act::Say(b"hi"), Act::Finish(Finish::Stop)])
}

#[tokio::test]
async fn a_key_opens_everything_and_none_only_the_front() {
    let keys = Keys::new(["first".to_owned(), "second".to_owned(), String::new()]);
    assert!(!format!("{keys:?}").contains("first"));
    let config = ApiConfig {
        keys,
        ..ApiConfig::default()
    };
    let server = Server::configured(hello(), config).await;
    for path in ["/", "/health"] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
    }
    for path in [
        "/v1/models",
        "/metrics",
        "/openapi.json",
        "/v1/nothing",
        "/myzel/x",
    ] {
        error(server.get(path).await, 401, "invalid_api_key").await;
    }
    let ask = |name: &str, value: &str| server.post(question(json!({}))).header(name, value).send();
    for (name, value, status) in [
        ("authorization", "Bearer first", 200),
        ("authorization", "bearer second", 200),
        ("x-api-key", "second", 200),
        ("authorization", "Bearer third", 401),
        ("authorization", "Bearer ", 401),
        ("authorization", "first", 401),
        ("authorization", "Basic first", 401),
        ("x-api-key", "firs", 401),
        ("x-api-key", "", 401),
    ] {
        assert_eq!(
            ask(name, value).await.unwrap().status(),
            status,
            "{name}: {value}"
        );
    }
    let asked = server.script.asked.lock().unwrap();
    assert_eq!(
        (asked.len(), asked[2].caller.0.as_deref()),
        (3, Some("second"))
    );
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = Server::start(hello()).await;
    server.ask(json!({"n": 2})).await;
    error(
        server.ask(json!({"model": "x"})).await,
        404,
        "model_not_found",
    )
    .await;
    let response = server.get("/metrics").await;
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    for line in [
        "myzel_api_requests_open 0",
        "myzel_api_requests_refused_total 1",
        "myzel_api_answers_begun_total 1",
        "myzel_api_choices_ended_total 2",
        "myzel_api_answers_failed_total 0",
        "myzel_api_prompt_tokens_total 7",
        "myzel_api_completion_tokens_total 2",
        "test_gauge 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split([' ', '{']).next().unwrap();
        assert!(text.contains(&format!("# TYPE {name} ")), "{line}");
    }
}

#[tokio::test]
async fn the_description_names_every_route_and_no_other() {
    let server = Server::start(hello()).await;
    let text = server.get("/").await.text().await.unwrap();
    let mut served = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        let mut words = line.split_whitespace().map(str::to_owned);
        served.insert((words.next().unwrap(), words.next().unwrap()));
    }
    let document: Value = server.get("/openapi.json").await.json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    assert_eq!(served, described);
    for (method, path) in served {
        // There is no stream to go on with here.
        let fine: &[u16] = if path.contains("{id}") {
            &[404]
        } else {
            &[200, 400]
        };
        let path = path.replace("{model}", "m");
        let method = method.parse().unwrap();
        let request = server.client.request(method, server.url(&path)).body("{}");
        let status = request.send().await.unwrap().status().as_u16();
        assert!(fine.contains(&status), "{path}: {status}");
    }
    references(&document, &document);
}

/// Fails if a `$ref` of the document leads nowhere.
fn references(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("$ref") {
                let pointer = name.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{name}");
            }
            fields
                .values()
                .for_each(|field| references(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| references(document, item)),
        _ => {}
    }
}

/// Every route that takes a body.
const ROUTES: [&str; 14] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/ollama/api/chat",
    "/ollama/api/generate",
    "/ollama/api/embed",
    "/ollama/api/show",
    "/ollama/api/pull",
];

#[tokio::test]
async fn every_route_refuses_what_is_no_request() {
    let server = Server::start(hello()).await;
    let deep = "[".repeat(DEPTH_MAX + 1);
    let tower = format!(
        "{{\"model\": \"m\", \"tools\": {}",
        "[{\"a\":".repeat(DEPTH_MAX)
    );
    let many = format!(
        "{{\"model\": \"m\", \"x\": [{}0]}}",
        "0,".repeat(api::VALUES_MAX)
    );
    for path in ROUTES {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"\"x\"",
            b"{\"model\": \"m\"",
            b"{\"model\": \"\xFF\"}",
            b"{\"model\": 7}",
            b"{\"model\": \"m\", \"temperature\": NaN}",
            deep.as_bytes(),
            tower.as_bytes(),
            many.as_bytes(),
        ] {
            let request = server.client.post(server.url(path)).body(body.to_vec());
            let response = request.send().await.unwrap();
            let shown = String::from_utf8_lossy(&body[..body.len().min(50)]).into_owned();
            assert_eq!(response.status(), 400, "{path}: {shown}");
            let body: Value = response.json().await.unwrap();
            assert!(body.get("error").is_some(), "{body}");
        }
    }
    for (path, fields) in [
        (
            "/v1/chat/completions",
            r#""messages": [{"role": "user", "content": "x"}]"#,
        ),
        ("/v1/completions", r#""prompt": "x""#),
        ("/v1/responses", r#""input": "x""#),
        (
            "/v1/messages",
            r#""max_tokens": 9, "messages": [{"role": "user", "content": "x"}]"#,
        ),
        (
            "/ollama/api/generate",
            r#""prompt": "x", "options": {"temperature": 1e400}"#,
        ),
    ] {
        let body = format!("{{\"model\": \"m\", \"temperature\": 1e400, {fields}}}");
        let request = server.client.post(server.url(path)).body(body);
        assert_eq!(request.send().await.unwrap().status(), 400, "{path}");
    }
    assert!(server.script.asked.lock().unwrap().is_empty());
    assert_eq!(
        server.ask(json!({})).await.status(),
        200,
        "nobody else is disturbed"
    );
}

#[tokio::test]
async fn a_crowd_of_idle_connections_leaves_the_served_ones_alone() {
    let config = ApiConfig {
        connections_max: 40,
        ..ApiConfig::default()
    };
    let server = Server::configured(Script::new(vec![Act::Say(b"a"), Act::Hang]), config).await;
    let mut held = server.ask(json!({"stream": true})).await;
    let mut crowd = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            // Some say half of what they want.
            stream
                .write_all(b"GET /health HTTP/1.1\r\nhost: loc")
                .await
                .unwrap();
        }
        crowd.push(stream);
    }
    // The first of the crowd had to leave, and whoever comes now is served at once.
    let mut buffer = [0; 16];
    assert_eq!(crowd[0].read(&mut buffer).await.unwrap_or(0), 0);
    assert_eq!(server.get("/health").await.status(), 200);
    let mut text = String::new();
    while !text.contains("\"content\":\"a\"") {
        let piece = held.chunk().await.unwrap().expect("the stream goes on");
        text += std::str::from_utf8(&piece).unwrap();
    }
}

#[tokio::test]
async fn a_head_that_is_no_http_is_closed() {
    let server = Server::start(hello()).await;
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "y".repeat(api::HEAD_BYTES_MAX)
    );
    for (head, status) in [("\0\0\0\r\n\r\n", "400"), (huge.as_str(), "431")] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.contains(status), "{answer}");
    }
    assert_eq!(server.ask(json!({})).await.status(), 200);
}
