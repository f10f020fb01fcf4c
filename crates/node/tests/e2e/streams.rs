//! Streams outlive their client and their coordinator: who comes back gets the rest of the undisturbed answer. Exact mode: the texts are
//! compared whole.

use crate::support::http::{Answer, greedy, question, seeded, with};
use crate::support::models::{slow, small};
use crate::support::node::{Node, Setup};
use crate::support::processes::lives;
use crate::support::wait::eventually;
use serde_json::{Value, json};
use std::path::Path;

/// Tokens of an answer: enough that the coordinator is in the middle of it, however far it is ahead of its client.
const TOKENS: u32 = 2_000;
/// Pieces of text that a client has read when something happens.
const READ: usize = 20;

/// A question whose answer is long, and bound by a schema from the first to the last token.
fn bound(seed: u64) -> Value {
    let item = json!({"type": "string", "enum": ["red", "green", "blue"]});
    let list = json!({"type": "array", "items": item, "minItems": 300, "maxItems": 300});
    let schema = json!({
        "type": "object", "properties": {"colours": list}, "required": ["colours"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "colours", "schema": schema, "strict": true}});
    let fields =
        json!({"response_format": format, "temperature": 1.5, "seed": seed, "max_tokens": 3_500});
    with(question("hello"), fields)
}

/// Penalised, and without a seed.
fn unseeded() -> Value {
    let fields = json!({"temperature": 1.0, "frequency_penalty": 0.3, "presence_penalty": 0.2, "max_tokens": TOKENS});
    with(question("hello"), fields)
}

/// Asks, reads a little, kills the coordinator, starts it again, and comes back for the rest; the answer as it came in
/// two parts, and the stream's name.
async fn killed_in_the_middle(a: &mut Node, question: Value, ring: bool) -> (Answer, String) {
    let mut stream = a.client().open(question).await.unwrap();
    let name = stream.name.clone().expect("the stream has a name");
    let begun = stream.texts(READ).await;
    let seen = stream.seen.clone().unwrap();
    a.kill9();
    assert!(!lives(a.pid));
    drop(stream);
    *a = a.setup().clone().up().await;
    if ring {
        a.ring_up().await;
    }
    let before = a.status().rates.tokens;
    let mut rest = a.client().resume(&name, Some(&seen)).await.unwrap();
    assert_eq!(rest.name.as_ref(), Some(&name));
    let rest = rest.answer().await.unwrap();
    let drawn = a.status().rates.tokens - before;
    assert!(
        drawn > 0,
        "all of it was drawn before the coordinator was killed"
    );
    let answer = Answer {
        text: begun + &rest.text,
        ..rest
    };
    (answer, name)
}

async fn goes_on(a: &mut Node, question: Value, ring: bool) {
    let expected = a.client().ask(question.clone()).await.unwrap();
    let (answer, name) = killed_in_the_middle(a, question, ring).await;
    assert_eq!(
        (&answer.text, &answer.finish),
        (&expected.text, &expected.finish)
    );
    // It has ended, and still nobody knows whether the last bytes arrived.
    for seen in [None, Some("0")] {
        let mut again = a.client().resume(&name, seen).await.unwrap();
        let again = again.answer().await.unwrap();
        assert_eq!(
            (again.text, again.finish),
            (expected.text.clone(), expected.finish.clone())
        );
    }
}

fn one_place(name: &str, model: &Path) -> Setup {
    Setup::new(name).model(model).exact().arg("--sessions", "1")
}

#[tokio::test]
async fn a_killed_coordinator_with_the_whole_model_goes_on_with_the_same_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = one_place("a", &slow(dir.path())).up().await;
    for question in [
        greedy("hello", TOKENS),
        seeded("hello", 7, TOKENS),
        with(unseeded(), json!({"seed": 11})),
        bound(3),
    ] {
        goes_on(&mut a, question, false).await;
    }
}

#[tokio::test]
async fn a_seed_that_nobody_named_is_the_same_after_a_break() {
    let dir = tempfile::tempdir().unwrap();
    let mut a = one_place("a", &slow(dir.path())).up().await;
    let (answer, name) = killed_in_the_middle(&mut a, unseeded(), false).await;
    let mut again = a.client().resume(&name, None).await.unwrap();
    assert_eq!(again.answer().await.unwrap().text, answer.text);
    let other = a.client().ask(unseeded()).await.unwrap();
    assert_ne!(other.text, answer.text, "the seed is the same for all");
}

#[tokio::test]
async fn a_killed_coordinator_of_a_ring_goes_on_with_the_same_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let mut a = one_place("a", &model).split(2).up().await;
    let join = |name| Setup::new(name).model(&model).exact().join(&a);
    let _hosts = (join("bo").up().await, join("cy").up().await);
    a.ring_up().await;
    for question in [greedy("hello", 600), seeded("hello", 7, 600), bound(3)] {
        goes_on(&mut a, question, true).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_and_comes_back_to_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    let a = one_place("a", &model).split(2).up().await;
    let join = |name| Setup::new(name).model(&model).exact().join(&a);
    let _hosts = (join("bo").up().await, join("cy").up().await);
    a.ring_up().await;
    let question = seeded("hello", 5, 600);
    let expected = a.client().ask(question.clone()).await.unwrap();
    let mut stream = a.client().open(question).await.unwrap();
    let name = stream.name.clone().unwrap();
    let mut text = stream.texts(READ).await;
    let mut seen = stream.seen.clone();
    // With one place here and at the stages, every one of these needs what the one before held.
    for _ in 0..3 {
        drop(stream);
        let idle = |status: &node::status::Status| status.model.sessions == 0;
        a.status_when("its place is free", idle).await;
        a.client().ask(greedy("hello", 3)).await.unwrap();
        stream = a.client().resume(&name, seen.as_deref()).await.unwrap();
        text += &stream.texts(READ).await;
        seen = stream.seen.clone();
    }
    text += &stream.answer().await.unwrap().text;
    assert_eq!(text, expected.text);
}

#[tokio::test]
async fn what_cannot_go_on_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let setup = one_place("a", &slow(dir.path()));
    let mut a = setup.up().await;
    let mut stream = a.client().open(greedy("hello", TOKENS)).await.unwrap();
    let name = stream.name.clone().unwrap();
    stream.texts(READ).await;
    let seen = stream.seen.clone();
    let resume = async |a: &Node, key: Option<&str>| {
        let client = a.client().key(key);
        client.resume(&name, seen.as_deref()).await.map(drop)
    };
    let other = resume(&a, Some("somebody else's")).await.unwrap_err();
    assert_eq!(
        (other.status, other.code.as_str()),
        (404, "stream_not_found")
    );
    let unknown = a.client().resume(&"ab".repeat(16), None).await.map(drop);
    unknown
        .unwrap_err()
        .says(&["no such stream", "ask again from the beginning"]);
    a.kill9();
    // Another model under the same name in requests is no way on; the right one is, later.
    let other_model = dir.path().join("other").join("slow.gguf");
    std::fs::create_dir(other_model.parent().unwrap()).unwrap();
    std::fs::rename(small(dir.path()), &other_model).unwrap();
    let mut changed = setup.clone().model(&other_model).up().await;
    let stale = resume(&changed, None).await.unwrap_err();
    assert_eq!((stale.status, stale.code.as_str()), (409, "stream_stale"));
    stale.says(&[
        "begun with a model and engine",
        "ask again from the beginning",
    ]);
    changed.kill9();
    let mut off = setup.clone().env("MYZEL_JOURNAL", "false").up().await;
    assert_eq!(
        resume(&off, None).await.unwrap_err().code,
        "stream_not_found"
    );
    let stream = off.client().open(greedy("hello", 3)).await.unwrap();
    assert_eq!((stream.name, off.status().journal), (None, None));
    off.kill9();
    let again = setup.up().await;
    resume(&again, None).await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_on_disk_of_an_answer_that_was_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let a = one_place("a", &slow(dir.path())).up().await;
    let heads = || {
        let files = std::fs::read_dir(a.setup().dir().join("streams")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".head")).count()
    };
    let mut stream = a.client().open(greedy("hello", TOKENS)).await.unwrap();
    stream.texts(READ).await;
    assert_eq!((heads(), a.status().journal.unwrap().streams), (1, 1));
    stream.answer().await.unwrap();
    eventually("its journal is gone", || async {
        (heads() == 0).then_some(())
    })
    .await;
    let journal = a.status().journal.unwrap();
    assert_eq!((journal.streams, journal.without), (0, 0));
    assert!(journal.bytes <= 8, "{journal:?}");
}
