//! A hosted stage at work: carries out what its `swarm::stage` machine wants.

use super::{Input, Refusal, refusal};
use bytes::Bytes;
use engine::{Answers, EngineError, Supervisor};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use net::{EndReason, HopReceiver, HopSender, IncomingHop, Links};
use proto::host::{Answer, Trim};
use proto::ids::{NodeId, SessionId};
use proto::ring::{HopBody, LinkBody, OpenRing, OpenSession, RETAINED_BYTES_MAX, RefusalCode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use swarm::stage::{Compute, Effect, Event, Stage, StagePlan};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the machine is told the time.
const TICK: Duration = Duration::from_secs(1);
/// How long a session may wait at a full stage before it is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

/// The task of one hosted stage.
pub(super) struct Serve {
    links: Links,
    coordinator: NodeId,
    open: OpenRing,
    machine: Stage,
    engine: Arc<Supervisor>,
    forward: HopSender,
    /// The hop from the stage before, once it has called.
    hop: Option<HopReceiver>,
    sessions_max: usize,
    /// A session for which there is no room yet, and until when it may wait. What closes the one before comes over
    /// the link, and may be later than this one, which came over the hop.
    held: Option<(OpenSession, Instant)>,
    /// Calls to the engine that are not answered; `None` for those whose answer is not waited for.
    calls: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    begun: Instant,
}

impl Drop for Serve {
    /// The engine may be used again; its caches are free then.
    fn drop(&mut self) {
        if let Ok(host) = self.engine.host() {
            self.machine
                .open_sessions()
                .for_each(|session| host.drop_session(session));
        }
    }
}

impl Serve {
    pub(super) fn new(
        links: Links,
        coordinator: NodeId,
        open: &OpenRing,
        engine: Arc<Supervisor>,
        (hop, forward): (Option<HopReceiver>, HopSender),
    ) -> Result<Self, Refusal> {
        let loaded = engine.host()?.loaded().clone();
        let plan = StagePlan {
            ring: open.ring,
            stage: open.stage,
            stages: open.stages,
            embedding_length: loaded.embedding_length,
            positions_max: open.positions_max,
            sessions_max: open.sessions_max,
            retained_bytes_max: RETAINED_BYTES_MAX,
        };
        let machine = Stage::new(plan).map_err(|error| refusal(RefusalCode::BadShape, error))?;
        Ok(Self {
            links,
            coordinator,
            open: open.clone(),
            machine,
            engine,
            forward,
            hop,
            sessions_max: open.sessions_max as usize,
            held: None,
            calls: FuturesUnordered::new(),
            begun: Instant::now(),
        })
    }

    /// Serves until the stage behind is lost. Dropping the future is the other end.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) -> Result<(), Refusal> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                input = inbox.recv() => match input {
                    Some(Input::Control(body)) => control(body),
                    Some(Input::Hop(hop)) => {
                        self.accept(hop).await;
                        None
                    }
                    None => return Ok(()),
                },
                // What comes behind a session that waits must not overtake it.
                frame = next_frame(&mut self.hop), if self.held.is_none() => match frame {
                    Ok((HopBody::Open(open), _)) if self.is_full_for(&open) => {
                        self.held = Some((open, Instant::now() + ROOM_WAIT_MAX));
                        None
                    }
                    Ok((HopBody::Open(open), _)) => Some(Event::Open(open)),
                    Ok((HopBody::Rows(rows), payload)) => Some(Event::Rows { rows, payload }),
                    Err(reason) => {
                        tracing::debug!(%reason, "the hop from the stage before ended");
                        self.hop = None;
                        None
                    }
                },
                Some(event) = self.calls.next() => event,
                reason = self.forward.ended() => {
                    self.handle(Event::SuccessorLost).await;
                    let detail = format!("the hop to the next stage ended: {reason}");
                    return Err(refusal(RefusalCode::SuccessorLost, detail));
                }
                _ = ticks.tick() => Some(Event::Tick),
                open = waited(&self.held) => {
                    self.held = None;
                    Some(Event::Open(open))
                }
            };
            if let Some(event) = event {
                self.handle(event).await;
            }
            if let Some((open, _)) = self.held
                && !self.is_full_for(&open)
            {
                self.held = None;
                self.handle(Event::Open(open)).await;
            }
        }
    }

    /// Whether the machine would refuse this session for want of room.
    fn is_full_for(&self, open: &OpenSession) -> bool {
        self.machine.sessions() >= self.sessions_max && self.machine.view(open.session).is_none()
    }

    /// A newer hop from the stage before takes the place of an older one.
    async fn accept(&mut self, hop: IncomingHop) {
        if let Some(hop) = admit(hop, &self.open).await {
            self.hop = Some(hop);
            self.held = None;
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now_ms = self.begun.elapsed().as_millis() as u64;
            for effect in self.machine.handle(event, now_ms) {
                match effect {
                    Effect::Compute(compute) => events.extend(self.compute(compute)),
                    Effect::Forward { body, payload } => {
                        // The end of the hop is noticed by the loop.
                        let _ = self.forward.send(body, payload).await;
                    }
                    Effect::TrimCache { session, length } => self.trim(session, length),
                    Effect::DropCache { session } => {
                        if let Ok(host) = self.engine.host() {
                            host.drop_session(session);
                        }
                    }
                    Effect::Tell(body) => {
                        // A lost link to the coordinator ends this task.
                        let _ = self.links.send(self.coordinator, body);
                    }
                }
            }
        }
    }

    /// Queues a call to the engine, in order; its answer comes as an event. An event at once is a failure.
    fn compute(&mut self, compute: Compute) -> Option<Event> {
        let called = match self.engine.host() {
            Ok(host) => host.run(compute.run(), &compute.payload),
            Err(error) => Err(error),
        };
        match called {
            Ok(answers) => {
                self.calls.push(Box::pin(
                    async move { Some(computed(answers, &compute).await) },
                ));
                None
            }
            Err(error) => Some(failed(&compute, &error)),
        }
    }

    fn trim(&mut self, session: SessionId, length: u32) {
        let Ok(host) = self.engine.host() else { return };
        if let Ok(mut answers) = host.trim(Trim { session, length }) {
            self.calls.push(Box::pin(async move {
                if let Some(Err(error)) = answers.next().await {
                    // The next frame for the session then fails, since its position is not the cache's end.
                    tracing::warn!(%error, "a cache was not cut");
                }
                None
            }));
        }
    }
}

/// Takes a hop. Only the stage before may send.
pub(super) async fn admit(hop: IncomingHop, open: &OpenRing) -> Option<HopReceiver> {
    if hop.peer != open.predecessor || hop.hello.from_stage != open.stage - 1 {
        hop.refuse(RefusalCode::NotAMember).await;
        return None;
    }
    hop.accept().await.ok()
}

fn control(body: LinkBody) -> Option<Event> {
    match body {
        LinkBody::CloseSession(at) => Some(Event::Close(at)),
        LinkBody::Ack(ack) => Some(Event::Ack(ack)),
        LinkBody::Epoch(at) => Some(Event::Epoch(at)),
        _ => None,
    }
}

/// The session that has waited long enough for room.
async fn waited(held: &Option<(OpenSession, Instant)>) -> OpenSession {
    match held {
        Some((open, until)) => {
            tokio::time::sleep_until(*until).await;
            *open
        }
        None => std::future::pending().await,
    }
}

async fn next_frame(hop: &mut Option<HopReceiver>) -> Result<(HopBody, Bytes), EndReason> {
    match hop {
        Some(hop) => hop.recv().await,
        None => std::future::pending().await,
    }
}

async fn computed(mut answers: Answers, compute: &Compute) -> Event {
    match answers.next().await.unwrap_or(Err(EngineError::OutOfTurn)) {
        Ok((Answer::Rows(_), output)) => Event::Computed {
            session: compute.session,
            epoch: compute.epoch,
            position: compute.position,
            output,
        },
        Ok(_) => failed(compute, &EngineError::OutOfTurn),
        Err(error) => failed(compute, &error),
    }
}

fn failed(compute: &Compute, error: &EngineError) -> Event {
    Event::ComputeFailed {
        session: compute.session,
        epoch: compute.epoch,
        position: compute.position,
        detail: error.to_string(),
    }
}
