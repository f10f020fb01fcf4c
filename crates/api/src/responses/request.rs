//! Requests of the Responses API.

use crate::answer::Ask;
use crate::backend::{ChatMessage, Conversation, GenerateRequest, Prompt, Role, ToolCall};
use crate::fault::Fault;
use crate::openai::chat::checker;
use crate::wire::json::{Refused, not_supported, read, read_without, shortened};
use crate::wire::lenient::Content;
use crate::wire::tools::{self, Format, Function};
use crate::wire::{required_model, role, sampling, text_of};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

const ROLES: [(&str, Role); 4] = [
    ("system", Role::System),
    ("developer", Role::System),
    ("user", Role::User),
    ("assistant", Role::Assistant),
];
const REFUSED: Refused<'static> = &[
    ("previous_response_id", 0.0),
    ("conversation", 0.0),
    ("background", 0.0),
    ("prompt", 0.0),
    ("top_logprobs", 0.0),
];

#[derive(Deserialize)]
struct Wire {
    model: Option<String>,
    #[serde(default)]
    input: Content<Item>,
    instructions: Option<String>,
    tools: Option<Vec<ToolWire>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextWire>,
    max_output_tokens: Option<Number>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    truncation: Option<String>,
    stream: Option<bool>,
}

#[derive(Deserialize)]
struct TextWire {
    format: Option<Format>,
}

/// What is repeated in every response as it was sent.
#[derive(Deserialize)]
pub(super) struct Echo {
    instructions: Option<Value>,
    tools: Option<Vec<Map<String, Value>>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<Value>,
    max_output_tokens: Option<Value>,
    temperature: Option<Value>,
    top_p: Option<Value>,
    metadata: Option<Map<String, Value>>,
}

impl Echo {
    /// The fields of a response that repeat the request.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let tools = self.tools.iter().flatten().map(|tool| {
            let field = |name| tool.get(name).cloned().unwrap_or_default();
            json!({
                "type": "function", "name": field("name"), "description": field("description"),
                "parameters": field("parameters"), "strict": field("strict"),
            })
        });
        let plain = || json!({"format": {"type": "text"}});
        let text = self
            .text
            .clone()
            .filter(|text| text.get("format").is_some_and(Value::is_object));
        let fields = json!({
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "background": false,
            "service_tier": "default",
            "temperature": self.temperature,
            "text": text.unwrap_or_else(plain),
            "tool_choice": self.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            "tools": tools.collect::<Vec<_>>(),
            "top_logprobs": 0,
            "top_p": self.top_p,
            "truncation": "disabled",
            "metadata": self.metadata.clone().unwrap_or_default(),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => unreachable!("an object was written"),
        }
    }
}

/// An item of any type.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    #[serde(default)]
    content: Content,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    #[serde(default)]
    output: Content,
}

#[derive(Deserialize)]
struct ToolWire {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(flatten)]
    function: Function,
}

pub(super) fn parse(body: &[u8]) -> Result<(Ask, Echo), Fault> {
    let wire: Wire = read_without(body, REFUSED).map_err(explain_memory)?;
    let echo = read(body)?;
    if wire
        .truncation
        .as_deref()
        .is_some_and(|how| how != "disabled")
    {
        return Err(not_supported("truncation", "to cut a conversation off"));
    }
    let tools = tools::tools(wire.tools, |at, tool| tool.check(&at))?;
    let tool_choice = tools::settle(tools::tool_choice(wire.tool_choice)?, &tools)?;
    let format = wire.text.and_then(|text| text.format);
    let conversation = Conversation {
        messages: messages(wire.instructions, wire.input)?,
        tools,
        tool_choice,
        parallel_tool_calls: wire.parallel_tool_calls,
        schema: format.map_or(Ok(None), |format| format.schema("text.format"))?,
        ..Conversation::default()
    };
    let ask = Ask {
        generate: GenerateRequest {
            model: required_model(wire.model)?,
            temperature: sampling::temperature(wire.temperature)?,
            top_p: sampling::top_p(wire.top_p)?,
            max_tokens: sampling::max_tokens(&[("max_output_tokens", &wire.max_output_tokens)])?,
            ..GenerateRequest::default()
        },
        checker: checker(&conversation, "text.format")?,
        prompts: vec![Prompt::Chat(Box::new(conversation))],
        choices: 1,
        stops: Vec::new(),
        stream: wire.stream.unwrap_or(false),
    };
    Ok((ask, echo))
}

/// Says what to do instead of referring to an earlier response.
fn explain_memory(fault: Fault) -> Fault {
    match fault.param.as_deref() {
        Some(param @ ("previous_response_id" | "conversation")) => Fault::unsupported(
            param,
            format!(
                "this server stores no responses, so it does not know '{param}'; send the whole conversation in 'input'"
            ),
        ),
        _ => fault,
    }
}

fn messages(instructions: Option<String>, input: Content<Item>) -> Result<Vec<ChatMessage>, Fault> {
    let mut messages = Vec::new();
    messages.extend(instructions.map(|text| ChatMessage::new(Role::System, text)));
    match input {
        Content::Text(text) => messages.push(ChatMessage::new(Role::User, text)),
        Content::Parts(items) if !items.is_empty() => {
            for (i, item) in items.into_iter().enumerate() {
                item.add(&format!("input[{i}]"), &mut messages)?;
            }
        }
        Content::Parts(_) | Content::Missing => {
            return Err(Fault::missing(
                "input",
                "'input' is a text, or a list of items",
            ));
        }
    }
    Ok(messages)
}

impl Item {
    fn add(self, at: &str, messages: &mut Vec<ChatMessage>) -> Result<(), Fault> {
        match self.kind.as_deref() {
            None | Some("message") => messages.push(self.message(at)?),
            Some("function_call") => {
                let call = ToolCall {
                    id: self.call_id.unwrap_or_default(),
                    name: tools::tool_name(&format!("{at}.name"), self.name)?,
                    arguments: self.arguments.unwrap_or_else(|| "{}".to_owned()),
                };
                // What the assistant said and called in one breath is one message to the model.
                match messages.last_mut() {
                    Some(last) if last.role == Role::Assistant => last.tool_calls.push(call),
                    _ => messages.push(ChatMessage {
                        role: Role::Assistant,
                        tool_calls: vec![call],
                        ..ChatMessage::default()
                    }),
                }
            }
            Some("function_call_output") => {
                let at = format!("{at}.output");
                let text = text_of(&at, self.output, &["input_text", "text"])?;
                let text = text.ok_or_else(|| Fault::missing(at, "what did the function say?"))?;
                messages.push(ChatMessage {
                    tool_call_id: self.call_id,
                    ..ChatMessage::new(Role::Tool, text)
                });
            }
            // Earlier thoughts are not shown to a model again, as its template would have it.
            Some("reasoning") => {}
            Some(other) => {
                let what = format!("an item of the type '{}'", shortened(other));
                return Err(not_supported(&format!("{at}.type"), &what));
            }
        }
        Ok(())
    }

    fn message(self, at: &str) -> Result<ChatMessage, Fault> {
        let role = role(at, self.role.as_deref(), &ROLES)?;
        let kinds = ["input_text", "output_text", "text", "refusal"];
        let at = format!("{at}.content");
        let text = text_of(&at, self.content, &kinds)?;
        let text = text.ok_or_else(|| Fault::missing(at, "a message needs 'content'"))?;
        Ok(ChatMessage::new(role, text))
    }
}

impl ToolWire {
    fn check(self, at: &str) -> Result<Value, Fault> {
        match self.kind.as_deref() {
            None | Some("function") => self.function.tool(at),
            Some(_) => Err(not_supported(
                &format!("{at}.type"),
                "a tool of another type than 'function'",
            )),
        }
    }
}
