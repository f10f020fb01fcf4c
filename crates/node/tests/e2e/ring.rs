//! Rings of real processes on loopback: the same tokens as one node, on the starter model.

use crate::support::http::{Answer, Client, greedy, seeded};
use crate::support::models::{STARTER_LAYERS, small};
use crate::support::node::{Node, Setup};
use futures::future::join_all;
use node::status::{Answers, RingStatus, Status};
use proto::model::{LayerRange, Numerics};
use serde_json::Value;

/// Words of [`questions`]' long one: more than two chunks of prefill, each of which travels as frames of its own.
const LONG_WORDS: usize = 640;

/// Short and long, greedy and drawn with seeds.
fn questions() -> Vec<Value> {
    let words = [
        "river", "stone", "lamp", "seven", "green", "quiet", "road", "winter",
    ];
    let long: Vec<&str> = (0..LONG_WORDS)
        .map(|i| words[(i * i + i / 7) % words.len()])
        .collect();
    vec![
        greedy("Name three rivers.", 24),
        seeded("Name three rivers.", 11, 24),
        seeded("Write a line of a poem.", 12, 32),
        greedy(
            &format!("Which word comes most often? {}", long.join(" ")),
            16,
        ),
    ]
}

async fn answers(client: &Client) -> Vec<Answer> {
    let mut answers = Vec::new();
    for question in questions() {
        answers.push(client.ask(question).await.unwrap());
    }
    answers
}

/// The layers of a ring in order; they must follow each other without a gap.
fn layers(ring: &RingStatus) -> Vec<LayerRange> {
    let remote = ring.stages.iter().map(|stage| stage.layers);
    let all: Vec<LayerRange> = ring
        .head
        .into_iter()
        .chain(remote)
        .chain(ring.tail)
        .collect();
    assert_eq!(all[0].first, 0);
    assert_eq!(all.last().unwrap().end, STARTER_LAYERS);
    assert!(
        all.windows(2).all(|pair| pair[0].end == pair[1].first),
        "{all:?}"
    );
    all
}

/// That each stage's host knows of it.
fn hosted_there(status: &Status, hosts: &[&Node]) {
    let ring = status.ring.as_ref().unwrap();
    for stage in &ring.stages {
        let host = hosts
            .iter()
            .map(|host| host.status())
            .find(|host| host.node == stage.node);
        let host = host.expect("the stage is on a node that we started");
        let hosting = host
            .hosting
            .iter()
            .find(|hosting| Some(hosting.ring) == ring.ring)
            .unwrap();
        assert_eq!((hosting.stage, hosting.layers), (stage.stage, stage.layers));
        assert_eq!(
            (hosting.coordinator, &host.name),
            (status.node, &stage.name)
        );
        assert!(stage.same_class, "all run on this machine: {stage:?}");
    }
}

#[tokio::test]
async fn rings_of_real_processes_answer_with_the_same_tokens_as_one_node() {
    let alone = Setup::new("alone").exact().up().await;
    let expected = answers(&alone.client()).await;
    assert!(
        expected[3].usage["prompt_tokens"].as_u64().unwrap() > 600,
        "{:?}",
        expected[3].usage
    );
    drop(alone);

    let a = Setup::new("a").split(2).up().await;
    let b = Setup::new("b").join(&a).up().await;
    let why = "1 of 2 other nodes are linked; let more join with: myzel ticket";
    let status = a.status_when("one is there", |status| {
        status.ring.as_ref().unwrap().why.as_deref() == Some(why)
    });
    assert_eq!(status.await.answers, Answers::Home, "until the ring is up");
    let c = Setup::new("c").join(&a).up().await;
    let status = a.ring_up().await;
    assert_eq!(
        status.model.numerics,
        Numerics::Exact,
        "the default of a ring"
    );
    let ring = status.ring.as_ref().unwrap();
    assert_eq!(layers(ring).len(), 4);
    let mut names: Vec<&str> = ring
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["b", "c"]);
    hosted_there(&status, &[&b, &c]);

    let client = a.client();
    assert_eq!(answers(&client).await, expected, "two remote stages");
    let streamed = client.stream(questions().swap_remove(1)).await.unwrap();
    assert_eq!(streamed, expected[1]);
    let together = join_all(questions().into_iter().map(|question| client.ask(question))).await;
    let together: Vec<Answer> = together.into_iter().map(Result::unwrap).collect();
    assert_eq!(together, expected, "four at once");
    let page = a.setup().cli(&["status"]);
    assert!(
        page.contains("answered over the ring") && page.contains("stage 2, layers"),
        "{page}"
    );

    // Whoever joined may coordinate a ring of its own, beside the first one.
    let d = Setup::new("d").join(&a).split(1).up().await;
    let status = d.ring_up().await;
    assert_eq!(layers(status.ring.as_ref().unwrap()).len(), 3);
    hosted_there(&status, &[&a, &b, &c]);
    assert_eq!(answers(&d.client()).await, expected, "one remote stage");
    assert_eq!(
        client.ask(questions().swap_remove(2)).await.unwrap(),
        expected[2],
        "the first ring"
    );
}

#[tokio::test]
async fn a_place_in_a_ring_is_free_as_soon_as_its_answer_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let model = small(dir.path());
    let a = Setup::new("a")
        .model(&model)
        .split(2)
        .arg("--sessions", "1")
        .up()
        .await;
    let join = |name| Setup::new(name).model(&model).join(&a);
    let (_b, _c) = (join("b").up().await, join("c").up().await);
    a.ring_up().await;
    let client = a.client();
    let expected = client.ask(greedy("hello", 3)).await.unwrap();
    // One place here means one place at each stage: an answer that is not forgotten there in time shows.
    for _ in 0..20 {
        let crowd = (0..8).map(|_| client.ask(greedy("hello", 3)));
        for answer in join_all(crowd).await {
            assert_eq!(answer.as_ref(), Ok(&expected));
        }
    }
}
