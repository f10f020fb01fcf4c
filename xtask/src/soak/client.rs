//! Streams of callers, and what became of their requests.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use serde_json::Value;

use super::caller::{self, Caller, Conduct};
use crate::rig::events::{Event, Events};
use crate::rig::http;
use crate::rig::started::Started;

/// Rest after a request that was refused or failed.
const REST: Duration = Duration::from_millis(500);
/// How many failures are quoted.
const QUOTED_MAX: usize = 5;
const PATH: &str = "/v1/chat/completions";

/// How a request ended, where its caller's conduct allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// With a whole answer of so many tokens.
    Answered(u32),
    /// By its caller, in the middle.
    Left,
    /// With the word that there is no room now.
    Refused,
    /// With the word that it does not fit.
    TooMuch,
}

/// What became of many requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Whole answers.
    pub(super) answers: u64,
    /// Tokens of whole answers.
    pub(super) tokens: u64,
    /// Requests whose callers left in the middle.
    pub(super) left: u64,
    /// Requests for which there was no room.
    pub(super) refused: u64,
    /// Requests that did not fit, and were told so.
    pub(super) too_much: u64,
    /// Requests that ended otherwise.
    pub(super) failed: u64,
    /// The first of these, in words.
    pub(super) quoted: Vec<String>,
}

impl Tally {
    /// Adds another.
    pub(super) fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.tokens += other.tokens;
        self.left += other.left;
        self.refused += other.refused;
        self.too_much += other.too_much;
        self.failed += other.failed;
        let room = QUOTED_MAX - self.quoted.len();
        self.quoted.extend(other.quoted.into_iter().take(room));
    }

    fn count(&mut self, outcome: Result<Outcome>) {
        match outcome {
            Ok(Outcome::Answered(tokens)) => {
                self.answers += 1;
                self.tokens += u64::from(tokens);
            }
            Ok(Outcome::Left) => self.left += 1,
            Ok(Outcome::Refused) => self.refused += 1,
            Ok(Outcome::TooMuch) => self.too_much += 1,
            Err(error) => {
                self.failed += 1;
                if self.quoted.len() < QUOTED_MAX {
                    self.quoted.push(format!("{error:#}"));
                }
            }
        }
    }
}

/// Asks one request after the other until the time is over, or the run is interrupted.
pub(super) fn stream(
    started: &Started,
    addr: SocketAddr,
    seed: u64,
    number: u32,
    until: Instant,
) -> Tally {
    let mut random = caller::random(seed, number);
    let mut tally = Tally::default();
    while Instant::now() < until && started.check().is_ok() {
        let caller = Caller::draw(&mut random);
        let outcome = call(started, addr, &caller);
        let rests = !matches!(outcome, Ok(Outcome::Answered(_) | Outcome::Left));
        tally.count(outcome);
        if rests && started.pause(REST).is_err() {
            break;
        }
    }
    tally
}

/// Asks so many requests at once; each `number` gives others, and no stream has them.
///
/// # Errors
///
/// When the run is interrupted.
pub(super) fn fill(
    started: &Started,
    addr: SocketAddr,
    number: u64,
    at_once: u32,
    draw: impl Fn(&mut StdRng) -> Caller,
) -> Result<Tally> {
    let mut random = caller::random(number, u32::MAX);
    let callers: Vec<Caller> = (0..at_once).map(|_| draw(&mut random)).collect();
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let calls: Vec<_> = callers
            .iter()
            .map(|caller| scope.spawn(move || call(started, addr, caller)))
            .collect();
        for one in calls {
            tally.count(one.join().expect("a call does not panic"));
        }
    });
    started.check()?;
    Ok(tally)
}

fn call(started: &Started, addr: SocketAddr, caller: &Caller) -> Result<Outcome> {
    let conduct = caller.conduct;
    let outcome = try_call(started, addr, caller).with_context(|| format!("{conduct:?}"))?;
    match (conduct, outcome) {
        (Conduct::AsksTooMuch, Outcome::TooMuch | Outcome::Refused) => Ok(outcome),
        (Conduct::AsksTooMuch, _) => bail!("more than fits was not refused but {outcome:?}"),
        (_, Outcome::TooMuch) => bail!("{conduct:?}: what fits was refused as too much"),
        (_, outcome) => Ok(outcome),
    }
}

fn try_call(started: &Started, addr: SocketAddr, caller: &Caller) -> Result<Outcome> {
    let body = caller.body(&http::model_name(addr)?);
    if let Conduct::Leaves(patience) = caller.conduct {
        let connection = http::send(addr, "POST", PATH, &body)?;
        started.pause(patience)?;
        drop(connection);
        return Ok(Outcome::Left);
    }
    let mut response = http::post(addr, PATH, &body)?;
    if response.status != 200 {
        let status = response.status;
        let text = response.text()?;
        return refusal(&text).with_context(|| format!("status {status}"));
    }
    let (mut events, mut reading) = (Events::default(), Reading::default());
    while let Some(piece) = response.piece()? {
        for event in events.feed(&piece) {
            let data = match event {
                Event::Done => return reading.outcome(caller),
                Event::Data(data) => data,
            };
            if let Some(outcome) = reading.take(&data)? {
                return Ok(outcome);
            }
            match caller.conduct {
                Conduct::LeavesAfter(events) if reading.events >= events => {
                    return Ok(Outcome::Left);
                }
                Conduct::Naps(events, nap) if reading.events == events => started.pause(nap)?,
                _ => {}
            }
        }
    }
    bail!("the connection was closed in the middle of the answer")
}

/// What an error says, if it is one of those that may be.
fn refusal(text: &str) -> Result<Outcome> {
    let code = serde_json::from_str::<Value>(text).unwrap_or_default()["error"]["code"].take();
    match code.as_str() {
        Some("overloaded") => Ok(Outcome::Refused),
        Some("context_length_exceeded") => Ok(Outcome::TooMuch),
        _ => bail!("an error that must not be: {text}"),
    }
}

/// What the events of an answer said so far.
#[derive(Debug, Default)]
struct Reading {
    events: u32,
    ended: bool,
    tokens: Option<u32>,
}

impl Reading {
    /// Takes an event; an outcome where it is a refusal.
    fn take(&mut self, data: &str) -> Result<Option<Outcome>> {
        self.events += 1;
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("event {data:?}"))?;
        if chunk.get("error").is_some() {
            if self.events > 1 {
                bail!("the answer failed in the middle: {data}");
            }
            return refusal(data).map(Some);
        }
        self.ended |= chunk["choices"][0]["finish_reason"].is_string();
        if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            self.tokens = u32::try_from(tokens).ok();
        }
        Ok(None)
    }

    fn outcome(&self, caller: &Caller) -> Result<Outcome> {
        match (self.ended, self.tokens) {
            (true, Some(tokens)) if tokens <= caller.tokens_max => Ok(Outcome::Answered(tokens)),
            _ => bail!(
                "an answer without its end, or with more than {} tokens: {self:?}",
                caller.tokens_max
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const END: &str = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
    const COUNTS: &str = r#"{"choices":[],"usage":{"completion_tokens":3}}"#;
    const TOO_MUCH: &str = r#"{"error":{"code":"context_length_exceeded"}}"#;
    const BROKEN: &str = r#"{"error":{"code":"internal_error"}}"#;

    /// Asks a server that answers exactly `answer`.
    fn against(status: u16, answer: &str, conduct: Conduct) -> Result<Outcome> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let response = |status: u16, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let models = response(200, r#"{"data":[{"id":"m"}]}"#);
        let answers = [models, response(status, answer)];
        let mut caller = Caller::short(&mut caller::random(1, 1));
        caller.conduct = conduct;
        let started = Started::new()?;
        thread::scope(|scope| {
            scope.spawn(move || {
                for answer in answers {
                    let (mut socket, _) = listener.accept().unwrap();
                    let mut request = [0; 4096];
                    let _read = socket.read(&mut request).unwrap();
                    socket.write_all(answer.as_bytes()).unwrap();
                }
            });
            call(&started, addr, &caller)
        })
    }

    fn events(data: &[&str]) -> String {
        data.iter().map(|one| format!("data: {one}\n\n")).collect()
    }

    #[track_caller]
    fn check(status: u16, answer: &str, conduct: Conduct, expected: Outcome) {
        assert_eq!(against(status, answer, conduct).unwrap(), expected);
    }

    #[track_caller]
    fn check_fails(status: u16, answer: &str, conduct: Conduct, why: &str) {
        let error = format!("{:#}", against(status, answer, conduct).unwrap_err());
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn expected_ends_are_told_apart() {
        let whole = events(&[END, COUNTS, "[DONE]"]);
        let nap = Conduct::Naps(1, Duration::from_millis(1));
        check(200, &whole, Conduct::Reads, Outcome::Answered(3));
        check(200, &whole, nap, Outcome::Answered(3));
        check(200, &whole, Conduct::LeavesAfter(1), Outcome::Left);
        check(200, &whole, Conduct::LeavesAfter(9), Outcome::Answered(3));
        check(200, &whole, Conduct::Leaves(Duration::ZERO), Outcome::Left);
        check(400, TOO_MUCH, Conduct::AsksTooMuch, Outcome::TooMuch);
        let late = events(&[TOO_MUCH]);
        check(200, &late, Conduct::AsksTooMuch, Outcome::TooMuch);
        let full = r#"{"error":{"code":"overloaded"}}"#;
        check(503, full, Conduct::Reads, Outcome::Refused);
    }

    #[test]
    fn everything_else_is_a_failure() {
        let reads = Conduct::Reads;
        check_fails(500, BROKEN, reads, "internal_error");
        check_fails(400, "not JSON", reads, "not JSON");
        check_fails(400, TOO_MUCH, reads, "what fits was refused");
        check_fails(200, &events(&[END, BROKEN]), reads, "in the middle");
        check_fails(200, &events(&[BROKEN]), reads, "internal_error");
        check_fails(200, &events(&[END, COUNTS]), reads, "closed in the middle");
        check_fails(200, &events(&[COUNTS, "[DONE]"]), reads, "without its end");
        let many = COUNTS.replace('3', "17");
        check_fails(200, &events(&[END, &many, "[DONE]"]), reads, "more than 16");
        let whole = events(&[END, COUNTS, "[DONE]"]);
        check_fails(200, &whole, Conduct::AsksTooMuch, "was not refused");
    }

    #[test]
    fn a_tally_counts_everything_and_quotes_a_few() {
        let mut tally = Tally::default();
        for outcome in [
            Outcome::Answered(5),
            Outcome::Answered(6),
            Outcome::Left,
            Outcome::Refused,
            Outcome::TooMuch,
        ] {
            tally.count(Ok(outcome));
        }
        let mut other = Tally::default();
        for number in 0..4 {
            other.count(Err(anyhow::anyhow!("no {number}")));
        }
        tally.add(other.clone());
        tally.add(other);
        assert_eq!((tally.answers, tally.tokens, tally.left), (2, 11, 1));
        assert_eq!((tally.refused, tally.too_much, tally.failed), (1, 1, 8));
        assert_eq!(tally.quoted, ["no 0", "no 1", "no 2", "no 3", "no 0"]);
    }
}
