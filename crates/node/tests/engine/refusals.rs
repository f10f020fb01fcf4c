//! What the engine refuses, and that nobody else is disturbed by it.

use crate::support::{Question, starter, tokens};
use engine::EngineError;
use proto::host::FailCode;
use proto::ids::SessionId;

#[tokio::test]
async fn no_room_is_a_refusal_and_the_others_go_on() {
    let (_engine, host) = starter(2).await;
    let prompt = tokens(&host, "The fox and the owl").await;
    let question = Question {
        tokens: 200,
        burst: 200,
        ..Question::new(&prompt)
    };
    let mut held: Vec<_> = (1..=2)
        .map(|n| question.open(&host, SessionId([n; 16])))
        .collect();
    for answers in &mut held {
        answers.next().await.unwrap().unwrap();
    }
    match Question::new(&prompt).ask(&host).await {
        Err(EngineError::Failed(failed)) => {
            assert_eq!(failed.code, FailCode::NoRoom);
            assert_eq!(failed.detail, "all 2 sessions are in use");
        }
        other => panic!("{other:?}"),
    }
    for answers in &mut held {
        answers.next().await.unwrap().unwrap();
    }
    host.drop_session(SessionId([1; 16]));
    assert_eq!(Question::new(&prompt).ask(&host).await.unwrap().len(), 24);
}

#[tokio::test]
async fn a_prompt_beyond_the_cache_is_refused_with_the_numbers() {
    let (_engine, host) = starter(1).await;
    let question = Question::new(&vec![100; 1025]);
    match question.ask(&host).await {
        Err(EngineError::Failed(failed)) => assert_eq!(
            failed.detail,
            "1025 rows at position 0 do not fit into 1024 positions"
        ),
        other => panic!("{other:?}"),
    }
}

/// A caller that never reads fills its own mailbox and nobody else's.
#[tokio::test]
async fn who_never_reads_stops_nobody() {
    let (_engine, host) = starter(2).await;
    let prompt = tokens(&host, "The fox and the owl").await;
    let silent = Question {
        burst: 64,
        ..Question::new(&prompt)
    };
    let _unread = silent.open(&host, SessionId([1; 16]));
    assert_eq!(Question::new(&prompt).ask(&host).await.unwrap().len(), 24);
}
