//! Replies that a grammar binds.

use super::{Question, bound, person, spec, steer, text, tokens, with_starter};
use crate::hosts::{start, with_ward};
use crate::stages::cut;
use engine::EngineError;
use futures::future::join_all;
use proto::host::{FailCode, Gbnf, Grammar, Role, Steer};
use serde_json::{Value, json};
use std::path::Path;

/// The layer at which the starter is cut in two.
const CUT: u32 = 13;

fn check_person(text: &str) {
    let person: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let person = person.as_object().unwrap();
    let keys: Vec<&str> = person.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["name", "age", "mood", "hobbies"],
        "in the schema's order"
    );
    assert!(person["name"].as_str().unwrap().chars().count() <= 12);
    assert!((1..=120).contains(&person["age"].as_u64().unwrap()));
    assert!(
        [json!("glad"), json!("sad"), json!(7)].contains(&person["mood"]),
        "{text}"
    );
    let hobbies = person["hobbies"].as_array().unwrap();
    assert!((1..=2).contains(&hobbies.len()));
    for hobby in hobbies {
        let hobby = hobby.as_object().unwrap();
        assert!(hobby["what"].is_string());
        assert!(hobby.get("hours").is_none_or(Value::is_number), "{text}");
        assert!(hobby.len() <= 2);
    }
}

pub(super) fn schemas() {
    with_ward(|_, ward| async move {
        let starter = specimen::starter();
        let halves = cut(&starter, &[CUT]);
        let halves: Vec<(Role, &Path)> = halves
            .files
            .iter()
            .map(|(role, path)| (*role, path.as_path()))
            .collect();
        let supervisors = [
            start(spec(&[(Role::Whole, &starter)]), &ward),
            start(spec(&halves), &ward),
        ];
        let whole = supervisors[0].ready().await.unwrap();
        let ring = supervisors[1].ready().await.unwrap();
        let mut texts = Vec::new();
        for seed in 0..5 {
            let question = Question::new(bound(person()));
            let question = question.warm(if seed == 0 { 0.0 } else { 1.0 }, seed);
            let reply = question.ask(&whole).await.unwrap();
            assert!(reply.last().unwrap().end, "{}", text(&reply));
            check_person(&text(&reply));
            // The same again, and without bursts, where nothing is guessed, and in a ring.
            let slow = Question {
                burst: 1,
                ..question.clone()
            };
            assert_eq!(reply, slow.ask(&whole).await.unwrap());
            assert_eq!(reply, question.ask_ring(&ring).await.unwrap());
            texts.push(text(&reply));
        }
        assert!(
            (1..5).any(|n| texts[n] != texts[1]),
            "seeds matter: {texts:?}"
        );
        assert!(
            whole.stats().await.unwrap().drafted > 0,
            "something was guessed"
        );
        let free = Question::new(None).ask(&whole).await.unwrap();
        assert!(
            serde_json::from_str::<Value>(&text(&free)).is_err(),
            "without it is no JSON"
        );
    });
}

pub(super) fn grammars() {
    with_starter(|host| async move {
        let year = bound(Grammar::Lark("start: /[0-9]{4}/ \"!\"".to_owned()));
        let json = bound(Grammar::Json);
        let answer = bound(Grammar::Gbnf(Gbnf {
            rules: "root ::= (\"yes\" | \"no\") \".\"".to_owned(),
            ..Gbnf::default()
        }));
        for seed in 0..4 {
            let ask = async |steer: &Option<Steer>| {
                let reply = Question::new(steer.clone())
                    .warm(1.0, seed)
                    .ask(&host)
                    .await
                    .unwrap();
                (text(&reply), reply.last().unwrap().end)
            };
            let (year, end) = ask(&year).await;
            let digits = year.strip_suffix('!').unwrap();
            assert!(
                end && digits.len() == 4 && digits.chars().all(|c| c.is_ascii_digit()),
                "{year}"
            );
            let (answer, end) = ask(&answer).await;
            assert!(
                end && ["yes.", "no."].contains(&answer.as_str()),
                "{answer}"
            );
            let (object, end) = ask(&json).await;
            assert!(object.starts_with('{'), "{object}");
            let parsed = serde_json::from_str::<Value>(&object);
            assert_eq!(
                parsed.is_ok(),
                end,
                "it ends exactly when it is complete: {object}"
            );
        }
    });
}

pub(super) fn neighbours() {
    with_starter(|host| async move {
        let bias = Steer {
            logit_bias: vec![(260, 9.0)],
            frequency_penalty: 1.0,
            logprobs: Some(3),
            ..steer()
        };
        let steers = [
            None,
            bound(person()),
            Some(bias),
            bound(Grammar::Json),
            None,
        ];
        let questions: Vec<Question> = (0..)
            .zip(steers)
            .map(|(seed, steer)| Question {
                tokens: 40,
                ..Question::new(steer).warm(0.8, seed)
            })
            .collect();
        let mut alone = Vec::new();
        for question in &questions {
            alone.push(question.ask(&host).await.unwrap());
        }
        for _ in 0..2 {
            let together = join_all(questions.iter().map(|question| question.ask(&host))).await;
            let together: Vec<_> = together.into_iter().map(Result::unwrap).collect();
            assert_eq!(together, alone);
        }
        assert_eq!(host.stats().await.unwrap().sessions, 0);
    });
}

pub(super) fn dead_ends() {
    with_starter(|host| async move {
        let letter = Question {
            prompt: "x",
            ..Question::new(None)
        };
        let token = *letter.prompt(&host).await.last().unwrap();
        let only = |bias| Question {
            tokens: 4,
            ..Question::new(Some(Steer {
                logit_bias: vec![(token, bias)],
                ..bound(Grammar::Lark("start: \"ab\" \"x\"".into())).unwrap()
            }))
        };
        let reply = only(0.0).ask(&host).await.unwrap();
        assert_eq!(text(&reply), "abx");
        assert!(reply.last().unwrap().end && reply.last().unwrap().piece.is_empty());
        for burst in [1, 4] {
            let question = Question {
                burst,
                ..only(f32::NEG_INFINITY)
            };
            let error = question.ask(&host).await.unwrap_err();
            let EngineError::Failed(failed) = &error else {
                panic!("{error:?}")
            };
            assert_eq!(failed.code, FailCode::BadCall);
            assert!(failed.detail.contains("may stand at position"), "{failed}");
        }
        // The engine lives, and the name of the end can be shown.
        let mut shown = only(0.0);
        shown.steer.as_mut().unwrap().show_control = true;
        let shown = shown.ask(&host).await.unwrap();
        assert!(text(&shown).starts_with("abx<|"), "{}", text(&shown));
        assert_eq!(tokens(&shown), tokens(&reply));
    });
}
