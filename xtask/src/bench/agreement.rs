//! The same questions to both: do they say the same, with the same probabilities?
//!
//! Both choose the most probable token, so their answers are the same until rounding decides between two tokens that
//! are almost as probable. From there on they compute different things, and what follows is not compared.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::prompts;
use super::server::Server;
use super::subject::Subject;
use crate::rig::ask::SYSTEM;
use crate::rig::http;
use crate::rig::started::Started;

/// How far two log probabilities of the same token may be apart, and how far the two tokens may be that the servers
/// choose where they differ.
pub(super) const TOLERANCE: f64 = 0.01;
/// Tokens of an answer.
pub(super) const TOKENS: u32 = 32;
/// The most probable tokens whose probabilities are asked for.
const TOP: usize = 5;

/// How far two servers agree over all questions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Agreement {
    /// The one.
    pub(super) ours: Subject,
    /// The other: the peer, or what the one should be equal to.
    pub(super) theirs: Subject,
    /// Questions that were asked.
    pub(super) asked: usize,
    /// Answers with the same text to their end.
    pub(super) same: usize,
    /// Tokens that were compared: all up to the first that differs.
    pub(super) tokens: usize,
    /// The largest differences that were seen.
    pub(super) apart: Apart,
    /// Whether it is promised that they agree.
    pub(super) promised: bool,
}

/// The largest differences, in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Apart {
    /// Of the log probabilities of chosen tokens.
    pub(super) chosen: f64,
    /// Of those of the tokens that both have among their most probable.
    pub(super) top: f64,
    /// Where the servers chose different tokens: how much more probable the peer's choice was, as the peer says.
    pub(super) margin: f64,
}

impl Apart {
    fn widen(&mut self, other: Self) {
        self.chosen = self.chosen.max(other.chosen);
        self.top = self.top.max(other.top);
        self.margin = self.margin.max(other.margin);
    }

    /// Whether all of it is within the tolerance.
    pub(super) fn is_within(&self) -> bool {
        [self.chosen, self.top, self.margin]
            .iter()
            .all(|difference| *difference <= TOLERANCE)
    }
}

/// An answer with the probabilities of its tokens.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    text: String,
    prompt_tokens: u64,
    tokens: Vec<Token>,
}

/// A token as its bytes, since two tokens may look alike as text.
#[derive(Debug, Clone, PartialEq)]
struct Token {
    bytes: Vec<u8>,
    logprob: f64,
    /// The most probable at its place.
    top: Vec<(Vec<u8>, f64)>,
}

/// Asks two servers all questions and compares.
///
/// # Errors
///
/// When a server fails or answers without probabilities, when the two count another number of tokens in a prompt, or
/// when the run is interrupted.
pub(super) fn measure(
    started: &Started,
    [ours, theirs]: [&Server; 2],
    promised: bool,
) -> Result<Agreement> {
    let answers = [all_answers(started, ours)?, all_answers(started, theirs)?];
    agreement([ours.subject, theirs.subject], &answers, promised)
}

fn all_answers(started: &Started, server: &Server) -> Result<Vec<Answer>> {
    prompts::questions()
        .map(|question| {
            started.check()?;
            answer(server.addr, &server.model, &question)
                .with_context(|| format!("{}, asked {question:?}", server.subject))
        })
        .collect()
}

fn answer(addr: SocketAddr, model: &str, question: &str) -> Result<Answer> {
    let body = json!({
        "model": model,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
        ],
        "temperature": 0,
        "max_tokens": TOKENS,
        "logprobs": true,
        "top_logprobs": TOP,
        // llama-server's own: compute the whole prompt even if a slot still holds a part of it.
        "cache_prompt": false,
    });
    let response = http::post(addr, "/v1/chat/completions", body.to_string().as_bytes())?;
    let status = response.status;
    let text = response.text()?;
    if status != 200 {
        bail!("it answered {status}: {text}");
    }
    read(&serde_json::from_str(&text)?).with_context(|| format!("answered {text}"))
}

fn read(said: &Value) -> Option<Answer> {
    let choice = &said["choices"][0];
    let bytes = |token: &Value| -> Option<Vec<u8>> {
        let bytes = token["bytes"].as_array()?.iter();
        bytes
            .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect()
    };
    let token = |token: &Value| {
        let top = token["top_logprobs"].as_array()?.iter();
        Some(Token {
            bytes: bytes(token)?,
            logprob: token["logprob"].as_f64()?,
            top: top
                .map(|one| Some((bytes(one)?, one["logprob"].as_f64()?)))
                .collect::<Option<_>>()?,
        })
    };
    let tokens = choice["logprobs"]["content"].as_array()?.iter();
    Some(Answer {
        text: choice["message"]["content"].as_str()?.to_owned(),
        prompt_tokens: said["usage"]["prompt_tokens"].as_u64()?,
        tokens: tokens.map(token).collect::<Option<_>>()?,
    })
}

fn agreement(
    [ours, theirs]: [Subject; 2],
    [our_answers, their_answers]: &[Vec<Answer>; 2],
    promised: bool,
) -> Result<Agreement> {
    let (mut same, mut tokens, mut apart) = (0, 0, Apart::default());
    for (ours, theirs) in our_answers.iter().zip(their_answers) {
        if ours.prompt_tokens != theirs.prompt_tokens {
            let (ours, theirs) = (ours.prompt_tokens, theirs.prompt_tokens);
            bail!("the servers made different numbers of tokens of a prompt: {ours} and {theirs}");
        }
        let (compared, differences) = compare(&ours.tokens, &theirs.tokens);
        same += usize::from(ours.text == theirs.text);
        tokens += compared;
        apart.widen(differences);
    }
    let asked = our_answers.len();
    Ok(Agreement {
        ours,
        theirs,
        asked,
        same,
        tokens,
        apart,
        promised,
    })
}

/// How many tokens are the same, and the differences up to the first that is not, its place included.
fn compare(ours: &[Token], theirs: &[Token]) -> (usize, Apart) {
    let mut apart = Apart::default();
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for (bytes, logprob) in &ours.top {
            if let Some(other) = theirs.of(bytes) {
                apart.top = apart.top.max((logprob - other).abs());
            }
        }
        if ours.bytes != theirs.bytes {
            // A token that is not among the peer's most probable is as far away as can be.
            let other = theirs.of(&ours.bytes).unwrap_or(f64::NEG_INFINITY);
            apart.margin = theirs.logprob - other;
            return (at, apart);
        }
        apart.chosen = apart.chosen.max((ours.logprob - theirs.logprob).abs());
    }
    // One that ends where the other goes on chose differently there, with nothing to compare it by.
    if ours.len().abs_diff(theirs.len()) > 1 {
        apart.margin = f64::INFINITY;
    }
    (ours.len().min(theirs.len()), apart)
}

impl Token {
    /// The log probability of the token with these bytes at this place, if it is among the most probable.
    fn of(&self, bytes: &[u8]) -> Option<f64> {
        let mut top = self.top.iter();
        top.find(|(known, _)| known == bytes)
            .map(|(_, logprob)| *logprob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, logprob: f64, other: (&str, f64)) -> Token {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Token {
            bytes: bytes(text),
            logprob,
            top: vec![(bytes(text), logprob), (bytes(other.0), other.1)],
        }
    }

    #[track_caller]
    fn check(ours: &[Token], theirs: &[Token], tokens: usize, within: bool) {
        let (compared, apart) = compare(ours, theirs);
        assert_eq!((compared, apart.is_within()), (tokens, within), "{apart:?}");
    }

    #[test]
    fn the_same_answer_agrees() {
        let answer = [token("a", -0.1, ("b", -3.0)), token("c", -0.2, ("d", -2.0))];
        check(&answer, &answer, 2, true);
        assert_eq!(compare(&answer, &answer).1, Apart::default());
    }

    #[test]
    fn another_probability_of_the_same_token_does_not() {
        let ours = [token("a", -0.1, ("b", -3.0))];
        check(&ours, &[token("a", -0.105, ("b", -3.0))], 1, true);
        check(&ours, &[token("a", -0.3, ("b", -3.0))], 1, false);
        check(&ours, &[token("a", -0.1, ("b", -3.3))], 1, false);
    }

    #[test]
    fn another_token_agrees_only_where_both_are_as_probable() {
        let ours = [token("a", -0.700, ("b", -0.701))];
        check(&ours, &[token("b", -0.700, ("a", -0.705))], 0, true);
        check(&ours, &[token("b", -0.50, ("a", -1.0))], 0, false);
        check(&ours, &[token("b", -0.70, ("c", -0.72))], 0, false);
        // What follows is not compared.
        let more = |first: Token| [first, token("x", -9.0, ("y", -9.0))];
        let (ours, theirs) = (token("a", -0.7, ("b", -0.7)), token("b", -0.7, ("a", -0.7)));
        check(&more(ours), &more(theirs)[..1], 0, true);
    }

    #[test]
    fn an_answer_that_ends_early_is_another_answer() {
        let long: Vec<Token> = (0..3).map(|_| token("a", -0.1, ("b", -3.0))).collect();
        check(&long[..1], &long, 1, false);
        // The end itself may be counted as a token.
        check(&long[..2], &long, 2, true);
    }

    #[test]
    fn an_answer_without_probabilities_is_none() {
        let mut said = json!({"usage": {"prompt_tokens": 3}, "choices": [{"message": {"content": "a"},
            "logprobs": {"content": [{"token": "a", "bytes": [97], "logprob": -0.5,
                "top_logprobs": [{"token": "a", "bytes": [97], "logprob": -0.5}]}]}}]});
        let answer = read(&said).unwrap();
        assert_eq!((answer.text.as_str(), answer.prompt_tokens), ("a", 3));
        assert_eq!(answer.tokens[0].top, [(vec![97], -0.5)]);
        said["choices"][0]["logprobs"] = Value::Null;
        assert_eq!(read(&said), None);
    }
}
