//! Bad input over HTTP. The table of wrong fields is in `src/request/tests.rs`.

use crate::server::{Act, PATIENCE, Script, Server, error, question};
use api::{ApiConfig, BODY_BYTES_MAX, Finish};
use reqwest::Method;
use serde_json::json;

async fn hello() -> Server {
    Server::start(Script::new(vec![
        Act::Say(b"hi"),
        Act::Finish(Finish::Stop),
    ]))
    .await
}

#[tokio::test]
async fn wrong_routes_and_methods_have_the_shape() {
    let server = hello().await;
    for (method, path, status, code) in [
        (Method::GET, "/v1/nothing", 404, "unknown_url"),
        (Method::POST, "/nothing", 404, "unknown_url"),
        (
            Method::GET,
            "/v1/chat/completions",
            405,
            "method_not_allowed",
        ),
        (
            Method::OPTIONS,
            "/v1/chat/completions",
            405,
            "method_not_allowed",
        ),
        (Method::POST, "/v1/models", 405, "method_not_allowed"),
        (Method::DELETE, "/v1/models/m", 405, "method_not_allowed"),
        (Method::POST, "/health", 405, "method_not_allowed"),
    ] {
        let response = server
            .client
            .request(method, server.url(path))
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.headers().contains_key("allow"),
            status == 405,
            "{path}"
        );
        let error = error(response, status, code).await;
        assert!(error["message"].as_str().unwrap().contains(path), "{error}");
    }
}

#[tokio::test]
async fn bad_bodies_have_the_shape() {
    let server = hello().await;
    for (body, code, param) in [
        (b"{\"model\":".to_vec(), "invalid_json", json!(null)),
        (b"\xFF".to_vec(), "invalid_utf8", json!(null)),
        (b"[".repeat(1000), "json_too_deep", json!(null)),
        (
            question(json!({"temperature": 9})).into_bytes(),
            "invalid_value",
            json!("temperature"),
        ),
        (
            question(json!({"n": 1000})).into_bytes(),
            "invalid_value",
            json!("n"),
        ),
        (b"{}".to_vec(), "missing_required_parameter", json!("model")),
    ] {
        let error = error(server.post(body).send().await.unwrap(), 400, code).await;
        assert_eq!(
            (&error["param"], &error["type"]),
            (&param, &json!("invalid_request_error"))
        );
    }
    assert!(server.script.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_content_type_does_not_matter() {
    let server = hello().await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-8",
    ] {
        let request = server
            .post(question(json!({})))
            .header("content-type", kind);
        assert_eq!(request.send().await.unwrap().status(), 200, "{kind}");
    }
    assert_eq!(server.ask(json!({})).await.status(), 200);
}

#[tokio::test]
async fn a_body_may_be_large_but_not_too_large() {
    let server = hello().await;
    let filled = |bytes: usize| {
        let empty = question(json!({"filler": ""})).len();
        question(json!({"filler": "x".repeat(bytes - empty)}))
    };
    let fits = server.post(filled(BODY_BYTES_MAX)).send().await.unwrap();
    assert_eq!(fits.status(), 200);
    let over = server
        .post(filled(BODY_BYTES_MAX + 1))
        .send()
        .await
        .unwrap();
    error(over, 413, "body_too_large").await;
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused_on_every_route() {
    let allowed_hosts = vec!["box.example".to_owned()];
    let config = ApiConfig {
        allowed_hosts,
        ..ApiConfig::default()
    };
    let script = Script::new(vec![Act::Say(b"hi"), Act::Finish(Finish::Stop)]);
    let server = Server::configured(script, config).await;
    for path in ["/", "/health", "/v1/models", "/v1/nothing", "/myzel/x"] {
        let get = || server.client.get(server.url(path));
        let foreign = get().header("host", "evil.example").send().await.unwrap();
        error(foreign, 403, "host_not_allowed").await;
        let page = get()
            .header("origin", "https://evil.example")
            .send()
            .await
            .unwrap();
        error(page, 403, "origin_not_allowed").await;
        let known = get()
            .header("host", "box.example:7717")
            .send()
            .await
            .unwrap();
        assert_ne!(known.status(), 403, "{path}");
    }
    let page = server
        .post(question(json!({})))
        .header("origin", "https://evil.example");
    error(page.send().await.unwrap(), 403, "origin_not_allowed").await;
    assert!(server.script.asked.lock().unwrap().is_empty());
    assert_eq!(server.get("/myzel/x").await.text().await.unwrap(), "extra");
}

#[tokio::test]
async fn too_many_requests_are_sent_away_until_there_is_room() {
    let config = ApiConfig {
        requests_max: 1,
        ..ApiConfig::default()
    };
    let script = Script::new(vec![Act::Say(b"hi"), Act::Hang]);
    let server = Server::configured(script, config).await;
    let first = server.ask(json!({"stream": true})).await;
    assert_eq!(first.status(), 200);
    let second = server.ask(json!({})).await;
    assert_eq!(second.headers()["retry-after"], "2");
    error(second, 503, "overloaded").await;
    assert_eq!(server.get("/health").await.status(), 200);
    drop(first);
    server.script.cancelled(1).await;
    // The place is freed together with the receiver, but perhaps a moment later.
    let again = async {
        loop {
            match server.ask(json!({"stop": "hi"})).await.status().as_u16() {
                200 => break,
                status => assert_eq!(status, 503),
            }
        }
    };
    tokio::time::timeout(PATIENCE, again)
        .await
        .expect("the place is freed");
}

#[tokio::test]
async fn too_many_connections_are_sent_away() {
    let config = ApiConfig {
        connections_max: 1,
        ..ApiConfig::default()
    };
    let server = Server::configured(Script::new(vec![Act::Say(b"hi"), Act::Hang]), config).await;
    let first = server.ask(json!({"stream": true})).await;
    assert_eq!(first.status(), 200);
    let second = server.get("/health").await;
    assert_eq!(second.headers()["retry-after"], "2");
    error(second, 503, "overloaded").await;
}
