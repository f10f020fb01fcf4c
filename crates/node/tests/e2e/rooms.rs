//! Rooms: a request goes to nobody outside its own, and a node computes for nobody outside its owner's.

use crate::support::http::greedy;
use crate::support::models::STARTER_EMBEDDING;
use crate::support::netns::Machines;
use crate::support::node::{Node, Setup, says};
use node::status::Answers;

/// What heartbeats, ads and gossip may come to while a few answers are made, in bytes.
const CHATTER_BYTES_MAX: u64 = 100_000;

#[tokio::test]
async fn a_request_that_asks_for_less_than_its_ring_is_refused() {
    let a = Setup::new("a").split(1).up().await;
    let _b = Setup::new("b").join(&a).up().await;
    a.ring_up().await;
    let (client, body) = (a.client(), greedy("Hello.", 4));
    client.ask_in("square", body.clone()).await.unwrap();
    for room in ["alone", "circle"] {
        let refusal = client.ask_in(room, body.clone()).await.unwrap_err();
        assert_eq!(
            (refusal.status, refusal.code.as_str()),
            (403, "outside_room")
        );
        refusal.says(&["\"b\"", "x-myzel-room"]);
    }
    let refusal = client.ask_in("alome", body).await.unwrap_err();
    assert_eq!(
        (refusal.status, refusal.code.as_str()),
        (400, "invalid_value")
    );
}

#[tokio::test]
async fn a_node_computes_for_its_owners_circle_alone() {
    let a = Setup::new("a").split(1).up().await;
    let b = Setup::new("b").join(&a).arg("--serve", "circle").up().await;
    let status = a.status_when("b has refused", |status| {
        let why = status.ring.as_ref().and_then(|ring| ring.why.as_ref());
        why.is_some_and(|why| why.contains("circle only"))
    });
    assert_eq!(status.await.answers, Answers::Home);
    assert!(b.status().hosting.is_empty());
    let (setup, key) = (b.setup().clone(), a.id().to_string());
    drop(b);
    let _b = setup.arg("--circle", &key).up().await;
    a.ring_up().await;
}

fn answer(node: &Node) -> String {
    let question = [
        "ask",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
        "Name three rivers.",
    ];
    node.setup().cli(&question)
}

#[tokio::test]
async fn not_a_row_of_a_circles_request_reaches_others() {
    let machines = Machines::new(3);
    let on = |n: usize, name: &str| Setup::new(name).inside(machines.name(n));
    let founder = on(1, "a").up().await;
    let b = on(2, "b").join(&founder).up().await;
    let c = on(3, "c").join(&founder).up().await;
    let (setup, circle) = (founder.setup().clone(), b.id().to_string());
    drop(founder);
    let setup = setup
        .split(1)
        .arg("--room", "circle")
        .arg("--circle", &circle);
    // It calls the others where they were.
    let a = setup.up().await;
    let ring = a.ring_up().await.ring.unwrap();
    assert_eq!(ring.stages[0].name, "b");
    a.status_when("c is linked, too", |status| {
        status
            .nodes
            .iter()
            .any(|node| node.name == "c" && node.state == "up")
    })
    .await;
    let counted = || [machines.received_bytes(2), machines.received_bytes(3)];
    let (before, tokens) = (counted(), a.status().rates);
    let mut text = String::new();
    for _ in 0..4 {
        text = answer(&a);
    }
    assert!(!text.is_empty());
    let after = counted();
    let rates = a.status().rates;
    let rows = rates.tokens + rates.prompt_tokens - tokens.tokens - tokens.prompt_tokens;
    let least = rows * STARTER_EMBEDDING * 4;
    assert!(
        least > 2 * CHATTER_BYTES_MAX,
        "{rows} rows do not show the difference"
    );
    assert!(
        after[0] - before[0] >= least,
        "the rows went to b: {before:?} {after:?}"
    );
    assert!(
        after[1] - before[1] <= CHATTER_BYTES_MAX,
        "c heard too much: {before:?} {after:?}"
    );
    assert!(c.status().hosting.is_empty());

    // With b gone there is nobody left in the circle: c is not asked.
    drop(b);
    let status = a.status_when("the ring is broken", |status| {
        status.answers == Answers::Nowhere
    });
    says(&status.await.ring.unwrap().why.unwrap(), &["\"b\""]);
    assert!(c.status().hosting.is_empty());
}
