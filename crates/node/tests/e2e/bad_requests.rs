//! Requests that cannot be answered, and clients that go away: at home and over a ring.

use crate::support::http::{Client, Refusal, greedy, question, refused, with};
use crate::support::models::{slow, small};
use crate::support::node::{Node, Setup};
use serde_json::json;

/// The context of the nodes that get too long prompts, in positions.
const CONTEXT: u32 = 256;

#[tokio::test]
async fn rubbish_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("solo").model(&small(dir.path())).up().await;
    let client = node.client();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for (body, status, code, message) in [
        (&b"{"[..], 400, "invalid_json", "JSON"),
        (b"", 400, "invalid_json", "JSON"),
        (b"\xff\xfe", 400, "invalid_utf8", "UTF-8"),
        (deep.as_bytes(), 400, "json_too_deep", "64"),
        (b"[1, 2]", 400, "invalid_", "expected"),
        (b"{}", 400, "missing_required_parameter", "model"),
        (
            br#"{"model": "small"}"#,
            400,
            "missing_required_parameter",
            "messages",
        ),
        (
            br#"{"model": "small", "messages": []}"#,
            400,
            "",
            "messages",
        ),
        (
            br#"{"model": "gone", "messages": [{"role": "user", "content": "x"}]}"#,
            404,
            "model_not_found",
            "gone",
        ),
    ] {
        let reply = client.post(body.to_vec()).await.unwrap();
        let refusal = refused(reply).await.unwrap_err();
        assert_eq!(refusal.status, status, "{refusal:?}");
        assert!(
            refusal.code.contains(code),
            "{code:?} expected: {refusal:?}"
        );
        refusal.says(&[message]);
    }
    client.ask(greedy("hello", 4)).await.unwrap();
}

/// Asserts that prompts up to the context are answered and longer ones refused, and that nothing is ever cut.
async fn context_is_a_limit(client: &Client) {
    // In the specimen's vocabulary a `z` is one token, so prompts can be made of any length.
    let ask = async |letters: usize| client.ask(greedy(&"z".repeat(letters), 9)).await;
    let prompt_tokens =
        |usage: &serde_json::Value| usage["prompt_tokens"].as_u64().unwrap() as usize;
    let base = prompt_tokens(&ask(10).await.unwrap().usage) - 10;
    let fits = CONTEXT as usize - 1 - base;
    let answer = ask(fits).await.unwrap();
    assert_eq!(
        prompt_tokens(&answer.usage),
        CONTEXT as usize - 1,
        "all of the prompt was computed"
    );
    assert!(
        answer.usage["completion_tokens"].as_u64().unwrap() <= 1,
        "{answer:?}"
    );
    for more in [1, 2, 5000] {
        let prompt = base + fits + more;
        let refused = |refusal: Refusal| {
            assert_eq!(
                (refusal.status, refusal.code.as_str()),
                (400, "context_length_exceeded")
            );
            refusal.says(&[&format!("{prompt} tokens"), &CONTEXT.to_string(), "shorten"]);
            assert_eq!(refusal.param, json!("messages"));
        };
        refused(ask(fits + more).await.unwrap_err());
        refused(
            client
                .stream(question(&"z".repeat(fits + more)))
                .await
                .unwrap_err(),
        );
    }
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_both_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let model = small(dir.path());
    let with_context = |name| {
        Setup::new(name)
            .model(&model)
            .arg("--context", &CONTEXT.to_string())
    };
    let a = with_context("a").split(1).up().await;
    context_is_a_limit(&a.client()).await;
    assert_eq!(a.status().answers, node::status::Answers::Home);
    let _b = Setup::new("b").model(&model).join(&a).up().await;
    a.ring_up().await;
    context_is_a_limit(&a.client()).await;
}

/// Asserts that an answer ends when its client hangs up: there is one place, and the next one gets it.
async fn hanging_up_frees_the_place(node: &Node) {
    let client = node.client();
    let tokens_before = node.status().rates.tokens;
    for _ in 0..3 {
        let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
        stream.texts(3).await;
        assert_eq!(
            node.status().model.sessions,
            1,
            "the answer is being computed"
        );
        drop(stream);
        node.status_when("the place is free", |status| status.model.sessions == 0)
            .await;
        let answer = client.ask(greedy("hello", 5)).await.unwrap();
        assert_eq!(answer.usage["completion_tokens"], 5);
    }
    let tokens = node.status().rates.tokens - tokens_before;
    assert!(
        tokens < 3500,
        "{tokens} tokens: the answers went on to their end"
    );
    assert_eq!(
        node.status().rates.failed,
        0,
        "a client that goes away is no failure"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_here_and_at_the_stages() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    // With one place, a stage that kept the old session would refuse the next one for want of room.
    let a = Setup::new("a")
        .model(&model)
        .arg("--sessions", "1")
        .split(2)
        .up()
        .await;
    hanging_up_frees_the_place(&a).await;
    let join = |name| Setup::new(name).model(&model).join(&a);
    let (_b, _c) = (join("b").up().await, join("c").up().await);
    a.ring_up().await;
    hanging_up_frees_the_place(&a).await;
    // A request that still waits for its place is forgotten, too.
    let client = a.client();
    let mut first = client.open(greedy("hello", 3500)).await.unwrap();
    first.texts(3).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .ask(with(greedy("hello", 3500), json!({"seed": 1})))
                .await
        }
    });
    tokio::task::yield_now().await;
    waiting.abort();
    drop(first);
    client.ask(greedy("hello", 5)).await.unwrap();
}
