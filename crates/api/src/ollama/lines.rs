//! Answers of Ollama's `chat` and `generate`: objects, one a line in a stream.

use crate::answer::{Dialect, Event, Frames, Framing, Heading, Reason, Step, Usage, Whole};
use crate::clock;
use crate::fault::Fault;
use proto::journal::StreamDialect;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chat,
    Generate,
}

/// Writes lines.
#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    /// Calls are told when they are complete: name and arguments so far.
    call: Option<(String, String)>,
    reason: Reason,
    failed: bool,
}

impl Dialect for Lines {
    const FRAMING: Framing = Framing::Lines;
    // Its lines have no place for a position.
    const JOURNALLED: Option<StreamDialect> = None;

    fn whole(self, whole: Whole) -> Result<Value, Fault> {
        let choice = whole.choices.into_iter().next();
        let choice = choice.expect("a line is asked for once");
        let said = choice.message;
        let mut calls = Vec::new();
        for call in said.tool_calls {
            match read_call(&call.name, &call.arguments) {
                Ok(call) => calls.push(call),
                // The end of the answer may have cut the last call off.
                Err(_) if choice.reason == Reason::Length => {}
                Err(fault) => return Err(fault),
            }
        }
        let line = self.line(&whole.heading.model, &said.content, &said.reasoning, calls);
        Ok(done(line, &choice.reason, whole.usage))
    }

    fn open(&mut self, _heading: &Heading, _out: &mut Frames) {}

    fn step(&mut self, heading: &Heading, event: Event, out: &mut Frames) {
        if self.failed {
            return;
        }
        let model = &heading.model;
        match event.step {
            Step::Text(text) => out.line(&self.line(model, &text, "", Vec::new())),
            Step::Reasoning(text) => out.line(&self.line(model, "", &text, Vec::new())),
            Step::Call { name, .. } => {
                self.tell_call(heading, out);
                self.call = Some((name, String::new()));
            }
            Step::Arguments { text, .. } => {
                if let Some((_, arguments)) = &mut self.call {
                    *arguments += &text;
                }
            }
            Step::End { reason, .. } => {
                if reason == Reason::Length {
                    self.call = None;
                }
                self.tell_call(heading, out);
                self.reason = reason;
            }
        }
    }

    fn close(&mut self, heading: &Heading, usage: Usage, out: &mut Frames) {
        if !self.failed {
            let line = self.line(&heading.model, "", "", Vec::new());
            out.line(&done(line, &self.reason, usage));
        }
    }

    fn fail(&mut self, _heading: &Heading, fault: &Fault, out: &mut Frames) {
        self.failed = true;
        out.line(&json!({"error": fault.message}));
    }
}

impl Lines {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            call: None,
            reason: Reason::Stop,
            failed: false,
        }
    }

    fn tell_call(&mut self, heading: &Heading, out: &mut Frames) {
        let Some((name, arguments)) = self.call.take() else {
            return;
        };
        match read_call(&name, &arguments) {
            Ok(call) => out.line(&self.line(&heading.model, "", "", vec![call])),
            Err(fault) => self.fail(heading, &fault, out),
        }
    }

    fn line(&self, model: &str, text: &str, thinking: &str, calls: Vec<Value>) -> Value {
        let created_at = clock::rfc3339(clock::now_s());
        let mut line = json!({"model": model, "created_at": created_at});
        let said = match self.form {
            Form::Chat => {
                line["message"] = json!({"role": "assistant", "content": text});
                &mut line["message"]
            }
            Form::Generate => {
                line["response"] = text.into();
                &mut line
            }
        };
        if !thinking.is_empty() {
            said["thinking"] = thinking.into();
        }
        if !calls.is_empty() {
            said["tool_calls"] = calls.into();
        }
        line["done"] = false.into();
        line
    }
}

/// A call in Ollama's form: the arguments are an object.
fn read_call(name: &str, arguments: &str) -> Result<Value, Fault> {
    let arguments: Map<String, Value> =
        serde_json::from_str(arguments).map_err(|_| Fault::arguments_unreadable(name))?;
    Ok(json!({"function": {"name": name, "arguments": arguments}}))
}

/// Makes a line the last.
fn done(mut line: Value, reason: &Reason, usage: Usage) -> Value {
    let reason = if *reason == Reason::Length {
        "length"
    } else {
        "stop"
    };
    line["done"] = true.into();
    line["done_reason"] = reason.into();
    line["total_duration"] = nanoseconds(usage.total);
    line["load_duration"] = 0.into();
    line["prompt_eval_count"] = usage.prompt.into();
    line["prompt_eval_duration"] = nanoseconds(usage.first);
    line["eval_count"] = usage.completion.into();
    line["eval_duration"] = nanoseconds(usage.total.saturating_sub(usage.first));
    line
}

/// What a client hears who only wants the model to be loaded.
pub(super) fn loaded(model: &str, form: Form) -> Value {
    let mut line = Lines::new(form).line(model, "", "", Vec::new());
    line["done"] = true.into();
    line["done_reason"] = "load".into();
    line
}

pub(super) fn nanoseconds(time: Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}
