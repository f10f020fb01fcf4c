//! How nodes end: soon after a signal, with nothing left behind; and what a killed one leaves.

use crate::support::http::greedy;
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use crate::support::processes::lives;
use crate::support::wait::{PATIENCE, eventually, settles};
use nix::sys::signal::Signal;
use std::time::Duration;

/// What the issue allows from the signal to the end; the slack is the system's, to remove the process on a busy machine.
const END_MAX: Duration = Duration::from_millis(2_000 + 250);

/// Ends a node by a signal, and asserts how.
fn ends(node: &mut Node, signal: Signal) {
    let hosts = node.engine_hosts();
    assert!(
        !hosts.is_empty(),
        "there is an engine that could be left behind"
    );
    let (status, took) = node.end_by(signal);
    assert_eq!(status.code(), Some(0), "{signal}: {}", node.said());
    assert!(took <= END_MAX, "{signal}: it took {took:?}");
    let gone = settles(PATIENCE, || hosts.iter().all(|host| !lives(*host)));
    assert!(gone, "an engine-host outlived its node");
    let running = node.setup().dir().join(node::control::CONTROL_FILE);
    assert!(!running.exists(), "it still calls itself running");
}

#[tokio::test]
async fn a_signal_ends_a_node_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut node = Setup::new("idle").model(&model).up().await;
        ends(&mut node, signal);

        let mut node = node.setup().clone().up().await;
        let client = node.client();
        let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
        stream.texts(5).await;
        ends(&mut node, signal);
        // The client that was being served was told.
        let refusal = stream.error().await;
        assert_eq!(refusal.code, "shutting_down", "{refusal:?}");
    }
}

#[tokio::test]
async fn a_signal_ends_the_nodes_of_a_ring_within_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    for coordinator_first in [true, false] {
        let mut a = Setup::new("a").model(&model).split(1).up().await;
        let mut b = Setup::new("b").model(&model).join(&a).up().await;
        a.ring_up().await;
        let client = a.client();
        let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
        stream.texts(5).await;
        let (first, second) = if coordinator_first {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        ends(first, Signal::SIGTERM);
        stream.error().await;
        ends(second, Signal::SIGINT);
    }
}

#[tokio::test]
async fn a_signal_ends_a_node_that_is_still_starting() {
    let mut node = Setup::new("n").start();
    eventually("it loads", || async {
        (!node.engine_hosts().is_empty()).then_some(())
    })
    .await;
    ends(&mut node, Signal::SIGTERM);
    assert_eq!(
        node.printed(),
        [] as [String; 0],
        "it never called itself ready"
    );
}

#[tokio::test]
async fn a_killed_node_leaves_no_engine_and_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new("n").model(&slow(dir.path())).up().await;
    let (id, hosts) = (node.id(), node.engine_hosts());
    assert_eq!(hosts.len(), 1);
    let client = node.client();
    let mut stream = client.open(greedy("hello", 3500)).await.unwrap();
    stream.texts(5).await;
    node.kill9();
    eventually("the engine is gone", || async {
        (!lives(hosts[0])).then_some(())
    })
    .await;
    let again = node.setup().clone().up().await;
    let status = again.status();
    assert_eq!(
        (status.node, status.incarnation),
        (id, 2),
        "the same member, once more"
    );
}
