//! Messages of Chat Completions.

use crate::backend::{ChatMessage, Role, ToolCall};
use crate::fault::Fault;
use crate::wire::json::not_supported;
use crate::wire::lenient::{Content, Shape};
use crate::wire::{role, text_of, tools};
use serde::Deserialize;
use serde_json::Value;

/// Who can say a message. `developer` is OpenAI's newer name for `system`, `function` its older one for `tool`.
const ROLES: [(&str, Role); 6] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("assistant", Role::Assistant),
    ("tool", Role::Tool),
    ("function", Role::Tool),
];

/// A message as it comes.
#[derive(Debug, Deserialize)]
pub(super) struct MessageWire {
    role: Option<String>,
    #[serde(default)]
    content: Content,
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<ToolCallWire>>,
    function_call: Option<FunctionCall>,
    tool_call_id: Option<String>,
    name: Option<String>,
    #[serde(default)]
    audio: Shape,
}

/// A tool call as it comes.
#[derive(Debug, Deserialize)]
pub(crate) struct ToolCallWire {
    id: Option<String>,
    function: Option<FunctionCall>,
}

#[derive(Debug, Deserialize)]
struct FunctionCall {
    name: Option<String>,
    arguments: Option<Value>,
}

/// Checks the messages of a request.
pub(super) fn messages(messages: Option<Vec<MessageWire>>) -> Result<Vec<ChatMessage>, Fault> {
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
        .map(|(i, message)| message.check(&format!("messages[{i}]")))
        .collect()
}

impl MessageWire {
    fn check(self, at: &str) -> Result<ChatMessage, Fault> {
        if self.audio != Shape::Nothing {
            return Err(not_supported(&format!("{at}.audio"), "audio in a message"));
        }
        let role = role(at, self.role.as_deref(), &ROLES)?;
        let mut tool_calls = Vec::new();
        for (i, call) in self.tool_calls.into_iter().flatten().enumerate() {
            tool_calls.push(call.check(&format!("{at}.tool_calls[{i}]"))?);
        }
        if let Some(call) = self.function_call {
            tool_calls.push(call.check(&format!("{at}.function_call"), None)?);
        }
        let content = text_of(&format!("{at}.content"), self.content, &["text", "refusal"])?;
        if content.is_none() && tool_calls.is_empty() {
            let at = format!("{at}.content");
            return Err(Fault::missing(at, "every message needs 'content'"));
        }
        Ok(ChatMessage {
            role,
            content,
            tool_calls,
            tool_call_id: self.tool_call_id,
            name: self.name,
            reasoning_content: self.reasoning_content,
        })
    }
}

impl ToolCallWire {
    pub(crate) fn check(self, at: &str) -> Result<ToolCall, Fault> {
        let at = format!("{at}.function");
        match self.function {
            Some(function) => function.check(&at, self.id),
            None => Err(Fault::missing(at, "a tool call needs a function")),
        }
    }
}

impl FunctionCall {
    fn check(self, at: &str, id: Option<String>) -> Result<ToolCall, Fault> {
        let arguments = match self.arguments {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text,
            // Not OpenAI's form, but Ollama's, and meant the same.
            Some(object @ Value::Object(_)) => object.to_string(),
            Some(_) => {
                let fault =
                    Fault::bad_request("invalid_type", "arguments are the text of an object");
                return Err(fault.about(format!("{at}.arguments")));
            }
        };
        Ok(ToolCall {
            id: id.unwrap_or_default(),
            name: tools::tool_name(&format!("{at}.name"), self.name)?,
            arguments,
        })
    }
}
