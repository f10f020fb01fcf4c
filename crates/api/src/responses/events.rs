//! Answers of the Responses API: a response of items, and its stream.
//!
//! Order of a stream: `response.created`, `response.in_progress`; for every item `response.output_item.added`, what
//! is in it, `response.output_item.done`; then `response.completed`, or `incomplete`, or `failed`. The items are
//! thoughts, a message, and calls. Events are numbered from 0.

use super::request::Echo;
use crate::answer::{Dialect, Event, Frames, Framing, Heading, Reason, Step, Usage, Whole, name};
use crate::clock;
use crate::fault::Fault;
use proto::journal::StreamDialect;
use serde_json::{Value, json};

/// Writes responses.
pub(super) struct Events {
    echo: Echo,
    /// The number of the next event.
    sequence: u64,
    /// Items that are complete.
    done: Vec<Value>,
    open: Option<Open>,
    incomplete: bool,
}

/// The item that grows.
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
    Call { call_id: String, name: String },
}

impl Dialect for Events {
    const FRAMING: Framing = Framing::Events;
    const JOURNALLED: Option<StreamDialect> = Some(StreamDialect::Responses);

    fn whole(mut self, whole: Whole) -> Result<Value, Fault> {
        // The same as a stream, whose events nobody reads.
        let mut unread = Frames::default();
        for choice in whole.choices {
            for step in choice.steps(whole.usage.completion) {
                self.add(&whole.heading, step, &mut unread);
            }
        }
        let status = if self.incomplete {
            "incomplete"
        } else {
            "completed"
        };
        Ok(self.response(&whole.heading, status, Some(whole.usage), None))
    }

    fn open(&mut self, heading: &Heading, out: &mut Frames) {
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response(heading, "in_progress", None, None);
            self.send(json!({"type": kind, "response": response}), out);
        }
    }

    fn step(&mut self, heading: &Heading, event: Event, out: &mut Frames) {
        self.add(heading, event.step, out);
    }

    fn close(&mut self, heading: &Heading, usage: Usage, out: &mut Frames) {
        let status = if self.incomplete {
            "incomplete"
        } else {
            "completed"
        };
        let response = self.response(heading, status, Some(usage), None);
        self.send(
            json!({"type": format!("response.{status}"), "response": response}),
            out,
        );
    }

    fn fail(&mut self, heading: &Heading, fault: &Fault, out: &mut Frames) {
        let response = self.response(heading, "failed", None, Some(fault));
        self.send(
            json!({"type": "response.failed", "response": response}),
            out,
        );
    }
}

impl Events {
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            echo,
            sequence: 0,
            done: Vec::new(),
            open: None,
            incomplete: false,
        }
    }

    fn add(&mut self, heading: &Heading, step: Step, out: &mut Frames) {
        match step {
            Step::Reasoning(text) => {
                self.switch(heading, &Kind::Reasoning, out);
                self.delta("response.reasoning_text.delta", text, out);
            }
            Step::Text(text) => {
                self.switch(heading, &Kind::Message, out);
                self.delta("response.output_text.delta", text, out);
            }
            Step::Call { id, name, .. } => {
                self.switch(heading, &Kind::Call { call_id: id, name }, out)
            }
            Step::Arguments { text, .. } => {
                self.delta("response.function_call_arguments.delta", text, out);
            }
            Step::End { reason, .. } => {
                self.incomplete = reason == Reason::Length;
                self.finish_item(out);
            }
        }
    }

    /// Makes sure that the open item is of this kind. A call is never the same as one before.
    fn switch(&mut self, heading: &Heading, kind: &Kind, out: &mut Frames) {
        if self.open.as_ref().is_some_and(|open| open.kind == *kind) {
            return;
        }
        self.finish_item(out);
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Message => "msg",
            Kind::Call { .. } => "fc",
        };
        let open = Open {
            kind: kind.clone(),
            id: format!(
                "{prefix}_{:032x}",
                name(heading.id, "item", [0, self.done.len()])
            ),
            text: String::new(),
        };
        let mut item = open.item("in_progress");
        if open.part().is_some() {
            item["content"] = json!([]);
        }
        let index = self.done.len();
        let added =
            json!({"type": "response.output_item.added", "output_index": index, "item": item});
        self.send(added, out);
        if let Some(part) = open.part() {
            self.send_about(&open.id, "response.content_part.added", ("part", part), out);
        }
        self.open = Some(open);
    }

    fn delta(&mut self, kind: &str, text: String, out: &mut Frames) {
        let Some(open) = &mut self.open else { return };
        open.text += &text;
        let id = open.id.clone();
        self.send_about(&id, kind, ("delta", text.into()), out);
    }

    fn finish_item(&mut self, out: &mut Frames) {
        let Some(open) = self.open.take() else { return };
        let text = open.text.as_str().into();
        match &open.kind {
            Kind::Reasoning => {
                self.send_about(
                    &open.id,
                    "response.reasoning_text.done",
                    ("text", text),
                    out,
                );
            }
            Kind::Message => {
                self.send_about(&open.id, "response.output_text.done", ("text", text), out);
            }
            Kind::Call { name, .. } => {
                let index = self.done.len();
                let kind = "response.function_call_arguments.done";
                let done = json!({
                    "type": kind, "item_id": open.id, "output_index": index, "name": name, "arguments": text,
                });
                self.send(done, out);
            }
        }
        if let Some(part) = open.part() {
            self.send_about(&open.id, "response.content_part.done", ("part", part), out);
        }
        let status = if self.incomplete {
            "incomplete"
        } else {
            "completed"
        };
        let item = open.item(status);
        let index = self.done.len();
        let done =
            json!({"type": "response.output_item.done", "output_index": index, "item": item});
        self.send(done, out);
        self.done.push(item);
    }

    /// An event about the open item.
    fn send_about(&mut self, id: &str, kind: &str, field: (&str, Value), out: &mut Frames) {
        let mut event = json!({"type": kind, "item_id": id, "output_index": self.done.len()});
        if kind.contains("text") || kind.contains("part") {
            event["content_index"] = 0.into();
        }
        if kind.contains("output_text") {
            event["logprobs"] = json!([]);
        }
        event[field.0] = field.1;
        self.send(event, out);
    }

    fn send(&mut self, mut event: Value, out: &mut Frames) {
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.event(&event);
    }

    fn response(
        &self,
        heading: &Heading,
        status: &str,
        usage: Option<Usage>,
        fault: Option<&Fault>,
    ) -> Value {
        let mut response = json!({
            "id": format!("resp_{:032x}", heading.id),
            "object": "response",
            "created_at": heading.created,
            "completed_at": (status == "completed").then(clock::now_s),
            "status": status,
            "error": fault.map(|fault| json!({"code": "server_error", "message": fault.message})),
            "incomplete_details": (status == "incomplete").then(|| json!({"reason": "max_output_tokens"})),
            "model": heading.model,
            "output": self.done,
            "usage": usage.map(|usage| json!({
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.reused},
                "output_tokens": usage.completion,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.prompt.saturating_add(usage.completion),
            })),
        });
        if let Value::Object(fields) = &mut response {
            fields.extend(self.echo.fields());
        }
        response
    }
}

impl Open {
    /// The part that the item's text is in.
    fn part(&self) -> Option<Value> {
        match self.kind {
            Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": self.text})),
            Kind::Message => Some(
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}),
            ),
            Kind::Call { .. } => None,
        }
    }

    fn item(&self, status: &str) -> Value {
        let (id, parts) = (&self.id, self.part().into_iter().collect::<Vec<_>>());
        match &self.kind {
            Kind::Reasoning => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": parts, "status": status})
            }
            Kind::Message => json!({
                "id": id, "type": "message", "status": status, "role": "assistant", "content": parts,
            }),
            Kind::Call { call_id, name } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": self.text,
            }),
        }
    }
}
