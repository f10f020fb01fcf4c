//! Guessing ahead: fewer steps, the same tokens.

use crate::support::{Question, spec, start, starter, tokens};
use proto::host::LoadSpec;
use proto::model::Numerics;

#[tokio::test]
async fn guesses_change_nothing_but_the_number_of_steps() {
    let (_engine, host) = starter(2).await;
    let text = "one two three four five six seven eight nine ten. ".repeat(8);
    let prompt = tokens(&host, &text).await;
    for temperature in [0.0, 0.7] {
        let question = Question {
            temperature,
            tokens: 96,
            burst: 1,
            ..Question::new(&prompt)
        };
        let plain = question.ask(&host).await.unwrap();
        let before = host.stats().await.unwrap();
        let guessing = Question {
            burst: 32,
            ..question
        };
        assert_eq!(
            guessing.ask(&host).await.unwrap(),
            plain,
            "at {temperature}"
        );
        let after = host.stats().await.unwrap();
        if temperature == 0.0 {
            assert!(
                after.accepted > before.accepted,
                "a text that repeats itself is guessed"
            );
            assert!(after.drafted >= after.accepted);
        }
    }
}

#[tokio::test]
async fn a_narrow_step_takes_fewer_guesses() {
    let narrow = LoadSpec {
        step_rows_max: 3,
        ..spec(&specimen::starter(), Numerics::Exact, 2)
    };
    let (_engine, host) = start(narrow).await;
    let text = "one two three four five six seven eight nine ten. ".repeat(8);
    let prompt = tokens(&host, &text).await;
    let question = Question {
        tokens: 48,
        burst: 1,
        ..Question::new(&prompt)
    };
    let plain = question.ask(&host).await.unwrap();
    let guessing = Question {
        burst: 48,
        ..question
    };
    assert_eq!(guessing.ask(&host).await.unwrap(), plain);
    assert!(host.stats().await.unwrap().drafted > 0);
}
