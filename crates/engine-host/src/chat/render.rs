//! From a conversation to a prompt, and from a reply to a message, with one model's template.

use super::conversation::{Choice, Conversation, Schema, Tool};
use super::marks::Marks;
use super::schema::{any_object, bounded};
use super::shim::{self, Templates};
use super::syntax::{Native, Readers, Syntax};
use super::template::{Nature, Rendered, Request, apply};
use super::{ChatError, GbnfGrammar, own};
use crate::llama::Model;
use proto::host::{Gbnf, Grammar, Prompt, ReadReply, TEXT_BYTES_MAX};
use serde_json::{Value, json};
use std::sync::Arc;

/// The most bytes of a token in an answer.
const TOKEN_BYTES_MAX: usize = 5;

/// One model's way to converse.
#[derive(Debug)]
pub struct Chat {
    model: Arc<Model>,
    templates: Templates,
    marks: Marks,
    nature: Nature,
    /// The texts of tokens that end a reply.
    ends: Vec<String>,
    readers: Readers,
}

/// What a prompt is made of.
struct Parts {
    shown: Rendered,
    grammar: Option<Grammar>,
    syntax: Option<Syntax>,
}

impl Chat {
    /// For a model, with the template of its file, or with `source` instead.
    ///
    /// # Errors
    ///
    /// [`ChatError`] when there is no template, or one that cannot be used.
    pub fn new(model: Arc<Model>, source: Option<&str>) -> Result<Self, ChatError> {
        if source.is_none() && !model.has_template() {
            return Err(ChatError::NoTemplate);
        }
        let templates = Templates::new(&model, source.unwrap_or_default());
        let templates = templates.map_err(ChatError::Template)?;
        let marks = Marks::new(&model, &templates.source().map_err(ChatError::Template)?);
        let all = 0..model.vocabulary() as i32;
        let ends = all
            .filter(|token| model.ends(*token))
            .map(|token| String::from_utf8_lossy(&model.name(token)).into_owned());
        let ends = ends.filter(|text| !text.is_empty()).collect();
        let nature = Nature::of(&templates)?;
        Ok(Self {
            model,
            templates,
            marks,
            nature,
            ends,
            readers: Readers::default(),
        })
    }

    /// What was found out about the template.
    #[must_use]
    pub fn nature(&self) -> Nature {
        self.nature
    }

    /// A conversation, as JSON, to a prompt.
    ///
    /// # Errors
    ///
    /// [`ChatError`], for people.
    pub fn render(&self, conversation: &str) -> Result<Prompt, ChatError> {
        let conversation = Conversation::read(conversation)?;
        let parts = match (&conversation.tools[..], &conversation.schema) {
            ([], None) => self.bare(&conversation),
            ([], Some(schema)) => self.with_schema(&conversation, schema),
            (_, None) if self.nature.tools => self.with_tools(&conversation),
            (_, schema) => self.with_own_tools(&conversation, schema.as_ref()),
        }?;
        self.prompt(parts)
    }

    /// A reply to a message, as JSON.
    ///
    /// # Errors
    ///
    /// [`ChatError`] for a syntax that is not ours.
    pub fn read(&mut self, reply: &ReadReply) -> Result<String, ChatError> {
        let message = self.readers.read(reply)?;
        Ok(json!(message).to_string())
    }

    fn bare(&self, conversation: &Conversation) -> Result<Parts, ChatError> {
        let request = self.request(conversation);
        let shown = self.shown(&request)?;
        let split = shown.thinks || !self.nature.plain;
        let syntax = if split && !self.nature.pure {
            // How the reply is taken apart depends on texts of the conversation only where it is continued.
            let exact = self.apply(&request)?;
            Some(self.native(&exact, conversation))
        } else {
            None
        };
        Ok(Parts {
            shown,
            grammar: None,
            syntax,
        })
    }

    fn with_schema(
        &self,
        conversation: &Conversation,
        schema: &Schema,
    ) -> Result<Parts, ChatError> {
        let mut request = self.request(conversation);
        let shown = self.shown(&request)?;
        if self.nature.pure || (self.nature.plain && !shown.thinking_is_open()) {
            let grammar = match schema {
                Schema::Object => Grammar::Json,
                Schema::Json(schema) => Grammar::Schema(schema.to_string()),
            };
            return Ok(Parts {
                shown,
                grammar: Some(grammar),
                syntax: None,
            });
        }
        // The reply is more than its content; llama.cpp knows how both are bound.
        request.schema = match schema {
            Schema::Object => any_object(),
            Schema::Json(schema) => {
                bounded(schema).map_err(|why| ChatError::Shape(format!("schema: {why}")))?
            }
        };
        let exact = self.apply(&request)?;
        Ok(Parts {
            shown,
            grammar: exact.gbnf(),
            syntax: Some(self.native(&exact, conversation)),
        })
    }

    /// The template knows tools.
    fn with_tools(&self, conversation: &Conversation) -> Result<Parts, ChatError> {
        let mut request = self.request(conversation);
        request.choice = match conversation.choice {
            Choice::Auto => "auto",
            Choice::Required | Choice::Named(_) => "required",
        };
        // Shown are all tools as they were sent, bound are those that may be called, as far as they can be.
        let shown = self.shown(&Request {
            choice: "none",
            ..request.clone()
        })?;
        if let Choice::Named(name) = &conversation.choice {
            request.tools.retain(|tool| tool.name == *name);
        }
        for tool in &mut request.tools {
            tool.parameters = bounded(&tool.parameters).map_err(|why| ChatError::Tool {
                name: tool.name.clone(),
                why,
            })?;
        }
        let exact = self.bound(&request).or_else(|_| {
            let mut loose = request.clone();
            for tool in &mut loose.tools {
                tool.parameters = any_object();
            }
            self.bound(&loose).map_err(|why| self.blame(&request, why))
        })?;
        Ok(Parts {
            grammar: exact.gbnf(),
            syntax: Some(self.native(&exact, conversation)),
            shown,
        })
    }

    /// Renders, and makes sure that the grammar is one.
    fn bound(&self, request: &Request) -> Result<Rendered, String> {
        let rendered = self.apply(request).map_err(|error| error.to_string())?;
        match rendered.gbnf() {
            Some(Grammar::Gbnf(gbnf)) => GbnfGrammar::new(&self.model, &gbnf).map(|_| rendered),
            _ => Ok(rendered),
        }
    }

    /// Names the tool over which binding fails, if it is one.
    fn blame(&self, request: &Request, why: String) -> ChatError {
        let alone = |tool: &Tool| {
            let alone = Request {
                tools: vec![tool.clone()],
                ..request.clone()
            };
            let why = self.bound(&alone).err()?;
            Some(ChatError::Tool {
                name: tool.name.clone(),
                why,
            })
        };
        let named = request.tools.iter().find_map(alone);
        named.unwrap_or(ChatError::Template(why))
    }

    /// The template knows no tools, or none together with a schema.
    fn with_own_tools(
        &self,
        conversation: &Conversation,
        schema: Option<&Schema>,
    ) -> Result<Parts, ChatError> {
        let Conversation { tools, choice, .. } = conversation;
        // A model that was not trained to call tools does not stop calling where it may go on.
        let parallel = conversation.parallel.unwrap_or(false);
        let mut request = self.request(conversation);
        request.messages = own::in_words(&request.messages);
        own::introduce(&mut request.messages, tools, choice, parallel);
        request.tools.clear();
        let mut shown = self.shown(&request)?;
        let exact = self.apply(&request)?;
        let callable: Vec<Tool> = tools
            .iter()
            .filter(|tool| !matches!(choice, Choice::Named(name) if tool.name != *name))
            .cloned()
            .collect();
        let calls = |loose| {
            own::calls_schema(&callable, parallel, loose)
                .map_err(|(name, why)| ChatError::Tool { name, why })
        };
        let (grammar, inner) = match (choice, schema) {
            (Choice::Auto, None) => {
                let gbnf = self.own_gbnf(&exact, &calls(false)?).or_else(|_| {
                    self.own_gbnf(&exact, &calls(true)?)
                        .map_err(ChatError::Template)
                })?;
                let split = (exact.thinks || !self.nature.plain) && !self.nature.pure;
                let inner = split.then(|| self.native_of(&exact, conversation));
                (Grammar::Gbnf(gbnf), inner)
            }
            (choice, schema) => {
                // All of the reply is bound, so there is no room for reasoning.
                shown.close_thinking();
                let calls = calls(false)?;
                let bound = match (choice, schema) {
                    (Choice::Auto, Some(Schema::Object)) => own::either(calls, &any_object()),
                    (Choice::Auto, Some(Schema::Json(schema))) => own::either(calls, schema),
                    _ => calls,
                };
                (Grammar::Schema(bound.to_string()), None)
            }
        };
        Ok(Parts {
            shown,
            grammar: Some(grammar),
            syntax: Some(Syntax {
                own: true,
                native: inner,
                ends: self.ends.clone(),
            }),
        })
    }

    fn own_gbnf(&self, shown: &Rendered, calls: &Value) -> Result<Gbnf, String> {
        let gbnf = Gbnf {
            rules: shim::schema_rules(&calls.to_string())?,
            triggers: vec![own::TRIGGER.to_owned()],
            trigger_tokens: Vec::new(),
            prefix: shown.generation_prompt.clone(),
            thinking_start: shown.thinking_start.clone(),
            thinking_ends: shown.thinking_ends.clone(),
        };
        GbnfGrammar::new(&self.model, &gbnf)?;
        Ok(gbnf)
    }

    fn request(&self, conversation: &Conversation) -> Request {
        let messages = if conversation.mentions_calls() && !self.nature.tools {
            own::in_words(&conversation.messages)
        } else {
            conversation.messages.clone()
        };
        Request {
            messages,
            tools: conversation.tools.clone(),
            choice: "auto",
            parallel: conversation.parallel.unwrap_or(true),
            thinking: conversation.thinks(),
            schema: Value::Null,
            kwargs: conversation.kwargs.clone(),
            continue_final: conversation.continue_final,
        }
    }

    /// Renders with the texts of control tokens marked.
    fn shown(&self, request: &Request) -> Result<Rendered, ChatError> {
        let mut marked = request.clone();
        for message in &mut marked.messages {
            self.mark_arguments(message);
            self.marks.mark(message, &["role", "type", "arguments"]);
        }
        for tool in &mut marked.tools {
            let mut description = json!(tool.description);
            self.marks.mark(&mut description, &[]);
            tool.description = description.as_str().unwrap_or_default().to_owned();
            self.marks.mark(&mut tool.parameters, &[]);
        }
        for value in marked.kwargs.values_mut() {
            self.marks.mark(value, &[]);
        }
        self.apply(&marked)
    }

    /// Templates may read arguments, which are JSON in a string, and so undo its escapes.
    fn mark_arguments(&self, message: &mut Value) {
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let Some(arguments) = call.pointer_mut("/function/arguments") else {
                continue;
            };
            let parsed = arguments.as_str().map(serde_json::from_str::<Value>);
            match parsed {
                Some(Ok(mut value)) => {
                    if self.marks.mark(&mut value, &[]) {
                        *arguments = json!(value.to_string());
                    }
                }
                _ => {
                    self.marks.mark(arguments, &[]);
                }
            }
        }
    }

    fn apply(&self, request: &Request) -> Result<Rendered, ChatError> {
        apply(&self.templates, request, self.nature.pure).map_err(ChatError::Template)
    }

    fn native(&self, rendered: &Rendered, conversation: &Conversation) -> Syntax {
        let kept = |end: &&String| !rendered.preserved.contains(end);
        Syntax {
            own: false,
            native: Some(self.native_of(rendered, conversation)),
            ends: self.ends.iter().filter(kept).cloned().collect(),
        }
    }

    fn native_of(&self, rendered: &Rendered, conversation: &Conversation) -> Native {
        Native {
            format: rendered.format,
            generation_prompt: rendered.generation_prompt.clone(),
            parser: rendered.parser.clone(),
            continues: conversation.continue_final,
        }
    }

    fn prompt(&self, parts: Parts) -> Result<Prompt, ChatError> {
        let (text, tokens) = self.marks.tokens(&self.model, &parts.shown.prompt)?;
        let syntax = parts.syntax.map(|syntax| json!(syntax).to_string());
        let grammar_bytes = match &parts.grammar {
            Some(Grammar::Gbnf(gbnf)) => gbnf.rules.len(),
            Some(Grammar::Schema(text) | Grammar::Lark(text)) => text.len(),
            Some(Grammar::Json) | None => 0,
        };
        let bytes = text.len()
            + tokens.len() * TOKEN_BYTES_MAX
            + grammar_bytes
            + syntax.as_ref().map_or(0, String::len);
        if bytes > TEXT_BYTES_MAX {
            return Err(ChatError::Shape(format!(
                "the prompt and what belongs to it have {bytes} bytes; {TEXT_BYTES_MAX} can be"
            )));
        }
        let stops = parts
            .shown
            .stops
            .into_iter()
            .filter(|stop| !stop.is_empty());
        Ok(Prompt {
            tokens,
            text,
            grammar: parts.grammar,
            syntax,
            stops: stops.collect(),
        })
    }
}
