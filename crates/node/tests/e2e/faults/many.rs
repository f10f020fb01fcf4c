//! Row 17: of many answers at once, only those pay for a lost stage that go through it.

use super::{linked, member, on, world};
use crate::support::http::{Client, Event, Stream, greedy};
use crate::support::models::slow;
use crate::support::node::Node;
use crate::support::processes::{lives, signal};
use futures::future::join_all;
use lab::Machine;
use nix::sys::signal::Signal;
use proto::ids::{NodeId, RingId};
use std::sync::Barrier;
use std::time::Instant;

/// Answers through each of two rings.
const EACH: usize = 25;
/// Tokens of an answer.
const TOKENS: u32 = 80;
/// Tokens of every answer that have come when a stage is lost.
const BEFORE: usize = 5;

/// What has come of an answer.
#[derive(Debug, Clone, Default)]
struct Heard {
    text: String,
    /// When each piece came.
    times: Vec<Instant>,
    is_over: bool,
}

fn questions() -> impl Iterator<Item = serde_json::Value> {
    (0..EACH).map(|n| greedy(&format!("Call {n}."), TOKENS))
}

async fn undisturbed(client: &Client) -> Vec<String> {
    let asks = questions().map(|question| async { client.stream(question).await.unwrap().text });
    join_all(asks).await
}

/// Reads on, `pieces` of text or to the end.
async fn read(stream: &mut Stream, heard: &mut Heard, pieces: usize) {
    for _ in 0..pieces {
        if heard.is_over {
            return;
        }
        match stream.next().await {
            Some(Event::Text(more)) => {
                heard.text += &more;
                heard.times.push(Instant::now());
            }
            Some(Event::Finish(_) | Event::Usage(_)) => {}
            Some(Event::Done) => heard.is_over = true,
            other => panic!("after {} pieces of text came {other:?}", heard.times.len()),
        }
    }
}

/// All questions at once over the ring of a node; all answers have begun when it waits, and `strike` comes then.
async fn all(client: &Client, begun: &Barrier, strike: impl FnOnce()) -> Vec<Heard> {
    let asks = questions().map(|question| async { client.open(question).await.unwrap() });
    let mut streams = join_all(asks).await;
    let mut heard = vec![Heard::default(); EACH];
    let pairs = streams.iter_mut().zip(&mut heard);
    join_all(pairs.map(|(stream, heard)| read(stream, heard, BEFORE))).await;
    begun.wait();
    strike();
    let pairs = streams.iter_mut().zip(&mut heard);
    join_all(pairs.map(|(stream, heard)| read(stream, heard, usize::MAX))).await;
    heard
}

fn texts(heard: &[Heard]) -> Vec<String> {
    heard.iter().map(|one| one.text.clone()).collect()
}

/// The longest time in which no piece of any of these answers came.
fn pause(heard: &[Heard]) -> (Instant, Instant) {
    let mut times: Vec<Instant> = heard.iter().flat_map(|one| one.times.clone()).collect();
    times.sort_unstable();
    let pauses = times.windows(2).map(|two| (two[0], two[1]));
    pauses
        .max_by_key(|(from, to)| *to - *from)
        .expect("pieces came")
}

/// How many pieces came within a time.
fn pieces(heard: &[Heard], (from, to): (Instant, Instant)) -> usize {
    let times = heard.iter().flat_map(|one| &one.times);
    times.filter(|at| (from..to).contains(*at)).count()
}

/// A node once more, which computes over a ring of one of these others.
async fn again(node: Node, circle: &[&Node]) -> Node {
    let ids: Vec<String> = circle.iter().map(|node| node.id().to_string()).collect();
    let setup = node.setup().clone().split(1).arg("--room", "circle");
    drop(node);
    let node = setup.arg("--circle", &ids.join(",")).up().await;
    node.ring_up().await;
    node
}

/// A ring's name, and who has its one stage.
fn ring(node: &Node) -> (Option<RingId>, NodeId) {
    let ring = node.status().ring.unwrap();
    (ring.ring, ring.stages[0].node)
}

#[test]
fn of_fifty_answers_only_those_pay_for_a_lost_stage_that_go_through_it() {
    let (_world, [a, b, c, d, e]) = world(171, ["a", "b", "c", "d", "e"]);
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let setup = |machine: &Machine| {
        let setup = member(machine, &model).arg("--context", "256");
        setup.arg("--sessions", &EACH.to_string())
    };
    on(&a, async || {
        let first = setup(&a).up().await;
        let join = async |machine| setup(machine).join(&first).up().await;
        let (second, [b, d, e]) = (
            join(&c).await,
            [join(&b).await, join(&d).await, join(&e).await],
        );
        linked(&first, 4).await;
        linked(&second, 4).await;
        let first = again(first, &[&b, &e]).await;
        let second = again(second, &[&d]).await;
        let expected = [
            undisturbed(&first.client()).await,
            on(&c, async || undisturbed(&second.client()).await),
        ];
        let before = [ring(&first), ring(&second)];
        let victim = [&b, &e]
            .into_iter()
            .find(|node| node.id() == before[0].1)
            .unwrap();

        let begun = Barrier::new(2);
        let (through, beside) = std::thread::scope(|scope| {
            let beside = || on(&c, async || all(&second.client(), &begun, || {}).await);
            let beside = scope.spawn(beside);
            let through = || {
                on(&a, async || {
                    all(&first.client(), &begun, || {
                        signal(victim.pid, Signal::SIGKILL)
                    })
                    .await
                })
            };
            let through = scope.spawn(through);
            (through.join().unwrap(), beside.join().unwrap())
        });
        assert_eq!(texts(&through), expected[0]);
        assert_eq!(texts(&beside), expected[1]);
        let after = [ring(&first), ring(&second)];
        assert!(!lives(victim.pid) && after[0].1 != before[0].1, "{after:?}");
        assert_eq!(after[1], before[1], "the other ring was disturbed");
        let pause = pause(&through);
        assert!(
            pieces(&beside, pause) > 0,
            "all stood still for {:?}",
            pause.1 - pause.0
        );
        let failed = [first.status().rates.failed, second.status().rates.failed];
        assert_eq!(failed, [0, 0]);
    });
}
