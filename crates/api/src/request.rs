//! Reading requests: lenient where it does no harm.
//!
//! Three kinds of field. *Known*: checked for type and range. *Unsupported*: would change the answer, and this server
//! cannot do it yet; refused with 400 and `param` unless its value says nothing (null, empty, the neutral number).
//! *Unknown*: ignored, as OpenAI's clients expect.

mod json;
mod lenient;

pub use json::DEPTH_MAX;

use crate::backend::{Caller, ChatMessage, GenerateRequest, Role};
use crate::fault::Fault;
use lenient::{Content, Part, Shape, Texts};
use serde::Deserialize;
use serde_json::Number;

/// The longest name of a model, in bytes.
pub const MODEL_BYTES_MAX: usize = 512;
/// The most stop strings in one request. OpenAI takes 4.
pub const STOPS_MAX: usize = 16;
/// The longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 1024;
/// The highest temperature.
pub const TEMPERATURE_MAX: f64 = 2.0;

/// A chat request that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// What the backend is asked.
    pub generate: GenerateRequest,
    /// Texts that end the answer; none is empty.
    pub stops: Vec<String>,
    /// Whether the answer comes as events.
    pub stream: bool,
    /// Whether the stream ends with a chunk of token counts.
    pub include_usage: bool,
}

impl ChatRequest {
    /// Reads the body of `POST /v1/chat/completions`. The content type does not matter.
    ///
    /// # Errors
    ///
    /// 400 with `param` where a field is to blame.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let wire: Wire = json::read(body)?;
        wire.refuse_unsupported()?;
        let generate = GenerateRequest {
            model: required_model(wire.model)?,
            messages: messages(wire.messages)?,
            temperature: temperature(wire.temperature)?,
            top_p: top_p(wire.top_p)?,
            top_k: top_k(wire.top_k.as_ref())?,
            seed: seed(wire.seed.as_ref())?,
            max_tokens: max_tokens(&wire.max_completion_tokens, &wire.max_tokens)?,
            caller: Caller::default(),
        };
        Ok(Self {
            generate,
            stops: stops(wire.stop)?,
            stream: wire.stream.unwrap_or(false),
            include_usage: wire
                .stream_options
                .and_then(|o| o.include_usage)
                .unwrap_or(false),
        })
    }
}

/// A chat request as it comes.
#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Number>,
    seed: Option<Number>,
    max_tokens: Option<Number>,
    max_completion_tokens: Option<Number>,
    #[serde(default)]
    stop: Texts,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    response_format: Option<ResponseFormat>,
    modalities: Option<Vec<String>>,
    // What follows is only ever refused.
    #[serde(default)]
    n: Shape,
    #[serde(default)]
    tools: Shape,
    #[serde(default)]
    tool_choice: Shape,
    #[serde(default)]
    functions: Shape,
    #[serde(default)]
    function_call: Shape,
    #[serde(default)]
    logprobs: Shape,
    #[serde(default)]
    top_logprobs: Shape,
    #[serde(default)]
    logit_bias: Shape,
    #[serde(default)]
    frequency_penalty: Shape,
    #[serde(default)]
    presence_penalty: Shape,
    #[serde(default)]
    audio: Shape,
    #[serde(default)]
    web_search_options: Shape,
    // From the dialects of llama-server and vLLM.
    #[serde(default)]
    repeat_penalty: Shape,
    #[serde(default)]
    repetition_penalty: Shape,
    #[serde(default)]
    min_p: Shape,
    #[serde(default)]
    typical_p: Shape,
    #[serde(default)]
    mirostat: Shape,
    #[serde(default)]
    grammar: Shape,
    #[serde(default)]
    json_schema: Shape,
    #[serde(default)]
    guided_json: Shape,
    #[serde(default)]
    ignore_eos: Shape,
}

#[derive(Deserialize)]
struct Message {
    role: Option<String>,
    #[serde(default)]
    content: Content,
    #[serde(default)]
    tool_calls: Shape,
    #[serde(default)]
    function_call: Shape,
    #[serde(default)]
    audio: Shape,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Wire {
    /// Refuses what would change the answer and cannot be done.
    fn refuse_unsupported(&self) -> Result<(), Fault> {
        // Each field, and the number besides "nothing" that changes no answer.
        let fields = [
            ("n", &self.n, 1.0),
            ("tools", &self.tools, 0.0),
            ("functions", &self.functions, 0.0),
            ("logprobs", &self.logprobs, 0.0),
            ("top_logprobs", &self.top_logprobs, 0.0),
            ("logit_bias", &self.logit_bias, 0.0),
            ("frequency_penalty", &self.frequency_penalty, 0.0),
            ("presence_penalty", &self.presence_penalty, 0.0),
            ("audio", &self.audio, 0.0),
            ("web_search_options", &self.web_search_options, 0.0),
            ("repeat_penalty", &self.repeat_penalty, 1.0),
            ("repetition_penalty", &self.repetition_penalty, 1.0),
            ("min_p", &self.min_p, 0.0),
            ("typical_p", &self.typical_p, 1.0),
            ("mirostat", &self.mirostat, 0.0),
            ("grammar", &self.grammar, 0.0),
            ("json_schema", &self.json_schema, 0.0),
            ("guided_json", &self.guided_json, 0.0),
            ("ignore_eos", &self.ignore_eos, 0.0),
        ];
        for (name, shape, neutral) in fields {
            if *shape != Shape::Nothing && *shape != Shape::Number(neutral) {
                return Err(not_supported(name, &format!("'{name}' with this value")));
            }
        }
        for (name, choice) in [
            ("tool_choice", &self.tool_choice),
            ("function_call", &self.function_call),
        ] {
            if *choice != Shape::Nothing && *choice != Shape::Text("none".to_owned()) {
                return Err(not_supported(
                    name,
                    &format!("'{name}' other than \"none\""),
                ));
            }
        }
        self.refuse_other_than_text()
    }

    fn refuse_other_than_text(&self) -> Result<(), Fault> {
        let format = self
            .response_format
            .as_ref()
            .and_then(|format| format.kind.as_deref());
        if format.is_some_and(|kind| kind != "text") {
            return Err(not_supported(
                "response_format",
                "a response format other than text",
            ));
        }
        if self
            .modalities
            .iter()
            .flatten()
            .any(|modality| modality != "text")
        {
            return Err(not_supported("modalities", "a modality other than text"));
        }
        Ok(())
    }
}

fn not_supported(param: &str, what: &str) -> Fault {
    let message = format!(
        "{what} is not supported by this server and would change the answer; leave '{param}' out"
    );
    Fault::unsupported(param, message)
}

fn required_model(model: Option<String>) -> Result<String, Fault> {
    let name = model.filter(|name| !name.is_empty()).ok_or_else(|| {
        Fault::missing(
            "model",
            "name a model in 'model'; GET /v1/models lists those that are here",
        )
    })?;
    if name.len() > MODEL_BYTES_MAX {
        let message =
            format!("'model' has more than {MODEL_BYTES_MAX} bytes; no model's name is so long");
        return Err(Fault::invalid("model", message));
    }
    Ok(name)
}

fn messages(messages: Option<Vec<Message>>) -> Result<Vec<ChatMessage>, Fault> {
    let messages = messages.unwrap_or_default();
    if messages.is_empty() {
        return Err(Fault::missing(
            "messages",
            "'messages' needs at least one message",
        ));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(i, m)| message(&format!("messages[{i}]"), m))
        .collect()
}

fn message(at: &str, message: Message) -> Result<ChatMessage, Fault> {
    let fields = [
        ("tool_calls", &message.tool_calls),
        ("function_call", &message.function_call),
        ("audio", &message.audio),
    ];
    if let Some((name, _)) = fields.iter().find(|(_, shape)| **shape != Shape::Nothing) {
        return Err(not_supported(
            &format!("{at}.{name}"),
            &format!("'{name}' in a message"),
        ));
    }
    let role = role(&format!("{at}.role"), message.role.as_deref())?;
    let content = content(&format!("{at}.content"), message.content)?;
    Ok(ChatMessage { role, content })
}

fn role(at: &str, role: Option<&str>) -> Result<Role, Fault> {
    match role {
        Some("system" | "developer") => Ok(Role::System),
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("tool" | "function") => Err(Fault::unsupported(
            at,
            "messages of tools are not supported by this server",
        )),
        Some(other) => {
            let message = format!(
                "the role '{}' is not one of system, developer, user, assistant",
                shortened(other)
            );
            Err(Fault::invalid(at, message))
        }
        None => Err(Fault::missing(at, "every message needs a 'role'")),
    }
}

fn content(at: &str, content: Content) -> Result<String, Fault> {
    match content {
        Content::Text(text) => Ok(text),
        Content::Parts(parts) => {
            let texts = parts
                .into_iter()
                .enumerate()
                .map(|(i, p)| part(&format!("{at}[{i}]"), p));
            // Parts are separate paragraphs to templates that know only text; vLLM and llama-server join alike.
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Content::Missing => Err(Fault::missing(at, "every message needs 'content'")),
    }
}

fn part(at: &str, part: Part) -> Result<String, Fault> {
    match (part.kind.as_str(), part.text) {
        ("text", Some(text)) => Ok(text),
        ("text", None) => Err(Fault::missing(
            format!("{at}.text"),
            "a text part needs 'text'",
        )),
        (other, _) => {
            let message = format!(
                "parts of the type '{}' are not supported by this server; it reads text only",
                shortened(other)
            );
            Err(Fault::unsupported(format!("{at}.type"), message))
        }
    }
}

fn temperature(value: Option<f64>) -> Result<Option<f32>, Fault> {
    match value {
        Some(t) if !(0.0..=TEMPERATURE_MAX).contains(&t) => Err(Fault::invalid(
            "temperature",
            format!("'temperature' is {t}; it must lie between 0 and {TEMPERATURE_MAX}"),
        )),
        fine => Ok(fine.map(|t| t as f32)),
    }
}

fn top_p(value: Option<f64>) -> Result<Option<f32>, Fault> {
    match value {
        Some(p) if !(p > 0.0 && p <= 1.0) => Err(Fault::invalid(
            "top_p",
            format!("'top_p' is {p}; it must lie above 0 and not above 1"),
        )),
        // A tiny number must not become 0 by rounding.
        fine => Ok(fine.map(|p| (p as f32).max(f32::MIN_POSITIVE))),
    }
}

fn top_k(value: Option<&Number>) -> Result<Option<u32>, Fault> {
    match value.map(whole) {
        None => Ok(None),
        // llama-server's way to say "all".
        Some(Some(-1)) => Ok(Some(0)),
        Some(Some(k)) if k >= 0 => Ok(Some(u32::try_from(k).unwrap_or(u32::MAX))),
        Some(_) => Err(Fault::invalid(
            "top_k",
            "'top_k' must be a whole number; 0 keeps all tokens",
        )),
    }
}

fn seed(value: Option<&Number>) -> Result<Option<u64>, Fault> {
    match value.map(whole) {
        None => Ok(None),
        Some(Some(seed)) => Ok(Some(seed as u64)),
        Some(None) => Err(Fault::invalid(
            "seed",
            "'seed' must be a whole number of at most 64 bits",
        )),
    }
}

fn max_tokens(newer: &Option<Number>, older: &Option<Number>) -> Result<Option<u32>, Fault> {
    let (param, value) = match (newer, older) {
        (Some(value), _) => ("max_completion_tokens", value),
        (None, Some(value)) => ("max_tokens", value),
        (None, None) => return Ok(None),
    };
    match whole(value) {
        Some(count) if count >= 1 => Ok(Some(u32::try_from(count).unwrap_or(u32::MAX))),
        _ => {
            let message = format!("'{param}' is {value}; it must be a whole number of at least 1");
            Err(Fault::invalid(param, message))
        }
    }
}

/// A whole number of 64 bits; also when it is written like `10.0`, as some clients do.
fn whole(number: &Number) -> Option<i128> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53: up to here every whole f64 is exact
    match number.as_i128() {
        Some(whole) => Some(whole),
        None => number
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() <= EXACT_MAX)
            .map(|f| f as i128),
    }
}

fn stops(texts: Texts) -> Result<Vec<String>, Fault> {
    let Texts(stops) = texts;
    if stops.len() > STOPS_MAX {
        let message = format!(
            "'stop' has {} texts, at most {STOPS_MAX} are allowed",
            stops.len()
        );
        return Err(Fault::invalid("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(Fault::invalid(
            "stop",
            "'stop' has an empty text, which would end every answer",
        ));
    }
    if stops.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        let message = format!("'stop' has a text of more than {STOP_BYTES_MAX} bytes");
        return Err(Fault::invalid("stop", message));
    }
    Ok(stops)
}

/// A client's text for an error message: its beginning.
fn shortened(text: &str) -> &str {
    const CHARS_MAX: usize = 40;
    text.char_indices()
        .nth(CHARS_MAX)
        .map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests;
