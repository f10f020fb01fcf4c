//! Nodes are lost in the middle of answers, and the very same answers go on. Exact mode: the texts are compared whole.

use crate::support::http::{Answer, greedy, seeded};
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use crate::support::processes::{lives, state};
use nix::sys::signal::Signal;
use node::status::Status;
use proto::ids::NodeId;
use serde_json::Value;
use std::path::Path;

/// Tokens of an answer: enough to lose somebody in the middle.
const TOKENS: u32 = 400;

/// A coordinator with two remote stages, and members that may take over.
struct Ring {
    a: Node,
    hosts: Vec<Node>,
    /// Of the hosts, also when they are dead.
    ids: Vec<NodeId>,
}

impl Ring {
    async fn form(dir: &Path, hosts: &[&'static str]) -> Self {
        let model = slow(dir);
        let setup = |name| Setup::new(name).model(&model).exact();
        let a = setup("a").split(2).arg("--sessions", "2").up().await;
        let mut ring = Self {
            a,
            hosts: Vec::new(),
            ids: Vec::new(),
        };
        for name in hosts {
            let host = setup(name).join(&ring.a).up().await;
            ring.ids.push(host.id());
            ring.hosts.push(host);
        }
        ring.a.ring_up().await;
        ring
    }

    /// Who has the stages, in their order.
    fn stages(&self) -> Vec<NodeId> {
        let ring = self.a.status().ring.unwrap();
        ring.stages.iter().map(|stage| stage.node).collect()
    }

    fn host_of(&self, stage: usize) -> usize {
        let node = self.stages()[stage];
        self.ids.iter().position(|id| *id == node).unwrap()
    }

    /// Waits until somebody has loaded each stage beforehand.
    async fn stood_by(&self) {
        let all = |status: &Status| {
            let ring = status.ring.as_ref().unwrap();
            let stages = 1..=ring.stages.len() as u32;
            stages
                .into_iter()
                .all(|stage| ring.standbys.iter().any(|by| by.stage == stage))
        };
        self.a.status_when("each stage has a standby", all).await;
    }

    async fn undisturbed(&self, question: &Value) -> Answer {
        self.a.client().stream(question.clone()).await.unwrap()
    }

    /// Does something to the host of a stage in the middle of an answer, and expects that the answer is as ever.
    async fn strikes(&mut self, stage: usize, question: Value, strike: impl FnOnce(&mut Node)) {
        self.strikes_after(20, stage, question, strike).await;
    }

    /// The same, once the answer has so many tokens.
    async fn strikes_after(
        &mut self,
        tokens: usize,
        stage: usize,
        question: Value,
        strike: impl FnOnce(&mut Node),
    ) {
        let expected = self.undisturbed(&question).await;
        self.stood_by().await;
        let before = self.stages();
        let at = self.host_of(stage);
        let mut stream = self.a.client().open(question).await.unwrap();
        let begun = stream.texts(tokens).await;
        strike(&mut self.hosts[at]);
        let rest = stream.answer().await.unwrap();
        assert_eq!(begun + &rest.text, expected.text);
        assert_eq!(rest.finish, expected.finish);
        let after = self.stages();
        assert_ne!(before, after, "the ring is the same as before");
        assert!(!after.contains(&before[stage]), "{after:?}");
        self.only_the_place_was_rebuilt(stage);
    }

    /// Whoever was not lost computed nothing a second time.
    fn only_the_place_was_rebuilt(&self, stage: usize) {
        let recovery = self.a.status().recoveries.pop().unwrap();
        assert_eq!(recovery.stage as usize, stage + 1, "{recovery:?}");
        assert!(recovery.resumed_ms >= recovery.formed_ms, "{recovery:?}");
        assert!(recovery.formed_ms.is_some(), "{recovery:?}");
        assert_eq!((recovery.rows_recomputed, recovery.sessions), (0, 1));
        for (at, rebuilt) in recovery.stages.iter().enumerate() {
            assert!(rebuilt.replayed == 0 || at == stage, "{recovery:?}");
        }
        eprintln!("{recovery:?}");
    }
}

#[tokio::test]
async fn a_killed_stage_is_taken_over_by_a_spare_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path(), &["bo", "cy", "di", "ed"]).await;
    ring.strikes(0, greedy("hello", TOKENS), Node::kill9).await;
    ring.strikes(1, seeded("hello", 7, TOKENS), Node::kill9)
        .await;
    let recovery = ring.a.status().recoveries.pop().unwrap();
    assert!(recovery.rows_replayed > 0, "{recovery:?}");
    let dead = ring.hosts.iter().filter(|host| !lives(host.pid)).count();
    assert_eq!((dead, ring.stages().len()), (2, 2));
}

#[tokio::test]
async fn who_stands_by_for_a_long_answer_has_its_caches_already() {
    /// Rows that may lack: those of the last feed, and what the one before it was still computing.
    const LACKING_MAX: u64 = 120;
    let dir = tempfile::tempdir().unwrap();
    for (hosts, stage) in [
        (&["b", "c", "d"][..], 0),
        (&["b", "c", "d"], 1),
        (&["b", "c"], 1),
    ] {
        let mut ring = Ring::form(dir.path(), hosts).await;
        let long = greedy(&"hello".repeat(300), TOKENS);
        ring.strikes_after(100, stage, long, Node::kill9).await;
        let recovery = ring.a.status().recoveries.pop().unwrap();
        let replayed = recovery.stages[stage].replayed;
        assert!(replayed <= LACKING_MAX, "{hosts:?} {recovery:?}");
    }
}

#[tokio::test]
async fn those_that_are_left_take_the_layers_of_a_killed_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path(), &["bo", "cy"]).await;
    ring.strikes(1, greedy("hello", TOKENS), Node::kill9).await;
    let stages = ring.stages();
    assert_eq!(stages.len(), 2);
    assert_eq!(stages[0], stages[1], "one has both");
}

#[tokio::test]
async fn a_frozen_stage_is_taken_over_and_what_it_says_when_it_thaws_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path(), &["bo", "cy", "di"]).await;
    let at = ring.host_of(0);
    let question = greedy("hello", TOKENS);
    ring.strikes(0, question.clone(), |node| node.signal(Signal::SIGSTOP))
        .await;
    assert_eq!(state(ring.hosts[at].pid), Some('T'));
    let expected = ring.undisturbed(&question).await;
    let mut stream = ring.a.client().open(question).await.unwrap();
    let begun = stream.texts(20).await;
    ring.hosts[at].signal(Signal::SIGCONT);
    let rest = stream.answer().await.unwrap();
    assert_eq!(begun + &rest.text, expected.text);
}

#[tokio::test]
async fn a_stage_that_leaves_in_good_order_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path(), &["bo", "cy", "di"]).await;
    ring.strikes(1, seeded("hello", 3, TOKENS), |node| {
        let (status, _) = node.end_by(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn caches_of_a_client_that_goes_away_are_freed_at_every_stage() {
    let dir = tempfile::tempdir().unwrap();
    let ring = Ring::form(dir.path(), &["bo", "cy"]).await;
    let mut stream = ring.a.client().open(greedy("hello", TOKENS)).await.unwrap();
    stream.texts(5).await;
    let sessions = |host: &Node| {
        host.status()
            .hosting
            .iter()
            .map(|h| h.sessions)
            .sum::<u32>()
    };
    assert!(ring.hosts.iter().all(|host| sessions(host) == 1));
    drop(stream);
    for host in &ring.hosts {
        let freed = |status: &Status| status.hosting.iter().all(|hosted| hosted.sessions == 0);
        host.status_when("its caches are freed", freed).await;
    }
}

#[tokio::test]
async fn two_at_once_are_taken_over_and_all_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::form(dir.path(), &["bo", "cy", "di"]).await;
    let question = greedy("hello", TOKENS);
    let expected = ring.undisturbed(&question).await;
    let client = ring.a.client();
    let mut streams = [
        client.open(question.clone()).await.unwrap(),
        client.open(question.clone()).await.unwrap(),
    ];
    let mut begun = Vec::new();
    for stream in &mut streams {
        begun.push(stream.texts(20).await);
    }
    let hosts = [ring.host_of(0), ring.host_of(1)];
    hosts.iter().for_each(|at| ring.hosts[*at].kill9());
    for (stream, begun) in streams.iter_mut().zip(begun) {
        assert_eq!(begun + &stream.answer().await.unwrap().text, expected.text);
    }
    let last = ring.host_of(0);
    let mut stream = client.open(question).await.unwrap();
    stream.texts(20).await;
    ring.hosts[last].kill9();
    let refusal = stream.error().await;
    assert_eq!(refusal.code, "peer_lost");
    // It had both, and the one that is not named first is named, too.
    refusal.says(&[
        "(layers",
        "\"di\"",
        "and had stage",
        "no other nodes took over",
    ]);
}
