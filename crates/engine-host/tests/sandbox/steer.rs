//! Steered sessions in a sealed engine-host, on the starter model: whole, and as head and tail of a ring.

use crate::Test;
use crate::hosts::{start, with_ward};
use crate::stages::cut;
use engine::{EngineError, Host};
use futures::future::join_all;
use proto::host::{
    Answer, Draw, Drawn, FailCode, Failed, Grammar, KvType, LoadSpec, Output, Part, Role, Run,
    SESSIONS_MAX, SandboxLevel, Steer, Tokenize,
};
use proto::ids::SessionId;
use proto::model::{Numerics, Sampling};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) const TESTS: &[Test] = &[
    ("replies_fit_their_schema_wherever_they_are_drawn", schemas),
    ("other_grammars_bind_too", grammars),
    ("sessions_do_not_disturb_each_other", neighbours),
    ("steering_is_refused_with_words", refusals),
    ("a_session_is_steered_before_it_begins", order),
    ("what_cannot_go_on_says_so", dead_ends),
    ("probabilities_are_those_of_the_logits", probabilities),
    ("bias_and_penalties_follow_their_formula", formulas),
];

/// The layer at which the starter is cut in two.
const CUT: u32 = 13;

fn spec(parts: &[(Role, &Path)]) -> LoadSpec {
    let part = |(role, path): &(Role, &Path)| Part {
        role: *role,
        files: vec![path.display().to_string()],
    };
    LoadSpec {
        parts: parts.iter().map(part).collect(),
        numerics: Numerics::Exact,
        positions_max: 512,
        sessions_max: 8,
        step_rows_max: 128,
        threads: Some(1),
        memory_bytes_max: None,
        adapters_dir: None,
        kv: KvType::F16,
        rope_scale: None,
        kv_bytes_max: None,
        lanes: 1,
    }
}

/// Runs a test with the whole starter.
fn with_starter<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<Host>) -> F) {
    with_ward(|_, ward| async move {
        let starter = specimen::starter();
        let supervisor = start(spec(&[(Role::Whole, &starter)]), &ward);
        let host = supervisor.ready().await.unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(host.loaded().sandbox.level, SandboxLevel::Full);
        }
        test(host).await;
    });
}

/// What a reply is asked for with.
#[derive(Debug, Clone)]
struct Question {
    prompt: &'static str,
    steer: Option<Steer>,
    sampling: Sampling,
    tokens: u32,
    /// How many tokens are drawn in one call; 1 is a call each, and no guesses.
    burst: u32,
}

impl Question {
    fn new(steer: Option<Steer>) -> Self {
        Self {
            prompt: "A person as JSON, with name, age, and hobbies: ",
            steer,
            sampling: Sampling::GREEDY,
            tokens: 160,
            burst: 32,
        }
    }

    fn warm(self, temperature: f32, seed: u64) -> Self {
        let sampling = Sampling {
            temperature,
            seed,
            top_p: 0.95,
            ..Sampling::GREEDY
        };
        Self { sampling, ..self }
    }

    async fn prompt(&self, host: &Host) -> Vec<i32> {
        let tokenize = Tokenize {
            text: self.prompt.to_owned(),
            add_special: true,
            parse_special: false,
        };
        host.tokenize(tokenize).await.unwrap()
    }

    /// The reply of a session of its own, drawn from the whole model.
    async fn ask(&self, host: &Host) -> Result<Vec<Drawn>, EngineError> {
        let session = SessionId(rand::random());
        let reply = self.ask_in(host, session).await;
        host.drop_session(session);
        reply
    }

    async fn ask_in(&self, host: &Host, session: SessionId) -> Result<Vec<Drawn>, EngineError> {
        if let Some(steer) = self.steer.clone() {
            host.steer(Steer { session, ..steer }).await?;
        }
        let mut reply: Vec<Drawn> = Vec::new();
        let (mut position, mut next) = (0, self.prompt(host).await);
        while (reply.len() as u32) < self.tokens {
            let burst = self.burst.min(self.tokens - reply.len() as u32);
            let mut answers =
                host.run(self.run(session, Role::Whole, position, next, burst), &[])?;
            while let Some(answer) = answers.next().await {
                let (Answer::Token(drawn), _) = answer? else {
                    return Err(EngineError::OutOfTurn);
                };
                reply.push(drawn);
            }
            let last = reply.last().unwrap();
            if last.end {
                break;
            }
            (position, next) = (last.position, vec![last.token]);
        }
        Ok(reply)
    }

    /// The same from head and tail, as in a ring.
    async fn ask_ring(&self, host: &Host) -> Result<Vec<Drawn>, EngineError> {
        let session = SessionId(rand::random());
        if let Some(steer) = self.steer.clone() {
            host.steer(Steer { session, ..steer }).await?;
        }
        let prompt = self.prompt(host).await;
        let mut head = self.run(session, Role::Head, 0, prompt, 1);
        head.output = Output::Rows;
        let (_, mut rows) = host.run(head, &[])?.next().await.unwrap()?;
        let mut reply: Vec<Drawn> = Vec::new();
        let mut position = 0;
        while (reply.len() as u32) < self.tokens && !rows.is_empty() {
            let tail = self.run(session, Role::Tail, position, Vec::new(), 1);
            let (answer, after) = host.run(tail, &rows)?.next().await.unwrap()?;
            let Answer::Token(drawn) = answer else {
                return Err(EngineError::OutOfTurn);
            };
            (position, rows) = (drawn.position, after);
            reply.push(drawn);
        }
        host.drop_session(session);
        Ok(reply)
    }

    fn run(
        &self,
        session: SessionId,
        role: Role,
        position: u32,
        tokens: Vec<i32>,
        burst: u32,
    ) -> Run {
        Run {
            session,
            role,
            position,
            tokens,
            output: Output::Token(Draw {
                sampling: self.sampling,
                burst,
                then_head: role == Role::Tail,
            }),
            scope: None,
            adapters: Vec::new(),
        }
    }
}

fn steer() -> Steer {
    Steer {
        session: SessionId([0; 16]),
        grammar: None,
        logit_bias: Vec::new(),
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logprobs: None,
        show_control: false,
    }
}

fn bound(grammar: Grammar) -> Option<Steer> {
    Some(Steer {
        grammar: Some(grammar),
        ..steer()
    })
}

fn person() -> Grammar {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 1, "maximum": 120},
            "mood": {"enum": ["glad", "sad", 7]},
            "hobbies": {"type": "array", "items": {"$ref": "#/$defs/hobby"}, "minItems": 1, "maxItems": 2}
        },
        "required": ["name", "age", "mood", "hobbies"],
        "additionalProperties": false,
        "$defs": {"hobby": {
            "type": "object",
            "properties": {"what": {"type": "string", "maxLength": 12}, "hours": {"type": "number"}},
            "required": ["what"],
            "additionalProperties": false
        }}
    });
    Grammar::Schema(schema.to_string())
}

fn text(reply: &[Drawn]) -> String {
    let bytes = reply.iter().flat_map(|drawn| &drawn.piece);
    String::from_utf8(bytes.copied().collect()).unwrap()
}

fn tokens(reply: &[Drawn]) -> Vec<i32> {
    reply.iter().map(|drawn| drawn.token).collect()
}

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

fn schemas() {
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

fn grammars() {
    with_starter(|host| async move {
        let year = bound(Grammar::Lark("start: /[0-9]{4}/ \"!\"".to_owned()));
        let json = bound(Grammar::Json);
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

fn neighbours() {
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

async fn refused(host: &Host, steer: Steer) -> Failed {
    match host.steer(steer).await {
        Err(EngineError::Failed(failed)) => failed,
        other => panic!("{other:?}"),
    }
}

fn refusals() {
    with_starter(|host| async move {
        let mut many = vec![(1, 0.0); 1_025];
        for (change, expected) in [
            (
                Steer {
                    logit_bias: many.clone(),
                    ..steer()
                },
                "1025 tokens",
            ),
            (
                Steer {
                    logit_bias: vec![(1, f32::NAN)],
                    ..steer()
                },
                "NaN",
            ),
            (
                Steer {
                    logit_bias: vec![(1, f32::INFINITY)],
                    ..steer()
                },
                "inf",
            ),
            (
                Steer {
                    logit_bias: vec![(49_152, 1.0)],
                    ..steer()
                },
                "token 49152",
            ),
            (
                Steer {
                    logit_bias: vec![(-1, 1.0)],
                    ..steer()
                },
                "token -1",
            ),
            (
                Steer {
                    presence_penalty: 2.5,
                    ..steer()
                },
                "presence_penalty is 2.5",
            ),
            (
                Steer {
                    frequency_penalty: f32::NAN,
                    ..steer()
                },
                "frequency_penalty is NaN",
            ),
            (
                Steer {
                    logprobs: Some(21),
                    ..steer()
                },
                "21 most probable",
            ),
            (
                bound(Grammar::Schema("{\"not\":{}}".into())).unwrap(),
                "not supported: [\"not\"]",
            ),
            (
                bound(Grammar::Lark("start: (".into())).unwrap(),
                "grammar cannot be used",
            ),
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

fn order() {
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
        // A run in front of the answer is refused, not left unbound.
        let steered = host.steer(Steer {
            session,
            ..bound(person()).unwrap()
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

fn dead_ends() {
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

fn probabilities() {
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

fn formulas() {
    with_starter(|host| async move {
        let question = |steer| Question {
            prompt: "la la la la la la la la",
            tokens: 16,
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
            [260; 16]
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
