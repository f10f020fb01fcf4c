//! One request at its coordinator.
//!
//! # Story
//!
//! The node owns one task a request; the task owns one [`Session`], feeds it [`Event`]s and carries out its [`Effect`]s
//! in their order. The session opens itself along the ring, runs the prompt through the head in frames on an absolute
//! grid, at most [`FRAMES_IN_FLIGHT_MAX`] on their way, passes what the last stage returns to the tail, and has the
//! tail draw a token from the last row. From then on one frame of one row goes round a token: the engine draws and runs
//! the head on what it drew in one step. It ends with exactly one [`Effect::Finish`] or [`Effect::Fail`], before
//! which it closes itself at every stage; afterwards it answers nothing.
//!
//! Calls to the engine go out one head and one tail at a time. Frames that come back are checked against what
//! was sent; whatever is wrong with one fails the session and names the stage.
//!
//! **Acknowledgements.** Stages keep what they sent, so that a neighbour's cache can be rebuilt without asking the
//! coordinator for more than a replay. Rows that are acknowledged can only be rebuilt from further up, and each acknowledgement is
//! a message a stage. So there is none until a stage's store, by the coordinator's reckoning, is more than half full;
//! then the oldest chunks go. Every [`LEASE_RENEWAL_MS`] the last position is acknowledged once more, which renews the
//! lease at stages that wait for a slow one.
//!
//! **Deadlines.** While a lap lasts longer than usual, all peers are asked for a sign of life ([`Effect::Doubt`]): whether a
//! peer lives, its link tells, and soon. A lap that takes longer than three times the usual one is also reported
//! ([`Effect::Suspect`]) and counted. It fails the session only at the kind's limit.
//!
//! **Going on.** Truth lives here: the tokens, and what the head made of them. So a peer that is lost ends the ring and not the
//! answer: the session leaves it ([`Effect::Strand`]), the tail draws from what has come back, and on the next ring
//! ([`Event::Rejoin`]) the session goes on under its next epoch. All stages say what they have; those that were not lost have
//! their caches still. From the last one up it is then settled what each keeps and from where it sends again: what its successor
//! lacks, from its retained outputs; a stage that retains too little computes that again. So a stage
//! that took the place of a lost one is fed by the one before it, rows that had come back only rebuild its cache, and nobody else
//! computes anything twice. When even the head's outputs are not all kept, everything is computed again from the tokens.
//! The same happens on the same ring when a stage's engine was started again. Whatever comes late is of an old epoch. A node that
//! finds no ring says so ([`Event::GiveUp`]).
//!
//! **Guesses.** A lone request's lap is mostly waiting. So tokens that are likely to follow the one that was drawn ([`crate::draft`]) go
//! round with it, in one frame, and the tail draws behind each of them for as long as the one before was right. In exact mode a row's
//! bits do not depend on its neighbours, so the tokens are those without guesses. Rows of wrong ones are taken back: here by the
//! engine, and at the stages by the next frame, which begins in their place. Until a row that was sent in the place of a guess has come
//! back, a stage may have the guess's still, and nothing from there on is kept when the ring is lost. How many are guessed
//! follows from what laps with and without take, and how often guesses are right; while others use the ring, too, it is none.
//!
//! **Shadows.** Once to compute a session again would take long, whoever stands by for a stage is fed what has gone round
//! ([`Effect::Shadow`]), and has caches that lack little when it takes over.
//!
//! ```
//! use bytes::Bytes;
//! use proto::host::Drawn;
//! use proto::ids::{NodeId, RingId, SessionId};
//! use proto::model::{LayerRange, Sampling};
//! use proto::ring::{HopBody, RETAINED_BYTES_MAX};
//! use swarm::session::{Effect, Event, FinishReason, RemoteStage, Session, SessionPlan};
//!
//! let mut session = Session::new(SessionPlan {
//!     ring: RingId([1; 16]),
//!     session: SessionId([2; 16]),
//!     epoch: 1,
//!     stages: vec![RemoteStage { node: NodeId([3; 32]), layers: LayerRange { first: 1, end: 29 } }],
//!     embedding_length: 2,
//!     positions_max: 512,
//!     prompt: vec![11, 12, 13],
//!     tokens_max: 1,
//!     sampling: Sampling::GREEDY,
//!     moves_max: 0,
//!     retained_bytes_max: RETAINED_BYTES_MAX,
//!     stage_retained_bytes_max: RETAINED_BYTES_MAX,
//!     sharers: 1,
//!     guesses_max: 8,
//!     costs: Default::default(),
//! })?;
//!
//! let effects = session.handle(Event::Start, 0);
//! let [Effect::Forward { .. }, Effect::RunHead(run)] = &effects[..] else { panic!("{effects:?}") };
//! // ... the node asks its engine, which answers with three rows:
//! let rows = Bytes::from(vec![0; 24]);
//! let effects = session.handle(Event::HeadDone { position: run.position, rows }, 3);
//! let [Effect::Forward { body: HopBody::Rows(sent), payload }] = &effects[..] else { panic!("{effects:?}") };
//! // ... they go to stage 1, and its output comes back:
//! let mut back = *sent;
//! back.stage = 1;
//! let effects = session.handle(Event::Returned { rows: back, payload: payload.clone() }, 20);
//! let [Effect::RunTail { run, .. }] = &effects[..] else { panic!("{effects:?}") };
//! // ... and the engine draws:
//! let drawn = vec![Drawn { token: 14, position: 3, piece: b" word".to_vec(), end: false, logprobs: None, reused: 0 }];
//! let done = Event::TailDone { position: run.position, drawn, head_rows: None };
//! let effects = session.handle(done, 22);
//! assert!(matches!(effects[0], Effect::Token(_)));
//! assert_eq!(effects.last(), Some(&Effect::Finish(FinishReason::Length)));
//! # Ok::<(), swarm::session::PlanError>(())
//! ```

mod fault;
mod goes_on;
mod guesses;
mod message;
mod moves;
mod pace;
mod returns;
mod shadow;
mod steps;
#[cfg(test)]
mod tests;
mod watch;

pub use fault::{PeerFault, ReturnFault, SessionFault, StageName};
pub use message::{
    Effect, Event, FinishReason, PlanError, Rebuild, RebuiltStage, RemoteStage, SessionPlan,
    SessionStatus, Suspicion, Way,
};
pub use pace::{
    DEADLINE_FACTOR, DECODE_FLOOR_MS, DECODE_LIMIT_MS, DOUBT_CEILING_MS, DOUBT_FLOOR_MS,
    PREFILL_FLOOR_MS, PREFILL_LIMIT_MS, StepKind,
};

use crate::frame::{clean, frame_rows};
use crate::retained::Retained;
use bytes::Bytes;
use guesses::Guesses;
use pace::Pace;
use proto::ring::{EpochAnswer, LEASE_MS, LinkBody, SessionRef};
use std::collections::VecDeque;

/// Frames of a session that are in the head, the ring or the tail at once.
pub const FRAMES_IN_FLIGHT_MAX: usize = 4;
/// How often leases are renewed, in milliseconds.
pub const LEASE_RENEWAL_MS: u64 = LEASE_MS / 3;

/// Rows that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    position: u32,
    rows: u32,
}

impl Span {
    fn end(self) -> u32 {
        self.position + self.rows
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    /// An epoch was announced; what the stages have answered, and since when the others are awaited.
    Resuming {
        answers: Vec<Option<EpochAnswer>>,
        since_ms: u64,
    },
    /// The ring is lost; why the session would have failed.
    Stranded(SessionFault),
    Over,
}

/// The machine of one request; see the [module](self).
#[derive(Debug)]
pub struct Session {
    plan: SessionPlan,
    phase: Phase,
    /// Rings that it left.
    moves: u32,
    epoch: u32,
    /// Prompt and drawn tokens.
    tokens: Vec<i32>,
    /// What the engine runs through the head.
    head: Option<Span>,
    /// Rows that came out of the head.
    head_length: u32,
    /// The head's outputs.
    retained: Retained,
    /// Rows that were sent under this epoch, or need not be.
    sent_length: u32,
    /// Frames in the ring, oldest first, with the time of their sending.
    flight: VecDeque<(Span, u64)>,
    /// Frames that came back and wait for the tail.
    returned: VecDeque<(Span, Bytes)>,
    /// Rows that came back.
    returned_length: u32,
    /// What the engine runs through the tail.
    tail: Option<Span>,
    /// Rows that the tail has taken.
    tail_length: u32,
    /// Rows whose outputs stages need not keep.
    acked: u32,
    /// When leases were renewed.
    renewed_ms: u64,
    /// When the newest frame came back.
    moved_ms: u64,
    pace: Pace,
    /// Nothing came back under this epoch yet, and caches are rebuilt: that lap says nothing about usual ones.
    rebuilding: bool,
    /// Whether the oldest frame in the ring was reported as slow.
    suspected: bool,
    suspicions: u32,
    /// How often signs of life were asked for since something moved.
    doubts: u64,
    /// Up to where standbys may be fed.
    shadowed: u32,
    guesses: Guesses,
}

impl Session {
    /// A session that waits for [`Event::Start`].
    ///
    /// # Errors
    ///
    /// [`PlanError`], with the numbers.
    pub fn new(plan: SessionPlan) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self {
            phase: Phase::Waiting,
            moves: 0,
            sent_length: 0,
            epoch: plan.epoch,
            tokens: plan.prompt.clone(),
            head: None,
            head_length: 0,
            retained: Retained::default(),
            flight: VecDeque::new(),
            returned: VecDeque::new(),
            returned_length: 0,
            tail: None,
            tail_length: 0,
            acked: 0,
            renewed_ms: 0,
            moved_ms: 0,
            pace: Pace::default(),
            rebuilding: false,
            suspected: false,
            suspicions: 0,
            doubts: 0,
            shadowed: 0,
            guesses: Guesses::new(plan.costs.clone()),
            plan,
        })
    }

    /// Takes in what happened at `now_ms` of a clock that never goes back, and says what to do, in order.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        let outcome = match (&self.phase, event) {
            (Phase::Over, _) => return out,
            (_, Event::Cancel) => {
                self.finish(FinishReason::Cancelled, &mut out);
                Ok(())
            }
            (Phase::Waiting, Event::Start) => {
                self.start(now_ms, &mut out);
                Ok(())
            }
            (Phase::Waiting, _) => return out,
            (_, event) => self.advance(event, now_ms, &mut out),
        };
        match outcome {
            Ok(()) => self.pump(now_ms, &mut out),
            Err(fault) if self.may_move(&fault) => {
                self.strand(fault, &mut out);
                self.pump(now_ms, &mut out);
            }
            Err(fault) => {
                self.close(&mut out);
                out.push(Effect::Fail(fault));
            }
        }
        out
    }

    /// Where the session stands.
    #[must_use]
    pub fn status(&self) -> SessionStatus {
        SessionStatus {
            epoch: self.epoch,
            position: self.tail_length,
            tokens: self.tokens_drawn(),
            frames_in_flight: self.frames_in_flight(),
            suspicions: self.suspicions,
            guessed: self.guesses.made,
            guessed_right: self.guesses.right,
            retained_bytes: self.retained.bytes(),
            decode_ms: self.pace.smoothed_ms(StepKind::Decode),
            prefill_ms: self.pace.smoothed_ms(StepKind::Prefill),
            over: self.phase == Phase::Over,
        }
    }

    fn advance(
        &mut self,
        event: Event,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), SessionFault> {
        match event {
            Event::HeadDone { position, rows } => {
                self.head_done(position, rows, out)?;
                self.settle(now_ms, out);
                Ok(())
            }
            Event::TailDone {
                position,
                drawn,
                head_rows,
            } => {
                self.tail_done(position, (drawn, head_rows), now_ms, out)?;
                self.settle(now_ms, out);
                Ok(())
            }
            Event::EngineFailed { detail } => Err(SessionFault::Engine {
                detail: clean(&detail),
            }),
            Event::Rejoin(way) => {
                self.rejoin(way, now_ms, out);
                Ok(())
            }
            Event::GiveUp { why } => self.give_up(&why),
            // Whatever comes of a ring that was left.
            _ if matches!(self.phase, Phase::Stranded(_)) => Ok(()),
            Event::Returned { rows, payload } => self.take_back(rows, payload, now_ms),
            Event::StageFailed { stage, failed } => self.stage_failed(stage, failed),
            Event::EpochAnswer { stage, answer } => self.epoch_answered(stage, answer, now_ms, out),
            Event::PeerSilent { stage, silent_ms } => {
                self.blame(stage, PeerFault::Silent { silent_ms })
            }
            Event::LinkLost { stage } => self.blame(stage, PeerFault::LinkLost),
            Event::Tick => self.tick(now_ms, out),
            Event::Start | Event::Cancel => Ok(()),
        }
    }

    fn finish(&mut self, reason: FinishReason, out: &mut Vec<Effect>) {
        self.close(out);
        out.push(Effect::Finish(reason));
    }

    /// Frees everything, here and at the stages. A session that never began has nothing to free.
    fn close(&mut self, out: &mut Vec<Effect>) {
        if self.phase != Phase::Waiting {
            self.tell_all(LinkBody::CloseSession, out);
            out.push(Effect::DropCaches);
        }
        self.phase = Phase::Over;
        self.head = None;
        self.tail = None;
        self.retained.clear();
        self.flight.clear();
        self.returned.clear();
    }

    /// The fault of a stage, if the ring has it.
    fn blame(&self, stage: u32, cause: PeerFault) -> Result<(), SessionFault> {
        match self.plan.stage_name(stage) {
            Some(stage) => Err(SessionFault::Peer { stage, cause }),
            None => Ok(()),
        }
    }

    /// The session at its epoch.
    #[must_use]
    pub fn at(&self) -> SessionRef {
        SessionRef {
            ring: self.plan.ring,
            session: self.plan.session,
            epoch: self.epoch,
        }
    }

    fn tell_all(&self, body: impl Fn(SessionRef) -> LinkBody, out: &mut Vec<Effect>) {
        let tell = |stage| Effect::Tell {
            stage,
            body: body(self.at()),
        };
        out.extend((1..=self.plan.stages_len()).map(tell));
    }

    fn tokens_drawn(&self) -> u32 {
        (self.tokens.len() - self.plan.prompt.len()) as u32
    }

    fn tokens_len(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Tokens and guesses.
    fn known_len(&self) -> u32 {
        self.tokens_len() + self.guesses.tokens.len() as u32
    }

    fn frames_in_flight(&self) -> usize {
        let engine = usize::from(self.head.is_some()) + usize::from(self.tail.is_some());
        self.flight.len() + self.returned.len() + engine
    }

    /// The span of the next frame of the absolute grid behind `position`.
    fn next_span(&self, position: u32) -> Span {
        let grid = frame_rows(self.plan.embedding_length);
        let rows = grid - position % grid;
        Span {
            position,
            rows: rows.min(self.known_len() - position),
        }
    }
}
