//! How a reply is taken apart, as it goes with a prompt and comes back with the reply.

use super::shim::Parser;
use super::{ChatError, Message, reader};
use proto::host::ReadReply;
use serde::{Deserialize, Serialize};

/// How many forms of replies are kept ready: more than there are sessions are seldom read at once.
const READERS_MAX: usize = 16;
/// How deeply brackets may be nested in what llama.cpp takes apart, which it does recursively.
const NESTING_MAX: usize = 1_000;

/// [`proto::host::Prompt::syntax`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Syntax {
    /// Calls are made in our own way; otherwise as the template has it.
    pub(super) own: bool,
    /// The template's way.
    pub(super) native: Option<Native>,
    /// Texts of tokens that end a reply and are no part of it.
    pub(super) ends: Vec<String>,
}

/// A template's way; see `parser` in `shim/chat.cpp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Native {
    pub(super) format: i32,
    pub(super) generation_prompt: String,
    pub(super) parser: String,
    pub(super) continues: bool,
}

impl Native {
    fn parser(&self) -> Result<Parser, ChatError> {
        let syntax = serde_json::to_string(self).expect("numbers and texts are JSON");
        Parser::new(&syntax).map_err(|why| ChatError::Shape(format!("the syntax: {why}")))
    }
}

/// A syntax that is ready for use.
#[derive(Debug)]
struct Reader {
    own: bool,
    native: Option<Parser>,
    ends: Vec<String>,
}

/// The newest syntaxes.
#[derive(Debug, Default)]
pub(super) struct Readers {
    newest_last: Vec<(String, Reader)>,
}

impl Readers {
    /// Takes a reply apart.
    pub(super) fn read(&mut self, reply: &ReadReply) -> Result<Message, ChatError> {
        let known = self
            .newest_last
            .iter()
            .position(|(syntax, _)| *syntax == reply.syntax);
        let entry = match known {
            Some(at) => self.newest_last.remove(at),
            None => (reply.syntax.clone(), Reader::new(&reply.syntax)?),
        };
        if self.newest_last.len() == READERS_MAX {
            self.newest_last.remove(0);
        }
        self.newest_last.push(entry);
        let (_, reader) = self.newest_last.last().expect("one was just added");
        Ok(reader.read(&reply.text, reply.partial))
    }
}

impl Reader {
    fn new(syntax: &str) -> Result<Self, ChatError> {
        let syntax: Syntax = serde_json::from_str(syntax)
            .map_err(|error| ChatError::Shape(format!("the syntax is not one of ours: {error}")))?;
        Ok(Self {
            own: syntax.own,
            native: syntax.native.as_ref().map(Native::parser).transpose()?,
            ends: syntax.ends,
        })
    }

    fn read(&self, text: &str, partial: bool) -> Message {
        let mut text = text;
        while let Some(shorter) = self
            .ends
            .iter()
            .find_map(|end| text.strip_suffix(end.as_str()))
        {
            text = shorter;
        }
        let message = match &self.native {
            Some(parser) => native(parser, text, partial),
            None => Message {
                content: text.to_owned(),
                ..Message::default()
            },
        };
        if !self.own {
            return message;
        }
        Message {
            reasoning: message.reasoning,
            ..reader::read(&message.content, partial)
        }
    }
}

/// A reply that has not the form that it should have is content, once it is whole; before that nothing can be said of it.
fn native(parser: &Parser, text: &str, partial: bool) -> Message {
    let read = Some(text)
        .filter(|text| is_shallow(text))
        .and_then(|text| parser.read(text, partial).ok())
        .and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default();
    if partial || read != Message::default() {
        return read;
    }
    Message {
        content: text.to_owned(),
        ..read
    }
}

fn is_shallow(text: &str) -> bool {
    let mut depth = 0usize;
    text.bytes().all(|byte| {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth <= NESTING_MAX
    })
}

/// Whether plain text comes out as it went in.
pub(super) fn is_plain(native: Native) -> bool {
    const TEXT: &str = "{\"a\": [1, \"<b>\"]} \n";
    let Ok(parser) = native.parser() else {
        return false;
    };
    let plain = Message {
        content: TEXT.to_owned(),
        ..Message::default()
    };
    let same =
        |json: String| serde_json::from_str(&json).is_ok_and(|message: Message| message == plain);
    parser.read(TEXT, false).is_ok_and(same)
}
