//! What a request over HTTP takes beyond the same conversation given to the engine directly.
//!
//! The model is a tiny random one, whose step takes less time than what is measured around it. On both sides an
//! engine-host of the same binary makes the prompt with the chat template and computes the same tokens; over HTTP come
//! the connection, reading and checking the request, admission, events and this client's own reading.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use proto::host::{Answer, Draw, Drawn, Output, Role, Run, Task};
use proto::ids::{SessionId, ShareScope};
use proto::model::{Numerics, Sampling};
use serde_json::json;
use specimen::{Family, Shape, Weights};
use tempfile::NamedTempFile;

use super::engine::Engine;
use super::ours::Ours;
use crate::rig::ask::{Ask, SYSTEM, Sample, ask};
use crate::rig::http;
use crate::rig::process::Node;
use crate::rig::started::Started;
use crate::rig::stats::Series;

/// Tokens of a long answer.
const TOKENS: u32 = 128;
/// What is asked.
const TEXT: &str = "Hi!";
/// Positions of a context, on both sides.
const POSITIONS: u32 = 512;
/// Questions before those that count.
const WARM_UP: usize = 5;
/// For each round of the others, so many of this one: they take milliseconds.
const TIMES: usize = 20;
/// Seeds of random models that are tried; most never end an answer.
const SEEDS: u64 = 20;

/// Microseconds beyond the engine.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Overhead {
    /// Of an answer of one token.
    pub(super) request_us: Series,
    /// Of every further token.
    pub(super) token_us: Series,
    /// What the engine itself takes for a further token.
    pub(super) engine_us: Series,
}

/// The same answer from both: one token and many.
#[derive(Debug, Clone, Copy)]
struct Times {
    one: Duration,
    many: Duration,
}

impl Times {
    fn each_us(&self) -> f64 {
        us(self.many) - us(self.one)
    }
}

/// Measures both sides in turn.
///
/// # Errors
///
/// When the node or the engine-host fails, when they do not compute the same, or when the run is interrupted.
pub(super) fn measure(started: &Started, ours: &Ours, rounds: usize) -> Result<Overhead> {
    let model = NamedTempFile::with_suffix(".gguf")?;
    for seed in 0..SEEDS {
        let bytes = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, seed);
        std::fs::write(model.path(), bytes)?;
        let mut pair = Pair::start(started, ours, &model)?;
        if pair.direct_times().is_ok() {
            return pair.measure(started, rounds * TIMES);
        }
    }
    bail!("every random model ends its answer before {TOKENS} tokens")
}

/// A node and an engine-host with the same model.
struct Pair {
    node: Node,
    name: String,
    engine: Engine,
    conversation: String,
    prompt_tokens: u32,
    sessions: u64,
}

impl Pair {
    fn start(started: &Started, ours: &Ours, model: &NamedTempFile) -> Result<Self> {
        let args = format!(
            "up --api 127.0.0.1:0 --listen 127.0.0.1:0 --context {POSITIONS} --threads 1 --numerics throughput --model"
        );
        let mut args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        args.push(model.path().display().to_string());
        let node = Node::start(started, &ours.myzel, &args)?;
        let name = http::model_name(node.addr)?;
        let conversation = json!({"messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": TEXT},
        ]});
        let spec = super::engine::spec(model.path(), Numerics::Throughput, POSITIONS);
        Ok(Self {
            name,
            engine: Engine::start(started, &ours.myzel, spec)?,
            conversation: conversation.to_string(),
            node,
            prompt_tokens: 0,
            sessions: 0,
        })
    }

    fn measure(&mut self, started: &Started, times: usize) -> Result<Overhead> {
        let mut pairs = Vec::new();
        for round in 0..WARM_UP + times {
            started.check()?;
            let pair = if round % 2 == 0 {
                let direct = self.direct_times()?;
                (direct, self.http_times()?)
            } else {
                let http = self.http_times()?;
                (self.direct_times()?, http)
            };
            pairs.push(pair);
        }
        pairs.drain(..WARM_UP);
        let further = f64::from(TOKENS - 1);
        let series =
            |of: &dyn Fn(&(Times, Times)) -> f64| Series::new(pairs.iter().map(of).collect());
        Ok(Overhead {
            request_us: series(&|(direct, http)| us(http.one) - us(direct.one)),
            token_us: series(&|(direct, http)| (http.each_us() - direct.each_us()) / further),
            engine_us: series(&|(direct, _)| direct.each_us() / further),
        })
    }

    fn direct_times(&mut self) -> Result<Times> {
        let (one, _) = self.direct(1)?;
        let (many, [prompt, tokens]) = self.direct(TOKENS)?;
        self.prompt_tokens = prompt;
        ensure!(
            tokens == TOKENS,
            "the engine ended its answer after {tokens} tokens"
        );
        Ok(Times { one, many })
    }

    fn http_times(&self) -> Result<Times> {
        let (one, many) = (self.http(1)?, self.http(TOKENS)?);
        for (sample, tokens) in [(one, 1), (many, TOKENS)] {
            let (prompt, answer) = (sample.prompt_tokens, sample.answer_tokens);
            ensure!(
                prompt == self.prompt_tokens && answer == tokens,
                "over HTTP, {prompt} tokens were answered with {answer}; the engine answers {} with {tokens}",
                self.prompt_tokens
            );
        }
        let (one, many) = (one.last, many.last);
        Ok(Times { one, many })
    }

    fn http(&self, tokens_max: u32) -> Result<Sample> {
        let what = Ask {
            model: &self.name,
            text: TEXT,
            tokens_max,
        };
        ask(self.node.addr, &what)
    }

    /// The time of an answer, and the tokens of its prompt and of itself.
    fn direct(&mut self, tokens_max: u32) -> Result<(Duration, [u32; 2])> {
        let begun = Instant::now();
        let mut prompt = Vec::new();
        self.engine.call(
            Task::Render(self.conversation.clone()),
            |answer| match answer {
                Answer::Prompt(said) => {
                    prompt = said.tokens;
                    Ok(())
                }
                other => bail!("our engine-host made no prompt: {other:?}"),
            },
        )?;
        let prompt_tokens = prompt.len() as u32;
        self.sessions += 1;
        let session = SessionId(u128::from(self.sessions).to_be_bytes());
        let run = Run {
            session,
            role: Role::Whole,
            position: 0,
            tokens: prompt,
            output: Output::Token(Draw {
                sampling: Sampling::GREEDY,
                burst: tokens_max,
                then_head: false,
            }),
            // As the node's requests have one: both sides keep prefixes, or neither.
            scope: Some(ShareScope([1; 16])),
            adapters: Vec::new(),
            guesses: Vec::new(),
        };
        let (mut tokens, mut last) = (0, Duration::ZERO);
        self.engine.call(Task::Run(run), |answer| match answer {
            Answer::Token(Drawn { end: false, .. }) => {
                tokens += 1;
                last = begun.elapsed();
                Ok(())
            }
            Answer::Token(_) => Ok(()),
            other => bail!("our engine-host did not compute: {other:?}"),
        })?;
        self.engine.call(Task::Drop(session), |_| Ok(()))?;
        Ok((last, [prompt_tokens, tokens]))
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
