//! Control tokens in the texts of a conversation stay text.
//!
//! A template puts texts of strangers between its own control tokens, and the tokenizer cannot tell one from the other. So
//! each text of a control token in the conversation is put between two marks before rendering; the rendered prompt is
//! tokenised in pieces, and what is between two marks as plain text. The marks are two of Unicode's noncharacters, which are
//! for internal use; those in the conversation itself become U+FFFD first. A template may cut texts apart; a mark that lost its
//! partner means nothing and is dropped.

use crate::llama::{Model, TextError};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Stands before the text of a control token.
const OPEN: char = '\u{fdd0}';
/// Stands behind it.
const CLOSE: char = '\u{fdd1}';
/// What no text of a conversation may contain: the marks, and zero bytes.
pub(super) const FORBIDDEN: [char; 3] = [OPEN, CLOSE, '\0'];
/// Shorter texts of tokens are ordinary words and spaces.
const CONTROL_BYTES_MIN: usize = 3;

/// The texts that a template gives a meaning beyond their letters.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// By their first byte, the longest first.
    texts: HashMap<u8, Vec<String>>,
}

impl Marks {
    /// The control tokens of a vocabulary, and its other special tokens that `template`, a source, uses.
    pub(super) fn new(model: &Model, template: &str) -> Self {
        let mut texts: HashMap<u8, Vec<String>> = HashMap::new();
        for (text, control) in model.special_texts() {
            let meant = control || template.contains(&text);
            if text.len() >= CONTROL_BYTES_MIN && !text.trim().is_empty() && meant {
                texts.entry(text.as_bytes()[0]).or_default().push(text);
            }
        }
        for list in texts.values_mut() {
            list.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
        Self { texts }
    }

    /// The text of a control token at the beginning of `text`.
    fn at<'a>(&self, text: &'a str) -> Option<&'a str> {
        let list = self.texts.get(text.as_bytes().first()?)?;
        let hit = list
            .iter()
            .find(|control| text.starts_with(control.as_str()))?;
        text.get(..hit.len())
    }

    /// Marks all strings of a JSON value, keys included, but the values of the keys in `but`; whether there was one to mark.
    pub(super) fn mark(&self, value: &mut Value, but: &[&str]) -> bool {
        match value {
            Value::String(text) => match self.marked(text) {
                Some(marked) => {
                    *text = marked;
                    true
                }
                None => false,
            },
            Value::Array(values) => values
                .iter_mut()
                .fold(false, |any, value| self.mark(value, but) | any),
            Value::Object(map) => {
                let keys = self.mark_keys(map);
                map.iter_mut()
                    .filter(|(key, _)| !but.contains(&key.as_str()))
                    .fold(keys, |any, (_, value)| self.mark(value, but) | any)
            }
            _ => false,
        }
    }

    fn mark_keys(&self, map: &mut Map<String, Value>) -> bool {
        let any = map.keys().any(|key| self.marked(key).is_some());
        if any {
            let entries = std::mem::take(map).into_iter();
            *map = entries
                .map(|(key, value)| (self.marked(&key).unwrap_or(key), value))
                .collect();
        }
        any
    }

    fn marked(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let (mut from, mut at) = (0, 0);
        while let Some(left) = text.get(at..) {
            let Some(first) = left.chars().next() else {
                break;
            };
            match self.at(left) {
                Some(control) => {
                    out.extend([&text[from..at], OPEN.encode_utf8(&mut [0; 4]), control]);
                    out.push(CLOSE);
                    at += control.len();
                    from = at;
                }
                None => at += first.len_utf8(),
            }
        }
        (from > 0).then(|| out + &text[from..])
    }

    /// A rendered prompt as text, and as tokens in which marked texts are no control tokens.
    pub(super) fn tokens(
        &self,
        model: &Model,
        prompt: &str,
    ) -> Result<(String, Vec<i32>), TextError> {
        if !prompt.contains([OPEN, CLOSE]) {
            return Ok((prompt.to_owned(), model.tokenize(prompt, true, true)?));
        }
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut pieces = self.pieces(prompt).into_iter();
        if let Some((first, _)) = pieces.next() {
            tokens.extend(model.tokenize(&first, true, true)?);
            text += &first;
        }
        for (piece, plain) in pieces {
            if plain {
                // Cut behind its first letter, so that tokens that are found even in plain text are not found.
                let cut = piece.chars().next().map_or(0, char::len_utf8);
                tokens.extend(model.tokenize_within(&piece[..cut], false)?);
                tokens.extend(model.tokenize_within(&piece[cut..], false)?);
            } else {
                tokens.extend(model.tokenize_within(&piece, true)?);
            }
            text += &piece;
        }
        Ok((text, tokens))
    }

    /// The prompt without marks, in pieces; the first is the template's, and those that are plain text are true.
    fn pieces(&self, prompt: &str) -> Vec<(String, bool)> {
        let mut pieces = vec![(String::new(), false)];
        let mut left = prompt;
        while let Some(at) = left.find([OPEN, CLOSE]) {
            push(&mut pieces, &left[..at]);
            let opens = left[at..].starts_with(OPEN);
            left = &left[at + OPEN.len_utf8()..];
            let control = self.at(left).filter(|_| opens).unwrap_or("");
            let behind = &left[control.len()..];
            if !control.is_empty() && behind.starts_with(CLOSE) {
                pieces.push((control.to_owned(), true));
                left = &behind[CLOSE.len_utf8()..];
            }
        }
        push(&mut pieces, left);
        pieces
    }
}

/// Adds text of the template's to the last piece, or as a new one.
fn push(pieces: &mut Vec<(String, bool)>, text: &str) {
    match pieces.last_mut() {
        Some((last, false)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => pieces.push((text.to_owned(), false)),
    }
}
