//! Prefixes are shared inside a scope, never across, and change nothing but the work.

use crate::support::{Question, starter, tokens};
use proto::host::Answer;
use proto::ids::{SessionId, ShareScope};

async fn reused(host: &engine::Host) -> u64 {
    host.stats().await.unwrap().reused_rows
}

#[tokio::test]
async fn a_common_beginning_is_computed_once() {
    let (_engine, host) = starter(3).await;
    let system = "You are a helpful keeper of a mill by a river. ".repeat(14);
    let first = tokens(&host, &format!("{system}Who lives there?")).await;
    let second = tokens(&host, &format!("{system}How deep is the river?")).await;
    let (mine, theirs) = (Some(ShareScope([1; 16])), Some(ShareScope([2; 16])));
    let ask = |prompt: &[i32], scope| Question {
        scope,
        ..Question::new(prompt)
    };
    // Without a scope nothing is shared: these are the right answers.
    let right = ask(&second, None).ask(&host).await.unwrap();
    let right_again = ask(&second, None).ask(&host).await.unwrap();
    assert_eq!(right, right_again);
    assert_eq!(reused(&host).await, 0);

    ask(&first, mine).ask(&host).await.unwrap();
    assert_eq!(ask(&second, theirs).ask(&host).await.unwrap(), right);
    assert_eq!(reused(&host).await, 0, "another scope begins from nothing");

    assert_eq!(ask(&second, mine).ask(&host).await.unwrap(), right);
    let common = first
        .iter()
        .zip(&second)
        .take_while(|(a, b)| a == b)
        .count() as u64;
    assert!(common > 128, "the prompts have a long beginning in common");
    assert_eq!(reused(&host).await, common / 64 * 64);

    let mut answers = ask(&first, mine).open(&host, SessionId([7; 16]));
    let (mut told, mut more) = (Vec::new(), 2);
    while more > 0 {
        match answers.next().await.unwrap().unwrap().0 {
            Answer::Token(drawn) => told.push(drawn.reused),
            other => panic!("{other:?}"),
        }
        more -= 1;
    }
    assert!(u64::from(told[0]) >= common / 64 * 64, "{told:?}");
    assert_eq!(told[1], 0, "only the first token tells");
}

#[tokio::test]
async fn a_session_that_is_still_open_is_copied_from() {
    let (_engine, host) = starter(3).await;
    let prompt = tokens(
        &host,
        &"The keeper of the mill counts his sacks. ".repeat(20),
    )
    .await;
    let mine = Some(ShareScope([1; 16]));
    let question = Question {
        scope: mine,
        tokens: 60,
        burst: 60,
        ..Question::new(&prompt)
    };
    let right = Question {
        scope: None,
        ..question.clone()
    };
    let right = right.ask(&host).await.unwrap();
    let second = async {
        // The first one's prompt is computed once it has a token.
        tokio::task::yield_now().await;
        question.ask(&host).await
    };
    let open = {
        let session = SessionId([9; 16]);
        let mut answers = question.open(&host, session);
        answers.next().await.unwrap().unwrap();
        answers
    };
    assert_eq!(second.await.unwrap(), right);
    assert!(reused(&host).await >= 128);
    drop(open);
}
