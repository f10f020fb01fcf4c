//! What a template makes of a conversation, and what kind of template it is.

use super::ChatError;
use super::conversation::Tool;
use super::shim::Templates;
use super::syntax::{Native, is_plain};
use proto::host::{Gbnf, Grammar};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What was found out about a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// It describes tools, and calls of them can be bound and read.
    pub tools: bool,
    /// A reply without tools and reasoning is its content, letter by letter.
    pub plain: bool,
    /// How it expects replies cannot be found out; all of a reply is content.
    pub pure: bool,
}

/// What the shim says of a request.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rendered {
    pub(super) prompt: String,
    pub(super) grammar: String,
    pub(super) lazy: bool,
    pub(super) triggers: Vec<Trigger>,
    pub(super) format: i32,
    pub(super) parser: String,
    pub(super) generation_prompt: String,
    pub(super) thinks: bool,
    pub(super) thinking_start: String,
    pub(super) thinking_ends: Vec<String>,
    pub(super) stops: Vec<String>,
    pub(super) preserved: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Trigger {
    pub(super) kind: String,
    pub(super) value: String,
    pub(super) token: i32,
}

/// What of a conversation is rendered; see `inputs` in `shim/chat.cpp`.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) messages: Vec<Value>,
    pub(super) tools: Vec<Tool>,
    pub(super) choice: &'static str,
    pub(super) parallel: bool,
    pub(super) thinking: bool,
    pub(super) schema: Value,
    pub(super) kwargs: Map<String, Value>,
    pub(super) continue_final: bool,
}

pub(super) fn apply(
    templates: &Templates,
    request: &Request,
    pure: bool,
) -> Result<Rendered, String> {
    let tools: Vec<Value> = request.tools.iter().map(Tool::to_json).collect();
    let request = json!({
        "messages": request.messages,
        "tools": tools,
        "tool_choice": request.choice,
        "parallel": request.parallel,
        "thinking": request.thinking,
        "pure": pure,
        "schema": request.schema,
        "kwargs": request.kwargs,
        "continue_final": request.continue_final,
    });
    let rendered = templates.apply(&request.to_string())?;
    serde_json::from_str(&rendered).map_err(|error| format!("its outcome is unreadable: {error}"))
}

impl Rendered {
    /// Whether the prompt ends within reasoning.
    pub(super) fn thinking_is_open(&self) -> bool {
        let prompt = &self.generation_prompt;
        let start = Some(&self.thinking_start).filter(|start| !start.is_empty());
        start
            .and_then(|start| prompt.rfind(start.as_str()))
            .is_some_and(|start| {
                let ends = self.thinking_ends.iter();
                ends.filter_map(|end| prompt.rfind(end.as_str()))
                    .all(|end| end < start)
            })
    }

    /// Ends reasoning before it has begun.
    pub(super) fn close_thinking(&mut self) {
        if self.thinking_is_open() {
            let end = self.thinking_ends.first().map_or("", String::as_str);
            self.prompt += &format!("{end}\n\n");
        }
    }

    /// What binds the reply.
    pub(super) fn gbnf(&self) -> Option<Grammar> {
        if self.grammar.is_empty() {
            return None;
        }
        let mut gbnf = Gbnf {
            rules: self.grammar.clone(),
            prefix: self.generation_prompt.clone(),
            thinking_start: self.thinking_start.clone(),
            thinking_ends: self.thinking_ends.clone(),
            ..Gbnf::default()
        };
        for trigger in self.triggers.iter().filter(|_| self.lazy) {
            match trigger.kind.as_str() {
                "token" => gbnf.trigger_tokens.push(trigger.token),
                "word" => gbnf.triggers.push(escaped(&trigger.value)),
                "whole" => {
                    let inner = trigger.value.trim_start_matches('^').trim_end_matches('$');
                    gbnf.triggers.push(format!("^{inner}$"));
                }
                _ => gbnf.triggers.push(trigger.value.clone()),
            }
        }
        // Without a trigger it would bind from the beginning, which is not what it is for.
        let never = self.lazy && gbnf.triggers.is_empty() && gbnf.trigger_tokens.is_empty();
        (!never).then_some(Grammar::Gbnf(gbnf))
    }
}

/// A text as a regular expression that finds it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if ".^$|()*+?[]{}\\/".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Nature {
    pub(super) fn of(templates: &Templates) -> Result<Self, ChatError> {
        const NAME: &str = "probe_of_tools";
        let bare = Request {
            messages: vec![json!({"role": "user", "content": "Hello"})],
            tools: Vec::new(),
            choice: "auto",
            parallel: false,
            thinking: false,
            schema: Value::Null,
            kwargs: Map::new(),
            continue_final: false,
        };
        let Ok(rendered) = apply(templates, &bare, false) else {
            apply(templates, &bare, true).map_err(ChatError::Template)?;
            return Ok(Self {
                tools: false,
                plain: true,
                pure: true,
            });
        };
        let tool = Tool {
            name: NAME.to_owned(),
            description: "Tells the time.".to_owned(),
            parameters: json!({"type": "object", "properties": {"zone": {"type": "string"}}}),
        };
        let with_tools = Request {
            tools: vec![tool],
            choice: "required",
            ..bare
        };
        let tools = apply(templates, &with_tools, false)
            .is_ok_and(|with| with.prompt.contains(NAME) && !with.grammar.is_empty());
        Ok(Self {
            tools,
            plain: is_plain(Native {
                format: rendered.format,
                generation_prompt: rendered.generation_prompt,
                parser: rendered.parser,
                continues: false,
            }),
            pure: false,
        })
    }
}
