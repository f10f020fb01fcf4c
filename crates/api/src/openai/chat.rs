//! `POST /v1/chat/completions`, and what a conversation looks like to the model: `POST /apply-template`.

use super::chunks::Chunks;
use super::messages::{MessageWire, messages};
use crate::answer::{Ask, Checker, Dialect};
use crate::backend::{Backend, Conversation, GenerateRequest, Prompt, RenderRequest};
use crate::fault::Fault;
use crate::routes::App;
use crate::wire::json::{Refused, not_supported, read, read_without};
use crate::wire::lenient::{Shape, Texts};
use crate::wire::required_model;
use crate::wire::sampling::{self, CHOICES_MAX, TOP_LOGPROBS_MAX};
use crate::wire::tools::{self, Format, Function};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use std::sync::Arc;

/// Fields that are only ever refused. Those after `web_search_options` are from the dialects of llama-server and vLLM.
pub(super) const REFUSED: Refused<'static> = &[
    ("functions", 0.0),
    ("audio", 0.0),
    ("web_search_options", 0.0),
    ("repeat_penalty", 1.0),
    ("repetition_penalty", 1.0),
    ("min_p", 0.0),
    ("typical_p", 1.0),
    ("mirostat", 0.0),
    ("grammar", 0.0),
    ("json_schema", 0.0),
    ("guided_json", 0.0),
    ("ignore_eos", 0.0),
];

/// Answers, or says why not.
pub(crate) async fn completions<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    app.answer(request, parse).await
}

/// llama-server's `{"prompt": …}`.
pub(crate) async fn apply_template<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (_entry, body) = app.admit(request).await?;
    let wire: ConversationWire = read(&body)?;
    let model = app.model_or_only(wire.model.clone())?;
    let conversation = wire.check()?;
    let request = RenderRequest {
        model,
        conversation,
    };
    let rendered = app.until_shutdown(app.backend.render(request)).await?;
    Ok(Json(json!({"prompt": rendered.text})).into_response())
}

/// What makes a conversation.
#[derive(Deserialize)]
struct ConversationWire {
    model: Option<String>,
    messages: Option<Vec<MessageWire>>,
    tools: Option<Vec<ToolWire>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Format>,
    chat_template_kwargs: Option<Map<String, Value>>,
    /// vLLM's name.
    continue_final_message: Option<bool>,
}

#[derive(Deserialize)]
struct ToolWire {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Function>,
}

/// How it is answered.
#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Number>,
    seed: Option<Number>,
    n: Option<Number>,
    max_tokens: Option<Number>,
    max_completion_tokens: Option<Number>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    logprobs: Option<bool>,
    top_logprobs: Option<Number>,
    #[serde(default)]
    stop: Texts,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    modalities: Option<Vec<String>>,
    #[serde(default)]
    function_call: Shape,
}

#[derive(Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// A question, and who writes its answer.
pub(crate) fn read_question(body: &[u8]) -> Result<(Ask, impl Dialect + use<>), Fault> {
    parse(body)
}

/// Reads the body of a chat request. The content type does not matter.
pub(super) fn parse(body: &[u8]) -> Result<(Ask, Chunks), Fault> {
    let wire: Wire = read_without(body, REFUSED)?;
    wire.refuse_unsupported()?;
    let conversation: ConversationWire = read(body)?;
    let stream = wire.stream.unwrap_or(false);
    let chunks = Chunks {
        include_usage: wire
            .stream_options
            .as_ref()
            .and_then(|options| options.include_usage)
            .unwrap_or(false),
        logprobs: wire.logprobs.unwrap_or(false),
    };
    let model = required_model(wire.model.clone())?;
    let conversation = conversation.check()?;
    let choices = sampling::count("n", wire.n.as_ref(), 1, 1..=CHOICES_MAX)?;
    let (generate, stops) = wire.sampling(model)?;
    let ask = Ask {
        checker: checker(&conversation, "response_format")?,
        generate,
        prompts: vec![Prompt::Chat(Box::new(conversation))],
        choices,
        stops,
        stream,
    };
    Ok((ask, chunks))
}

/// The check of a conversation's answer, if it has a schema.
pub(crate) fn checker(conversation: &Conversation, at: &str) -> Result<Option<Checker>, Fault> {
    let schema = conversation.schema.as_ref();
    schema.map(|schema| Checker::new(schema, at)).transpose()
}

impl ConversationWire {
    fn check(self) -> Result<Conversation, Fault> {
        let tools = tools::tools(self.tools, |at, tool| tool.check(&at))?;
        let tool_choice = tools::settle(tools::tool_choice(self.tool_choice)?, &tools)?;
        let at = "response_format";
        Ok(Conversation {
            messages: messages(self.messages)?,
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            schema: self
                .response_format
                .map_or(Ok(None), |format| format.schema(at))?,
            template_kwargs: self.chat_template_kwargs.unwrap_or_default(),
            continue_final: self.continue_final_message.unwrap_or(false),
        })
    }
}

impl ToolWire {
    fn check(self, at: &str) -> Result<Value, Fault> {
        if self.kind.as_deref().is_some_and(|kind| kind != "function") {
            return Err(not_supported(
                &format!("{at}.type"),
                "a tool of another type than 'function'",
            ));
        }
        let at = format!("{at}.function");
        match self.function {
            Some(function) => function.tool(&at),
            None => Err(Fault::missing(at, "a tool needs a function")),
        }
    }
}

impl Wire {
    /// Refuses what would change the answer and cannot be done.
    fn refuse_unsupported(&self) -> Result<(), Fault> {
        let choice = &self.function_call;
        if *choice != Shape::Nothing && *choice != Shape::Text("none".to_owned()) {
            return Err(not_supported(
                "function_call",
                "'function_call' other than \"none\"",
            ));
        }
        let mut modalities = self.modalities.iter().flatten();
        if modalities.any(|modality| modality != "text") {
            return Err(not_supported("modalities", "a modality other than text"));
        }
        Ok(())
    }

    fn sampling(self, model: String) -> Result<(GenerateRequest, Vec<String>), Fault> {
        let logprobs = self.logprobs()?;
        let penalty = |name, value| sampling::within(name, value, -2.0..=2.0);
        let presence = penalty("presence_penalty", self.presence_penalty)?;
        let frequency = penalty("frequency_penalty", self.frequency_penalty)?;
        let generate = GenerateRequest {
            model,
            temperature: sampling::temperature(self.temperature)?,
            top_p: sampling::top_p(self.top_p)?,
            top_k: sampling::top_k(self.top_k.as_ref())?,
            seed: sampling::seed(self.seed.as_ref())?,
            max_tokens: sampling::max_tokens(&[
                ("max_completion_tokens", &self.max_completion_tokens),
                ("max_tokens", &self.max_tokens),
            ])?,
            logit_bias: sampling::logit_bias(self.logit_bias)?,
            presence_penalty: presence.unwrap_or_default(),
            frequency_penalty: frequency.unwrap_or_default(),
            logprobs,
            ..GenerateRequest::default()
        };
        Ok((generate, sampling::stops("stop", self.stop)?))
    }

    fn logprobs(&self) -> Result<Option<u32>, Fault> {
        let top = self.top_logprobs.as_ref();
        let top = sampling::count("top_logprobs", top, 0, 0..=TOP_LOGPROBS_MAX)?;
        match self.logprobs.unwrap_or(false) {
            true => Ok(Some(top)),
            false if top == 0 => Ok(None),
            false => Err(Fault::invalid(
                "top_logprobs",
                "'top_logprobs' needs 'logprobs' to be true",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
