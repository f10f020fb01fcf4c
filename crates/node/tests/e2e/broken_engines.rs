//! Engine processes that die in the middle of an answer: one's own is an error, a stage's is waited for; and then everything
//! works again.

use crate::support::http::{Answer, Client, Refusal, greedy};
use crate::support::models::slow;
use crate::support::node::{Node, Setup};
use crate::support::processes::{lives, signal};
use crate::support::wait::eventually;
use nix::sys::signal::Signal;

/// Asks until it is answered. What is refused meanwhile must be an honest error.
async fn answered_again(client: &Client) -> Answer {
    eventually("an answer after the engine was lost", || async {
        let refusal = match client.ask(greedy("hello", 16)).await {
            Ok(answer) => return Some(answer),
            Err(refusal) => refusal,
        };
        assert!([500, 502, 503].contains(&refusal.status), "{refusal:?}");
        None
    })
    .await
}

/// Kills the engines of `victim` in the middle of an answer of `asked`; returns the error.
async fn killed_meanwhile(asked: &Client, victim: &Node) -> Refusal {
    let mut stream = asked.open(greedy("hello", 3500)).await.unwrap();
    stream.texts(5).await;
    let hosts = victim.engine_hosts();
    assert!(!hosts.is_empty(), "there is an engine to kill");
    for host in &hosts {
        signal(*host, Signal::SIGKILL);
    }
    let refusal = stream.error().await;
    eventually("the engines are dead", || async {
        hosts.iter().all(|host| !lives(*host)).then_some(())
    })
    .await;
    refusal
}

#[tokio::test]
async fn the_engine_of_a_node_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new("solo")
        .model(&slow(dir.path()))
        .exact()
        .up()
        .await;
    let client = node.client();
    let expected = client.ask(greedy("hello", 16)).await.unwrap();
    for _ in 0..2 {
        let refusal = killed_meanwhile(&client, &node).await;
        assert_eq!(refusal.code, "internal_error");
        refusal.says(&[
            "engine",
            "in the middle of this request",
            "SIGKILL",
            "ask again",
        ]);
        assert_eq!(answered_again(&client).await, expected);
    }
    assert_eq!(node.engine_hosts().len(), 1);
    assert_eq!(node.status().rates.failed, 2);
}

#[tokio::test]
async fn the_engines_of_a_ring() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let a = Setup::new("a").model(&model).split(2).up().await;
    let join = |name| Setup::new(name).model(&model).join(&a);
    let (b, c) = (join("b").up().await, join("c").up().await);
    a.ring_up().await;
    let client = a.client();
    let expected = client.ask(greedy("hello", 16)).await.unwrap();

    let refusal = killed_meanwhile(&client, &a).await;
    assert_eq!(refusal.code, "internal_error");
    refusal.says(&["engine here", "ask again"]);
    assert_eq!(answered_again(&client).await, expected);

    let long = client.stream(greedy("hello", 400)).await.unwrap();
    for peer in [&b, &c] {
        let mut stream = client.open(greedy("hello", 400)).await.unwrap();
        let begun = stream.texts(5).await;
        let hosts = peer.engine_hosts();
        let all = "the whole model, the stage, and perhaps one that stands by";
        assert!((2..=3).contains(&hosts.len()), "{hosts:?}: {all}");
        hosts.iter().for_each(|host| signal(*host, Signal::SIGKILL));
        let rest = stream.answer().await.unwrap();
        assert_eq!(begun + &rest.text, long.text);
        assert!(hosts.iter().all(|host| !lives(*host)));
    }
}
