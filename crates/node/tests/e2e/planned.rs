//! Models that fit on no single node: the planner spreads them, whoever coordinates.

use crate::support::http::greedy;
use crate::support::models::small;
use crate::support::node::{Node, Setup, says};
use crate::support::processes::resident_bytes;
use crate::support::wait::{PATIENCE, settles};
use node::plan::PlanReport;
use node::status::Answers;
use specimen::{Family, Shape, Weights};
use std::path::{Path, PathBuf};

/// What every node of these tests has the engine set up for.
pub(crate) fn setup(name: &str) -> Setup {
    Setup::new(name)
        .arg("--sessions", "1")
        .arg("--context", "512")
}

/// How much more than it says an engine may have.
const SLACK: f64 = 1.1;
/// Layers of [`heavy`].
pub(crate) const LAYERS: u32 = 12;

/// A model that is mostly layers.
pub(crate) fn heavy(dir: &Path) -> PathBuf {
    let shape = Shape {
        layers: LAYERS,
        embedding: 384,
        heads: 6,
        feed_forward: 1536,
        ..Shape::SMALL
    };
    let path = dir.join("heavy.gguf");
    let bytes = specimen::bytes(Family::Llama, &shape, Weights::F32, 3);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// What the heavy model needs, as a node with room for all of it finds out, and one answer of it.
pub(crate) async fn needs(heavy: &Path) -> (PlanReport, String) {
    let alone = setup("alone").model(heavy).exact().up().await;
    let report = alone.setup().cli(&["plan", "--json"]);
    let report: PlanReport = serde_json::from_str(&report).unwrap();
    assert_eq!(report.choice.unwrap().stages, 0, "{report:?}");
    let answer = alone.client().ask(greedy("abc", 24)).await.unwrap();
    (report, answer.text)
}

/// Memory that a node started like this takes for its own model.
pub(crate) async fn small_bytes(setup: &Setup) -> u64 {
    let plenty = 1 << 40;
    let node = setup.clone().arg("--memory", "1TiB").up().await;
    let report: PlanReport = serde_json::from_str(&node.setup().cli(&["plan", "--json"])).unwrap();
    plenty - report.home.memory_bytes
}

/// So many bytes, as a setting.
pub(crate) fn kib(bytes: u64) -> String {
    format!("{}KiB", bytes.div_ceil(1024))
}

/// No engine-host of a node has more memory than the node gives.
pub(crate) fn stays_within(node: &Node, limit_bytes: u64) {
    let taken: u64 = node.engine_hosts().into_iter().map(resident_bytes).sum();
    assert!(taken > 0);
    assert!(
        taken as f64 <= limit_bytes as f64 * SLACK,
        "{taken} of {limit_bytes}"
    );
}

#[tokio::test]
async fn a_model_that_fits_nowhere_runs_over_three_nodes_whoever_coordinates() {
    let dir = tempfile::tempdir().unwrap();
    let (heavy, nonsense) = (heavy(dir.path()), small(dir.path()));
    let (needs, expected) = needs(&heavy).await;
    let setups = ["a", "b", "c"].map(setup);
    let own = small_bytes(&setup("d").model(&nonsense)).await;
    // Three layers beside the ends, and five on each of the others: one of these does not suffice.
    // Half a layer more, since a process is never twice of the same size.
    let home = needs.engine_bytes + needs.ends_bytes + needs.layer_bytes * 7 / 2;
    let other = own + needs.engine_bytes + needs.layer_bytes * 11 / 2;
    let mut ticket: Option<String> = None;
    for coordinator in [0, 1] {
        let mut nodes = Vec::new();
        for (at, setup) in setups
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != coordinator)
        {
            let setup = setup.clone().model(&nonsense).arg("--memory", &kib(other));
            let setup = match &ticket {
                Some(ticket) => setup.arg("--join", ticket),
                None => setup,
            };
            let node = setup.up().await;
            ticket = Some(node.ticket.clone());
            nodes.push((at, node));
        }
        let ring = setups[coordinator].clone().model(&heavy);
        let ring = ring.arg("--memory", &kib(home));
        let ring = ring.arg("--join", ticket.as_ref().unwrap()).up().await;
        let status = ring.ring_up().await;
        let stages = status.ring.clone().unwrap();
        assert!(stages.planned && stages.stages.len() == 2, "{stages:?}");
        let remote: u32 = stages.stages.iter().map(|stage| stage.layers.len()).sum();
        let here = stages.head.unwrap().len() + stages.tail.unwrap().len();
        assert_eq!(remote + here, LAYERS);
        assert!(here <= 3 && stages.stages.iter().all(|stage| stage.layers.len() <= 5));
        says(&ring.said(), &["does not fit on this node", "--memory"]);
        // What the ring has is free for one in place of it.
        let again: PlanReport =
            serde_json::from_str(&ring.setup().cli(&["plan", "--json"])).unwrap();
        let choice = again.choice.as_ref().map(|choice| choice.stages);
        assert_eq!(choice, Some(2), "{again:?}");
        let placed = again
            .members
            .iter()
            .filter(|member| member.layers.is_some());
        assert!(placed.clone().count() == 2 && placed.clone().all(|member| member.why.is_none()));
        let answer = ring.client().ask(greedy("abc", 24)).await.unwrap();
        assert_eq!(answer.text, expected, "coordinated by {coordinator}");
        stays_within(&ring, home);
        for (_, node) in &nodes {
            stays_within(node, other);
        }
    }
}

#[tokio::test]
async fn too_little_memory_everywhere_is_said_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let heavy = heavy(dir.path());
    let (needs, _) = needs(&heavy).await;
    let a = setup("a").model(&heavy).arg("--serve", "alone").up().await;
    let home = needs.engine_bytes + needs.ends_bytes + needs.layer_bytes * 7 / 2;
    let b = setup("b").model(&heavy).join(&a);
    let b = b.arg("--memory", &kib(home)).start();
    // The endpoint is there before the node is ready.
    settles(PATIENCE, || b.setup().run(&["status"]).status.success());
    let status = b.status_when("it knows what is missing", |status| {
        let ring = status.ring.as_ref();
        let why = ring.and_then(|ring| ring.why.as_ref());
        let offer = status.nodes.iter().find_map(|node| node.offer.as_ref());
        why.is_some_and(|why| why.contains("have no place")) && offer.is_some()
    });
    let status = status.await;
    assert_eq!(status.answers, Answers::Nowhere);
    let why = status.ring.unwrap().why.unwrap();
    says(
        &why,
        &[
            "9 of the model's 12 layers",
            "bytes of memory",
            "let more nodes join",
        ],
    );
    let offer = status.nodes[0].offer.clone().unwrap();
    assert_eq!(
        offer.why_not.as_deref(),
        Some("it does not serve this room")
    );
    assert!(a.status().hosting.is_empty(), "it was not even asked");
}
