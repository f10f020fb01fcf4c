//! Newcomers with an empty disk and no way out: models come from the other members.

use crate::support::http::greedy;
use crate::support::models::{STARTER, small};
use crate::support::netns::Machines;
use crate::support::node::{Node, Setup, says};
use crate::support::wait::within;
use node::content::FetchStatus;
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;
use specimen::{Family, Shape, Weights};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A node that shares no disk with others.
fn newcomer(name: &str) -> (Setup, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap().to_owned();
    (Setup::new(name).env("XDG_DATA_HOME", &path), home)
}

/// Waits until a node hands its model on; returns that and the node.
async fn handed_on(node: &Node) -> (Hash, NodeId) {
    let status = node.status_when("the model is handed on", |status| {
        status.handed_on.contains(&status.model.blake3)
    });
    let status = status.await;
    (status.model.blake3, status.node)
}

/// Both delivered, and nobody failed.
fn from_both(fetch: &FetchStatus, providers: [NodeId; 2]) {
    for node in providers {
        let told = fetch.providers.iter().find(|told| told.node == node);
        let told = told.unwrap_or_else(|| panic!("{} was not asked: {fetch:?}", node.short()));
        assert!(told.bytes > 0 && told.why.is_none(), "{fetch:?}");
    }
    let sum: u64 = fetch.providers.iter().map(|provider| provider.bytes).sum();
    assert_eq!(sum, fetch.bytes, "nothing came twice: {fetch:?}");
}

#[tokio::test]
async fn an_empty_disk_and_a_ticket_suffice_for_an_endpoint_of_ones_own() {
    let machines = Machines::new(3);
    assert!(machines.routes(3).starts_with("10.77.0.0/24 dev eth0"));
    assert_eq!(machines.routes(3).lines().count(), 1, "there is no way out");
    let a = Setup::new("a").inside(machines.name(1)).up().await;
    let b = Setup::new("b").inside(machines.name(2)).join(&a).up().await;
    let ((root, a_id), (_, b_id)) = (handed_on(&a).await, handed_on(&b).await);
    let before = machines.received_bytes(3);
    let (setup, _home) = newcomer("c");
    let c = setup.inside(machines.name(3)).join(&a).up().await;
    let status = c.status();
    assert_eq!(
        (status.model.name.as_str(), status.model.blake3),
        (STARTER, root)
    );
    // The header first, which says that the rest is worth fetching.
    let fetched: u64 = status.fetches.iter().map(|fetch| fetch.bytes).sum();
    assert!(status.fetches.iter().all(|fetch| fetch.model == root));
    assert_eq!(fetched, status.model.bytes);
    from_both(&status.fetches[0], [a_id, b_id]);
    let shown = c.setup().cli(&["status"]);
    says(&shown, &["fetched   all of ", " bytes in ", " ms from "]);
    let received = machines.received_bytes(3) - before;
    assert!(
        received >= fetched,
        "all of it came over the wire: {received}"
    );
    let expected = a
        .setup()
        .cli(&["ask", "--temperature", "0", "--max-tokens", "12", "Hello."]);
    drop((a, b));
    let answer = c
        .setup()
        .cli(&["ask", "--temperature", "0", "--max-tokens", "12", "Hello."]);
    assert_eq!(answer, expected, "it is on its own now");
    handed_on(&c).await;
}

/// A model that only some have.
fn rare(dir: &Path) -> PathBuf {
    let shape = Shape {
        layers: 12,
        embedding: 256,
        feed_forward: 1024,
        ..Shape::SMALL
    };
    let path = dir.join("rare.gguf");
    let bytes = specimen::bytes(Family::Llama, &shape, Weights::F32, 2);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn a_stage_fetches_its_range_and_no_more_from_two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (model, nonsense) = (rare(dir.path()), small(dir.path()));
    let (setup, _home) = newcomer("c");
    let c = setup.model(&nonsense).up().await;
    let b = Setup::new("b").model(&model).join(&c).up().await;
    handed_on(&b).await;
    let a = Setup::new("a").model(&model).join(&c).exact().up().await;
    let (root, a_id) = handed_on(&a).await;
    let body = || greedy("abc", 8);
    let expected = a.client().ask(body()).await.unwrap();
    let setup = a.setup().clone();
    drop(a);
    let setup = setup
        .split(1)
        .arg("--room", "circle")
        .arg("--circle", &c.id().to_string());
    let a = setup.join(&b).up().await;
    let ring = a.ring_up().await.ring.unwrap();
    assert_eq!(ring.stages[0].name, "c");
    let LayerRange { first, end } = ring.stages[0].layers;
    let status = c.status();
    let fetch = status
        .fetches
        .iter()
        .find(|fetch| fetch.what.starts_with("layers"));
    let fetch = fetch.expect("the layers were fetched");
    assert_eq!(fetch.what, format!("layers {first}..{end} of rare"));
    assert_eq!(fetch.model, root);
    from_both(fetch, [a_id, b.id()]);
    let whole = std::fs::metadata(&model).unwrap().len();
    let part = whole * u64::from(end - first) / 12;
    assert!(
        fetch.bytes < part + part / 10,
        "{} of {whole}: more than its range",
        fetch.bytes
    );
    assert_eq!(a.client().ask(body()).await.unwrap().text, expected.text);
    // What it has now it hands on, too.
    assert!(c.status().handed_on.contains(&root));
    // And it keeps further layers, so that taking over will be a load and no download.
    let spare = within(SPARE_MAX, "a spare range is on disk", || {
        let fetches = c.status().fetches.into_iter();
        let mut spare = fetches.filter(|fetch| fetch.what.ends_with(" of rare, to spare"));
        let spare = spare.next_back();
        async { spare }
    });
    let spare = spare.await;
    assert!(!spare.what.starts_with(&format!("layers {first}..{end} ")));
    assert!(spare.bytes < part + part / 10, "{spare:?} of {whole}");
}

/// Within what time a host has fetched a spare range: it looks once a minute at least.
const SPARE_MAX: Duration = Duration::from_secs(120);

/// How fast the others hand on in the test below: its stage of some 17 MB takes longer than a hop may stay unanswered.
const SLOW_UPLOAD: &str = "448KiB";
/// How long a hop may stay unanswered, in milliseconds.
const HOP_WELCOME_MS: u64 = net::limits::HOP_WELCOME_MS;

#[tokio::test]
async fn a_stage_that_fetches_for_long_is_waited_for_and_says_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (model, nonsense) = (rare(dir.path()), small(dir.path()));
    let homes = ["b", "c"].map(newcomer);
    let [b, c] = homes.each_ref().map(|(setup, _)| {
        let setup = setup.clone().model(&nonsense);
        setup.arg("--upload", SLOW_UPLOAD)
    });
    let b = b.up().await;
    let c = c.join(&b).up().await;
    // A ring of people's choice goes in the order of keys. The first stage has the model, the second must fetch it.
    let (first, second) = if b.id() < c.id() { (b, c) } else { (c, b) };
    let setup = first.setup().clone();
    drop(first);
    let first = setup.model(&model).up().await;
    handed_on(&first).await;
    let a = Setup::new("a").model(&model).join(&second).split(2);
    let a = a.arg("--upload", SLOW_UPLOAD).up().await;
    let status = a.status_when("a stage fetches", |status| {
        status.ring.as_ref().unwrap().state == "loading"
    });
    let why = status.await.ring.unwrap().why.unwrap();
    let name = format!("{:?}", second.status().name);
    says(&why, &[&name, "has fetched", "MiB of its layers"]);
    let stages = a.ring_up().await.ring.unwrap().stages;
    assert_eq!([stages[0].node, stages[1].node], [first.id(), second.id()]);
    assert!(stages[1].load_ms > HOP_WELCOME_MS, "too fast: {stages:?}");
    let said = a.said();
    assert!(!said.contains("there is no ring"), "{said}");
}
