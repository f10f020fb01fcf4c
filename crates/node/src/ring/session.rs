//! One request over a ring, an answer or an embedding: carries out what its `swarm::session` machine wants.

use super::seek::Stranded;
use super::{Resent, Ring, State};
use crate::requests::Reply;
use crate::rooms::Rooms;
use crate::status::RebuiltStage;
use bytes::Bytes;
use engine::{Answers, EngineError, Host};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::host::{Answer, Drawn, Output, Run, Trim};
use proto::ids::SessionId;
use proto::member::Member;
use proto::ring::{HopBody, LinkBody, Rows, RowsKind, Shadow};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use swarm::session::{Effect, Event, FinishReason, Rebuild, Session, SessionFault, Way};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

/// How often the machine is told the time: a fraction of the shortest time after which signs of life are asked for.
const TICK: Duration = Duration::from_millis(40);
/// Who takes what comes of a session.
pub(crate) enum Taker<'a> {
    /// A client, the tokens.
    Tokens(&'a Reply),
    /// The caller, the prompt's activations as they enter the tail, which is not run; then the session is over, as cancelled.
    Rows(&'a mut Vec<u8>),
}

impl Taker<'_> {
    async fn token(&self, drawn: Drawn) {
        match self {
            Self::Tokens(reply) => reply.token(drawn).await,
            Self::Rows(_) => {}
        }
    }

    /// Waits until nobody listens any more. Whoever takes rows drops the session's future instead.
    async fn closed(&self) {
        match self {
            Self::Tokens(reply) => reply.closed().await,
            Self::Rows(_) => std::future::pending().await,
        }
    }
}

/// The ring that a request runs over, and where the next one comes from.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    pub(crate) ring: Arc<Ring>,
    pub(crate) rings: watch::Receiver<State>,
    pub(crate) rooms: Rooms,
    /// The room that the request asks for.
    pub(crate) room: Option<api::Room>,
}

impl Course {
    /// Lets the request onto a ring, if all of its nodes may see it.
    pub(crate) fn admits(&self, ring: &Ring) -> Result<(), api::Fault> {
        let hosts = ring.stages.iter().map(|stage| &stage.member);
        self.rooms.admit(self.room, hosts)
    }
}

/// How a session ended; a fault comes with the ring that it is about.
pub(crate) type End = Result<FinishReason, (Arc<Ring>, SessionFault)>;

/// Runs a session to its end, or until nobody listens any more. When its ring is lost, it goes on over the next one.
pub(crate) async fn run(course: Course, id: SessionId, session: Session, taker: Taker<'_>) -> End {
    let host = match course.ring.engine.host() {
        Ok(host) => host,
        Err(error) => {
            let detail = error.to_string();
            return Err((course.ring, SessionFault::Engine { detail }));
        }
    };
    let seat = Seat::take(&course.ring, id);
    Runner {
        course,
        host,
        id,
        session,
        seat: Some(seat),
        stranded: None,
        returns: 0,
        resent: None,
        engine: FuturesUnordered::new(),
        begun: Instant::now(),
        lap: None,
    }
    .run(taker)
    .await
}

/// A session's mailbox at its ring, which is freed with this.
struct Seat {
    ring: Arc<Ring>,
    name: SessionId,
    mailbox: mpsc::Receiver<Event>,
}

impl Seat {
    fn take(ring: &Arc<Ring>, name: SessionId) -> Self {
        Self {
            ring: ring.clone(),
            name,
            mailbox: ring.enter(name),
        }
    }

    async fn event(seat: &mut Option<Self>) -> Event {
        let Some(seat) = seat else {
            return std::future::pending().await;
        };
        let event = seat.mailbox.recv().await;
        event.unwrap_or_else(|| Event::EngineFailed {
            detail: "the ring delivered more than was asked for".to_owned(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.ring.leave(self.name);
    }
}

impl Drop for Runner {
    /// Whoever dropped this wants no more of the session: its caches go, here and at the stages.
    fn drop(&mut self) {
        self.course.ring.guessing.learn(&self.session);
        let now_ms = self.begun.elapsed().as_millis() as u64;
        for effect in self.session.handle(Event::Cancel, now_ms) {
            match effect {
                Effect::Tell { stage, body } => self.tell(stage, body),
                Effect::DropCaches => self.host.drop_session(self.id),
                _ => {}
            }
        }
    }
}

struct Runner {
    course: Course,
    host: Arc<Host>,
    id: SessionId,
    session: Session,
    /// None while there is no ring.
    seat: Option<Seat>,
    /// The search for another ring.
    stranded: Option<Stranded>,
    /// How often the session came back to the ring that it is on.
    returns: u32,
    /// What is said of the recovery once a row comes back over the ring that was found.
    resent: Option<Resent>,
    /// Calls to the engine that are not answered.
    engine: FuturesUnordered<BoxFuture<'static, Event>>,
    begun: Instant,
    /// When a row set out on its lap, alone.
    lap: Option<Instant>,
}

impl Runner {
    async fn run(mut self, mut taker: Taker<'_>) -> End {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Event::Start;
        loop {
            if let Some(end) = self.handle(next, &mut taker).await {
                return end.map_err(|fault| (self.course.ring.clone(), fault));
            }
            next = tokio::select! {
                biased;
                () = taker.closed() => Event::Cancel,
                event = Seat::event(&mut self.seat) => event,
                Some(event) = self.engine.next() => event,
                found = Stranded::found(&mut self.stranded, &mut self.course.rings) => self.change(found),
                _ = ticks.tick() => Event::Tick,
            };
        }
    }

    /// The session left its ring.
    fn strand(&mut self, fault: &SessionFault) {
        warn!(%fault, "a request looks for another ring");
        // Before it leaves: who sees no session any more sees this.
        self.course.ring.outlive(true);
        self.seat = None;
        self.lap = None;
        self.stranded = Some(Stranded::new(self.course.ring.id, self.returns));
    }

    /// Another ring was found, or will not be.
    fn change(&mut self, found: Result<Arc<Ring>, String>) -> Event {
        self.stranded = None;
        let ring = match found {
            Ok(ring) => ring,
            Err(why) => return Event::GiveUp { why },
        };
        if let Err(fault) = self.course.admits(&ring) {
            return Event::GiveUp { why: fault.message };
        }
        // Head and tail have the session's caches.
        let same = ring
            .engine
            .host()
            .is_ok_and(|host| Arc::ptr_eq(&host, &self.host));
        if !same {
            let why = "this node's own part of the model was loaded anew; ask again".to_owned();
            return Event::GiveUp { why };
        }
        self.returns = if ring.id == self.course.ring.id {
            self.returns + 1
        } else {
            0
        };
        ring.outlive(false);
        let seat = Seat::take(&ring, self.id);
        info!(ring = %ring.id.short(), "a request goes on over another ring");
        let way = Way {
            ring: ring.id,
            stages: ring.remote_stages(),
        };
        (self.seat, self.course.ring) = (Some(seat), ring);
        Event::Rejoin(way)
    }

    /// Feeds the machine, and carries out what it wants, in order.
    async fn handle(
        &mut self,
        event: Event,
        taker: &mut Taker<'_>,
    ) -> Option<Result<FinishReason, SessionFault>> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if matches!(event, Event::Returned { .. })
                && let Some(begun) = self.lap.take()
                && self.course.ring.is_quiet()
            {
                self.course.ring.laps.add(begun.elapsed());
            }
            let now_ms = self.begun.elapsed().as_millis() as u64;
            self.session.set_lone(self.course.ring.is_quiet());
            for effect in self.session.handle(event, now_ms) {
                match effect {
                    Effect::RunHead(run) => events.extend(self.call(run, Bytes::new())),
                    Effect::RunTail { run, payload } => {
                        if let Some(resent) = self.resent.take_if(|_| self.seat.is_some()) {
                            self.course.ring.resumed(&resent);
                        }
                        match taker {
                            Taker::Tokens(_) => events.extend(self.call(run, payload)),
                            Taker::Rows(rows) => {
                                rows.extend_from_slice(&payload);
                                events.push_back(taken(&run));
                            }
                        }
                    }
                    Effect::Forward { body, payload } => {
                        self.lap = self.sets_out(&body).then(Instant::now);
                        if let Err(stage) = self.course.ring.forward(body, payload).await {
                            events.push_back(Event::LinkLost { stage });
                        }
                    }
                    Effect::Tell { stage, body } => self.tell(stage, body),
                    Effect::Token(drawn) if drawn.end => {}
                    Effect::Token(drawn) => taker.token(drawn).await,
                    Effect::Suspect(s) => {
                        warn!(kind = ?s.kind, waited_ms = s.waited_ms, "the ring is slow");
                    }
                    Effect::Doubt => self.course.ring.doubt(),
                    Effect::Shadow { until } => self.shadow(until),
                    Effect::Resumed(rebuild) => self.resent = Some(self.resent(&rebuild)),
                    Effect::Strand(fault) => self.strand(&fault),
                    // Calls to the engine keep their order; the next run fails if this one did.
                    Effect::TrimCaches { length } => drop(self.host.trim(Trim {
                        session: self.id,
                        length,
                    })),
                    Effect::DropCaches => self.host.drop_session(self.id),
                    Effect::Finish(reason) => return Some(Ok(reason)),
                    Effect::Fail(fault) => return Some(Err(fault)),
                }
            }
        }
        None
    }

    /// Whether a single row goes round, and nothing else is under way that it would have to wait for.
    fn sets_out(&self, body: &HopBody) -> bool {
        let single = |rows: &Rows| rows.kind == RowsKind::Decode && rows.rows == 1;
        matches!(body, HopBody::Rows(rows) if single(rows)) && self.course.ring.is_quiet()
    }

    /// The session goes on: what is sent and computed for it a second time.
    fn resent(&self, rebuild: &Rebuild) -> Resent {
        let stage = |(stage, rebuilt): (u32, &swarm::session::RebuiltStage)| RebuiltStage {
            stage,
            replayed: u64::from(rebuilt.replayed),
            recomputed: u64::from(rebuilt.recomputed),
        };
        let row_bytes = swarm::frame::row_bytes(self.host.loaded().embedding_length) as u64;
        Resent {
            stages: (1..).zip(&rebuild.stages).map(stage).collect(),
            bytes: rebuild.rows_resent * row_bytes,
        }
    }

    /// Lets those be fed that stand by, if they may see the request.
    fn shadow(&self, until: u32) {
        let (course, at) = (&self.course, self.session.at());
        for stage in 1..=course.ring.stages.len() as u32 {
            let may = |to: &Member| course.rooms.admit(course.room, [to].into_iter()).is_ok();
            let Some(to) = course.ring.standby(stage).filter(may) else {
                continue;
            };
            match stage - 1 {
                0 => course
                    .ring
                    .feed(&to, at, |from| self.session.shadow(from, until)),
                before => {
                    let (stage, to) = (before, to);
                    let wanted = Shadow {
                        at,
                        stage,
                        to,
                        until,
                    };
                    self.tell(before, LinkBody::Shadow(Box::new(wanted)));
                }
            }
        }
    }

    fn tell(&self, stage: u32, body: LinkBody) {
        let host = &self.course.ring.stages[stage as usize - 1];
        // What is kept for a loss is neither kept longer than a session nor less.
        if let LinkBody::CloseSession(_) | LinkBody::Ack(_) = body
            && let Some(standby) = self.course.ring.standby(stage)
        {
            // Whoever is lost has nothing any more.
            let _ = self.course.ring.links.send(standby.id, body.clone());
        }
        if let Err(error) = self.course.ring.links.send(host.member.id, body) {
            // A lost link comes as an event of its own; a lease frees what this message would have.
            tracing::debug!(stage, %error, "a stage was not told");
        }
    }

    /// Queues a call to the engine, in order; its answer comes as an event. An event at once is a failure.
    fn call(&mut self, run: Run, payload: Bytes) -> Option<Event> {
        let (position, tail) = (run.position, run.tokens.is_empty());
        match self.host.run(run, &payload) {
            Ok(answers) => {
                self.engine
                    .push(Box::pin(answered(answers, position, tail)));
                None
            }
            Err(error) => Some(failed(&error)),
        }
    }
}

/// What the machine hears instead of an answer of the tail: it goes on to the last rows, behind which it wants a token.
fn taken(run: &Run) -> Event {
    match run.output {
        Output::Token(_) => Event::Cancel,
        _ => Event::TailDone {
            position: run.position,
            drawn: Vec::new(),
            head_rows: None,
        },
    }
}

fn failed(error: &EngineError) -> Event {
    Event::EngineFailed {
        detail: error.to_string(),
    }
}

async fn answered(mut answers: Answers, position: u32, tail: bool) -> Event {
    let (mut drawn, mut head_rows) = (Vec::new(), None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((Answer::Rows(_), rows)) if !tail => return Event::HeadDone { position, rows },
            Ok((Answer::Done, _)) if tail => break,
            Ok((Answer::Token(token), rows)) if tail => {
                drawn.push(token);
                head_rows = (!rows.is_empty()).then_some(rows);
            }
            Ok(_) => return failed(&EngineError::OutOfTurn),
            Err(error) => return failed(&error),
        }
    }
    match tail {
        true => Event::TailDone {
            position,
            drawn,
            head_rows,
        },
        false => failed(&EngineError::OutOfTurn),
    }
}
