//! Tokens that are guessed and come to a tail with the one that was drawn.

use super::{Question, bound, person, spec};
use crate::hosts::{start, with_ward};
use crate::stages::cut;
use engine::{EngineError, Host};
use proto::host::{Drawn, GUESSES_MAX, Output, Role, Run};
use proto::ids::SessionId;
use std::path::Path;
use std::sync::Arc;

/// Runs a test with head and tail of the starter.
fn with_ends<F: Future<Output = ()>>(test: impl FnOnce(Arc<Host>) -> F) {
    with_ward(|_, ward| async move {
        let staged = cut(&specimen::starter(), &[11]);
        let halves: Vec<(Role, &Path)> = staged
            .files
            .iter()
            .map(|(role, path)| (*role, path.as_path()))
            .collect();
        let supervisor = start(spec(&halves), &ward);
        test(supervisor.ready().await.unwrap()).await;
    });
}

/// The tokens that follow in a reply that is known, but for every so manieth, which is another.
fn known(reply: &[Drawn], so_far: &[Drawn], count: usize, wrong: usize) -> Vec<i32> {
    let behind = reply.iter().skip(so_far.len());
    let guess = |drawn: &Drawn| match (drawn.position as usize).is_multiple_of(wrong) {
        true => drawn.token + 1,
        false => drawn.token,
    };
    behind.take(count).map(guess).collect()
}

pub(super) fn equal() {
    with_ends(|host| async move {
        for question in [
            Question::new(None),
            Question::new(None).warm(1.0, 3),
            Question::new(bound(person())).warm(1.0, 2),
        ] {
            let expected = question.ask_ring(&host).await.unwrap();
            for (count, wrong) in [(GUESSES_MAX, 0), (4, 3), (1, 2), (3, 1)] {
                let guess = |so_far: &[Drawn]| known(&expected, so_far, count, wrong);
                let (reply, runs) = question.ask_ring_guessing(&host, guess).await.unwrap();
                let most = expected.len().min(reply.len());
                assert_eq!(reply[..most], expected[..], "{count} {wrong}");
                if wrong == 0 {
                    assert!(runs * 4 < expected.len(), "{runs} for {}", expected.len());
                }
            }
        }
        let stats = host.stats().await.unwrap();
        assert!(stats.accepted > 100 && stats.drafted > stats.accepted);
        assert_eq!(stats.sessions, 0);
    });
}

pub(super) fn refusals() {
    with_ends(|host| async move {
        let question = Question::new(None);
        let session = SessionId([9; 16]);
        let row = vec![0; host.loaded().embedding_length as usize * 4];
        let tail = |guesses: usize| Run {
            guesses: vec![5; guesses],
            ..question.run(session, Role::Tail, 0, Vec::new(), 1)
        };
        let unknown = Run {
            guesses: vec![-1],
            ..tail(1)
        };
        let silent = Run {
            output: Output::Nothing,
            ..tail(1)
        };
        let head = Run {
            tokens: vec![5, 6],
            output: Output::Rows,
            ..question.run(session, Role::Head, 0, Vec::new(), 1)
        };
        let head = Run {
            guesses: vec![6],
            ..head
        };
        for (run, rows, why) in [
            (
                tail(GUESSES_MAX + 1),
                GUESSES_MAX + 2,
                "9 guesses in a run of 10 rows",
            ),
            (tail(2), 2, "2 guesses in a run of 2 rows"),
            (tail(1), 3, "1 guesses in a run of 3 rows"),
            (silent, 2, "1 guesses in a run of 2 rows"),
            (unknown, 2, "token -1 is not in the vocabulary"),
            (head, 0, "1 guesses in a run of 2 rows"),
        ] {
            let mut answers = host.run(run, &row.repeat(rows)).unwrap();
            match answers.next().await.unwrap() {
                Err(EngineError::Failed(failed)) => {
                    assert!(failed.detail.contains(why), "{failed}");
                }
                other => panic!("{why}: {other:?}"),
            }
        }
        // The host goes on.
        let reply = Question {
            tokens: 3,
            ..question
        };
        assert_eq!(reply.ask_ring(&host).await.unwrap().len(), 3);
    });
}
