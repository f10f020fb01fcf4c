//! How answers end early: clients that go away, stop strings, slow readers, shutdown.

use crate::server::{Act, PATIENCE, Script, Server, error, question};
use api::{ApiConfig, Finish};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request by hand, so that the connection can be dropped at any time.
async fn send(server: &Server, fields: Value) -> TcpStream {
    let body = question(fields);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

/// Waits until the model was asked so often.
async fn asked(server: &Server, count: usize) {
    let waiting = async {
        while server.script.asked.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the question arrives");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_even_while_no_token_comes() {
    for (fields, before) in [
        (json!({}), vec![]),
        (json!({}), vec![Act::Say(b"a")]),
        (json!({"stream": true}), vec![]),
    ] {
        let acts = [before, vec![Act::Hang]].concat();
        let server = Server::start(Script::new(acts)).await;
        let stream = send(&server, fields).await;
        asked(&server, 1).await;
        drop(stream);
        server.script.cancelled(1).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_running_stream_cancels() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), Act::Hang])).await;
    let mut stream = send(&server, json!({"stream": true})).await;
    let mut text = String::new();
    while !text.contains("\"content\":\"a\"") {
        let mut buffer = [0; 4096];
        let bytes = stream.read(&mut buffer).await.unwrap();
        assert_ne!(bytes, 0, "{text}");
        text += std::str::from_utf8(&buffer[..bytes]).unwrap();
    }
    drop(stream);
    server.script.cancelled(1).await;
}

#[tokio::test]
async fn a_stop_string_cancels() {
    let server = Server::start(Script::new(vec![Act::Say(b"ab"), Act::Hang])).await;
    let whole: Value = server.ask(json!({"stop": "b"})).await.json().await.unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], "a");
    server.script.cancelled(1).await;
    let events = server.stream(json!({"stop": "b"})).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    server.script.cancelled(2).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_the_model_down() {
    let server = Server::start(Script::new(vec![Act::Babble])).await;
    let stream = send(&server, json!({"stream": true})).await;
    let mut said = server.script.said.subscribe();
    // The sockets' buffers fill up; then no token comes for a while.
    let quiet = std::time::Duration::from_millis(500);
    while tokio::time::timeout(quiet, said.changed()).await.is_ok() {
        let bytes = *said.borrow_and_update() << 16;
        assert!(bytes < 256 << 20, "the answer piles up somewhere");
    }
    assert!(*said.borrow() > 4, "the model did speak");
    drop(stream);
    server.script.cancelled(1).await;
}

#[tokio::test]
async fn shutdown_ends_answers_with_an_error_and_the_server_returns() {
    let server = Server::start(Script::new(vec![Act::Say(b"a"), Act::Hang])).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let streamed = server.ask(json!({"stream": true})).await;
    let whole = tokio::spawn(server.post(question(json!({}))).send());
    asked(&server, 2).await;
    server.config.shutdown.cancel();
    let events = crate::server::events(&streamed.text().await.unwrap());
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down");
    error(whole.await.unwrap().unwrap(), 503, "shutting_down").await;
    server.script.cancelled(2).await;
    let mut server = server;
    tokio::time::timeout(PATIENCE, &mut server.task)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let server = Server::start(Script::new(vec![Act::Babble])).await;
    let stuck = send(&server, json!({"stream": true})).await;
    let mut said = server.script.said.subscribe();
    let quiet = std::time::Duration::from_millis(500);
    while tokio::time::timeout(quiet, said.changed()).await.is_ok() {}
    server.config.shutdown.cancel();
    let mut server = server;
    tokio::time::timeout(PATIENCE, &mut server.task)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    server.script.cancelled(1).await;
    drop(stuck);
}

#[tokio::test]
async fn a_server_that_is_dropped_takes_its_answers_with_it() {
    let config = ApiConfig::default();
    let acts = vec![Act::Say(b"a"), Act::Hang, Act::Finish(Finish::Stop)];
    let server = Server::configured(Script::new(acts), config).await;
    let _stream = send(&server, json!({"stream": true})).await;
    asked(&server, 1).await;
    server.task.abort();
    server.script.cancelled(1).await;
}
