//! Reads replies in our own way of calling tools (see [`super::own`]), whole ones and those that are still being written.
//!
//! What is reported of a longer text always begins with what was reported of a shorter one, so that a caller can send on the
//! difference: text that may become a call is held back until it is clear, and arguments are passed on letter by letter.

use super::{Call, Message};

/// Takes a reply apart; `partial` says that more may follow.
pub(super) fn read(text: &str, partial: bool) -> Message {
    for (at, _) in text.match_indices(['{', '`']) {
        match marker(&text[at..]) {
            Marker::Whole(length) => {
                return Message {
                    content: text[..at].trim_end().to_owned(),
                    tool_calls: calls(&text[at + length..], partial),
                    ..Message::default()
                };
            }
            Marker::Begun if partial => return content(&text[..at], true),
            Marker::Begun | Marker::No => {}
        }
    }
    content(text, partial)
}

/// Spaces before a call are not part of the content, so those at the end are held back as well.
fn content(text: &str, partial: bool) -> Message {
    let text = if partial { text.trim_end() } else { text };
    Message {
        content: text.to_owned(),
        ..Message::default()
    }
}

/// Whether a text begins with the beginning of a call.
enum Marker {
    No,
    /// It ends within it.
    Begun,
    /// So many bytes.
    Whole(usize),
}

/// A call begins with `{"tool_calls":`, and models like to fence JSON off.
fn marker(text: &str) -> Marker {
    let fenced = text.starts_with('`');
    let fence: &[&str] = if fenced { &["```", "json"] } else { &[] };
    let mut left = text;
    for (at, word) in fence
        .iter()
        .chain(&["{", "\"tool_calls\"", ":"])
        .enumerate()
    {
        if let Some(behind) = left.strip_prefix(word) {
            left = behind.trim_start();
        } else if word.starts_with(left) {
            return Marker::Begun;
        } else if !(fenced && at == 1) {
            return Marker::No;
        }
    }
    Marker::Whole(text.len() - left.len())
}

/// The calls of the array that follows.
fn calls(text: &str, partial: bool) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut left = text.trim_start().strip_prefix('[').unwrap_or_default();
    while let Some(object) = left
        .trim_start_matches([' ', '\n', '\r', '\t', ','])
        .strip_prefix('{')
    {
        let (call, behind) = one_call(object, partial);
        calls.extend(call);
        left = behind;
    }
    calls
}

/// One call, once its name is known, and what follows it.
fn one_call(object: &str, partial: bool) -> (Option<Call>, &str) {
    let (mut name, mut arguments) = (None, String::new());
    let mut left = object;
    loop {
        left = left.trim_start_matches([' ', '\n', '\r', '\t', ',']);
        if let Some(behind) = left.strip_prefix('}') {
            left = behind;
            break;
        }
        let (Value::Whole(key), behind) = value(left) else {
            left = "";
            break;
        };
        let behind = behind.trim_start();
        let Some(behind) = behind.strip_prefix(':').filter(|_| !key.is_empty()) else {
            left = "";
            break;
        };
        let (found, behind) = value(behind.trim_start());
        match (string(key).as_deref(), &found) {
            (Some("name"), Value::Whole(text)) => name = string(text),
            (Some("arguments"), found) => arguments = argument_text(found, partial),
            _ => {}
        }
        left = behind;
    }
    let call = name.map(|name| Call {
        id: String::new(),
        name,
        arguments,
    });
    (call, left)
}

fn argument_text(found: &Value<'_>, partial: bool) -> String {
    match found {
        // Some models write the object as a string.
        Value::Whole(text) if text.starts_with('"') => string(text).unwrap_or_default(),
        Value::Whole(text) => (*text).to_owned(),
        Value::Open(text) if text.starts_with('"') && partial => String::new(),
        Value::Open(text) => (*text).to_owned(),
    }
}

fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A JSON value at the beginning of a text.
enum Value<'a> {
    /// All of it.
    Whole(&'a str),
    /// The text ends within it.
    Open(&'a str),
}

/// The value that a text begins with, and what follows it.
fn value(text: &str) -> (Value<'_>, &str) {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        let end = match byte {
            _ if escaped => {
                escaped = false;
                continue;
            }
            b'\\' if quoted => {
                escaped = true;
                continue;
            }
            b'"' => {
                quoted = !quoted;
                (!quoted && depth == 0).then_some(at + 1)
            }
            _ if quoted => None,
            b'{' | b'[' => {
                depth += 1;
                None
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                (depth == 0).then_some(at + 1)
            }
            // A number or a word ends where something else begins.
            b'}' | b']' | b',' | b':' if depth == 0 => Some(at),
            byte if depth == 0 && byte.is_ascii_whitespace() => Some(at),
            _ => None,
        };
        if let Some(end) = end {
            return (Value::Whole(&text[..end]), &text[end..]);
        }
    }
    (Value::Open(text), "")
}

#[cfg(test)]
mod tests;
