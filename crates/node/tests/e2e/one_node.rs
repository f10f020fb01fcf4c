//! One node, the starter model: what a client and the command line see.

use crate::support::http::{greedy, question, seeded, with};
use crate::support::models::{STARTER, STARTER_LAYERS, untaught};
use crate::support::node::Setup;
use crate::support::processes::engine_hosts;
use node::status::Answers;
use serde_json::json;

const RIVERS: &str = "Name three rivers.";

#[tokio::test]
async fn a_node_answers_and_streams_the_same() {
    let node = Setup::new("solo").up().await;
    let client = node.client();
    for (body, repeatable) in [
        (greedy(RIVERS, 24), true),
        (seeded(RIVERS, 7, 24), true),
        (seeded("Write a line of a poem.", 8, 24), true),
        (with(seeded(RIVERS, 7, 24), json!({"top_k": 5})), true),
        (
            with(
                question(RIVERS),
                json!({"temperature": 1.5, "max_tokens": 24}),
            ),
            false,
        ),
    ] {
        let whole = client.ask(body.clone()).await.unwrap();
        let streamed = client.stream(body.clone()).await.unwrap();
        let counted = |n: &str| whole.usage[n].as_u64().unwrap();
        assert!(
            (1..=24).contains(&counted("completion_tokens")),
            "{whole:?}"
        );
        assert!(counted("prompt_tokens") > 5, "{whole:?}");
        assert_eq!(
            counted("prompt_tokens") + counted("completion_tokens"),
            counted("total_tokens")
        );
        assert_eq!(
            whole == streamed,
            repeatable,
            "{body}: {whole:?} and {streamed:?}"
        );
    }
    let [one, other] = [1, 2].map(|seed| seeded(RIVERS, seed, 24));
    let (one, other) = (
        client.ask(one).await.unwrap(),
        client.ask(other).await.unwrap(),
    );
    assert_ne!(one.text, other.text, "seeds matter");
}

#[tokio::test]
async fn a_model_without_a_chat_template_goes_on_with_texts() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("untaught")
        .model(&untaught(dir.path()))
        .up()
        .await;
    let client = node.client();
    let text = json!({"prompt": "Once upon a time", "temperature": 0, "max_tokens": 8});
    let (status, answer) = client.send("/v1/completions", text).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["text"].is_string(), "{answer}");
    let refusal = client.ask(greedy(RIVERS, 8)).await.unwrap_err();
    assert_eq!(refusal.status, 400);
    refusal.says(&["no chat template", "send a prompt"]);
}

#[tokio::test]
async fn limits_and_stop_strings_end_an_answer() {
    let node = Setup::new("solo").up().await;
    let client = node.client();
    let long = client
        .ask(greedy("Count from one to twenty.", 40))
        .await
        .unwrap();
    let cut = client
        .ask(greedy("Count from one to twenty.", 7))
        .await
        .unwrap();
    assert_eq!(
        (cut.finish.as_str(), &cut.usage["completion_tokens"]),
        ("length", &json!(7))
    );
    assert!(long.text.starts_with(&cut.text), "{long:?} {cut:?}");

    // A stop string from the middle, which may lie across tokens: everything before it comes, nothing of it.
    let text: Vec<char> = long.text.chars().collect();
    let stop: String = text[text.len() / 2..text.len() / 2 + 5].iter().collect();
    let before = long.text.split(&stop).next().unwrap();
    let body = with(
        greedy("Count from one to twenty.", 40),
        json!({"stop": ["never there", stop]}),
    );
    for answer in [
        client.ask(body.clone()).await.unwrap(),
        client.stream(body).await.unwrap(),
    ] {
        assert_eq!(
            (answer.text.as_str(), answer.finish.as_str()),
            (before, "stop"),
            "{stop:?}"
        );
    }
}

#[tokio::test]
async fn ready_means_that_it_has_answered_and_the_command_line_agrees_with_the_endpoint() {
    let node = Setup::new("the solo one").up().await;
    // Nobody but the node itself has asked so far.
    let status = node.status();
    assert!(
        status.rates.requests >= 1 && status.rates.tokens >= 1,
        "{status:?}"
    );
    assert_eq!(status.rates.failed, 0);
    assert!(
        status.rates.threads >= 1 && status.rates.engine_bytes > 50_000_000,
        "{status:?}"
    );
    assert!(status.ready_s.is_some());
    assert_eq!(
        (status.name.as_str(), status.answers),
        ("the solo one", Answers::Home)
    );
    assert_eq!(status.api, node.url);
    let model = &status.model;
    assert_eq!(
        (model.name.as_str(), model.layers),
        (STARTER, STARTER_LAYERS)
    );
    assert_eq!(model.blake3.to_string(), specimen::starter::STARTER_BLAKE3);
    assert_eq!(
        (model.context, model.sessions, model.sessions_max),
        (Some(4096), 0, 4)
    );
    assert!(
        status.ring.is_none() && status.hosting.is_empty() && status.nodes.is_empty(),
        "{status:?}"
    );
    assert_eq!(
        node.printed().len(),
        1,
        "one line on standard output: {:?}",
        node.printed()
    );

    let client = node.client();
    let (code, models) = client.get("/v1/models").await;
    assert_eq!((code, &models["data"][0]["id"]), (200, &json!(STARTER)));
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    let (code, health) = client.get("/health").await;
    assert_eq!((code, &health["status"]), (200, &json!("ok")), "{health}");

    let setup = node.setup();
    let asked = client.ask(greedy("Name three rivers.", 20)).await.unwrap();
    let flags = ["--temperature", "0", "--max-tokens", "20"];
    let said = setup.cli(&[
        "ask",
        "Name three rivers.",
        flags[0],
        flags[1],
        flags[2],
        flags[3],
    ]);
    assert_eq!(said, format!("{}\n", asked.text));
    let page = setup.cli(&["status"]);
    for part in ["the solo one", STARTER, &node.url, "whole on this node"] {
        assert!(page.contains(part), "{part:?} is not in: {page}");
    }
    assert_eq!(
        node.engine_hosts().len(),
        1,
        "its computing is done by one child"
    );
    assert_eq!(engine_hosts(node.pid), node.engine_hosts());
}
