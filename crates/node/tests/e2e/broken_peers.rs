//! Peers that are killed or freeze in the middle of an answer where nobody can take over: named within 5 s, and the ring comes
//! back by itself.

use crate::support::http::{Answer, Refusal, greedy};
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use crate::support::processes::{lives, state};
use crate::support::wait::eventually;
use nix::sys::signal::Signal;
use node::status::{Answers, Status};
use proto::ids::NodeId;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the issue allows from a peer's loss to the error.
const ERROR_MAX: Duration = Duration::from_secs(5);

/// A coordinator and the one host of its stage.
struct Ring {
    a: Node,
    hosts: Vec<Node>,
    /// What it answers when all is well.
    expected: Answer,
}

impl Ring {
    async fn form(dir: &Path) -> Self {
        let model = slow(dir);
        let a = Setup::new("a")
            .model(&model)
            .split(1)
            .arg("--sessions", "2")
            .up()
            .await;
        let join = |name| Setup::new(name).model(&model).join(&a);
        let hosts = vec![join("bo").up().await];
        a.ring_up().await;
        let expected = a.client().ask(greedy("hello", 16)).await.unwrap();
        Self { a, hosts, expected }
    }

    /// Which stage the node has at the moment, from 1.
    fn stage_of(&self, node: NodeId) -> u32 {
        let stages = self.a.status().ring.unwrap().stages;
        stages.iter().find(|s| s.node == node).unwrap().stage
    }

    /// Does something to host `i` in the middle of two answers, and sees that it is blamed in time: by both, by a
    /// request that waits for its turn, and by one that comes later.
    async fn strikes(&mut self, i: usize, strike: impl FnOnce(&mut Node)) {
        let (id, name) = (self.hosts[i].id(), self.hosts[i].status().name);
        let stage = format!("stage {} (layers", self.stage_of(id));
        let (id, name) = (id.short(), format!("{name:?}"));
        let blamed = |refusal: &Refusal| {
            assert_eq!(refusal.code, "peer_lost", "{refusal:?}");
            refusal.says(&[&stage, &id, &name, "node"]);
        };
        let client = self.a.client();
        let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
        let mut other = client.open(greedy("hi", 3500)).await.unwrap();
        stream.texts(5).await;
        other.texts(5).await;
        let waiting = client.ask(greedy("hello", 4));
        let struck = async {
            strike(&mut self.hosts[i]);
            let struck = Instant::now();
            for stream in [&mut stream, &mut other] {
                let refusal = stream.error().await;
                let took = struck.elapsed();
                blamed(&refusal);
                assert!(took <= ERROR_MAX, "the error took {took:?}: {refusal:?}");
            }
        };
        let (waiting, ()) = futures::future::join(waiting, struck).await;
        blamed(&waiting.unwrap_err());
        // Later ones hear the same, but for the moment in which the rest tries to form a ring.
        eventually("a refusal that names the peer", || async {
            let refusal = client.ask(greedy("hello", 4)).await.unwrap_err();
            assert!([502, 503].contains(&refusal.status), "{refusal:?}");
            (refusal.status == 502).then(|| blamed(&refusal))
        })
        .await;
        let status = self.a.status();
        assert_eq!(status.answers, Answers::Nowhere);
        assert!(status.ring.unwrap().why.unwrap().contains(&id));
        assert!(lives(self.a.pid));
    }

    async fn recovers(&self) {
        self.a.ring_up().await;
        assert_eq!(
            self.a.client().ask(greedy("hello", 16)).await.unwrap(),
            self.expected
        );
    }
}

#[tokio::test]
async fn a_killed_peer_is_named_and_the_ring_comes_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path()).await;
    for stage in 0..1 {
        ring.strikes(stage, Node::kill9).await;
        assert!(!lives(ring.hosts[stage].pid));
        let again = ring.hosts[stage].setup().clone().up().await;
        ring.hosts[stage] = again;
        ring.a.ring_up().await;
        // The member of before is the same one, so its place in the ring is found by its id again.
        let stages = ring.a.status().ring.unwrap().stages;
        assert_eq!(stages.len(), 1);
        assert!(
            stages.iter().any(|s| s.node == ring.hosts[stage].id()),
            "{stages:?}"
        );
        ring.recovers().await;
    }
}

#[tokio::test]
async fn a_frozen_peer_is_named_and_the_ring_comes_back_when_it_thaws() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path()).await;
    for stage in 0..1 {
        // Its engine goes on running; nobody feeds it.
        ring.strikes(stage, |node| node.signal(Signal::SIGSTOP))
            .await;
        assert_eq!(
            state(ring.hosts[stage].pid),
            Some('T'),
            "it was frozen all the time"
        );
        ring.hosts[stage].signal(Signal::SIGCONT);
        ring.recovers().await;
    }
}

#[tokio::test]
async fn a_peer_that_leaves_in_good_order_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path()).await;
    for stage in 0..1 {
        ring.strikes(stage, |node| {
            let (status, _) = node.end_by(Signal::SIGTERM);
            assert_eq!(status.code(), Some(0));
        })
        .await;
        let again = ring.hosts[stage].setup().clone().up().await;
        ring.hosts[stage] = again;
        ring.recovers().await;
    }
}

#[tokio::test]
async fn a_killed_coordinator_frees_its_hosts_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path()).await;
    let client = ring.a.client();
    let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
    stream.texts(5).await;
    for host in &ring.hosts {
        let engines = host.engine_hosts().len();
        let all = "the whole model, the stage, and perhaps one that stands by";
        assert!((2..=3).contains(&engines), "{engines}: {all}");
    }
    ring.a.kill9();
    for host in &ring.hosts {
        let freed = |status: &Status| status.hosting.is_empty();
        host.status_when("the stage is given up", freed).await;
        eventually("the stage's engine has ended", || async {
            (host.engine_hosts().len() == 1).then_some(())
        })
        .await;
    }
    let again = ring.a.setup().clone().up().await;
    ring.a = again;
    ring.recovers().await;
}
