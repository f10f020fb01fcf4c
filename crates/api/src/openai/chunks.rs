//! Answers of Chat Completions: `chat.completion` and its chunks.
//!
//! Order of a stream: for every choice a chunk with the role, then chunks with text, thoughts and calls, then one with
//! the reason for its end; after all choices a chunk with the counts if they were asked for, and `[DONE]`. An error
//! takes the place of all that would follow it, `[DONE]` included.

use super::{finish_reason, logprobs, object, usage};
use crate::answer::{Dialect, Event, Frames, Framing, Heading, Step, Usage, Whole};
use crate::fault::Fault;
use proto::journal::StreamDialect;
use serde_json::{Map, Value, json};

/// What a client wants beside the answer.
#[derive(Debug, PartialEq)]
pub(super) struct Chunks {
    /// A chunk of token counts at the end of a stream.
    pub(super) include_usage: bool,
    /// How probable each token was.
    pub(super) logprobs: bool,
}

impl Dialect for Chunks {
    const FRAMING: Framing = Framing::Events;
    const JOURNALLED: Option<StreamDialect> = Some(StreamDialect::Chat);

    fn whole(self, whole: Whole) -> Result<Value, Fault> {
        let mut body = object(&whole.heading, "chatcmpl", "chat.completion");
        let choices = whole.choices.iter().enumerate().map(|(index, choice)| {
            let said = &choice.message;
            let mut message = Map::new();
            message.insert("role".into(), "assistant".into());
            let silent = said.content.is_empty() && !said.tool_calls.is_empty();
            let content = (!silent).then_some(said.content.as_str());
            message.insert("content".into(), content.into());
            if !said.reasoning.is_empty() {
                let reasoning = said.reasoning.as_str().into();
                message.insert("reasoning_content".into(), reasoning);
            }
            message.insert("refusal".into(), Value::Null);
            if !said.tool_calls.is_empty() {
                message.insert("tool_calls".into(), json!(said.tool_calls));
            }
            json!({
                "index": index,
                "message": message,
                "logprobs": logprobs(self.logprobs, &choice.scores),
                "finish_reason": finish_reason(&choice.reason),
            })
        });
        body.insert("choices".into(), choices.collect());
        body.insert("usage".into(), usage(whole.usage));
        Ok(body.into())
    }

    fn open(&mut self, heading: &Heading, out: &mut Frames) {
        for index in 0..heading.choices {
            let delta = json!({"role": "assistant", "content": ""});
            self.chunk(heading, index, delta, Value::Null, None, out);
        }
    }

    fn step(&mut self, heading: &Heading, event: Event, out: &mut Frames) {
        let scored = self.logprobs && !event.scores.is_empty();
        let scores = logprobs(scored, &event.scores);
        let mut reason = None;
        let delta = match event.step {
            Step::Text(text) => json!({ "content": text }),
            Step::Reasoning(text) => json!({ "reasoning_content": text }),
            Step::Call { index, id, name } => {
                let function = json!({"name": name, "arguments": ""});
                json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
            }
            Step::Arguments { index, text } => {
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
            Step::End { reason: why, .. } => {
                reason = Some(finish_reason(&why));
                json!({})
            }
        };
        self.chunk(heading, event.choice, delta, scores, reason, out);
    }

    fn close(&mut self, heading: &Heading, counts: Usage, out: &mut Frames) {
        let object = (heading, "chatcmpl", "chat.completion.chunk");
        super::close(object, self.include_usage.then_some(counts), out);
    }

    fn fail(&mut self, _heading: &Heading, fault: &Fault, out: &mut Frames) {
        out.data(&fault.body());
    }
}

impl Chunks {
    fn chunk(
        &self,
        heading: &Heading,
        index: usize,
        delta: Value,
        scores: Value,
        reason: Option<&str>,
        out: &mut Frames,
    ) {
        let mut chunk = object(heading, "chatcmpl", "chat.completion.chunk");
        let choice =
            json!({"index": index, "delta": delta, "logprobs": scores, "finish_reason": reason});
        chunk.insert("choices".into(), json!([choice]));
        if self.include_usage {
            chunk.insert("usage".into(), Value::Null);
        }
        out.data(&chunk);
    }
}
