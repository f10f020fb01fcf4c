//! `POST /v1/completions`: text without a conversation.

use super::chat::{REFUSED, StreamOptions};
use super::{finish_reason, object, usage};
use crate::answer::{
    Ask, Dialect, Event, Frames, Framing, Heading, Reason, Score, Step, Usage, Whole,
};
use crate::backend::{Backend, GenerateRequest, Prompt};
use crate::fault::Fault;
use crate::routes::App;
use crate::wire::json::{Refused, not_supported, read_without};
use crate::wire::lenient::{Inputs, Texts};
use crate::wire::required_model;
use crate::wire::sampling::{self, CHOICES_MAX};
use axum::extract::{Request, State};
use axum::response::Response;
use proto::journal::StreamDialect;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use std::sync::Arc;

/// The most alternatives of a token whose probabilities are told, as in OpenAI's description.
const LOGPROBS_MAX: u32 = 5;

/// Answers, or says why not.
pub(crate) async fn completions<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    app.answer(request, parse).await
}

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    #[serde(default)]
    prompt: Inputs,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Number>,
    seed: Option<Number>,
    n: Option<Number>,
    max_tokens: Option<Number>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    logprobs: Option<Number>,
    #[serde(default)]
    stop: Texts,
    echo: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

/// A question, and who writes its answer.
pub(crate) fn read_question(body: &[u8]) -> Result<(Ask, impl Dialect + use<>), Fault> {
    parse(body)
}

fn parse(body: &[u8]) -> Result<(Ask, CompletionTexts), Fault> {
    let more: Refused<'_> = &[("suffix", 0.0), ("best_of", 1.0), ("response_format", 0.0)];
    let wire: Wire = read_without(body, &[REFUSED, more].concat())?;
    let model = required_model(wire.model)?;
    let prompts = prompts(wire.prompt)?;
    let choices = sampling::count("n", wire.n.as_ref(), 1, 1..=CHOICES_MAX)?;
    if prompts.len().saturating_mul(choices as usize) > CHOICES_MAX as usize {
        let message = format!(
            "{} prompts with {choices} answers each; at most {CHOICES_MAX} answers in all",
            prompts.len()
        );
        return Err(Fault::invalid("prompt", message));
    }
    let logprobs = wire.logprobs.as_ref();
    let logprobs = logprobs.map(|_| sampling::count("logprobs", logprobs, 0, 0..=LOGPROBS_MAX));
    let logprobs = logprobs.transpose()?;
    let echo = wire.echo.unwrap_or(false);
    let texts = CompletionTexts {
        include_usage: wire
            .stream_options
            .and_then(|o| o.include_usage)
            .unwrap_or(false),
        logprobs: logprobs.is_some(),
        echoes: if echo {
            echoes(&prompts, choices, logprobs)?
        } else {
            Vec::new()
        },
        offsets: Vec::new(),
    };
    let penalty = |name, value| sampling::within(name, value, -2.0..=2.0);
    let ask = Ask {
        generate: GenerateRequest {
            model,
            temperature: sampling::temperature(wire.temperature)?,
            top_p: sampling::top_p(wire.top_p)?,
            top_k: sampling::top_k(wire.top_k.as_ref())?,
            seed: sampling::seed(wire.seed.as_ref())?,
            max_tokens: sampling::max_tokens(&[("max_tokens", &wire.max_tokens)])?,
            logit_bias: sampling::logit_bias(wire.logit_bias)?,
            presence_penalty: penalty("presence_penalty", wire.presence_penalty)?
                .unwrap_or_default(),
            frequency_penalty: penalty("frequency_penalty", wire.frequency_penalty)?
                .unwrap_or_default(),
            logprobs,
            ..GenerateRequest::default()
        },
        prompts,
        choices,
        stops: sampling::stops("stop", wire.stop)?,
        checker: None,
        stream: wire.stream.unwrap_or(false),
    };
    Ok((ask, texts))
}

fn prompts(inputs: Inputs) -> Result<Vec<Prompt>, Fault> {
    let inputs = inputs.check("prompt")?;
    Ok(inputs.into_iter().map(Prompt::from).collect())
}

/// What stands before each choice's text if the prompt is to be repeated.
fn echoes(prompts: &[Prompt], choices: u32, logprobs: Option<u32>) -> Result<Vec<String>, Fault> {
    if logprobs.is_some() {
        return Err(not_supported("echo", "'echo' together with 'logprobs'"));
    }
    let mut echoes = Vec::new();
    for prompt in prompts {
        let Prompt::Text(text) = prompt else {
            return Err(not_supported("echo", "'echo' of a prompt of tokens"));
        };
        echoes.extend(std::iter::repeat_n(text.clone(), choices as usize));
    }
    Ok(echoes)
}

/// Writes `text_completion` objects.
struct CompletionTexts {
    include_usage: bool,
    logprobs: bool,
    /// What stands before each choice's text; empty unless it was asked for.
    echoes: Vec<String>,
    /// How many characters of each choice were told, for `text_offset`.
    offsets: Vec<usize>,
}

impl Dialect for CompletionTexts {
    const FRAMING: Framing = Framing::Events;
    const JOURNALLED: Option<StreamDialect> = Some(StreamDialect::Completions);

    fn whole(mut self, whole: Whole) -> Result<Value, Fault> {
        let mut body = object(&whole.heading, "cmpl", "text_completion");
        let choices = whole.choices.iter().enumerate().map(|(index, choice)| {
            let echo = self.echoes.get(index).map_or("", String::as_str);
            let text = format!("{echo}{}", choice.message.content);
            let scores = self.scores(index, &choice.scores);
            entry(index, &text, scores, Some(&choice.reason))
        });
        body.insert("choices".into(), choices.collect());
        body.insert("usage".into(), usage(whole.usage));
        Ok(body.into())
    }

    fn open(&mut self, heading: &Heading, out: &mut Frames) {
        for (index, echo) in self.echoes.iter().enumerate() {
            self.chunk(heading, entry(index, echo, Value::Null, None), out);
        }
    }

    fn step(&mut self, heading: &Heading, event: Event, out: &mut Frames) {
        let scores = match event.scores.is_empty() {
            true => Value::Null,
            false => self.scores(event.choice, &event.scores),
        };
        let choice = match &event.step {
            Step::Text(text) => entry(event.choice, text, scores, None),
            Step::End { reason, .. } => entry(event.choice, "", scores, Some(reason)),
            // A text without a conversation has no syntax, so it has no thoughts and no calls.
            Step::Reasoning(_) | Step::Call { .. } | Step::Arguments { .. } => return,
        };
        self.chunk(heading, choice, out);
    }

    fn close(&mut self, heading: &Heading, counts: Usage, out: &mut Frames) {
        let object = (heading, "cmpl", "text_completion");
        super::close(object, self.include_usage.then_some(counts), out);
    }

    fn fail(&mut self, _heading: &Heading, fault: &Fault, out: &mut Frames) {
        out.data(&fault.body());
    }
}

fn entry(index: usize, text: &str, scores: Value, reason: Option<&Reason>) -> Value {
    let reason = reason.map(finish_reason);
    json!({"text": text, "index": index, "logprobs": scores, "finish_reason": reason})
}

impl CompletionTexts {
    fn chunk(&self, heading: &Heading, choice: Value, out: &mut Frames) {
        let mut chunk = object(heading, "cmpl", "text_completion");
        chunk.insert("choices".into(), json!([choice]));
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        out.data(&chunk);
    }

    /// Probabilities in the older form: parallel lists.
    fn scores(&mut self, choice: usize, scores: &[Score]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        if self.offsets.len() <= choice {
            self.offsets.resize(choice + 1, 0);
        }
        let (mut tokens, mut own, mut top, mut offsets) = (vec![], vec![], vec![], vec![]);
        for score in scores {
            let text = String::from_utf8_lossy(&score.piece);
            offsets.push(self.offsets[choice]);
            self.offsets[choice] += text.chars().count();
            own.push(score.logprob.max(-9999.0));
            let others = score.top.iter().map(|(_, piece, logprob)| {
                let text = String::from_utf8_lossy(piece).into_owned();
                (text, json!(logprob.max(-9999.0)))
            });
            top.push(Value::Object(others.collect()));
            tokens.push(text);
        }
        json!({"text_offset": offsets, "token_logprobs": own, "tokens": tokens, "top_logprobs": top})
    }
}
