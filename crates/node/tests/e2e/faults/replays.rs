//! Row 2: whoever takes over dies, too, while it still rebuilds what the first one had.

use super::{Ring, on, world};
use crate::support::http::{Answer, Event, Stream, greedy};
use crate::support::processes::{lives, signal};
use crate::support::wait::eventually;
use lab::Starved;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Words of a prompt: rebuilding their rows takes a while.
const WORDS: usize = 700;
/// Tokens of an answer.
const TOKENS: u32 = 200;
/// What those that may take over have of a core, so that rebuilding takes longer than finding out who does.
const SHARE: f64 = 0.3;

/// Reads to the end, and notes when each piece came.
async fn rest(stream: &mut Stream, times: &AtomicUsize) -> (String, Vec<Instant>) {
    let (mut text, mut at) = (String::new(), Vec::new());
    loop {
        match stream.next().await {
            Some(Event::Text(more)) => {
                text += &more;
                at.push(Instant::now());
                times.fetch_add(1, Ordering::Relaxed);
            }
            Some(Event::Finish(_) | Event::Usage(_)) => {}
            Some(Event::Done) => return (text, at),
            other => panic!("in the answer came {other:?}"),
        }
    }
}

#[test]
fn who_took_over_dies_while_it_rebuilds_and_the_answer_goes_on() {
    let (_world, [a, b, c, d]) = world(21, ["a", "b", "c", "d"]);
    on(&a, async || {
        let machines = [&a, &b, &c, &d];
        let mut ring = Ring::with(&machines, 1, |setup| setup.arg("--context", "4096")).await;
        let question = greedy(&"river ".repeat(WORDS), TOKENS);
        let expected: Answer = ring.undisturbed(&question).await;
        let mut stream = ring.a().client().open(question).await.unwrap();
        let begun = stream.texts(10).await;
        let first = ring.stages()[0];
        let slow = (1..4).filter(|at| *at != first);
        let starved: Vec<Starved> = slow.map(|at| machines[at].starve(SHARE).unwrap()).collect();
        ring.nodes[first].kill9();
        let heard = AtomicUsize::new(0);
        let strike = async {
            let second = eventually("another has the stage", || async {
                let stages = ring.a().status().ring.unwrap().stages;
                let at = |id| ring.ids.iter().position(|other| *other == id).unwrap();
                let stage = stages.first().map(|stage| at(stage.node));
                stage.filter(|at| *at != first)
            })
            .await;
            // What was drawn before the first one's end may still have come.
            let before = heard.load(Ordering::Relaxed);
            signal(ring.nodes[second].pid, Signal::SIGKILL);
            (second, before, Instant::now())
        };
        let ((text, times), (second, before, struck)) =
            futures::future::join(rest(&mut stream, &heard), strike).await;
        assert_eq!(begun + &text, expected.text);
        let since = times.iter().filter(|at| **at > struck).count();
        assert_eq!(before + since, times.len());
        let held_back: u64 = starved.iter().map(|one| one.held_back().unwrap()).sum();
        assert!(held_back > 0, "nobody was slow");
        assert!(
            before <= 2,
            "{before} pieces had come: it had rebuilt all when it was killed"
        );
        let third = ring.stages()[0];
        assert!(third != first && third != second, "{third}");
        let alive: Vec<bool> = ring.nodes.iter().map(|node| lives(node.pid)).collect();
        assert_eq!(alive.iter().filter(|lives| **lives).count(), 2, "{alive:?}");
    });
}
