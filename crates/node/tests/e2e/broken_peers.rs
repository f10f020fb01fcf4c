//! Peers that are killed or freeze in the middle of an answer: named within 5 s, and the ring comes back by itself.

use crate::support::http::{Answer, Refusal, greedy};
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use crate::support::processes::{lives, state};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the issue allows from a peer's loss to the error.
const ERROR_MAX: Duration = Duration::from_secs(5);

/// A coordinator and two hosts, each with a stage.
struct Ring {
    a: Node,
    /// In the order of their stages.
    hosts: Vec<Node>,
    /// What it answers when all is well.
    expected: Answer,
}

impl Ring {
    async fn form(dir: &Path) -> Self {
        let model = slow(dir);
        let a = Setup::new("a").model(&model).split(2).up().await;
        let join = |name| Setup::new(name).model(&model).join(&a);
        let mut hosts = vec![join("bo").up().await, join("cy").up().await];
        let status = a.ring_up().await;
        let first = status.ring.unwrap().stages[0].node;
        if hosts[0].id() != first {
            hosts.swap(0, 1);
        }
        let expected = a.client().ask(greedy("hello", 16)).await.unwrap();
        Self { a, hosts, expected }
    }

    /// Does something to the host of stage `i` + 1 in the middle of an answer, and sees that it is blamed in time.
    async fn strikes(&mut self, i: usize, strike: impl FnOnce(&mut Node)) {
        let (id, name) = (self.hosts[i].id().short(), self.hosts[i].status().name);
        let blamed = |refusal: &Refusal| {
            assert_eq!(refusal.code, "peer_lost", "{refusal:?}");
            refusal.says(&[
                &id,
                &format!("{name:?}"),
                &format!("stage {}", i + 1),
                "node",
            ]);
        };
        let client = self.a.client();
        let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
        stream.texts(5).await;
        strike(&mut self.hosts[i]);
        let struck = Instant::now();
        let refusal = stream.error().await;
        let took = struck.elapsed();
        blamed(&refusal);
        assert!(took <= ERROR_MAX, "the error took {took:?}: {refusal:?}");
        // The next one is refused at once, with the same cause.
        let refusal = client.ask(greedy("hello", 4)).await.unwrap_err();
        assert_eq!(refusal.status, 502, "{refusal:?}");
        blamed(&refusal);
        assert!(struck.elapsed() <= ERROR_MAX * 2, "the next one waited");
        let status = self.a.status();
        assert_eq!(status.answers, node::status::Answers::Nowhere);
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
    for stage in 0..2 {
        ring.strikes(stage, Node::kill9).await;
        assert!(!lives(ring.hosts[stage].pid));
        let again = ring.hosts[stage].setup().clone().up().await;
        ring.hosts[stage] = again;
        ring.a.ring_up().await;
        // The member of before is the same one, so its place in the ring is found by its id again.
        let stages = ring.a.status().ring.unwrap().stages;
        assert_eq!(stages.len(), 2);
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
    for stage in 0..2 {
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
    for stage in 0..2 {
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
