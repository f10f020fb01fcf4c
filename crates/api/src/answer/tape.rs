//! What ties an answer to its journal, and how its client names a place in it.
//!
//! **Ids.** The `id` of an event names, for each choice, how much of it the client has when it has the event: how many of the choice's
//! events (tokens, and the end) are in what was sent. Where one of them is sent in several pieces, all but the last piece are
//! named by the number before and their own, as in `7.2`. What is sent follows from the journal alone, so whoever resumes replays the
//! journal from its beginning through the same code and leaves out what the id covers: nothing comes twice, and nothing is missing.

use super::stream::Frames;
use crate::backend::{Finish, GenerateEvent, TokenLogprobs};
use crate::fault::Fault;
use crate::journal::{Journal, Lost};
use proto::host::{Logprobs, Probable};
use proto::ids::StreamId;
use proto::journal::{StreamBatch, StreamEvent, StreamFinish, StreamToken};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An answer's journal.
#[derive(Debug)]
pub(crate) struct Tape {
    journal: Arc<dyn Journal>,
    /// Whether a client knows the stream's name.
    told: AtomicBool,
}

impl Drop for Tape {
    fn drop(&mut self) {
        if !self.told.load(Ordering::Relaxed) {
            self.journal.end();
        }
    }
}

impl Tape {
    pub(crate) fn new(journal: Arc<dyn Journal>, told: bool) -> Arc<Self> {
        let told = AtomicBool::new(told);
        Arc::new(Self { journal, told })
    }

    pub(crate) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    /// The name by which the client is told to resume.
    pub(super) fn tell(&self) -> StreamId {
        self.told.store(true, Ordering::Relaxed);
        self.journal.stream()
    }

    /// Makes events durable; `false` when there is no journal any more.
    ///
    /// # Errors
    ///
    /// When somebody else has the stream.
    pub(super) async fn record(
        &self,
        choice: usize,
        events: &[GenerateEvent],
    ) -> Result<bool, Fault> {
        let batch = StreamBatch {
            choice: choice as u32,
            events: events.iter().filter_map(kept).collect(),
        };
        match self.journal.append(&batch).await {
            Ok(()) => Ok(true),
            Err(Lost::Gone) => Ok(false),
            Err(Lost::Taken) => Err(Fault::stream_taken()),
        }
    }
}

fn kept(event: &GenerateEvent) -> Option<StreamEvent> {
    Some(match event {
        GenerateEvent::Token {
            id,
            piece,
            logprobs,
            reused,
        } => StreamEvent::Token(StreamToken {
            id: *id,
            piece: piece.clone(),
            logprobs: logprobs.as_ref().map(|given| {
                let top = given.top.iter();
                let probable = |(token, piece, logprob): &(i32, Vec<u8>, f32)| Probable {
                    token: *token,
                    piece: piece.clone(),
                    logprob: *logprob,
                };
                Box::new(Logprobs {
                    drawn: given.logprob,
                    top: top.map(probable).collect(),
                })
            }),
            reused: *reused,
        }),
        GenerateEvent::Finished { reason } => StreamEvent::Finished(match reason {
            Finish::Stop => StreamFinish::Stop,
            Finish::Length => StreamFinish::Length,
        }),
        GenerateEvent::Failed(_) => return None,
    })
}

/// An event as it was before it was journalled.
pub(super) fn played(event: StreamEvent) -> GenerateEvent {
    match event {
        StreamEvent::Token(token) => GenerateEvent::Token {
            id: token.id,
            piece: token.piece,
            logprobs: token.logprobs.map(|given| {
                let top = given.top.into_iter();
                TokenLogprobs {
                    logprob: given.drawn,
                    top: top.map(|one| (one.token, one.piece, one.logprob)).collect(),
                }
            }),
            reused: token.reused,
        },
        StreamEvent::Finished(reason) => GenerateEvent::Finished {
            reason: match reason {
                StreamFinish::Stop => Finish::Stop,
                StreamFinish::Length => Finish::Length,
            },
        },
    }
}

/// Where a step comes from: the events of its choice before those that it belongs to, and after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(super) before: u64,
    pub(super) after: u64,
    /// Whether it is the last step of these events.
    pub(super) last: bool,
}

/// A place in one choice: the events that were sent in full, and the pieces of the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(super) events: u64,
    pieces: u32,
}

/// A place in an answer: one in each of its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks(pub(super) Vec<Mark>);

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, Mark { events, pieces }) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            match pieces {
                0 => write!(f, "{comma}{events}")?,
                _ => write!(f, "{comma}{events}.{pieces}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Marks {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mark = |text: &str| {
            let (events, pieces) = text.split_once('.').unwrap_or((text, "0"));
            Some(Mark {
                events: events.parse().ok()?,
                pieces: pieces.parse().ok()?,
            })
        };
        let marks: Option<Vec<Mark>> = text.trim().split(',').map(mark).collect();
        marks.map(Self).ok_or(())
    }
}

/// Gives what is sent its ids, and leaves out what the client has.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) tape: Arc<Tape>,
    /// What is in what was sent so far.
    sent: Marks,
    /// What the client has, if it resumed.
    seen: Option<Marks>,
}

impl Track {
    pub(super) fn new(tape: Arc<Tape>, choices: usize, seen: Option<Marks>) -> Self {
        Self {
            tape,
            sent: Marks(vec![Mark::default(); choices]),
            seen,
        }
    }

    /// What stands before the first step.
    pub(super) fn open(&self, frames: &mut Frames) {
        if self.seen.is_some() {
            frames.clear();
        }
        frames.name_last(&self.sent);
    }

    /// What was written of one step.
    pub(super) fn step(&mut self, choice: usize, unit: Option<Unit>, frames: &mut Frames) {
        // Once there is no journal any more, there is nothing to resume.
        let Some(unit) = unit else { return };
        let seen = self.seen.as_ref().map(|seen| seen.0[choice]);
        let pieces = frames.drain();
        let count = pieces.len();
        for (nth, piece) in pieces.into_iter().enumerate() {
            let mark = &mut self.sent.0[choice];
            if mark.events != unit.before {
                *mark = Mark {
                    events: unit.before,
                    pieces: 0,
                };
            }
            match unit.last && nth + 1 == count {
                true => {
                    *mark = Mark {
                        events: unit.after,
                        pieces: 0,
                    }
                }
                false => mark.pieces += 1,
            }
            if seen.is_none_or(|seen| *mark > seen) {
                frames.push(piece);
                frames.name_last(&self.sent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_others_are_refused() {
        for text in ["0", "12", "7.2", "3,4.1,0"] {
            assert_eq!(text.parse::<Marks>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "1.",
            ".1",
            "-1",
            "1,,2",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Marks>().is_err(), "{text}");
        }
        let order = ["3", "3.1", "3.2", "4"].map(|text| text.parse::<Marks>().unwrap().0[0]);
        assert!(order.is_sorted());
    }

    #[test]
    fn events_come_out_of_the_journal_as_they_went_in() {
        let logprobs = TokenLogprobs {
            logprob: -0.5,
            top: vec![(1, b"a".to_vec(), -0.5)],
        };
        let token = GenerateEvent::Token {
            id: 1,
            piece: vec![0xE2],
            logprobs: Some(logprobs),
            reused: 3,
        };
        for event in [
            token,
            GenerateEvent::Finished {
                reason: Finish::Length,
            },
            GenerateEvent::Finished {
                reason: Finish::Stop,
            },
        ] {
            assert_eq!(played(kept(&event).unwrap()), event);
        }
    }
}
