//! Requests of the Messages API.

use crate::answer::Ask;
use crate::backend::{
    ChatMessage, Conversation, GenerateRequest, Prompt, Role, ToolCall, ToolChoice,
};
use crate::fault::Fault;
use crate::openai::chat::checker;
use crate::wire::json::{Refused, not_supported, read, read_without, shortened};
use crate::wire::lenient::{Content, Texts};
use crate::wire::tools::{self, Format, Function};
use crate::wire::{required_model, role, sampling, text_of};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

const ROLES: [(&str, Role); 3] = [
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("system", Role::System),
];
const REFUSED: Refused<'static> = &[("mcp_servers", 0.0), ("container", 0.0)];

#[derive(Deserialize)]
struct Wire {
    max_tokens: Option<Number>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Number>,
    #[serde(default)]
    stop_sequences: Texts,
    stream: Option<bool>,
}

#[derive(Deserialize)]
struct ConversationWire {
    model: Option<String>,
    messages: Option<Vec<MessageWire>>,
    #[serde(default)]
    system: Content,
    tools: Option<Vec<ToolWire>>,
    tool_choice: Option<ChoiceWire>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
}

#[derive(Deserialize)]
struct MessageWire {
    role: Option<String>,
    #[serde(default)]
    content: Content<Block>,
}

/// A block of any type.
#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type", default)]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Map<String, Value>>,
    tool_use_id: Option<String>,
    #[serde(default)]
    content: Content,
    is_error: Option<bool>,
}

#[derive(Deserialize)]
struct ToolWire {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(flatten)]
    function: Function,
}

#[derive(Deserialize)]
struct ChoiceWire {
    #[serde(rename = "type", default)]
    kind: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct OutputConfig {
    format: Option<Format>,
}

pub(super) fn parse(body: &[u8]) -> Result<Ask, Fault> {
    let wire: Wire = read_without(body, REFUSED)?;
    let (model, conversation) = conversation(body)?;
    let max_tokens = sampling::max_tokens(&[("max_tokens", &wire.max_tokens)])?;
    let missing = || Fault::missing("max_tokens", "'max_tokens' says how long the answer may be");
    Ok(Ask {
        generate: GenerateRequest {
            model,
            temperature: sampling::within("temperature", wire.temperature, 0.0..=1.0)?,
            top_p: sampling::top_p(wire.top_p)?,
            top_k: sampling::top_k(wire.top_k.as_ref())?,
            max_tokens: Some(max_tokens.ok_or_else(missing)?),
            ..GenerateRequest::default()
        },
        checker: checker(&conversation, "output_config.format")?,
        prompts: vec![Prompt::Chat(Box::new(conversation))],
        choices: 1,
        stops: sampling::stops("stop_sequences", wire.stop_sequences)?,
        stream: wire.stream.unwrap_or(false),
    })
}

/// The model and the conversation: what is counted, too.
pub(super) fn conversation(body: &[u8]) -> Result<(String, Conversation), Fault> {
    let wire: ConversationWire = read(body)?;
    let model = required_model(wire.model)?;
    let mut messages = Vec::new();
    if let Some(system) = text_of("system", wire.system, &["text"])? {
        messages.push(ChatMessage::new(Role::System, system));
    }
    let said = wire.messages.unwrap_or_default();
    if said.is_empty() {
        let message = "'messages' needs at least one message";
        return Err(Fault::missing("messages", message));
    }
    for (i, message) in said.into_iter().enumerate() {
        message.unfold(&format!("messages[{i}]"), &mut messages)?;
    }
    let last = messages.last();
    let continue_final = last.is_some_and(|m| m.role == Role::Assistant && m.tool_calls.is_empty());
    let tools = tools::tools(wire.tools, |at, tool| tool.check(&at))?;
    let parallel = wire
        .tool_choice
        .as_ref()
        .and_then(|c| c.disable_parallel_tool_use);
    let tool_choice = wire
        .tool_choice
        .map_or(Ok(ToolChoice::Auto), ChoiceWire::check)?;
    let tool_choice = tools::settle(tool_choice, &tools)?;
    let format = wire.output_config.and_then(|config| config.format);
    let conversation = Conversation {
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: parallel.map(|disabled| !disabled),
        schema: format.map_or(Ok(None), |f| f.schema("output_config.format"))?,
        template_kwargs: wire.thinking.map(Thinking::kwargs).unwrap_or_default(),
        continue_final,
    };
    Ok((model, conversation))
}

impl MessageWire {
    /// One message with blocks may be several: results of tools are messages of their own.
    fn unfold(self, at: &str, messages: &mut Vec<ChatMessage>) -> Result<(), Fault> {
        let role = role(at, self.role.as_deref(), &ROLES)?;
        let blocks = match self.content {
            Content::Text(text) => {
                messages.push(ChatMessage::new(role, text));
                return Ok(());
            }
            Content::Parts(blocks) => blocks,
            Content::Missing => {
                let message = "every message needs 'content'";
                return Err(Fault::missing(format!("{at}.content"), message));
            }
        };
        let mut message = ChatMessage {
            role,
            ..ChatMessage::default()
        };
        let empty = blocks.is_empty();
        for (i, block) in blocks.into_iter().enumerate() {
            block.add(&format!("{at}.content[{i}]"), &mut message, messages)?;
        }
        let said = message.content.is_some() || !message.tool_calls.is_empty();
        if said || message.reasoning_content.is_some() || empty {
            if message.tool_calls.is_empty() {
                message.content.get_or_insert_default();
            }
            messages.push(message);
        }
        Ok(())
    }
}

impl Block {
    /// Adds a block to its message, or to those before it.
    fn add(
        self,
        at: &str,
        message: &mut ChatMessage,
        before: &mut Vec<ChatMessage>,
    ) -> Result<(), Fault> {
        match (self.kind.as_str(), message.role) {
            ("text", _) => {
                let at = format!("{at}.text");
                let text = self
                    .text
                    .ok_or_else(|| Fault::missing(at, "a text block needs 'text'"))?;
                paragraph(&mut message.content, &text);
            }
            ("thinking", Role::Assistant) => {
                paragraph(
                    &mut message.reasoning_content,
                    &self.thinking.unwrap_or_default(),
                );
            }
            ("redacted_thinking", Role::Assistant) => {}
            ("tool_use", Role::Assistant) => message.tool_calls.push(ToolCall {
                id: self.id.unwrap_or_default(),
                name: tools::tool_name(&format!("{at}.name"), self.name)?,
                arguments: Value::Object(self.input.unwrap_or_default()).to_string(),
            }),
            ("tool_result", Role::User) => {
                let text = text_of(&format!("{at}.content"), self.content, &["text"])?;
                let mut text = text.unwrap_or_default();
                if self.is_error == Some(true) {
                    text.insert_str(0, "Error: ");
                }
                before.push(ChatMessage {
                    tool_call_id: self.tool_use_id,
                    ..ChatMessage::new(Role::Tool, text)
                });
            }
            (kind, role) => {
                let (kind, role) = (shortened(kind), role.as_str());
                let message = format!(
                    "blocks of the type '{kind}' from '{role}' are not supported by this server"
                );
                return Err(Fault::unsupported(format!("{at}.type"), message));
            }
        }
        Ok(())
    }
}

/// Appends a paragraph.
fn paragraph(text: &mut Option<String>, more: &str) {
    match text {
        Some(text) => *text = format!("{text}\n{more}"),
        None => *text = Some(more.to_owned()),
    }
}

impl ToolWire {
    fn check(self, at: &str) -> Result<Value, Fault> {
        match self.kind.as_deref() {
            None | Some("custom") => self.function.tool(at),
            Some(_) => Err(not_supported(
                &format!("{at}.type"),
                "a tool that the server would have to run",
            )),
        }
    }
}

impl ChoiceWire {
    fn check(self) -> Result<ToolChoice, Fault> {
        match (self.kind.as_str(), self.name) {
            ("auto", _) => Ok(ToolChoice::Auto),
            ("any", _) => Ok(ToolChoice::Required),
            ("none", _) => Ok(ToolChoice::None),
            ("tool", Some(name)) => Ok(ToolChoice::Function(name)),
            ("tool", None) => Err(Fault::missing("tool_choice.name", "name the tool")),
            _ => {
                let message = "the type is none of auto, any, tool, none";
                Err(Fault::invalid("tool_choice.type", message))
            }
        }
    }
}

impl Thinking {
    /// The variable by which templates of models that think switch that.
    fn kwargs(self) -> Map<String, Value> {
        let thinks = self.kind != "disabled";
        Map::from_iter([("enable_thinking".to_owned(), thinks.into())])
    }
}
