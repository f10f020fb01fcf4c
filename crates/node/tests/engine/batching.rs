//! Many sessions at once: in exact mode each gets what it would get alone.

use crate::support::{Question, starter, tokens};
use futures::future::join_all;

const STORIES: [&str; 5] = [
    "The river rose in the night, and in the morning the mill",
    "Once upon a time there was a fox who",
    "A list of colours: red, green,",
    "fn main() { let words = vec![\"one\", \"two\"]; for word in",
    "Dear neighbours, this is to tell you that",
];

#[tokio::test]
async fn answers_beside_others_are_the_same_as_alone() {
    let (_engine, host) = starter(8).await;
    let mut questions = Vec::new();
    for (at, story) in STORIES.iter().enumerate() {
        // From a few rows to several chunks.
        let text = format!("{} {story}", "and so on, ".repeat(at * 16));
        let mut question = Question::new(&tokens(&host, &text).await);
        question.temperature = 0.4 * at as f32;
        questions.push(question);
    }
    let mut alone = Vec::new();
    for question in &questions {
        // One token a call: no burst, and so no guesses.
        let question = Question {
            burst: 1,
            ..question.clone()
        };
        alone.push(question.ask(&host).await.unwrap());
    }
    assert!(alone.iter().all(|answer| answer.len() > 2));
    let before = host.stats().await.unwrap();
    // Two rounds, so that the second one gets cells that others used; neighbours leave in the middle of both.
    for _ in 0..2 {
        let leavers: Vec<Question> = [3usize, 9]
            .iter()
            .map(|n| Question::new(&questions[n % 5].prompt[1..]))
            .collect();
        let leave = join_all(
            leavers
                .iter()
                .zip([1, 6])
                .map(|(q, n)| q.cancel_after(&host, n)),
        );
        let answers = join_all(questions.iter().map(|question| question.ask(&host)));
        let (answers, _) = tokio::join!(answers, leave);
        for (answer, alone) in answers.into_iter().zip(&alone) {
            assert_eq!(&answer.unwrap(), alone);
        }
    }
    let stats = host.stats().await.unwrap();
    assert_eq!((stats.sessions, stats.waiting), (0, 0), "all have left");
    assert!(
        stats.decode_rows > before.decode_rows,
        "steps with a row of each were computed"
    );
}

#[tokio::test]
async fn a_short_question_does_not_wait_for_a_long_prompt() {
    let (_engine, host) = starter(4).await;
    let long = tokens(&host, &"The river rose in the night. ".repeat(120)).await;
    let long = Question::new(&long[..800]);
    let short = Question::new(&tokens(&host, "Hello").await);
    let (mut order_long, mut order_short) = (0, 0);
    let clock = std::sync::atomic::AtomicU32::new(0);
    let tick = || clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (a, b) = tokio::join!(
        async {
            let answer = long.ask(&host).await;
            order_long = tick();
            answer
        },
        async {
            let answer = short.ask(&host).await;
            order_short = tick();
            answer
        }
    );
    assert_eq!(a.unwrap().len(), 24);
    b.unwrap();
    assert!(
        order_short < order_long,
        "the short one was asked second and ends first"
    );
}
