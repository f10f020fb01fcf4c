//! What a caller sends as a conversation, checked.

use super::ChatError;
use serde_json::{Map, Value, json};

/// The most messages of a conversation.
const MESSAGES_MAX: usize = 16_384;
/// The most tools of a conversation.
const TOOLS_MAX: usize = 512;
/// The longest name of a tool, in bytes.
const TOOL_NAME_BYTES_MAX: usize = 128;

/// A conversation to be rendered.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    /// Messages as templates take them: `role`, `content`, and what else belongs to the role.
    pub(super) messages: Vec<Value>,
    pub(super) tools: Vec<Tool>,
    pub(super) choice: Choice,
    /// Whether one reply may call several tools, where it is known.
    pub(super) parallel: Option<bool>,
    pub(super) schema: Option<Schema>,
    pub(super) kwargs: Map<String, Value>,
    pub(super) continue_final: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) description: String,
    /// A JSON schema of its arguments.
    pub(super) parameters: Value,
}

impl Tool {
    /// As OpenAI's API and templates write it.
    pub(super) fn to_json(&self) -> Value {
        json!({"type": "function", "function": {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }})
    }
}

/// Whether tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// As the model likes.
    Auto,
    /// One at least.
    Required,
    /// This one.
    Named(String),
}

/// What a reply must fit.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Schema {
    /// Any JSON object.
    Object,
    /// A JSON schema.
    Json(Value),
}

impl Conversation {
    /// Reads the JSON of [`proto::host::Task::Render`].
    pub(super) fn read(text: &str) -> Result<Self, ChatError> {
        let mut request: Value = serde_json::from_str(text)
            .map_err(|error| bad(format!("the conversation is not JSON: {error}")))?;
        clean(&mut request);
        let messages = array(&request, "messages")?;
        if messages.is_empty() || messages.len() > MESSAGES_MAX {
            let count = messages.len();
            return Err(bad(format!(
                "messages: there are {count}; 1 to {MESSAGES_MAX} can be"
            )));
        }
        let messages = messages.iter().enumerate().map(|(at, m)| message(m, at));
        let mut tools = tools(&request)?;
        let choice = choice(&request["tool_choice"], &tools)?.unwrap_or_else(|| {
            // Whoever must not call anything is not told of anything to call.
            tools.clear();
            Choice::Auto
        });
        let said = boolean(&request, "parallel_tool_calls")?;
        // Who names a function wants one call of it.
        let one = matches!(choice, Choice::Named(_)).then_some(false);
        let read = Self {
            messages: messages.collect::<Result<_, _>>()?,
            choice,
            tools,
            parallel: one.or(said),
            schema: schema(&request["schema"])?,
            kwargs: kwargs(&request["template_kwargs"])?,
            continue_final: boolean(&request, "continue_final")?.unwrap_or(false),
        };
        read.check_continued()?;
        Ok(read)
    }

    fn check_continued(&self) -> Result<(), ChatError> {
        let last = self.messages.last().unwrap_or(&Value::Null);
        if self.continue_final && (last["role"] != "assistant" || !last["tool_calls"].is_null()) {
            return Err(bad(
                "continue_final: only a last message of the assistant without tool calls can be continued".into(),
            ));
        }
        Ok(())
    }

    /// Whether the model is asked to reason first: what the caller says, else what is usual.
    pub(super) fn thinks(&self) -> bool {
        let usual = self.schema.is_none();
        self.kwargs
            .get("enable_thinking")
            .and_then(Value::as_bool)
            .unwrap_or(usual)
    }

    /// Whether earlier messages call tools, or say what those answered.
    pub(super) fn mentions_calls(&self) -> bool {
        let mut messages = self.messages.iter();
        messages.any(|message| message["role"] == "tool" || message.get("tool_calls").is_some())
    }
}

fn bad(what: String) -> ChatError {
    ChatError::Shape(what)
}

/// Zero bytes end C strings, and the marks are ours: both become U+FFFD.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => clean_text(text),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(map) => {
            let unclean = |key: &String| key.contains(super::marks::FORBIDDEN);
            if map.keys().any(unclean) {
                let entries = std::mem::take(map).into_iter().map(|(mut key, value)| {
                    clean_text(&mut key);
                    (key, value)
                });
                *map = entries.collect();
            }
            map.values_mut().for_each(clean);
        }
        _ => {}
    }
}

fn clean_text(text: &mut String) {
    if text.contains(super::marks::FORBIDDEN) {
        *text = text.replace(super::marks::FORBIDDEN, "\u{fffd}");
    }
}

fn array<'a>(request: &'a Value, key: &str) -> Result<&'a [Value], ChatError> {
    match &request[key] {
        Value::Array(values) => Ok(values),
        _ => Err(bad(format!("{key}: an array is expected"))),
    }
}

fn boolean(request: &Value, key: &str) -> Result<Option<bool>, ChatError> {
    match &request[key] {
        Value::Null => Ok(None),
        Value::Bool(is) => Ok(Some(*is)),
        _ => Err(bad(format!("{key}: true or false is expected"))),
    }
}

fn message(message: &Value, at: usize) -> Result<Value, ChatError> {
    let fault = |what: &str| bad(format!("messages[{at}]{what}"));
    let role = match message["role"].as_str() {
        Some(role @ ("system" | "developer" | "user" | "assistant" | "tool")) => role,
        // OpenAI's older word.
        Some("function") => "tool",
        Some(role) => {
            return Err(fault(&format!(
                ".role: {role:?} is none of system, developer, user, assistant, tool"
            )));
        }
        None => return Err(fault(".role: a string is expected")),
    };
    let mut out = json!({"role": role, "content": content(&message["content"], &fault)?});
    let mut keep = |key: &str, to: &str| match &message[key] {
        Value::Null => Ok(()),
        Value::String(text) => {
            out[to] = json!(text);
            Ok(())
        }
        _ => Err(fault(&format!(".{key}: a string is expected"))),
    };
    keep("name", "name")?;
    match role {
        "tool" => keep("tool_call_id", "tool_call_id")?,
        "assistant" => keep("reasoning_content", "reasoning_content")?,
        _ => {}
    }
    if role == "assistant" && !matches!(&message["tool_calls"], Value::Null) {
        let calls = message["tool_calls"]
            .as_array()
            .ok_or_else(|| fault(".tool_calls: an array is expected"))?;
        let calls: Vec<Value> = calls
            .iter()
            .map(|call| tool_call(call, &fault))
            .collect::<Result<_, _>>()?;
        if !calls.is_empty() {
            out["tool_calls"] = json!(calls);
        }
    }
    Ok(out)
}

fn content(content: &Value, fault: &dyn Fn(&str) -> ChatError) -> Result<Value, ChatError> {
    let parts = match content {
        Value::Null => return Ok(json!("")),
        Value::String(_) => return Ok(content.clone()),
        Value::Array(parts) => parts,
        _ => {
            return Err(fault(
                ".content: a string, an array of parts or null is expected",
            ));
        }
    };
    let part = |(at, part): (usize, &Value)| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(json!({"type": "text", "text": text})),
        (Some("text"), None) => Err(fault(&format!(".content[{at}].text: a string is expected"))),
        (Some(other), _) => Err(fault(&format!(
            ".content[{at}].type: {other:?} cannot be read here, only text can"
        ))),
        (None, _) => Err(fault(&format!(".content[{at}].type: a string is expected"))),
    };
    let parts: Vec<Value> = parts
        .iter()
        .enumerate()
        .map(part)
        .collect::<Result<_, _>>()?;
    Ok(if parts.is_empty() {
        json!("")
    } else {
        json!(parts)
    })
}

fn tool_call(call: &Value, fault: &dyn Fn(&str) -> ChatError) -> Result<Value, ChatError> {
    let function = &call["function"];
    let name = function["name"]
        .as_str()
        .ok_or_else(|| fault(".tool_calls: a call needs function.name, a string"))?;
    let arguments = match &function["arguments"] {
        Value::String(text) if text.trim().is_empty() => "{}".to_owned(),
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            // Escapes in it may spell what is forbidden.
            Ok(mut arguments) => {
                clean(&mut arguments);
                arguments.to_string()
            }
            Err(_) => text.clone(),
        },
        Value::Null => "{}".to_owned(),
        // Some clients send the object itself.
        object @ Value::Object(_) => object.to_string(),
        _ => return Err(fault(".tool_calls: function.arguments is JSON as a string")),
    };
    let mut out = json!({"type": "function", "function": {"name": name, "arguments": arguments}});
    if let Some(id) = call["id"].as_str() {
        out["id"] = json!(id);
    }
    Ok(out)
}

fn tools(request: &Value) -> Result<Vec<Tool>, ChatError> {
    if request["tools"].is_null() {
        return Ok(Vec::new());
    }
    let given = array(request, "tools")?;
    if given.len() > TOOLS_MAX {
        let count = given.len();
        return Err(bad(format!(
            "tools: there are {count}; at most {TOOLS_MAX} can be"
        )));
    }
    let mut tools: Vec<Tool> = Vec::new();
    for (at, value) in given.iter().enumerate() {
        let tool = tool(value, at)?;
        if tools.iter().any(|other| other.name == tool.name) {
            return Err(bad(format!(
                "tools[{at}]: there are two of the name {}",
                tool.name
            )));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(tool: &Value, at: usize) -> Result<Tool, ChatError> {
    let fault = |what: &str| bad(format!("tools[{at}]{what}"));
    if tool["type"] != "function" {
        return Err(fault(".type: only \"function\" is known"));
    }
    let function = &tool["function"];
    let name = function["name"]
        .as_str()
        .ok_or_else(|| fault(".function.name: a string is expected"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    if !(1..=TOOL_NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(plain) {
        return Err(fault(&format!(
            ".function.name: 1 to {TOOL_NAME_BYTES_MAX} letters, digits or _-.:/ are expected"
        )));
    }
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        Value::Object(map) if map.is_empty() => json!({"type": "object", "properties": {}}),
        parameters @ Value::Object(_) => parameters.clone(),
        _ => {
            return Err(fault(&format!(
                ".function.parameters of {name}: a JSON schema is expected, which is an object"
            )));
        }
    };
    let description = match &function["description"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        _ => return Err(fault(".function.description: a string is expected")),
    };
    Ok(Tool {
        name: name.to_owned(),
        description,
        parameters,
    })
}

/// `None` is: no tool may be called.
fn choice(choice: &Value, tools: &[Tool]) -> Result<Option<Choice>, ChatError> {
    let name = choice["function"]["name"].as_str();
    let named = match (choice, name) {
        (Value::Null, _) => return Ok(Some(Choice::Auto)),
        (Value::String(word), _) if word == "auto" => return Ok(Some(Choice::Auto)),
        (Value::String(word), _) if word == "none" => return Ok(None),
        (Value::String(word), _) if word == "required" => None,
        (Value::Object(_), Some(name)) if choice["type"] == "function" => Some(name),
        _ => {
            return Err(bad("tool_choice: one of auto, none, required, or \
                 {\"type\":\"function\",\"function\":{\"name\":…}} is expected"
                .into()));
        }
    };
    match named {
        _ if tools.is_empty() => Err(bad(
            "tool_choice: a tool must be called, but there are no tools".into(),
        )),
        None => Ok(Some(Choice::Required)),
        Some(name) if tools.iter().any(|tool| tool.name == name) => {
            Ok(Some(Choice::Named(name.to_owned())))
        }
        Some(name) => Err(bad(format!("tool_choice: there is no tool {name}"))),
    }
}

fn schema(schema: &Value) -> Result<Option<Schema>, ChatError> {
    match schema {
        Value::Null | Value::Bool(false) => Ok(None),
        Value::Bool(true) => Ok(Some(Schema::Object)),
        Value::Object(_) => Ok(Some(Schema::Json(schema.clone()))),
        _ => Err(bad(
            "schema: a JSON schema is expected, which is an object".into()
        )),
    }
}

fn kwargs(kwargs: &Value) -> Result<Map<String, Value>, ChatError> {
    let map = match kwargs {
        Value::Null => Map::new(),
        Value::Object(map) => map.clone(),
        _ => return Err(bad("template_kwargs: an object is expected".into())),
    };
    if !map.get("enable_thinking").is_none_or(Value::is_boolean) {
        return Err(bad(
            "template_kwargs.enable_thinking: true or false is expected".into(),
        ));
    }
    Ok(map)
}
