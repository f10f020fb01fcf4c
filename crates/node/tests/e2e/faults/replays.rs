//! Row 2: whoever takes over dies, too, while it still rebuilds what the first one had.

use super::{Ring, on, world};
use crate::support::http::{Client, Event, greedy};
use crate::support::processes::{lives, signal};
use crate::support::wait::eventually;
use lab::Starved;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Words of a prompt: rebuilding their rows takes a while.
const WORDS: usize = 700;
/// Tokens of an answer.
const TOKENS: u32 = 200;
/// Pieces that have come when the first one is killed.
const BEFORE: usize = 10;
/// Pieces that may be on their way then.
const LATE_MAX: usize = 2;
/// What those that may take over have of a core, so that rebuilding takes longer than finding out who does.
const SHARE: f64 = 0.3;

/// Reads an answer, and notes when each piece came.
async fn read(client: &Client, question: Value, pieces: &AtomicUsize) -> (String, Vec<Instant>) {
    let mut stream = client.open(question).await.unwrap();
    let (mut text, mut times) = (String::new(), Vec::new());
    loop {
        match stream.next().await {
            Some(Event::Text(more)) => {
                text += &more;
                times.push(Instant::now());
                pieces.fetch_add(1, Ordering::Release);
            }
            Some(Event::Finish(_) | Event::Usage(_)) => {}
            Some(Event::Done) => return (text, times),
            other => panic!("after {} pieces of text came {other:?}", times.len()),
        }
    }
}

/// Kills the ring's first host, and whoever takes over as soon as that is known. When each was, and who.
async fn kill_two(ring: &Ring, first: usize, pieces: &AtomicUsize) -> (Instant, usize, Instant) {
    eventually("the answer has begun", || async {
        (pieces.load(Ordering::Acquire) >= BEFORE).then_some(())
    })
    .await;
    signal(ring.nodes[first].pid, Signal::SIGKILL);
    let struck = Instant::now();
    let second = eventually("another has the stage", || async {
        let stages = ring.a().status().ring.unwrap().stages;
        let at = |id| ring.ids.iter().position(|other| *other == id).unwrap();
        let stage = stages.first().map(|stage| at(stage.node));
        stage.filter(|at| *at != first)
    })
    .await;
    signal(ring.nodes[second].pid, Signal::SIGKILL);
    (struck, second, Instant::now())
}

#[test]
fn who_took_over_dies_while_it_rebuilds_and_the_answer_goes_on() {
    let (_world, [a, b, c, d]) = world(21, ["a", "b", "c", "d"]);
    let machines = [&a, &b, &c, &d];
    on(&a, async || {
        let ring = Ring::with(&machines, 1, |setup| setup.arg("--context", "4096")).await;
        let question = greedy(&"river ".repeat(WORDS), TOKENS);
        let expected = ring.undisturbed(&question).await;
        let first = ring.stages()[0];
        let others = (1..machines.len()).filter(|at| *at != first);
        let starved = others.map(|at| machines[at].starve(SHARE).unwrap());
        let starved: Vec<Starved> = starved.collect();
        let (client, pieces) = (ring.a().client(), AtomicUsize::new(0));
        // The times are true only on a thread that does nothing else.
        let ((text, times), (one, second, two)) = std::thread::scope(|scope| {
            let reader = || on(&a, async || read(&client, question, &pieces).await);
            let reader = scope.spawn(reader);
            let killer = || on(&a, async || kill_two(&ring, first, &pieces).await);
            let killer = scope.spawn(killer);
            (reader.join().unwrap(), killer.join().unwrap())
        });
        assert_eq!(text, expected.text);
        let held_back: u64 = starved.iter().map(|one| one.held_back().unwrap()).sum();
        assert!(held_back > 0, "nobody was slow");
        let between = times.iter().filter(|at| (one..two).contains(*at)).count();
        assert!(
            between <= LATE_MAX,
            "{between} pieces came between: it had rebuilt all when it was killed"
        );
        let third = ring.stages()[0];
        assert!(third != first && third != second, "{third}");
        let alive: Vec<bool> = ring.nodes.iter().map(|node| lives(node.pid)).collect();
        assert_eq!(alive.iter().filter(|lives| **lives).count(), 2, "{alive:?}");
    });
}
