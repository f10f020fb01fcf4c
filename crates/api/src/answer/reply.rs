//! One choice of an answer, from the backend's events to steps.

use super::reading::Reading;
use super::schema::Checker;
use super::tape::{Tape, Unit};
use super::{Event, Notes, Reason, Score, Step};
use crate::backend::{Backend, Finish, GenerateEvent, Generation, TokenLogprobs};
use crate::fault::Fault;
use crate::text::TextStream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The most events of a choice that are taken at once.
const BATCH_EVENTS_MAX: usize = 256;

/// Where the events of a choice come from.
#[derive(Debug)]
pub(super) struct Source {
    /// What the backend says; `None` where it has nothing more to say.
    pub(super) events: Option<mpsc::Receiver<GenerateEvent>>,
    /// [`Generation::syntax`].
    pub(super) syntax: Option<String>,
    /// [`Generation::stops`].
    pub(super) stops: Vec<String>,
    /// What the journal has of it, as it was taken then.
    pub(super) past: VecDeque<Vec<GenerateEvent>>,
}

impl From<Generation> for Source {
    fn from(generation: Generation) -> Self {
        Self {
            events: Some(generation.events),
            syntax: generation.syntax,
            stops: generation.stops,
            past: VecDeque::new(),
        }
    }
}

/// A choice that is being read. Dropping it cancels the generation.
pub(super) struct Reply<B> {
    backend: Arc<B>,
    /// `None` when the choice is over; the backend sees that at once.
    events: Option<mpsc::Receiver<GenerateEvent>>,
    /// What comes before them, from the journal.
    past: VecDeque<Vec<GenerateEvent>>,
    over: bool,
    /// What ends it when everything before it was said.
    fault: Option<Fault>,
    choice: usize,
    /// Where events are journalled before anything comes of them.
    tape: Option<Arc<Tape>>,
    /// Events that were taken so far.
    taken: u64,
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
    ready: VecDeque<Ready>,
}

/// A step, how probable its tokens were, and where it comes from.
type Ready = (Step, Vec<Score>, Option<Unit>);

impl<B: Backend> Reply<B> {
    pub(super) fn new(
        backend: Arc<B>,
        source: Source,
        stops: &[String],
        checker: Option<Arc<Checker>>,
        notes: Arc<Notes>,
    ) -> Self {
        let all = stops.iter().chain(&source.stops).cloned().collect();
        let whole_needed = source.syntax.is_some() || checker.is_some();
        Self {
            backend,
            events: source.events,
            past: source.past,
            over: false,
            fault: None,
            choice: 0,
            tape: None,
            taken: 0,
            text: TextStream::new(all),
            stops: stops.to_vec(),
            syntax: source.syntax,
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

    /// Which choice of which answer it is, and where it is journalled.
    pub(super) fn of(self, answer: u128, choice: usize, tape: Option<Arc<Tape>>) -> Self {
        let reading = Reading::new(answer, choice);
        Self {
            reading,
            choice,
            tape,
            ..self
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
            Ok(next.map(|(step, scores, unit)| {
                let event = Event {
                    choice,
                    step,
                    scores,
                    unit,
                };
                (event, reply)
            }))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Ready>, Fault> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            if self.over {
                return Ok(None);
            }
            self.advance().await?;
        }
    }

    /// Takes events, and makes their steps. A text that is taken apart anew for each of its ends is so once for all events that were
    /// taken together; else each event stands for itself.
    async fn advance(&mut self) -> Result<(), Fault> {
        let events = match self.past.pop_front() {
            Some(past) => past,
            None => self.news().await?,
        };
        if self.syntax.is_some() && !events.is_empty() {
            return self.play(events).await;
        }
        for event in events {
            if self.over {
                break;
            }
            if let Err(fault) = self.play(vec![event]).await {
                self.fault = Some(fault);
                break;
            }
        }
        Ok(())
    }

    /// What the backend has to say, once it is in the journal. All events that are there are taken at once where that saves work.
    async fn news(&mut self) -> Result<Vec<GenerateEvent>, Fault> {
        let broke_off = || {
            Fault::internal("the answer broke off without a reason; the node's log may tell why")
        };
        let events = self.events.as_mut().ok_or_else(broke_off)?;
        let together = self.syntax.is_some() || self.tape.is_some();
        let mut next = Some(events.recv().await.ok_or_else(broke_off)?);
        let mut taken = Vec::new();
        while let Some(event) = next.take() {
            if let GenerateEvent::Failed(fault) = event {
                self.fault = Some(fault);
                break;
            }
            let last = matches!(event, GenerateEvent::Finished { .. });
            taken.push(event);
            if together && !last && taken.len() < BATCH_EVENTS_MAX {
                next = events.try_recv().ok();
            }
        }
        if let Some(tape) = self.tape.as_ref().filter(|_| !taken.is_empty())
            && !tape.record(self.choice, &taken).await?
        {
            self.tape = None;
        }
        Ok(taken)
    }

    /// Makes the steps of events that belong together.
    async fn play(&mut self, events: Vec<GenerateEvent>) -> Result<(), Fault> {
        let before = self.taken;
        self.taken += events.len() as u64;
        let (mut text, mut end) = (String::new(), None);
        for event in events {
            if end.is_none() {
                end = self.take(event, &mut text);
            }
        }
        if end.is_some() {
            (self.events, self.over) = (None, true);
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
        let count = steps.len();
        for (nth, step) in steps.into_iter().enumerate() {
            let unit = self.tape.is_some().then_some(Unit {
                before,
                after: self.taken,
                last: nth + 1 == count,
            });
            let over = matches!(step, Step::End { .. });
            let scores = self.scores.take(over);
            self.ready.push_back((step, scores, unit));
        }
        Ok(())
    }

    /// Adds an event's text; the reason if it was the last.
    fn take(&mut self, event: GenerateEvent, text: &mut String) -> Option<Reason> {
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
            // It was set aside for when all before it is said.
            GenerateEvent::Failed(_) => return None,
        };
        text.push_str(&released.text);
        self.scores.cut = released.stop.is_some();
        match (released.stop, ended) {
            (Some(stop), _) if self.stops.contains(&stop) => Some(Reason::StopString(stop)),
            (Some(_), _) | (None, Some(Finish::Stop)) => Some(Reason::Stop),
            (None, Some(Finish::Length)) => Some(Reason::Length),
            (None, None) => None,
        }
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
