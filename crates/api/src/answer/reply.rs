//! One choice of an answer, from the backend's events to steps.

use super::reading::Reading;
use super::schema::Checker;
use super::{Event, Notes, Reason, Score, Step};
use crate::backend::{Backend, Finish, GenerateEvent, Generation, TokenLogprobs};
use crate::fault::Fault;
use crate::text::TextStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A choice that is being read. Dropping it cancels the generation.
pub(super) struct Reply<B> {
    backend: Arc<B>,
    /// `None` when the choice is over; the backend sees that at once.
    events: Option<mpsc::Receiver<GenerateEvent>>,
    text: TextStream,
    /// The caller's among the stop strings of `text`.
    stops: Vec<String>,
    /// How the text is taken apart; `None`: all of it is said to the user.
    syntax: Option<String>,
    /// All text so far, kept if something will be done with the whole of it.
    gathered: Option<String>,
    reading: Reading,
    checker: Option<Arc<Checker>>,
    /// Whether the text is taken apart as it comes, or only in the end.
    watched: bool,
    tokens: u32,
    /// Where each token begins, in bytes of all of them, if the text is taken apart.
    begins: Vec<usize>,
    bytes: usize,
    notes: Arc<Notes>,
    /// Whether this choice is the one that counts for its prompt.
    counts: bool,
    scores: Scores,
    ready: VecDeque<(Step, Vec<Score>)>,
}

impl<B: Backend> Reply<B> {
    pub(super) fn new(
        backend: Arc<B>,
        generation: Generation,
        stops: &[String],
        checker: Option<Arc<Checker>>,
        notes: Arc<Notes>,
    ) -> Self {
        let all = stops.iter().chain(&generation.stops).cloned().collect();
        let whole_needed = generation.syntax.is_some() || checker.is_some();
        Self {
            backend,
            events: Some(generation.events),
            text: TextStream::new(all),
            stops: stops.to_vec(),
            syntax: generation.syntax,
            gathered: whole_needed.then(String::new),
            reading: Reading::default(),
            checker,
            watched: true,
            tokens: 0,
            begins: Vec::new(),
            bytes: 0,
            notes,
            counts: false,
            scores: Scores::default(),
            ready: VecDeque::new(),
        }
    }

    pub(super) fn watched(self, watched: bool) -> Self {
        Self { watched, ..self }
    }

    /// Only one of a prompt's choices counts what was not computed anew.
    pub(super) fn counts(self, counts: bool) -> Self {
        Self { counts, ..self }
    }

    /// The steps of this choice, which is the one of this number.
    pub(super) fn steps(self, choice: usize) -> BoxStream<'static, Result<Event, Fault>> {
        stream::try_unfold(self, move |mut reply| async move {
            let next = reply.next().await?;
            Ok(next.map(|(step, scores)| {
                let event = Event {
                    choice,
                    step,
                    scores,
                };
                (event, reply)
            }))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<(Step, Vec<Score>)>, Fault> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.events.is_none() {
                return Ok(None);
            }
            self.advance().await?;
        }
    }

    /// Takes one event, and makes its steps. Where a whole text is taken apart again for each of its ends, all events
    /// that are there are taken at once.
    async fn advance(&mut self) -> Result<(), Fault> {
        let events = self.events.as_mut().expect("nobody asks after the end");
        let mut next = Some(events.recv().await.ok_or_else(|| {
            Fault::internal("the answer broke off without a reason; the node's log may tell why")
        })?);
        let (mut text, mut end) = (String::new(), None);
        while let Some(event) = next.take() {
            end = self.take(event, &mut text)?;
            if end.is_none() && self.syntax.is_some() {
                let events = self.events.as_mut();
                next = events.and_then(|events| events.try_recv().ok());
            }
        }
        if end.is_some() {
            self.events = None;
        }
        self.scores.release(text.len());
        if let Some(gathered) = &mut self.gathered {
            gathered.push_str(&text);
        }
        let mut steps = match self.syntax {
            Some(_) => self.take_apart(end.as_ref()).await?,
            None if text.is_empty() => Vec::new(),
            None => vec![Step::Text(text)],
        };
        steps.extend(end.map(|reason| self.end(reason)).transpose()?);
        for step in steps {
            let over = matches!(step, Step::End { .. });
            self.ready.push_back((step, self.scores.take(over)));
        }
        Ok(())
    }

    /// Adds an event's text; the reason if it was the last.
    fn take(&mut self, event: GenerateEvent, text: &mut String) -> Result<Option<Reason>, Fault> {
        let (released, ended) = match event {
            GenerateEvent::Token {
                id,
                piece,
                logprobs,
                reused,
            } => {
                if self.tokens == 0 {
                    self.notes.token(if self.counts { reused } else { 0 });
                }
                self.tokens += 1;
                if self.syntax.is_some() {
                    self.begins.push(self.bytes);
                    self.bytes += piece.len();
                }
                let released = self.text.push(&piece);
                self.scores.add(id, piece, logprobs);
                (released, None)
            }
            GenerateEvent::Finished { reason } => {
                let rest = std::mem::replace(&mut self.text, TextStream::new(Vec::new()));
                (rest.finish(), Some(reason))
            }
            GenerateEvent::Failed(fault) => return Err(fault),
        };
        text.push_str(&released.text);
        self.scores.cut = released.stop.is_some();
        Ok(match (released.stop, ended) {
            (Some(stop), _) if self.stops.contains(&stop) => Some(Reason::StopString(stop)),
            (Some(_), _) | (None, Some(Finish::Stop)) => Some(Reason::Stop),
            (None, Some(Finish::Length)) => Some(Reason::Length),
            (None, None) => None,
        })
    }

    /// Has all text so far taken apart; what is new in it.
    async fn take_apart(&mut self, end: Option<&Reason>) -> Result<Vec<Step>, Fault> {
        let (Some(syntax), Some(gathered)) = (&self.syntax, &self.gathered) else {
            return Ok(Vec::new());
        };
        if end.is_none() && !self.watched {
            return Ok(Vec::new());
        }
        let partial = end != Some(&Reason::Stop);
        match self.backend.read(syntax, gathered, partial).await {
            Ok(message) if end.is_some() => self.reading.finish(message),
            Ok(message) => Ok(self.reading.advance(&message)),
            Err(fault) if end.is_some() => Err(fault),
            // A text that cannot be read yet may be readable when it is longer.
            Err(_) => Ok(Vec::new()),
        }
    }

    fn end(&self, reason: Reason) -> Result<Step, Fault> {
        let called = self.reading.called() && reason == Reason::Stop;
        if let (Some(checker), Reason::Stop, false) = (&self.checker, &reason, called) {
            let content = match self.syntax {
                Some(_) => self.reading.content(),
                None => self.gathered.as_deref().unwrap_or_default(),
            };
            checker.check(content)?;
        }
        self.notes.thought(self.thoughts());
        Ok(Step::End {
            reason: if called { Reason::Calls } else { reason },
            tokens: self.tokens,
        })
    }
}

impl<B> Reply<B> {
    /// Tokens up to the end of what the model thought; a thought stands in the text as it was read from it.
    fn thoughts(&self) -> u32 {
        let (thought, text) = (self.reading.reasoning(), self.gathered.as_deref());
        let found = text.and_then(|text| text.find(thought));
        let Some(begin) = found.filter(|_| !thought.is_empty()) else {
            return 0;
        };
        let end = begin + thought.len();
        self.begins.partition_point(|begin| *begin < end) as u32
    }
}

/// Scores of tokens whose text is still held back.
#[derive(Default)]
struct Scores {
    /// Where each token's text begins, in bytes of the answer, and its score.
    waiting: VecDeque<(usize, Score)>,
    /// Bytes of all tokens so far.
    pushed: usize,
    /// Bytes of the text that was released.
    released: usize,
    /// Whether a stop string cut the text off: tokens behind that are not part of the answer.
    cut: bool,
}

impl Scores {
    fn add(&mut self, id: i32, piece: Vec<u8>, logprobs: Option<TokenLogprobs>) {
        let begin = self.pushed;
        self.pushed += piece.len();
        if let Some(TokenLogprobs { logprob, top }) = logprobs {
            let score = Score {
                id,
                piece,
                logprob,
                top,
            };
            self.waiting.push_back((begin, score));
        }
    }

    fn release(&mut self, bytes: usize) {
        self.released += bytes;
    }

    /// The scores of tokens that begin in the released text; of all that are left if the answer is over.
    fn take(&mut self, over: bool) -> Vec<Score> {
        let all = over && !self.cut;
        let count = self
            .waiting
            .iter()
            .take_while(|(begin, _)| all || *begin < self.released)
            .count();
        self.waiting
            .drain(..count)
            .map(|(_, score)| score)
            .collect()
    }
}
