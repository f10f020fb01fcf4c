//! Answers of the Messages API: a message of blocks, and its stream.
//!
//! Order of a stream: `message_start`; for every block `content_block_start`, its deltas, `content_block_stop`; then
//! `message_delta` with the reason for the end, and `message_stop`. `error` takes the place of all that would follow.

use super::error;
use crate::answer::{Dialect, Event, Frames, Framing, Heading, Reason, Step, Usage, Whole};
use crate::fault::Fault;
use proto::journal::StreamDialect;
use serde_json::{Map, Value, json};

/// Writes messages.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// The kind of the block that is open.
    open: Option<Kind>,
    /// Blocks that were begun.
    begun: usize,
    /// How it ended: `stop_reason` and `stop_sequence`.
    end: (Value, Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    /// With the number of the call.
    ToolUse(usize),
}

impl Dialect for Blocks {
    const FRAMING: Framing = Framing::Events;
    const JOURNALLED: Option<StreamDialect> = Some(StreamDialect::Messages);

    fn whole(self, whole: Whole) -> Result<Value, Fault> {
        let choice = whole.choices.into_iter().next();
        let choice = choice.expect("a message is asked for once");
        let said = choice.message;
        let mut content = Vec::new();
        if !said.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": said.reasoning, "signature": ""}));
        }
        if !said.content.is_empty() {
            content.push(json!({"type": "text", "text": said.content, "citations": null}));
        }
        for call in said.tool_calls {
            match serde_json::from_str::<Map<String, Value>>(&call.arguments) {
                Ok(input) => content.push(tool_use(&call.id, &call.name, input)),
                // The end of the answer may have cut the last call off.
                Err(_) if choice.reason == Reason::Length => {}
                Err(_) => return Err(Fault::arguments_unreadable(&call.name)),
            }
        }
        let (reason, sequence) = stop(&choice.reason);
        let counts = counts(whole.usage);
        Ok(message(&whole.heading, content, &reason, &sequence, counts))
    }

    fn open(&mut self, heading: &Heading, out: &mut Frames) {
        let counts = counts(Usage {
            prompt: heading.prompt_tokens,
            ..Usage::default()
        });
        let message = message(heading, Vec::new(), &Value::Null, &Value::Null, counts);
        out.event(&json!({"type": "message_start", "message": message}));
    }

    fn step(&mut self, _heading: &Heading, event: Event, out: &mut Frames) {
        match event.step {
            Step::Reasoning(text) => {
                let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.switch(Kind::Thinking, empty, out);
                self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Step::Text(text) => {
                let empty = json!({"type": "text", "text": "", "citations": null});
                self.switch(Kind::Text, empty, out);
                self.delta(json!({"type": "text_delta", "text": text}), out);
            }
            Step::Call { index, id, name } => {
                self.switch(Kind::ToolUse(index), tool_use(&id, &name, Map::new()), out);
            }
            Step::Arguments { index: _, text } => {
                self.delta(
                    json!({"type": "input_json_delta", "partial_json": text}),
                    out,
                );
            }
            Step::End { reason, .. } => {
                self.stop_block(out);
                self.end = stop(&reason);
            }
        }
    }

    fn close(&mut self, _heading: &Heading, usage: Usage, out: &mut Frames) {
        let (reason, sequence) = &self.end;
        let delta = json!({
            "stop_reason": reason, "stop_sequence": sequence, "stop_details": null, "container": null,
        });
        let usage = json!({
            "input_tokens": usage.prompt.saturating_sub(usage.reused),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.reused,
            "output_tokens": usage.completion,
            "output_tokens_details": null,
            "server_tool_use": null,
        });
        out.event(&json!({"type": "message_delta", "delta": delta, "usage": usage}));
        out.event(&json!({"type": "message_stop"}));
    }

    fn fail(&mut self, _heading: &Heading, fault: &Fault, out: &mut Frames) {
        out.event(&error(fault, None));
    }
}

impl Blocks {
    /// Makes sure that the open block is of this kind.
    fn switch(&mut self, kind: Kind, empty: Value, out: &mut Frames) {
        if self.open == Some(kind) {
            return;
        }
        self.stop_block(out);
        let index = self.begun;
        out.event(&json!({"type": "content_block_start", "index": index, "content_block": empty}));
        self.begun += 1;
        self.open = Some(kind);
    }

    fn delta(&self, delta: Value, out: &mut Frames) {
        let index = self.begun.saturating_sub(1);
        out.event(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }

    fn stop_block(&mut self, out: &mut Frames) {
        if self.open == Some(Kind::Thinking) {
            self.delta(json!({"type": "signature_delta", "signature": ""}), out);
        }
        if self.open.take().is_some() {
            let index = self.begun - 1;
            out.event(&json!({"type": "content_block_stop", "index": index}));
        }
    }
}

fn tool_use(id: &str, name: &str, input: Map<String, Value>) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": input, "caller": {"type": "direct"}})
}

fn stop(reason: &Reason) -> (Value, Value) {
    match reason {
        Reason::Stop => ("end_turn".into(), Value::Null),
        Reason::StopString(text) => ("stop_sequence".into(), text.as_str().into()),
        Reason::Length => ("max_tokens".into(), Value::Null),
        Reason::Calls => ("tool_use".into(), Value::Null),
    }
}

/// Anthropic's input tokens are those beside what was read from a cache.
fn counts(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.reused),
        "cache_creation": null,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.reused,
        "output_tokens": usage.completion,
        "output_tokens_details": null,
        "server_tool_use": null,
        "service_tier": "standard",
        "inference_geo": null,
    })
}

fn message(
    heading: &Heading,
    content: Vec<Value>,
    reason: &Value,
    sequence: &Value,
    usage: Value,
) -> Value {
    json!({
        "id": format!("msg_{:032x}", heading.id),
        "type": "message",
        "role": "assistant",
        "model": heading.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "stop_details": null,
        "container": null,
        "usage": usage,
    })
}
