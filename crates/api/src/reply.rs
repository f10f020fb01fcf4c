//! One answer, from the backend's events to text.

use crate::backend::{Finish, GenerateEvent};
use crate::fault::Fault;
use crate::places::Place;
use crate::response::Usage;
use crate::text::TextStream;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An answer that is being read. Dropping it cancels the generation and frees the request's place.
pub(crate) struct Reply {
    /// `None` when the answer is over; the backend sees that at once.
    events: Option<mpsc::Receiver<GenerateEvent>>,
    /// An event that was waited for before the stream began.
    early: Option<GenerateEvent>,
    text: TextStream,
    usage: Usage,
    shutdown: CancellationToken,
    _place: Place,
}

/// What comes next in an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// More text; never empty.
    Text(String),
    /// The end, with the rest of the text; it may be empty.
    End { text: String, reason: Finish },
}

impl Reply {
    pub(crate) fn new(
        events: mpsc::Receiver<GenerateEvent>,
        prompt_tokens: u32,
        stops: Vec<String>,
        shutdown: CancellationToken,
        place: Place,
    ) -> Self {
        Self {
            events: Some(events),
            early: None,
            text: TextStream::new(stops),
            usage: Usage::new(prompt_tokens, 0),
            shutdown,
            _place: place,
        }
    }

    /// The tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Waits for the first event, but not longer than `wait`, so that a failure before it has an HTTP status.
    pub(crate) async fn wait_for_first(&mut self, wait: Duration) -> Result<(), Fault> {
        match tokio::time::timeout(wait, self.event()).await {
            Ok(Ok(GenerateEvent::Failed(fault)) | Err(fault)) => Err(fault),
            Ok(Ok(event)) => {
                self.early = Some(event);
                Ok(())
            }
            Err(_elapsed) => Ok(()),
        }
    }

    /// Goes on until there is text, or the end. After the end or an error there is nothing more to ask for.
    pub(crate) async fn next(&mut self) -> Result<Step, Fault> {
        loop {
            match self.event().await? {
                GenerateEvent::Token { id: _, piece } => {
                    if let Some(step) = self.add(&piece) {
                        return Ok(step);
                    }
                }
                GenerateEvent::Finished { reason } => return Ok(self.end(reason)),
                GenerateEvent::Failed(fault) => {
                    self.events = None;
                    return Err(fault);
                }
            }
        }
    }

    fn add(&mut self, piece: &[u8]) -> Option<Step> {
        self.usage = Usage::new(self.usage.prompt_tokens, self.usage.completion_tokens + 1);
        let released = self.text.push(piece);
        if released.stopped {
            self.events = None;
            return Some(Step::End {
                text: released.text,
                reason: Finish::Stop,
            });
        }
        (!released.text.is_empty()).then_some(Step::Text(released.text))
    }

    fn end(&mut self, reason: Finish) -> Step {
        self.events = None;
        let released = std::mem::replace(&mut self.text, TextStream::new(Vec::new())).finish();
        let reason = if released.stopped {
            Finish::Stop
        } else {
            reason
        };
        Step::End {
            text: released.text,
            reason,
        }
    }

    /// The next event. Cancelling the future loses none.
    async fn event(&mut self) -> Result<GenerateEvent, Fault> {
        if let Some(event) = self.early.take() {
            return Ok(event);
        }
        let events = self.events.as_mut().expect("nobody asks after the end");
        let event = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Fault::shutting_down()),
            event = events.recv() => event.ok_or_else(|| {
                Fault::internal("the answer broke off without a reason; the node's log may tell why")
            }),
        };
        if event.is_err() {
            self.events = None;
        }
        event
    }
}
