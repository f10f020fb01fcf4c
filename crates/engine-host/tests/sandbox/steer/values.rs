//! What is asked for and refused; bias, penalties and probabilities.

use super::{Question, bound, person, steer, text, tokens, with_starter};
use engine::{EngineError, Host};
use proto::host::{FailCode, Failed, Gbnf, Grammar, Output, Role, SESSIONS_MAX, Steer};
use proto::ids::SessionId;

async fn refused(host: &Host, steer: Steer) -> Failed {
    match host.steer(steer).await {
        Err(EngineError::Failed(failed)) => failed,
        other => panic!("{other:?}"),
    }
}

pub(super) fn refusals() {
    with_starter(|host| async move {
        let biased = |logit_bias| Steer {
            logit_bias,
            ..steer()
        };
        let penalties = |presence_penalty, frequency_penalty| Steer {
            presence_penalty,
            frequency_penalty,
            ..steer()
        };
        let likely = Steer {
            logprobs: Some(21),
            ..steer()
        };
        let grammar = |grammar| bound(grammar).unwrap();
        let gbnf = Gbnf {
            rules: "root ::= (".to_owned(),
            ..Gbnf::default()
        };
        let mut many = vec![(1, 0.0); 1_025];
        for (change, expected) in [
            (biased(many.clone()), "1025 tokens"),
            (biased(vec![(1, f32::NAN)]), "NaN"),
            (biased(vec![(1, f32::INFINITY)]), "inf"),
            (biased(vec![(49_152, 1.0)]), "token 49152"),
            (biased(vec![(-1, 1.0)]), "token -1"),
            (penalties(2.5, 0.0), "presence_penalty is 2.5"),
            (penalties(0.0, f32::NAN), "frequency_penalty is NaN"),
            (likely, "21 most probable"),
            (
                grammar(Grammar::Schema("{\"not\":{}}".into())),
                "not supported: [\"not\"]",
            ),
            (
                grammar(Grammar::Lark("start: (".into())),
                "grammar cannot be used",
            ),
            (grammar(Grammar::Gbnf(gbnf)), "grammar cannot be used"),
        ] {
            let failed = refused(&host, change).await;
            assert_eq!(failed.code, FailCode::BadCall, "{failed}");
            assert!(failed.detail.contains(expected), "{failed}");
        }
        many.truncate(1_024);
        host.steer(Steer {
            logit_bias: many,
            ..steer()
        })
        .await
        .unwrap();
        // One is steered; the others fill the table.
        for n in 1..SESSIONS_MAX as u8 {
            host.steer(Steer {
                session: SessionId([n; 16]),
                ..steer()
            })
            .await
            .unwrap();
        }
        let session = SessionId([200; 16]);
        let failed = refused(&host, Steer { session, ..steer() }).await;
        assert_eq!(failed.code, FailCode::NoRoom, "{failed}");
        host.drop_session(SessionId([1; 16]));
        host.steer(Steer { session, ..steer() }).await.unwrap();
    });
}

pub(super) fn order() {
    with_starter(|host| async move {
        let session = SessionId([9; 16]);
        let short = |steer| Question {
            tokens: 8,
            ..Question::new(steer)
        };
        let plain = short(None).ask(&host).await.unwrap();
        let no_schema = bound(Grammar::Schema("{\"not\":{}}".into()));
        // A session whose grammar was refused does not run without one.
        for question in [short(no_schema), short(None)] {
            let error = question.ask_in(&host, session).await.unwrap_err();
            assert!(error.to_string().contains("not supported"), "{error}");
        }
        // Another grammar takes its place, and binds.
        let digits = short(bound(Grammar::Lark("start: /[0-9]+/".into())));
        let reply = digits.ask_in(&host, session).await.unwrap();
        assert!(
            text(&reply).chars().all(|c| c.is_ascii_digit()),
            "{}",
            text(&reply)
        );
        // Now it is too late.
        let failed = refused(&host, Steer { session, ..steer() }).await;
        assert!(failed.detail.contains("before its first run"), "{failed}");
        host.drop_session(session);
        assert_eq!(short(None).ask_in(&host, session).await.unwrap(), plain);
        host.drop_session(session);
        // A run in front of the answer is refused, not left unbound. This takes a while to compile.
        let words: Vec<String> = (0..6_000)
            .map(|n| format!(r#"{{"const":"w{n}"}}"#))
            .collect();
        let slow = Grammar::Schema(format!(r#"{{"oneOf":[{}]}}"#, words.join(",")));
        let steered = host.steer(Steer {
            session,
            ..bound(slow).unwrap()
        });
        let early = async {
            let run = short(None).run(session, Role::Whole, 0, vec![1, 2], 1);
            host.run(run, &[]).unwrap().next().await.unwrap()
        };
        let (steered, early) = tokio::join!(steered, early);
        steered.unwrap();
        let error = early.unwrap_err().to_string();
        assert!(error.contains("still being compiled"), "{error}");
    });
}

/// The logits behind the last of these tokens, computed from the beginning.
async fn logits(host: &Host, tokens: &[i32]) -> Vec<f32> {
    let session = SessionId(rand::random());
    let mut run = Question::new(None).run(session, Role::Whole, 0, tokens.to_vec(), 1);
    run.output = Output::Logits;
    let (_, rows) = host.run(run, &[]).unwrap().next().await.unwrap().unwrap();
    host.drop_session(session);
    let rows = proto::packet::f32_from_bytes(&rows).unwrap();
    rows[rows.len() / tokens.len() * (tokens.len() - 1)..].to_vec()
}

pub(super) fn probabilities() {
    with_starter(|host| async move {
        let question = Question {
            tokens: 6,
            ..Question::new(Some(Steer {
                logprobs: Some(20),
                logit_bias: vec![(260, 5.0), (28, -3.0)],
                ..bound(person()).unwrap()
            }))
            .warm(1.3, 4)
        };
        let mut so_far = question.prompt(&host).await;
        for drawn in question.ask(&host).await.unwrap() {
            let raw = logits(&host, &so_far).await;
            let sum = raw.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
            let expected = |token: i32| f64::from(raw[token as usize]) - sum;
            let logprobs = drawn.logprobs.clone().unwrap();
            let near = |got: f32, token| (f64::from(got) - expected(token)).abs() < 1e-4;
            assert!(near(logprobs.drawn, drawn.token));
            assert_eq!(logprobs.top.len(), 20);
            assert!(logprobs.top.iter().all(|top| near(top.logprob, top.token)));
            let mut order: Vec<i32> = (0..raw.len() as i32).collect();
            order.sort_by(|a, b| raw[*b as usize].total_cmp(&raw[*a as usize]).then(a.cmp(b)));
            let best: Vec<i32> = logprobs.top.iter().map(|top| top.token).collect();
            assert_eq!(best, order[..20]);
            let mine = logprobs.top.iter().find(|top| top.token == drawn.token);
            assert!(
                mine.is_none_or(|top| top.piece == drawn.piece && top.logprob == logprobs.drawn)
            );
            so_far.push(drawn.token);
        }
        let none = Question {
            tokens: 2,
            ..Question::new(None)
        };
        let none = none.ask(&host).await.unwrap();
        assert!(none.iter().all(|drawn| drawn.logprobs.is_none()));
    });
}

pub(super) fn formulas() {
    with_starter(|host| async move {
        let question = |steer| Question {
            prompt: "la la la la la la la la",
            tokens: 10,
            ..Question::new(Some(steer))
        };
        let plain = tokens(&question(steer()).ask(&host).await.unwrap());
        assert!(
            plain[4..].iter().any(|token| plain[..4].contains(token)),
            "it repeats itself"
        );
        let first = plain[0];
        let forbidden = Steer {
            logit_bias: vec![(first, f32::NEG_INFINITY)],
            ..steer()
        };
        let without = tokens(&question(forbidden).ask(&host).await.unwrap());
        assert!(!without.contains(&first), "{without:?}");
        let wanted = Steer {
            logit_bias: vec![(260, 100.0)],
            ..steer()
        };
        assert_eq!(
            tokens(&question(wanted).ask(&host).await.unwrap()),
            [260; 10]
        );
        for (presence, frequency) in [(1.5, 0.0), (0.0, 0.9), (-0.5, 2.0)] {
            let question = question(Steer {
                presence_penalty: presence,
                frequency_penalty: frequency,
                ..steer()
            });
            let prompt = question.prompt(&host).await;
            let reply = tokens(&question.ask(&host).await.unwrap());
            assert_ne!(reply, plain, "{presence} {frequency}");
            // The formula as OpenAI's reference gives it, token by token.
            for at in 0..reply.len() {
                let mut row = logits(&host, &[&prompt, &reply[..at]].concat()).await;
                for (token, logit) in row.iter_mut().enumerate() {
                    let count = reply[..at].iter().filter(|t| **t as usize == token).count() as f32;
                    *logit -= count * frequency + if count > 0.0 { presence } else { 0.0 };
                }
                let best = (0..row.len())
                    .rev()
                    .max_by(|a, b| row[*a].total_cmp(&row[*b]));
                assert_eq!(
                    best,
                    Some(reply[at] as usize),
                    "{at}: {presence} {frequency}"
                );
            }
        }
    });
}

/// A reply that begins with another one's first tokens, as if they were prompt, ends with the others.
pub(super) fn breaks() {
    with_starter(|host| async move {
        let steer = Steer {
            presence_penalty: 0.5,
            frequency_penalty: 0.5,
            ..bound(person()).unwrap()
        };
        for seed in [1, 2] {
            let question = Question {
                tokens: 40,
                ..Question::new(Some(steer.clone())).warm(1.0, seed)
            };
            let whole = tokens(&question.ask(&host).await.unwrap());
            assert!(whole.len() > 12, "{whole:?}");
            for count in [1, 2, 7, whole.len() - 1] {
                let (drawn, rest) = whole.split_at(count);
                let again = Question {
                    tokens: rest.len() as u32,
                    steer: Some(Steer {
                        drawn: drawn.to_vec(),
                        ..steer.clone()
                    }),
                    ..question.clone()
                };
                let again = tokens(&again.ask(&host).await.unwrap());
                assert_eq!(again, rest, "behind {count} tokens, seed {seed}");
            }
        }
        let unknown = Steer {
            drawn: vec![1 << 30],
            ..steer
        };
        let failed = refused(&host, unknown).await;
        assert!(failed.detail.contains("vocabulary"), "{failed}");
    });
}
