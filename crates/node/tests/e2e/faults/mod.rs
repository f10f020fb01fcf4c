//! Faults of machines and of what lies between them, on the proving ground of crate `lab`: each is measured before it is
//! trusted, and shown to strike. Named as the rows of PROMISES.md.

mod addresses;
mod clocks;
mod disks;
mod ghosts;
mod guesses;
mod links;
mod many;
mod partitions;
mod replays;
mod sluggards;
mod zombies;

use crate::support::http::Answer;
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use lab::{Machine, World};
use proto::ids::{NodeId, RingId};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// What happens on a machine: its sockets are there, and so is the client of the node there.
///
/// # Panics
///
/// As the story does.
fn on<T: Send>(machine: &Machine, story: impl AsyncFnOnce() -> T + Send) -> T {
    let live = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime can be made").block_on(story())
    };
    machine.inside(live).expect("the machine can be entered")
}

/// A world with these machines.
///
/// # Panics
///
/// When this is not root, or the system lacks something; the message says what.
fn world<const N: usize>(seed: u64, names: [&str; N]) -> (World, [Machine; N]) {
    let mut world = World::new(seed).unwrap_or_else(|error| panic!("{error:#}"));
    let machines = world.machines(names).expect("machines can be made");
    (world, machines)
}

/// Nodes on the machines of a world, the first of which coordinates a ring over the others.
struct Ring {
    nodes: Vec<Node>,
    ids: Vec<NodeId>,
    _model: TempDir,
}

impl Ring {
    /// On each machine a node; `stages` of those behind the first get one.
    async fn form(machines: &[&Machine], stages: u32, sessions: u32) -> Self {
        Self::with(machines, stages, |setup| {
            setup.arg("--sessions", &sessions.to_string())
        })
        .await
    }

    async fn with(machines: &[&Machine], stages: u32, how: impl Fn(Setup) -> Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = slow(dir.path());
        let setup = |machine: &Machine| how(member(machine, &model));
        let mut nodes = vec![setup(machines[0]).split(stages).up().await];
        for machine in &machines[1..] {
            let node = setup(machine).join(&nodes[0]).up().await;
            nodes.push(node);
        }
        let ids = nodes.iter().map(Node::id).collect();
        nodes[0].ring_up().await;
        let ring = Self {
            nodes,
            ids,
            _model: dir,
        };
        ring.all_there().await;
        ring
    }

    /// The coordinator.
    fn a(&self) -> &Node {
        &self.nodes[0]
    }

    /// Which node has which stage, in their order.
    fn stages(&self) -> Vec<usize> {
        let stages = self.a().status().ring.unwrap().stages;
        let at = |id: NodeId| self.ids.iter().position(|other| *other == id).unwrap();
        stages.iter().map(|stage| at(stage.node)).collect()
    }

    /// The ring's name.
    fn id(&self) -> Option<RingId> {
        self.a().status().ring.unwrap().ring
    }

    /// An answer that nothing disturbs.
    async fn undisturbed(&self, question: &Value) -> Answer {
        self.a().client().stream(question.clone()).await.unwrap()
    }

    /// Waits until every node is linked with every other.
    async fn all_there(&self) {
        for node in &self.nodes {
            linked(node, self.nodes.len() - 1).await;
        }
    }
}

/// A node with the machine's name, in exact mode.
fn member(machine: &Machine, model: &Path) -> Setup {
    let setup = Setup::new(machine.name()).inside(machine.netns());
    setup.model(model).exact().arg("--context", "2048")
}

/// Waits until a node is linked with so many others.
async fn linked(node: &Node, others: usize) {
    let up = |status: &node::status::Status| {
        let up = status.nodes.iter().filter(|other| other.state == "up");
        up.count() == others
    };
    node.status_when("it is linked with the others", up).await;
}
