//! One request over a ring: carries out what its `swarm::session` machine wants.

use super::Ring;
use crate::requests::Reply;
use bytes::Bytes;
use engine::{Answers, EngineError, Host};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use proto::host::{Answer, Run};
use proto::ids::SessionId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use swarm::session::{Effect, Event, FinishReason, Session, SessionFault, SessionPlan};
use tokio::time::{Instant, MissedTickBehavior};

/// How often the machine is told the time.
const TICK: Duration = Duration::from_millis(250);

/// How a session ended.
pub(crate) type End = Result<FinishReason, SessionFault>;

/// Runs a session to its end; tokens go to `reply`, and it is cancelled when nobody listens there any more.
pub(crate) async fn run(
    ring: Arc<Ring>,
    plan: SessionPlan,
    session: Session,
    reply: &Reply,
) -> End {
    let id = plan.session;
    let host = match ring.engine.host() {
        Ok(host) => host,
        Err(error) => {
            return Err(SessionFault::Engine {
                detail: error.to_string(),
            });
        }
    };
    let mailbox = ring.enter(id);
    let _left = Left {
        ring: ring.clone(),
        session: id,
    };
    Runner {
        ring,
        host,
        id,
        session,
        engine: FuturesUnordered::new(),
        begun: Instant::now(),
    }
    .run(mailbox, reply)
    .await
}

/// Whatever ends the task, the mailbox is freed.
struct Left {
    ring: Arc<Ring>,
    session: SessionId,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.ring.leave(self.session);
    }
}

struct Runner {
    ring: Arc<Ring>,
    host: Arc<Host>,
    id: SessionId,
    session: Session,
    /// Calls to the engine that are not answered.
    engine: FuturesUnordered<BoxFuture<'static, Event>>,
    begun: Instant,
}

impl Runner {
    async fn run(mut self, mut mailbox: tokio::sync::mpsc::Receiver<Event>, reply: &Reply) -> End {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Event::Start;
        loop {
            if let Some(end) = self.handle(next, reply).await {
                return end;
            }
            next = tokio::select! {
                biased;
                () = reply.closed() => Event::Cancel,
                event = mailbox.recv() => event.unwrap_or_else(|| Event::EngineFailed {
                    detail: "the ring delivered more than was asked for".to_owned(),
                }),
                Some(event) = self.engine.next() => event,
                _ = ticks.tick() => Event::Tick,
            };
        }
    }

    /// Feeds the machine, and carries out what it wants, in order.
    async fn handle(&mut self, event: Event, reply: &Reply) -> Option<End> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now_ms = self.begun.elapsed().as_millis() as u64;
            for effect in self.session.handle(event, now_ms) {
                match effect {
                    Effect::RunHead(run) => events.extend(self.call(run, Bytes::new())),
                    Effect::RunTail { run, payload } => {
                        events.extend(self.call(run, payload));
                    }
                    Effect::Forward { body, payload } => {
                        if let Err(stage) = self.ring.forward(body, payload).await {
                            events.push_back(Event::LinkLost { stage });
                        }
                    }
                    Effect::Tell { stage, body } => self.tell(stage, body),
                    Effect::Token(drawn) if drawn.end => {}
                    Effect::Token(drawn) => reply.token(drawn).await,
                    Effect::Suspect(s) => {
                        tracing::warn!(kind = ?s.kind, waited_ms = s.waited_ms, "the ring is slow");
                    }
                    Effect::DropCaches => self.host.drop_session(self.id),
                    Effect::Finish(reason) => return Some(Ok(reason)),
                    Effect::Fail(fault) => return Some(Err(fault)),
                }
            }
        }
        None
    }

    fn tell(&self, stage: u32, body: proto::ring::LinkBody) {
        let host = &self.ring.stages[stage as usize - 1];
        if let Err(error) = self.ring.links.send(host.member.id, body) {
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

fn failed(error: &EngineError) -> Event {
    Event::EngineFailed {
        detail: error.to_string(),
    }
}

async fn answered(mut answers: Answers, position: u32, tail: bool) -> Event {
    match answers.next().await.unwrap_or(Err(EngineError::OutOfTurn)) {
        Ok((Answer::Rows(_), rows)) if !tail => Event::HeadDone { position, rows },
        Ok((Answer::Done, _)) if tail => Event::TailDone {
            position,
            drawn: None,
            head_rows: None,
        },
        Ok((Answer::Token(drawn), rows)) if tail => {
            let head_rows = (!rows.is_empty()).then_some(rows);
            Event::TailDone {
                position,
                drawn: Some(drawn),
                head_rows,
            }
        }
        Ok(_) => failed(&EngineError::OutOfTurn),
        Err(error) => failed(&error),
    }
}
