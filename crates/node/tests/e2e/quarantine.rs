//! Models that bring their engine down: the node lives, says why, and stops trying after three times.

use crate::support::http::{Client, Refusal, greedy};
use crate::support::models::{touchy, twice};
use crate::support::node::{Node, Setup, says};
use crate::support::wait::eventually;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;

/// A letter over which the touchy model's engine aborts.
const BAIT: &str = "caf\u{e9}";

async fn answered_again(client: &Client) {
    eventually(
        "an answer from the engine that was started again",
        || async { client.ask(greedy("hello", 4)).await.ok() },
    )
    .await;
}

/// Lets the engine abort, three times; returns the last error.
async fn three_aborts(node: &Node) -> Refusal {
    let client = node.client();
    let mut last = None;
    for _ in 0..3 {
        answered_again(&client).await;
        assert_eq!(node.status().quarantine, [], "not yet");
        let refusal = client.ask(greedy(BAIT, 4)).await.unwrap_err();
        refusal.says(&["the engine process ended", "SIGABRT", "ask again"]);
        last = Some(refusal);
    }
    last.unwrap()
}

async fn quarantined(node: &Node) {
    let status = node
        .status_when("the model is quarantined", |status| {
            !status.quarantine.is_empty()
        })
        .await;
    let held = &status.quarantine[0];
    assert_eq!(
        (held.model, held.name.as_str()),
        (status.model.blake3, "touchy")
    );
    says(
        &held.why,
        &["3 engine processes died", "SIGABRT", "myzel model release"],
    );
    let refusal = eventually("requests are refused for it", || async {
        let refusal = node.client().ask(greedy("hello", 4)).await.unwrap_err();
        (refusal.code == "model_quarantined").then_some(refusal)
    })
    .await;
    assert_eq!(refusal.status, 503);
    refusal.says(&["touchy", "quarantined", "myzel model release"]);
    assert_eq!(
        node.engine_hosts(),
        [] as [u32; 0],
        "nothing is started any more"
    );
}

#[tokio::test]
async fn a_model_that_aborts_three_times_is_held_until_its_owner_releases_it() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new("n").model(&touchy(dir.path()));
    let mut node = setup.up().await;
    three_aborts(&node).await;
    quarantined(&node).await;
    says(&setup.cli(&["status"]), &["held      the model touchy"]);
    says(
        &setup.cli(&["model", "list"]),
        &["quarantined: the model touchy"],
    );

    // It survives the node, and says so before anything is tried.
    assert!(node.end_by(Signal::SIGTERM).0.success());
    drop(node);
    let said = setup.refused();
    says(
        &said,
        &[
            "the model touchy",
            "quarantined",
            "SIGABRT",
            "myzel model release",
        ],
    );
    assert!(!said.contains("loading"), "it was tried: {said}");
    let list: Value = serde_json::from_str(&setup.cli(&["model", "list", "--json"])).unwrap();
    assert_eq!(list["quarantine"][0]["name"], "touchy");
    says(
        &setup.cli_fails(&["model", "release", "other"]),
        &["no model other is quarantined"],
    );
    says(
        &setup.cli(&["model", "release", "touchy"]),
        &["released touchy"],
    );

    // Released while the node runs, it is tried again at once.
    let node = setup.up().await;
    three_aborts(&node).await;
    quarantined(&node).await;
    let hash = node.status().model.blake3.to_string();
    setup.cli(&["model", "release", &hash]);
    answered_again(&node.client()).await;
    assert_eq!(node.status().quarantine, []);
}

/// A start that the model's engine does not survive.
fn refused(model: &Path, setup: &Setup) -> String {
    let said = setup.clone().model(model).refused();
    says(&said, &["twice"]);
    said
}

#[tokio::test]
async fn a_model_that_aborts_while_it_loads_is_held_after_three_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (model, setup) = (twice(dir.path()), Setup::new("n"));
    for _ in 0..3 {
        says(
            &refused(&model, &setup),
            &["cannot be loaded", "SIGABRT", "GGML_ASSERT"],
        );
    }
    let said = refused(&model, &setup);
    says(
        &said,
        &[
            "quarantined",
            "3 engine processes died",
            "myzel model release",
        ],
    );
    assert!(!said.contains("loading"), "it was tried: {said}");
    // Another model is not to blame.
    let good = crate::support::models::small(dir.path());
    setup.model(&good).up().await;
}
