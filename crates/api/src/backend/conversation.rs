//! A conversation, as every dialect is read into it and as the model's template is given it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// What a model is to go on with. Its JSON is what the engine's renderer of chat templates reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Conversation {
    /// At least one.
    pub messages: Vec<ChatMessage>,
    /// Functions that the model may call, in OpenAI's form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Whether it may, and whether it must.
    #[serde(skip_serializing_if = "ToolChoice::is_auto")]
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls; `None` is the template's habit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// What the answer's text must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// Variables for the template, such as `enable_thinking`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub template_kwargs: Map<String, Value>,
    /// Whether the answer goes on where the last message, the assistant's, ends.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub continue_final: bool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The text; `None` beside calls of tools.
    pub content: Option<String>,
    /// What the assistant called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call this is the result of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name, or the tool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the assistant thought before it spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl ChatMessage {
    /// Text from somebody.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = Some(content.into());
        Self {
            role,
            content,
            ..Self::default()
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The one who sets the rules; OpenAI's newer name `developer` means the same.
    System,
    /// The one who asks.
    #[default]
    User,
    /// The model.
    Assistant,
    /// A function that the model called.
    Tool,
}

impl Role {
    /// The name in chat templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A model's wish that a function be called. Its JSON is OpenAI's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCall {
    /// Ties the result to the call; empty where the model gave none.
    pub id: String,
    /// The function.
    pub name: String,
    /// The arguments: the text of a JSON object, at least by intention.
    pub arguments: String,
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", "function")?;
        let function = json!({"name": self.name, "arguments": self.arguments});
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

/// Whether tools are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// Never.
    None,
    /// At least one.
    Required,
    /// The one of this name.
    Function(String),
}

impl ToolChoice {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Required => serializer.serialize_str("required"),
            Self::Function(name) => {
                json!({"type": "function", "function": {"name": name}}).serialize(serializer)
            }
        }
    }
}

/// What the text of an answer must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Schema {
    /// A JSON object.
    AnyObject,
    /// A JSON document that fits this JSON schema.
    Json(Value),
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AnyObject => serializer.serialize_bool(true),
            Self::Json(schema) => schema.serialize(serializer),
        }
    }
}

/// What a model said, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// What it said.
    pub content: String,
    /// What it thought before.
    pub reasoning: String,
    /// What it wants to be called.
    pub tool_calls: Vec<ToolCall>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_renderer_is_told_what_differs_from_its_habit_and_in_which_order() {
        let plain = Conversation {
            messages: vec![ChatMessage::new(Role::System, "s")],
            ..Conversation::default()
        };
        assert_eq!(
            serde_json::to_string(&plain).unwrap(),
            r#"{"messages":[{"role":"system","content":"s"}]}"#
        );
        let call = ToolCall {
            id: "1".into(),
            name: "f".into(),
            arguments: "{}".into(),
        };
        let full = Conversation {
            messages: vec![ChatMessage {
                role: Role::Assistant,
                tool_calls: vec![call],
                reasoning_content: Some("hm".into()),
                ..ChatMessage::default()
            }],
            tools: vec![json!({"type": "function", "function": {"name": "f"}})],
            tool_choice: ToolChoice::Function("f".into()),
            parallel_tool_calls: Some(false),
            schema: Some(Schema::Json(json!({"z": 1, "a": 2}))),
            template_kwargs: Map::from_iter([("k".into(), json!(true))]),
            continue_final: true,
        };
        assert_eq!(
            serde_json::to_string(&full).unwrap(),
            concat!(
                r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","#,
                r#""function":{"name":"f","arguments":"{}"}}],"reasoning_content":"hm"}],"#,
                r#""tools":[{"type":"function","function":{"name":"f"}}],"#,
                r#""tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,"#,
                r#""schema":{"z":1,"a":2},"template_kwargs":{"k":true},"continue_final":true}"#,
            )
        );
        let any = serde_json::to_value(Schema::AnyObject).unwrap();
        assert_eq!(any, json!(true));
    }
}
