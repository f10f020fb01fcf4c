//! A small byte-level vocabulary, so that any text can be tokenised and any token printed.
//!
//! Byte pair encoding over the alphabet of GPT-2 (Radford et al. 2019, `bytes_to_unicode`): every byte is a token, some
//! frequent pairs are merged, three control tokens follow. Chat template: ChatML.

use proto::gguf::{Array, Metadata, Value, ValueType};

/// Pairs that are merged, in order of rank. Blanks are written as in the GPT-2 alphabet (`Ġ`).
const MERGES: [(&str, &str); 44] = [
    ("Ġ", "t"),
    ("Ġ", "a"),
    ("h", "e"),
    ("i", "n"),
    ("r", "e"),
    ("o", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġ", "w"),
    ("Ġ", "o"),
    ("e", "n"),
    ("Ġ", "c"),
    ("i", "t"),
    ("i", "s"),
    ("a", "n"),
    ("o", "r"),
    ("e", "s"),
    ("Ġ", "b"),
    ("e", "d"),
    ("Ġ", "f"),
    ("in", "g"),
    ("Ġ", "p"),
    ("o", "u"),
    ("Ġa", "n"),
    ("a", "l"),
    ("a", "r"),
    ("Ġt", "o"),
    ("Ġ", "m"),
    ("Ġo", "f"),
    ("Ġ", "in"),
    ("Ġ", "d"),
    ("Ġ", "h"),
    ("Ġan", "d"),
    ("i", "c"),
    ("a", "s"),
    ("l", "e"),
    ("Ġt", "h"),
    ("i", "on"),
    ("o", "m"),
    ("l", "l"),
    ("en", "t"),
    ("s", "t"),
];

/// Ends a text.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Begins a message.
pub const MESSAGE_START: &str = "<|im_start|>";
/// Ends a message, and a generation.
pub const MESSAGE_END: &str = "<|im_end|>";

/// Tokens of the vocabulary.
pub const TOKENS: u32 = 256 + MERGES.len() as u32 + 3;

/// The ChatML template, as published with many models.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The letter that stands for a byte: printable bytes stand for themselves, the others for the letters from U+0100.
fn letter(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count();
    let code = 0x100 + u32::try_from(before).expect("fewer than 256 bytes come before");
    char::from_u32(code).expect("the letters from U+0100 on are no surrogates")
}

/// The tokens in order of their ids.
#[must_use]
pub fn tokens() -> Vec<String> {
    let bytes = (0..=u8::MAX).map(|byte| letter(byte).to_string());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    let control = [END_OF_TEXT, MESSAGE_START, MESSAGE_END].map(str::to_owned);
    bytes.chain(merged).chain(control).collect()
}

/// Adds the `tokenizer.*` keys.
pub(crate) fn describe(metadata: &mut Metadata) {
    let texts = |texts: Vec<String>| {
        let values: Vec<Value> = texts.iter().map(|text| Value::text(text)).collect();
        Value::Array(Array::of(ValueType::Text, &values).expect("all elements are texts"))
    };
    let control = TOKENS - 3;
    let kinds: Vec<Value> = (0..TOKENS)
        .map(|id| Value::I32(if id < control { NORMAL } else { CONTROL }))
        .collect();
    let merges = MERGES
        .iter()
        .map(|(left, right)| format!("{left} {right}"))
        .collect();
    let kinds = Array::of(ValueType::I32, &kinds).expect("all elements are integers");
    metadata.set("tokenizer.ggml.model", Value::text("gpt2"));
    metadata.set("tokenizer.ggml.pre", Value::text("smollm"));
    metadata.set("tokenizer.ggml.tokens", texts(tokens()));
    metadata.set("tokenizer.ggml.token_type", Value::Array(kinds));
    metadata.set("tokenizer.ggml.merges", texts(merges));
    metadata.set("tokenizer.ggml.bos_token_id", Value::U32(control));
    metadata.set("tokenizer.ggml.eos_token_id", Value::U32(control + 2));
    metadata.set("tokenizer.ggml.padding_token_id", Value::U32(control));
    metadata.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    metadata.set("tokenizer.chat_template", Value::text(CHAT_TEMPLATE));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_token_is_there_once_and_every_merge_joins_tokens() {
        let tokens = tokens();
        let set: HashSet<&str> = tokens.iter().map(String::as_str).collect();
        assert_eq!(tokens.len(), TOKENS as usize);
        assert_eq!(
            set.len(),
            tokens.len(),
            "the engine insists on different tokens"
        );
        for (left, right) in MERGES {
            assert!(set.contains(left) && set.contains(right), "{left} {right}");
        }
    }

    #[test]
    fn bytes_have_the_letters_of_gpt_2() {
        for (byte, expected) in [
            (b'A', 'A'),
            (b' ', 'Ġ'),
            (b'\n', 'Ċ'),
            (0, 'Ā'),
            (0xad, 'Ń'),
        ] {
            assert_eq!(letter(byte), expected, "{byte:#x}");
        }
    }
}
