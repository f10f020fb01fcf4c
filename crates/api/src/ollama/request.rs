//! Requests of Ollama's `chat` and `generate`.

use crate::answer::Ask;
use crate::backend::{ChatMessage, Conversation, GenerateRequest, ModelCard, Prompt, Role, Schema};
use crate::fault::Fault;
use crate::openai::ToolCallWire;
use crate::openai::chat::checker;
use crate::wire::json::{Refused, not_supported, read, read_without, refuse};
use crate::wire::lenient::{Shape, Texts};
use crate::wire::sampling;
use crate::wire::tools::{self, Function};
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use std::collections::HashMap;

const REFUSED: Refused<'static> = &[
    ("suffix", 0.0),
    ("template", 0.0),
    ("context", 0.0),
    ("images", 0.0),
    ("logprobs", 0.0),
    ("top_logprobs", 0.0),
];
const REFUSED_OPTIONS: Refused<'static> = &[
    ("min_p", 0.0),
    ("typical_p", 1.0),
    ("tfs_z", 1.0),
    ("repeat_penalty", 1.0),
    ("mirostat", 0.0),
];

/// What both have.
#[derive(Deserialize)]
struct Wire {
    format: Option<Value>,
    options: Option<Options>,
    stream: Option<bool>,
    think: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Options {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Number>,
    seed: Option<Number>,
    num_predict: Option<Number>,
    num_ctx: Option<u64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    #[serde(default)]
    stop: Texts,
    #[serde(flatten)]
    others: HashMap<String, Shape>,
}

#[derive(Deserialize)]
struct ChatWire {
    messages: Option<Vec<MessageWire>>,
    tools: Option<Vec<ToolWire>>,
}

#[derive(Deserialize)]
struct MessageWire {
    role: Option<String>,
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<ToolCallWire>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
    #[serde(default)]
    images: Shape,
}

#[derive(Deserialize)]
struct ToolWire {
    function: Option<Function>,
}

#[derive(Deserialize)]
struct GenerateWire {
    prompt: Option<String>,
    system: Option<String>,
    raw: Option<bool>,
}

/// `None` asks only that the model be loaded.
pub(super) fn chat(body: &[u8], card: &ModelCard) -> Result<Option<Ask>, Fault> {
    let wire: Wire = read_without(body, REFUSED)?;
    let said: ChatWire = read(body)?;
    let mut messages = Vec::new();
    for (i, message) in said.messages.into_iter().flatten().enumerate() {
        messages.push(message.check(&format!("messages[{i}]"))?);
    }
    if messages.is_empty() {
        return Ok(None);
    }
    let tools = tools::tools(said.tools, |at, tool| match tool.function {
        Some(function) => function.tool(&format!("{at}.function")),
        None => Err(Fault::missing(at, "a tool needs a function")),
    })?;
    let conversation = Conversation {
        messages,
        tools,
        ..Conversation::default()
    };
    wire.ask(card, Some(conversation), String::new()).map(Some)
}

/// `None` asks only that the model be loaded.
pub(super) fn generate(body: &[u8], card: &ModelCard) -> Result<Option<Ask>, Fault> {
    let wire: Wire = read_without(body, REFUSED)?;
    let said: GenerateWire = read(body)?;
    let prompt = said.prompt.unwrap_or_default();
    if prompt.is_empty() {
        return Ok(None);
    }
    if said.raw == Some(true) {
        if wire.format.is_some() || said.system.is_some() {
            return Err(not_supported("raw", "'raw' with 'format' or 'system'"));
        }
        return wire.ask(card, None, prompt).map(Some);
    }
    let mut messages = Vec::new();
    messages.extend(said.system.map(|text| ChatMessage::new(Role::System, text)));
    messages.push(ChatMessage::new(Role::User, prompt));
    let conversation = Conversation {
        messages,
        ..Conversation::default()
    };
    wire.ask(card, Some(conversation), String::new()).map(Some)
}

impl MessageWire {
    fn check(self, at: &str) -> Result<ChatMessage, Fault> {
        if self.images != Shape::Nothing {
            return Err(not_supported(&format!("{at}.images"), "an image"));
        }
        let role = match self.role.as_deref() {
            Some("system") => Role::System,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool") => Role::Tool,
            _ => {
                let message = "the role is none of system, user, assistant, tool";
                return Err(Fault::invalid(format!("{at}.role"), message));
            }
        };
        let mut tool_calls = Vec::new();
        for (i, call) in self.tool_calls.into_iter().flatten().enumerate() {
            tool_calls.push(call.check(&format!("{at}.tool_calls[{i}]"))?);
        }
        let content = self
            .content
            .filter(|text| !text.is_empty() || tool_calls.is_empty());
        if content.is_none() && tool_calls.is_empty() {
            return Err(Fault::missing(
                format!("{at}.content"),
                "every message needs 'content'",
            ));
        }
        Ok(ChatMessage {
            role,
            content,
            tool_calls,
            tool_call_id: self.tool_call_id,
            name: self.tool_name,
            reasoning_content: self.thinking,
        })
    }
}

impl Wire {
    fn ask(
        self,
        card: &ModelCard,
        conversation: Option<Conversation>,
        raw: String,
    ) -> Result<Ask, Fault> {
        let schema = schema(self.format)?;
        let template_kwargs = thinking(self.think);
        let conversation = conversation.map(|conversation| Conversation {
            schema,
            template_kwargs,
            ..conversation
        });
        let checker = match &conversation {
            Some(conversation) => checker(conversation, "format")?,
            None => None,
        };
        let options = self.options.unwrap_or_default();
        let prompt = match conversation {
            Some(conversation) => Prompt::Chat(Box::new(conversation)),
            None => Prompt::Text(raw),
        };
        let (generate, stops) = options.sampling(card)?;
        Ok(Ask {
            generate,
            prompts: vec![prompt],
            choices: 1,
            stops,
            checker,
            stream: self.stream.unwrap_or(true),
        })
    }
}

fn schema(format: Option<Value>) -> Result<Option<Schema>, Fault> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(Schema::AnyObject)),
        Some(schema @ Value::Object(_)) => Ok(Some(Schema::Json(schema))),
        Some(_) => Err(Fault::invalid(
            "format",
            "'format' is neither \"json\" nor a schema",
        )),
    }
}

/// The variable by which templates of models that think switch that.
fn thinking(think: Option<Value>) -> Map<String, Value> {
    let think = match think {
        Some(Value::Bool(think)) => think,
        Some(Value::String(_)) => true,
        _ => return Map::new(),
    };
    Map::from_iter([("enable_thinking".to_owned(), think.into())])
}

impl Options {
    fn sampling(self, card: &ModelCard) -> Result<(GenerateRequest, Vec<String>), Fault> {
        let at_options = |fault: Fault| {
            let param = fault.param.clone().unwrap_or_default();
            fault.about(format!("options.{param}"))
        };
        refuse(&self.others, REFUSED_OPTIONS).map_err(at_options)?;
        if let (Some(wanted), Some(held)) = (self.num_ctx, card.context_tokens)
            && wanted > held.into()
        {
            let message = format!("the model's context here holds {held} tokens, not {wanted}");
            return Err(Fault::invalid("options.num_ctx", message));
        }
        // Below 0 is "as many as there is room for".
        let endless = |count: &Number| count.as_i64().is_some_and(|count| count < 0);
        let num_predict = self.num_predict.filter(|count| !endless(count));
        let penalty = |name, value| sampling::within(name, value, -2.0..=2.0);
        let build = || {
            Ok(GenerateRequest {
                model: card.id.clone(),
                temperature: sampling::temperature(self.temperature)?,
                top_p: sampling::top_p(self.top_p)?,
                top_k: sampling::top_k(self.top_k.as_ref())?,
                seed: sampling::seed(self.seed.as_ref())?,
                max_tokens: sampling::max_tokens(&[("num_predict", &num_predict)])?,
                presence_penalty: penalty("presence_penalty", self.presence_penalty)?
                    .unwrap_or_default(),
                frequency_penalty: penalty("frequency_penalty", self.frequency_penalty)?
                    .unwrap_or_default(),
                ..GenerateRequest::default()
            })
        };
        let generate = build().map_err(at_options)?;
        let stops = sampling::stops("stop", self.stop).map_err(at_options)?;
        Ok((generate, stops))
    }
}
