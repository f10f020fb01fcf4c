//! One question to a server, with a clock beside it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::events::{Event, Events};
use super::http;

/// The system text of every request. Named, because two servers would put different ones in by themselves.
pub(crate) const SYSTEM: &str = "You are a helpful assistant.";

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// The model's name on that server.
    pub(crate) model: &'a str,
    /// The user's text.
    pub(crate) text: &'a str,
    /// How many tokens the answer may have.
    pub(crate) tokens_max: u32,
}

/// What a clock beside the connection saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Tokens of the prompt, as the server counts.
    pub(crate) prompt_tokens: u32,
    /// Tokens of the answer, as the server counts.
    pub(crate) answer_tokens: u32,
    /// From sending the request to the first text of the answer.
    pub(crate) first: Duration,
    /// From sending the request to the last text of the answer.
    pub(crate) last: Duration,
}

impl Sample {
    /// Tokens a second behind the first one; `None` for answers of one token.
    pub(crate) fn decode_rate(&self) -> Option<f64> {
        let tokens = self
            .answer_tokens
            .checked_sub(1)
            .filter(|tokens| *tokens > 0)?;
        Some(f64::from(tokens) / (self.last - self.first).as_secs_f64())
    }

    /// Prompt tokens a second until the first token of the answer was there.
    pub(crate) fn prefill_rate(&self) -> f64 {
        f64::from(self.prompt_tokens) / self.first.as_secs_f64()
    }
}

/// Asks, reads the streamed answer to its end, and takes the times.
///
/// # Errors
///
/// When the connection fails, or the server answers with an error or without counts.
pub(crate) fn ask(addr: SocketAddr, ask: &Ask<'_>) -> Result<Sample> {
    let body = body(ask);
    let begun = Instant::now();
    let mut response = http::post(addr, "/v1/chat/completions", &body)?;
    if response.status != 200 {
        let status = response.status;
        bail!("{addr} answered {status}: {}", response.text()?);
    }
    let mut events = Events::default();
    let mut answer = Answer::default();
    while let Some(piece) = response.piece()? {
        let at = begun.elapsed();
        for event in events.feed(&piece) {
            match event {
                Event::Data(data) => answer.take(&data, at)?,
                Event::Done => return answer.sample(),
            }
        }
    }
    bail!("{addr} closed the connection in the middle of an answer")
}

fn body(ask: &Ask<'_>) -> Vec<u8> {
    let body = json!({
        "model": ask.model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": ask.text},
        ],
        "temperature": 0,
        "max_tokens": ask.tokens_max,
        "stream": true,
        "stream_options": {"include_usage": true},
        // llama-server's own: compute the whole prompt even if a slot still holds a part of it.
        "cache_prompt": false,
    });
    body.to_string().into_bytes()
}

/// What the chunks of an answer said so far.
#[derive(Debug, Default)]
struct Answer {
    first: Option<Duration>,
    last: Option<Duration>,
    /// When the reason for the end came.
    end: Option<Duration>,
    tokens: Option<(u32, u32)>,
}

impl Answer {
    fn take(&mut self, data: &str, at: Duration) -> Result<()> {
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("chunk {data:?}"))?;
        if let Some(error) = chunk.get("error") {
            bail!("the answer failed: {error}");
        }
        let choice = &chunk["choices"][0];
        if choice["delta"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            self.first.get_or_insert(at);
            self.last = Some(at);
        }
        if choice["finish_reason"].is_string() {
            self.end = Some(at);
        }
        let count = |name: &str| {
            chunk["usage"][name]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
        };
        if let (Some(prompt), Some(answer)) = (count("prompt_tokens"), count("completion_tokens")) {
            self.tokens = Some((prompt, answer));
        }
        Ok(())
    }

    /// A token may have no text of its own; an answer without any began when it ended.
    fn sample(self) -> Result<Sample> {
        let end = self.end.context("the answer has no end")?;
        let (prompt_tokens, answer_tokens) = self.tokens.context("the answer has no counts")?;
        let (first, last) = (self.first.unwrap_or(end), self.last.unwrap_or(end));
        Ok(Sample {
            prompt_tokens,
            answer_tokens,
            first,
            last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#;
    const NULL: &str = r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#;
    const TEXT: &str = r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}"#;
    const END: &str = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
    const COUNTS: &str = r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":3}}"#;

    fn read(chunks: &[(&str, u64)]) -> Result<Sample> {
        let mut answer = Answer::default();
        for (data, ms) in chunks {
            answer.take(data, Duration::from_millis(*ms))?;
        }
        answer.sample()
    }

    #[test]
    fn the_first_token_is_the_first_text() {
        let chunks = [
            (ROLE, 1),
            (NULL, 2),
            (TEXT, 50),
            (TEXT, 75),
            (TEXT, 150),
            (END, 400),
            (COUNTS, 400),
        ];
        let sample = read(&chunks).unwrap();
        assert_eq!(sample.first, Duration::from_millis(50));
        assert_eq!(sample.last, Duration::from_millis(150));
        assert_eq!(sample.decode_rate(), Some(20.0));
        assert_eq!(sample.prefill_rate(), 2000.0);
    }

    #[test]
    fn a_token_without_text_counts_from_the_end() {
        let sample = read(&[(ROLE, 1), (END, 400), (COUNTS, 401)]).unwrap();
        assert_eq!(
            (sample.first, sample.last),
            (Duration::from_millis(400), Duration::from_millis(400))
        );
    }

    #[test]
    fn one_token_has_no_decode_rate() {
        let sample = Sample {
            answer_tokens: 1,
            ..read(&[(TEXT, 9), (END, 9), (COUNTS, 9)]).unwrap()
        };
        assert_eq!(sample.decode_rate(), None);
    }

    #[test]
    fn an_answer_without_end_or_counts_or_with_an_error_is_none() {
        assert!(
            read(&[(TEXT, 1), (COUNTS, 2)])
                .unwrap_err()
                .to_string()
                .contains("end")
        );
        assert!(
            read(&[(TEXT, 1), (END, 2)])
                .unwrap_err()
                .to_string()
                .contains("counts")
        );
        let error = read(&[(TEXT, 1), (r#"{"error":{"message":"no room"}}"#, 2)]).unwrap_err();
        assert!(error.to_string().contains("no room"), "{error}");
    }
}
