//! Guessing ahead over a far ring changes no answer, also when a stage is lost with guesses on their way.

use super::{Ring, member, on, world};
use crate::support::http::{question, with};
use crate::support::models::slow;
use crate::support::processes::{lives, signal};
use lab::Machine;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// From a node to another, in milliseconds: a lap is mostly waiting, and guesses cost next to nothing.
const DELAY_MS: f64 = 10.0;
/// Words of an answer.
const WORDS: u32 = 60;
/// Pieces that have come when a stage is killed.
const BEFORE: usize = 100;

/// A question whose answer is a list of few words, which soon have all been there.
fn list(temperature: f64) -> Value {
    let item = json!({"type": "string", "enum": ["red", "green", "blue"]});
    let list = json!({"type": "array", "items": item, "minItems": WORDS, "maxItems": WORDS});
    let format = json!({"type": "json_schema", "json_schema": {"name": "colours", "schema": list, "strict": true}});
    let fields = json!({"response_format": format, "temperature": temperature, "seed": 7, "max_tokens": 1_000});
    with(question("hello"), fields)
}

#[test]
fn guesses_change_no_answer_and_are_lost_with_their_ring() {
    let (world, [a, b, c, d, apart]) = world(81, ["a", "b", "c", "d", "apart"]);
    let ways: [(&Machine, &Machine); 3] = [(&a, &b), (&b, &c), (&c, &a)];
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let questions = [list(0.0), list(1.5)];
    let mut expected = Vec::new();
    on(&apart, async || {
        let alone = member(&apart, &model).arg("--guesses", "0").up().await;
        for question in &questions {
            expected.push(alone.client().stream(question.clone()).await.unwrap());
        }
    });
    on(&a, async || {
        let ring = Ring::form(&[&a, &b, &c, &d], 2, 1).await;
        world.links().delay_ms(DELAY_MS);
        for (from, to) in ways {
            let asked = world.way(from, to).asked();
            world.confirm(from, to, &asked).unwrap();
        }
        for (question, expected) in questions.iter().zip(&expected) {
            assert_eq!(&ring.undisturbed(question).await, expected);
        }
        let counted = ring.a().status().ring.unwrap();
        assert!(counted.guessed_right > 20, "{counted:?}");
        assert!(counted.guessed > counted.guessed_right, "{counted:?}");

        let before = ring.id();
        let first = ring.stages()[0];
        let mut stream = ring.a().client().open(questions[0].clone()).await.unwrap();
        let mut text = stream.texts(BEFORE).await;
        signal(ring.nodes[first].pid, Signal::SIGKILL);
        text += &stream.answer().await.unwrap().text;
        assert_eq!(text, expected[0].text);
        assert!(!lives(ring.nodes[first].pid));
        assert_ne!(ring.id(), before, "no ring was lost");
    });
}
