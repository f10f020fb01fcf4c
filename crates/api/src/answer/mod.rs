//! The one path that every dialect takes: an [`Ask`] goes in, an [`Answer`] comes out, a [`Dialect`] writes it down.
//!
//! An answer is a stream of [`Event`]s, each a [`Step`] of one of its choices. Who asked for it whole gathers the steps
//! ([`Answer::whole`]); who asked for a stream has each written as it comes (`stream`). Everything is pulled: no step
//! is made before the client's connection can take more.

mod begin;
mod reading;
mod reply;
mod schema;
mod stream;
mod tape;

pub(crate) use schema::{Checker, valid as valid_schema};
pub(crate) use stream::{Dialect, Frames, Framing, respond, streamed_response};
pub(crate) use tape::Marks;

use crate::backend::{Caller, GenerateRequest, Message, Prompt, Room, ToolCall};
use crate::fault::Fault;
use crate::metrics::Tally;
use crate::places::Place;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, SelectAll};
use proto::ids::Hash;
use proto::journal::StreamDialect;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tape::{Tape, Unit};
use tokio_util::sync::CancellationToken;

/// What a dialect asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What is the same for all choices; its prompt is not looked at.
    pub(crate) generate: GenerateRequest,
    /// At least one; each is answered.
    pub(crate) prompts: Vec<Prompt>,
    /// How often each is answered, at least once. The seeds of one prompt's answers follow each other.
    pub(crate) choices: u32,
    /// Texts that end an answer; none is empty.
    pub(crate) stops: Vec<String>,
    /// What the text must fit in the end.
    pub(crate) checker: Option<Checker>,
    /// Whether the answer is written as it comes.
    pub(crate) stream: bool,
}

/// Who asks, and the place that this takes among the requests that are answered at once.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) caller: Caller,
    /// Who may see the request, where it says so.
    pub(crate) room: Option<Room>,
    pub(crate) place: Place,
}

/// An answer that is being read. Dropping it cancels its generations and frees the request's places.
pub(crate) struct Answer {
    pub(crate) heading: Heading,
    steps: SelectAll<BoxStream<'static, Result<Event, Fault>>>,
    /// An event that was waited for before the stream began.
    early: Option<Event>,
    asked: Instant,
    notes: Arc<Notes>,
    usage: Usage,
    shutdown: CancellationToken,
    tally: Arc<Tally>,
    /// Its journal, if it has one.
    tape: Option<Arc<Tape>>,
    /// Ends when somebody else has resumed it.
    taken: BoxFuture<'static, ()>,
    _places: Vec<Place>,
}

/// A request as it came, for the journal of its answer.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) dialect: StreamDialect,
    pub(crate) body: Vec<u8>,
}

/// What is the same all through an answer.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    /// A random number for the dialect's id.
    pub(crate) id: u128,
    /// When the answer began, in seconds since 1970 UTC.
    pub(crate) created: u64,
    /// The model that answers.
    pub(crate) model: String,
    /// [`crate::Generation::fingerprint`].
    pub(crate) fingerprint: Option<String>,
    /// Tokens of all prompts.
    pub(crate) prompt_tokens: u32,
    /// How many choices there are.
    pub(crate) choices: usize,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Tokens of the prompts, each counted once.
    pub(crate) prompt: u32,
    /// How many of these were not computed anew.
    pub(crate) reused: u32,
    /// Tokens of all choices that have ended.
    pub(crate) completion: u32,
    /// How many of these were thoughts.
    pub(crate) reasoning: u32,
    /// From the question to the first token.
    pub(crate) first: Duration,
    /// From the question to the last step so far.
    pub(crate) total: Duration,
}

/// What an answer's choices tell beside their steps.
#[derive(Debug, Default)]
struct Notes {
    /// When the first token of any came.
    first: OnceLock<Instant>,
    /// Tokens of prompts that were not computed anew.
    reused: AtomicU32,
    /// Tokens of thoughts, of choices that have ended.
    reasoning: AtomicU32,
}

/// A random number that is always the same at its place in an answer.
pub(crate) fn name(answer: u128, what: &str, place: [usize; 2]) -> u128 {
    let place = place.map(|at| (at as u64).to_le_bytes()).concat();
    let hash = Hash::of(&[&answer.to_le_bytes()[..], what.as_bytes(), &place].concat());
    let (first, _) = hash.0.split_first_chunk().expect("a hash is longer");
    u128::from_le_bytes(*first)
}

/// A step of one choice.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    /// Which choice.
    pub(crate) choice: usize,
    /// What it adds.
    pub(crate) step: Step,
    /// How probable its tokens were, if that was asked for.
    pub(crate) scores: Vec<Score>,
    /// Where it comes from, if that is journalled.
    unit: Option<Unit>,
}

/// What comes next in an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// More that is said to the user; never empty.
    Text(String),
    /// More that the model thinks; never empty.
    Reasoning(String),
    /// A tool call begins. Calls are numbered from 0.
    Call {
        index: usize,
        id: String,
        name: String,
    },
    /// More of a call's arguments; never empty.
    Arguments { index: usize, text: String },
    /// The end of this choice.
    End {
        reason: Reason,
        /// The choice's tokens.
        tokens: u32,
    },
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The model was done.
    Stop,
    /// This text of [`Ask::stops`] came.
    StopString(String),
    /// `max_tokens`, or the end of the context.
    Length,
    /// The model waits for the results of its calls.
    Calls,
}

/// How probable a token was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Score {
    pub(crate) id: i32,
    pub(crate) piece: Vec<u8>,
    pub(crate) logprob: f32,
    /// The most probable tokens in its place: number, bytes, logarithm.
    pub(crate) top: Vec<(i32, Vec<u8>, f32)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) heading: Heading,
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Usage,
}

/// A whole choice.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) message: Message,
    pub(crate) reason: Reason,
    pub(crate) scores: Vec<Score>,
}

impl Notes {
    /// Notes the first token of a choice.
    fn token(&self, reused: u32) {
        self.first.get_or_init(Instant::now);
        self.reused.fetch_add(reused, Ordering::Relaxed);
    }

    /// Notes the thoughts of a choice that has ended.
    fn thought(&self, tokens: u32) {
        self.reasoning.fetch_add(tokens, Ordering::Relaxed);
    }
}

impl Answer {
    /// What it took so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Waits for the first event, but not longer than `wait`, so that a failure before it has an HTTP status.
    pub(crate) async fn wait_for_first(&mut self, wait: Duration) -> Result<(), Fault> {
        if let Ok(Some(event)) = tokio::time::timeout(wait, self.next()).await {
            self.early = Some(event?);
        }
        Ok(())
    }

    /// The next step of any choice; `None` when all have ended. After an error nothing more comes. Cancelling the
    /// future loses no step.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Fault>> {
        if let Some(event) = self.early.take() {
            return Some(Ok(event));
        }
        let event = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Fault::shutting_down()),
            () = &mut self.taken => Err(Fault::stream_taken()),
            event = self.steps.next() => event?,
        };
        match &event {
            Ok(event) => {
                self.usage.total = self.asked.elapsed();
                let first = self.notes.first.get().map(|first| *first - self.asked);
                self.usage.first = first.unwrap_or(self.usage.total);
                self.usage.reused = self.notes.reused.load(Ordering::Relaxed);
                self.usage.reasoning = self.notes.reasoning.load(Ordering::Relaxed);
                if let Step::End { tokens, .. } = event.step {
                    self.usage.completion += tokens;
                    self.tally.ended(tokens);
                }
            }
            Err(fault) => {
                tracing::debug!(code = fault.code, "an answer failed");
                self.tally.failed();
                self.steps.clear();
                self.taken = Box::pin(std::future::pending());
            }
        }
        Some(event)
    }

    /// All of it.
    pub(crate) async fn whole(mut self) -> Result<Whole, Fault> {
        let mut choices: Vec<_> = (0..self.heading.choices)
            .map(|_| Choice::default())
            .collect();
        while let Some(event) = self.next().await {
            let event = event?;
            choices[event.choice].add(event.step, event.scores);
        }
        Ok(Whole {
            heading: self.heading,
            choices,
            usage: self.usage,
        })
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            message: Message::default(),
            reason: Reason::Stop,
            scores: Vec::new(),
        }
    }
}

impl Choice {
    /// The steps that would have led here.
    pub(crate) fn steps(self, tokens: u32) -> Vec<Step> {
        let message = self.message;
        let mut steps = Vec::new();
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        steps.extend(said(message.reasoning).map(Step::Reasoning));
        steps.extend(said(message.content).map(Step::Text));
        for (index, call) in message.tool_calls.into_iter().enumerate() {
            let ToolCall {
                id,
                name,
                arguments: text,
            } = call;
            steps.push(Step::Call { index, id, name });
            steps.push(Step::Arguments { index, text });
        }
        let reason = self.reason;
        steps.push(Step::End { reason, tokens });
        steps
    }

    fn add(&mut self, step: Step, scores: Vec<Score>) {
        self.scores.extend(scores);
        let message = &mut self.message;
        match step {
            Step::Text(text) => message.content += &text,
            Step::Reasoning(text) => message.reasoning += &text,
            Step::Call { id, name, .. } => message.tool_calls.push(ToolCall {
                id,
                name,
                arguments: String::new(),
            }),
            Step::Arguments { index, text } => message.tool_calls[index].arguments += &text,
            Step::End { reason, .. } => self.reason = reason,
        }
    }
}
