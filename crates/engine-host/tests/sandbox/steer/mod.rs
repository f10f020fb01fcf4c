//! Steered sessions in a sealed engine-host, on the starter model: whole, and as head and tail of a ring.

mod grammars;
mod guesses;
mod values;

use crate::Test;
use crate::hosts::{start, with_ward};
use crate::stages::cut;
use engine::{EngineError, Host};
use proto::host::{
    Answer, Draw, Drawn, Grammar, LoadSpec, Output, Part, Role, Run, SandboxLevel, Steer, Tokenize,
};
use proto::ids::SessionId;
use proto::model::{Numerics, Sampling};
use serde_json::json;
use std::path::Path;

pub(crate) const TESTS: &[Test] = &[
    (
        "replies_fit_their_schema_wherever_they_are_drawn",
        grammars::schemas,
    ),
    ("other_grammars_bind_too", grammars::grammars),
    ("guesses_at_a_tail_change_no_token", guesses::equal),
    ("guesses_that_cannot_be_are_refused", guesses::refusals),
    ("sessions_do_not_disturb_each_other", grammars::neighbours),
    ("steering_is_refused_with_words", values::refusals),
    ("a_session_is_steered_before_it_begins", values::order),
    ("what_cannot_go_on_says_so", grammars::dead_ends),
    ("a_reply_goes_on_behind_any_of_its_tokens", values::breaks),
    (
        "probabilities_are_those_of_the_logits",
        values::probabilities,
    ),
    ("bias_and_penalties_follow_their_formula", values::formulas),
    (
        "a_text_has_the_same_embedding_wherever_it_is_made",
        embeddings,
    ),
];

pub(super) fn spec(parts: &[(Role, &Path)]) -> LoadSpec {
    let parts = parts.iter().map(|(role, path)| Part::of(*role, path));
    LoadSpec {
        positions_max: 512,
        sessions_max: 8,
        step_rows_max: 128,
        threads: Some(1),
        ..LoadSpec::new(parts.collect(), Numerics::Exact)
    }
}

/// The vector of a text from a whole model, and from the rows that enter a tail.
fn embeddings() {
    with_ward(|_, ward| async move {
        let starter = specimen::starter();
        let staged = cut(&starter, &[11]);
        let halves: Vec<_> = staged
            .files
            .iter()
            .map(|(role, path)| (*role, path.as_path()))
            .collect();
        let (whole, ring) = (
            start(spec(&[(Role::Whole, &starter)]), &ward),
            start(spec(&halves), &ward),
        );
        let (whole, ring) = (whole.ready().await.unwrap(), ring.ready().await.unwrap());
        let session = SessionId([3; 16]);
        let text: Vec<i32> = (100..300).collect();
        let expected = whole.embed(vec![text.clone()]).await.unwrap().remove(0);
        let head = Run {
            session,
            role: Role::Head,
            position: 0,
            tokens: text,
            output: Output::Rows,
            scope: None,
            adapters: Vec::new(),
            guesses: Vec::new(),
        };
        let (_, rows) = ring.run(head, &[]).unwrap().next().await.unwrap().unwrap();
        assert_eq!(ring.embed_rows(session, &rows).await.unwrap(), expected);
        let few = ring.embed_rows(session, &rows[..rows.len() / 2]).await;
        assert_ne!(few.unwrap(), expected, "every row counts");

        let long = vec![0; 2_049 * rows.len() / 200];
        for (host, rows, why) in [
            (&ring, &rows[..rows.len() - 4], "1 to 2048 rows of 576"),
            (&ring, &long[..], "1 to 2048 rows of 576"),
            (&whole, &rows[..], "no Tail was loaded"),
        ] {
            match host.embed_rows(session, rows).await {
                Err(EngineError::Failed(failed)) => {
                    assert!(failed.detail.contains(why), "{failed}")
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ring.embed_rows(session, &rows).await.unwrap(), expected);
    });
}

/// Runs a test with the whole starter.
pub(super) fn with_starter<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<Host>) -> F) {
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
pub(super) struct Question {
    pub(super) prompt: &'static str,
    pub(super) steer: Option<Steer>,
    sampling: Sampling,
    pub(super) tokens: u32,
    /// How many tokens are drawn in one call; 1 is a call each, and no guesses.
    pub(super) burst: u32,
}

impl Question {
    pub(super) fn new(steer: Option<Steer>) -> Self {
        Self {
            prompt: "A person as JSON, with name, age, and hobbies: ",
            steer,
            sampling: Sampling::GREEDY,
            tokens: 160,
            burst: 32,
        }
    }

    pub(super) fn warm(self, temperature: f32, seed: u64) -> Self {
        let sampling = Sampling {
            temperature,
            seed,
            top_p: 0.95,
            ..Sampling::GREEDY
        };
        Self { sampling, ..self }
    }

    pub(super) async fn prompt(&self, host: &Host) -> Vec<i32> {
        let tokenize = Tokenize {
            text: self.prompt.to_owned(),
            add_special: true,
            parse_special: false,
        };
        host.tokenize(tokenize).await.unwrap()
    }

    /// The reply of a session of its own, drawn from the whole model.
    pub(super) async fn ask(&self, host: &Host) -> Result<Vec<Drawn>, EngineError> {
        let session = SessionId(rand::random());
        let reply = self.ask_in(host, session).await;
        host.drop_session(session);
        reply
    }

    pub(super) async fn ask_in(
        &self,
        host: &Host,
        session: SessionId,
    ) -> Result<Vec<Drawn>, EngineError> {
        if let Some(steer) = self.steer.clone() {
            host.steer(Steer { session, ..steer }).await?;
        }
        let mut reply: Vec<Drawn> = Vec::new();
        let (mut position, mut next) = (0, self.prompt(host).await);
        next.extend(self.steer.iter().flat_map(|steer| &steer.drawn));
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
    pub(super) async fn ask_ring(&self, host: &Host) -> Result<Vec<Drawn>, EngineError> {
        let reply = self.ask_ring_guessing(host, |_| Vec::new()).await;
        reply.map(|(reply, _)| reply)
    }

    /// The same, with guesses at what follows a reply; also says how often the tail ran.
    pub(super) async fn ask_ring_guessing(
        &self,
        host: &Host,
        guess: impl Fn(&[Drawn]) -> Vec<i32>,
    ) -> Result<(Vec<Drawn>, usize), EngineError> {
        let session = SessionId(rand::random());
        if let Some(steer) = self.steer.clone() {
            host.steer(Steer { session, ..steer }).await?;
        }
        let head = |position, tokens| {
            let head = self.run(session, Role::Head, position, tokens, 1);
            Run {
                output: Output::Rows,
                ..head
            }
        };
        let prompt = head(0, self.prompt(host).await);
        let (_, rows) = host.run(prompt, &[])?.next().await.unwrap()?;
        let mut rows = rows.to_vec();
        let (mut reply, mut runs): (Vec<Drawn>, _) = (Vec::new(), 0);
        let (mut position, mut guesses) = (0, Vec::new());
        while (reply.len() as u32) < self.tokens && !rows.is_empty() {
            let mut tail = self.run(session, Role::Tail, position, Vec::new(), 1);
            tail.guesses = std::mem::take(&mut guesses);
            let mut answers = host.run(tail, &rows)?;
            runs += 1;
            while let Some(answer) = answers.next().await {
                let (Answer::Token(drawn), after) = answer? else {
                    return Err(EngineError::OutOfTurn);
                };
                (position, rows) = (drawn.position, after.to_vec());
                reply.push(drawn);
            }
            guesses = match rows.is_empty() {
                true => Vec::new(),
                false => guess(&reply),
            };
            if !guesses.is_empty() {
                let mut answers = host.run(head(position + 1, guesses.clone()), &[])?;
                rows.extend_from_slice(&answers.next().await.unwrap()?.1);
            }
        }
        host.drop_session(session);
        Ok((reply, runs))
    }

    pub(super) fn run(
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
            guesses: Vec::new(),
        }
    }
}

pub(super) fn steer() -> Steer {
    Steer {
        session: SessionId([0; 16]),
        grammar: None,
        logit_bias: Vec::new(),
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logprobs: None,
        show_control: false,
        drawn: Vec::new(),
    }
}

pub(super) fn bound(grammar: Grammar) -> Option<Steer> {
    Some(Steer {
        grammar: Some(grammar),
        ..steer()
    })
}

pub(super) fn text(reply: &[Drawn]) -> String {
    let bytes = reply.iter().flat_map(|drawn| &drawn.piece);
    String::from_utf8(bytes.copied().collect()).unwrap()
}

pub(super) fn tokens(reply: &[Drawn]) -> Vec<i32> {
    reply.iter().map(|drawn| drawn.token).collect()
}

pub(super) fn person() -> Grammar {
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
