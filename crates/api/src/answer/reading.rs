//! What is new in a message that is read again and again while it grows.
//!
//! A stream cannot take back what it sent, but a parser may change its mind: `<too` is text until it becomes
//! `<tool_call>`. So steps only ever append. Where the new view does not continue what was said, nothing is said until
//! one does.

use super::{Step, name};
use crate::backend::{Message, ToolCall};
use crate::fault::Fault;
use serde_json::Value;

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    said: Message,
    /// What names of calls are made of where the model gives none: the answer's number, and the choice.
    seed: (u128, usize),
}

impl Reading {
    /// Of a choice of an answer.
    pub(super) fn new(answer: u128, choice: usize) -> Self {
        Self {
            said: Message::default(),
            seed: (answer, choice),
        }
    }

    /// Whether a tool call has begun.
    pub(super) fn called(&self) -> bool {
        !self.said.tool_calls.is_empty()
    }

    /// What the model thought.
    pub(super) fn reasoning(&self) -> &str {
        &self.said.reasoning
    }

    /// What was said to the user.
    pub(super) fn content(&self) -> &str {
        &self.said.content
    }

    /// The steps from what was said to a view of a text that may go on.
    pub(super) fn advance(&mut self, now: &Message) -> Vec<Step> {
        let mut steps = Vec::new();
        let said = &mut self.said;
        steps.extend(append(&mut said.reasoning, &now.reasoning).map(Step::Reasoning));
        steps.extend(append(&mut said.content, &now.content).map(Step::Text));
        for (index, call) in now.tool_calls.iter().enumerate() {
            if index == said.tool_calls.len() {
                // A name may grow; once there are arguments, or another call, it is complete.
                if call.arguments.is_empty() && index + 1 == now.tool_calls.len() {
                    break;
                }
                steps.push(begin(&mut said.tool_calls, call, self.seed));
            }
            let begun = &mut said.tool_calls[index];
            if begun.name == call.name {
                let more = append(&mut begun.arguments, &call.arguments);
                steps.extend(more.map(|text| Step::Arguments { index, text }));
            }
        }
        steps
    }

    /// The steps to the last view.
    ///
    /// # Errors
    ///
    /// When a call that was begun is not in it, or not so: half a wrong call must not be taken for a right one.
    pub(super) fn finish(&mut self, mut now: Message) -> Result<Vec<Step>, Fault> {
        for call in &mut now.tool_calls {
            // Clients read the arguments as JSON, also where a function takes none.
            if call.arguments.is_empty() {
                "{}".clone_into(&mut call.arguments);
            }
        }
        let steps = self.advance(&now);
        let said = &self.said.tool_calls;
        if said.len() != now.tool_calls.len()
            || !said.iter().zip(&now.tool_calls).all(|(a, b)| same(a, b))
        {
            return Err(Fault::internal(
                "the model's call of a tool read otherwise in the end than it began; ask again, or without a stream",
            ));
        }
        Ok(steps)
    }
}

/// Lengthens `said` to `now` if that continues it; what was added.
fn append(said: &mut String, now: &str) -> Option<String> {
    let more = now.strip_prefix(said.as_str())?;
    said.push_str(more);
    (!more.is_empty()).then(|| more.to_owned())
}

fn begin(calls: &mut Vec<ToolCall>, call: &ToolCall, (answer, choice): (u128, usize)) -> Step {
    let index = calls.len();
    let id = match call.id.as_str() {
        "" => format!("call_{:032x}", name(answer, "call", [choice, index])),
        id => id.to_owned(),
    };
    calls.push(ToolCall {
        id: id.clone(),
        name: call.name.clone(),
        arguments: String::new(),
    });
    let name = call.name.clone();
    Step::Call { index, id, name }
}

fn same(said: &ToolCall, now: &ToolCall) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    said.name == now.name
        && (said.arguments == now.arguments
            || json(&said.arguments).is_some_and(|said| Some(said) == json(&now.arguments)))
}

#[cfg(test)]
mod tests;
