//! A streamed reply as its client heard it: every token with its bytes and its probability, and when it came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::events::{Event, Events};
use super::http;

/// The route that is asked.
const PATH: &str = "/v1/chat/completions";

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    /// Its bytes.
    bytes: Vec<u8>,
    /// The logarithm of its probability, of which the last bit counts.
    logprob: f64,
}

/// A reply, or what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// Its tokens, and when each came.
    pub(crate) tokens: Vec<(Token, Instant)>,
    /// Its text, as it came beside the tokens.
    pub(crate) text: String,
    /// `stop` or `length`; empty if it has no end.
    pub(crate) finish: String,
    /// The error that took the place of the rest.
    pub(crate) error: Option<String>,
}

/// Asks, and reads to the end; `at` is told of the number of tokens after each event that brings some.
///
/// # Errors
///
/// When the server cannot be reached, or speaks no HTTP or no JSON. What the server itself calls an error is heard.
pub(crate) fn hear(addr: SocketAddr, body: &Value, mut at: impl FnMut(usize)) -> Result<Heard> {
    let mut heard = Heard {
        asked: Instant::now(),
        tokens: Vec::new(),
        text: String::new(),
        finish: String::new(),
        error: None,
    };
    let mut response = http::post(addr, PATH, body.to_string().as_bytes())?;
    if response.status != 200 {
        let status = response.status;
        heard.error = Some(format!("{status}: {}", response.text()?));
        return Ok(heard);
    }
    let mut events = Events::default();
    while let Some(piece) = response.piece()? {
        let now = Instant::now();
        for event in events.feed(&piece) {
            let Event::Data(data) = event else {
                return Ok(heard);
            };
            let before = heard.tokens.len();
            heard.take(&data, now)?;
            if heard.error.is_some() {
                return Ok(heard);
            }
            if heard.tokens.len() > before {
                at(heard.tokens.len());
            }
        }
    }
    heard.error = Some("the connection was closed in the middle of the reply".to_owned());
    Ok(heard)
}

impl Heard {
    fn take(&mut self, data: &str, now: Instant) -> Result<()> {
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("event {data:?}"))?;
        if let Some(error) = chunk.get("error") {
            self.error = Some(error.to_string());
            return Ok(());
        }
        let choice = &chunk["choices"][0];
        self.text += choice["delta"]["content"].as_str().unwrap_or_default();
        if let Some(finish) = choice["finish_reason"].as_str() {
            finish.clone_into(&mut self.finish);
        }
        let scores = choice["logprobs"]["content"].as_array();
        for score in scores.into_iter().flatten() {
            self.tokens.push((token(score)?, now));
        }
        Ok(())
    }

    /// Whether it came to its end without an error.
    pub(crate) fn is_whole(&self) -> bool {
        self.error.is_none() && !self.finish.is_empty()
    }

    /// The longest time without a token from `at` on; `None` where none came any more.
    pub(crate) fn pause(&self, at: Instant) -> Option<Duration> {
        let later = self.tokens.iter().map(|(_, time)| *time);
        let mut before = at;
        let later = later.filter(|time| *time > at);
        later
            .map(|time| time - std::mem::replace(&mut before, time))
            .max()
    }

    /// How this differs from `expected`, an undisturbed reply to the same question, of which it may be the beginning;
    /// `None` when every byte and every probability is the same and the text is what the bytes say.
    pub(crate) fn differs(&self, expected: &Self, tokens_max: u32) -> Option<String> {
        let length = expected.tokens.len().min(tokens_max as usize);
        let pairs = self.tokens.iter().zip(&expected.tokens);
        if let Some(at) = pairs.clone().position(|(is, due)| is.0 != due.0) {
            return Some(format!(
                "token {} is {:?} where {:?} was due",
                at + 1,
                self.tokens[at].0,
                expected.tokens[at].0
            ));
        }
        if self.tokens.len() != length {
            let count = self.tokens.len();
            return Some(format!("{count} tokens where {length} were due"));
        }
        let bytes: Vec<u8> = self
            .tokens
            .iter()
            .flat_map(|(token, _)| token.bytes.clone())
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        // What a tokenizer puts in front of a text, and bytes of a letter that was not completed.
        let whole = text.trim_end_matches('\u{fffd}');
        let is_text = self.text.trim_end_matches('\u{fffd}').trim_start() == whole.trim_start();
        (!is_text).then(|| format!("the text is {:?} where {text:?} was due", self.text))
    }
}

fn token(score: &Value) -> Result<Token> {
    let bytes = score["bytes"].as_array().context("a token without bytes")?;
    let bytes = bytes
        .iter()
        .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
    let Some(bytes) = bytes.collect() else {
        bail!("not the bytes of a token: {score}");
    };
    let logprob = score["logprob"]
        .as_f64()
        .context("a token without probability")?;
    Ok(Token { bytes, logprob })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A reply of these tokens, one every 10 ms.
    pub(crate) fn heard(tokens: &[&str]) -> Heard {
        let asked = Instant::now();
        let mut heard = Heard {
            asked,
            tokens: Vec::new(),
            text: String::new(),
            finish: String::new(),
            error: None,
        };
        for (n, text) in tokens.iter().enumerate() {
            let bytes: Vec<u8> = text.bytes().collect();
            let data = serde_json::json!({"choices": [{
                "delta": {"content": text},
                "logprobs": {"content": [{"bytes": bytes, "logprob": -0.25}]},
            }]});
            let at = asked + Duration::from_millis(10) * (n as u32 + 1);
            heard.take(&data.to_string(), at).unwrap();
        }
        let end = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
        heard.take(end, asked).unwrap();
        heard
    }

    #[track_caller]
    fn check(is: &[&str], tokens_max: u32, differs: Option<&str>) {
        let said = heard(is).differs(&heard(&["a", "b", "c", "d"]), tokens_max);
        match (said, differs) {
            (None, None) => {}
            (Some(said), Some(part)) if said.contains(part) => {}
            (said, _) => panic!("{is:?}: {said:?}"),
        }
    }

    #[test]
    fn a_token_twice_or_missing_or_another_is_noticed() {
        check(&["a", "b", "c", "d"], 9, None);
        check(&["a", "b"], 2, None);
        check(&["a", "b", "b", "c"], 4, Some("token 3"));
        check(&["a", "c", "d"], 4, Some("token 2"));
        check(&["a", "b", "c"], 4, Some("3 tokens where 4"));
        check(&["a", "b", "c"], 2, Some("3 tokens where 2"));
    }

    #[test]
    fn another_probability_or_text_is_noticed() {
        let expected = heard(&["a", "b"]);
        let mut other = expected.clone();
        other.tokens[1].0.logprob = -0.250_000_1;
        assert!(other.differs(&expected, 2).unwrap().contains("token 2"));
        let mut other = expected.clone();
        other.text = "abb".to_owned();
        assert!(other.differs(&expected, 2).unwrap().contains("the text"));
    }

    #[test]
    fn an_error_is_heard_and_is_no_end() {
        let mut heard = heard(&["a"]);
        assert!(heard.is_whole());
        heard
            .take(r#"{"error":{"code":"peer_lost"}}"#, heard.asked)
            .unwrap();
        assert!(!heard.is_whole() && heard.error.unwrap().contains("peer_lost"));
    }
}
