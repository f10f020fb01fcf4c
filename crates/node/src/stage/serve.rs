//! A hosted stage at work: carries out what its `swarm::stage` machine wants.

use super::feeder::Feeder;
use super::neighbour::{Frame, Inlet, Outlet};
use super::prepare::Prepared;
use super::spill;
use super::warm::{InUse, STANDS_BY};
use super::{Input, Needs, Refusal, refusal, refuse};
use engine::{Answers, EngineError, Supervisor};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use net::{EndReason, IncomingHop};
use proto::host::{Answer, Trim};
use proto::ids::{NodeId, SessionId};
use proto::member::Member;
use proto::ring::{
    Contract, HopBody, HopHello, LinkBody, NewEpoch, OpenRing, OpenSession, RETAINED_BYTES_MAX,
    RefusalCode, RingReady, Shadow,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use swarm::spill::MEMORY_BYTES_MAX;
use swarm::stage::{Compute, Effect, Event, Stage, StagePlan};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the machine is told the time.
const TICK: Duration = Duration::from_secs(1);
/// How long a session may wait at a full stage before it is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long a stage whose ring is broken waits for the one that goes on for it.
const LINGER: Duration = Duration::from_secs(15);

/// The task of one hosted stage.
pub(super) struct Serve {
    needs: Arc<Needs>,
    coordinator: NodeId,
    open: OpenRing,
    machine: Stage,
    /// What this node computes.
    mine: Contract,
    engine: Arc<Supervisor>,
    /// The engine-host that has the caches; `None` while there is none.
    host: Option<u64>,
    /// Goes back when the stage ends.
    _in_use: InUse,
    /// To the next stage, while the ring is whole.
    forward: Option<Outlet>,
    /// Calls the next stage of a ring that goes on.
    dialing: Option<BoxFuture<'static, Result<Outlet, Refusal>>>,
    /// The hop from the stage before, once it has called.
    hop: Option<Inlet>,
    /// It is kept for the case that another node is lost, and has no place in the ring.
    shadow: bool,
    /// Feeds whoever is kept like that for the next stage.
    feeder: Option<Feeder>,
    /// The ring is broken, or this has no place in it, and how long another one is waited for.
    lingers: Option<Instant>,
    sessions_max: usize,
    /// A session for which there is no room yet, and until when it may wait. What closes the one before comes over
    /// the link, and may be later than this one, which came over the hop.
    held: Option<(OpenSession, Instant)>,
    /// Calls to the engine that are not answered; `None` for those whose answer is not waited for.
    calls: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    begun: Instant,
    /// How many sessions there are, for status.
    sessions: Arc<AtomicU32>,
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
        needs: Arc<Needs>,
        coordinator: NodeId,
        open: OpenRing,
        (prepared, hop): (Prepared, Option<Inlet>),
        sessions: Arc<AtomicU32>,
    ) -> Result<Self, Refusal> {
        let kept = (prepared.mine, prepared.in_use);
        let mut serve = Self::shadow(needs, coordinator, open, kept, sessions)?;
        (serve.forward, serve.hop) = (Some(prepared.hop), hop);
        (serve.shadow, serve.lingers) = (false, None);
        Ok(serve)
    }

    /// A stage without a place in its ring, which is kept for a while.
    pub(super) fn shadow(
        needs: Arc<Needs>,
        coordinator: NodeId,
        open: OpenRing,
        (mine, in_use): (Contract, InUse),
        sessions: Arc<AtomicU32>,
    ) -> Result<Self, Refusal> {
        let engine = in_use.engine().clone();
        let host = engine.host()?;
        let plan = StagePlan {
            ring: open.ring,
            stage: open.stage,
            stages: open.stages,
            embedding_length: host.loaded().embedding_length,
            positions_max: open.positions_max,
            sessions_max: open.sessions_max,
            retained_bytes_max: RETAINED_BYTES_MAX,
        };
        let machine = Stage::new(plan).map_err(|error| refusal(RefusalCode::BadShape, error))?;
        let machine = machine.spilling(spill::files(needs.spill.clone()), MEMORY_BYTES_MAX);
        Ok(Self {
            needs,
            coordinator,
            machine,
            mine,
            host: Some(host.serial()),
            engine,
            _in_use: in_use,
            forward: None,
            dialing: None,
            hop: None,
            shadow: true,
            feeder: None,
            lingers: Some(Instant::now() + STANDS_BY),
            sessions_max: open.sessions_max as usize,
            open,
            held: None,
            calls: FuturesUnordered::new(),
            begun: Instant::now(),
            sessions,
        })
    }

    /// Serves, over one ring after the other, until none goes on. Dropping the future is the other end.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) -> Result<(), Refusal> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => self.told(input).await,
                    None => return Ok(()),
                },
                // What comes behind a session that waits must not overtake it.
                frame = next_frame(&mut self.hop), if self.held.is_none() => self.came(frame),
                Some(event) = self.calls.next() => event,
                reason = ended(&self.forward) => {
                    self.let_go(&refusal(
                        RefusalCode::SuccessorLost,
                        format!("the hop to the next stage ended: {reason}"),
                    ));
                    Some(Event::SuccessorLost)
                }
                called = called(&mut self.dialing) => {
                    self.dialing = None;
                    match called {
                        Ok(hop) => self.connected(hop),
                        Err(refused) => self.let_go(&refused),
                    }
                    None
                }
                () = over(self.lingers) => {
                    if self.shadow {
                        return Ok(());
                    }
                    let detail = "no ring went on for the one that broke";
                    return Err(refusal(RefusalCode::SuccessorLost, detail));
                }
                _ = ticks.tick() => Some(Event::Tick),
                open = waited(&self.held) => {
                    self.held = None;
                    Some(Event::Open(open))
                }
            };
            if self.lost_caches() {
                self.handle(Event::CachesLost).await;
            }
            if let Some(event) = event {
                self.handle(event).await;
            }
            let open = self.machine.sessions() as u32;
            self.sessions.store(open, Ordering::Relaxed);
            if let Some((open, _)) = self.held
                && !self.is_full_for(&open)
            {
                self.held = None;
                self.handle(Event::Open(open)).await;
            }
        }
    }

    /// Does what the task is told; what concerns a session is an event of the machine.
    async fn told(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Control(LinkBody::Shadow(wanted)) => self.feed(&wanted),
            Input::Control(body) => return control(body, self.open.stage),
            Input::Inlet(inlet) => (self.hop, self.held) = (Some(inlet), None),
            Input::Move(open) => self.move_to(*open),
            Input::Keep(open) => self.keep_for(*open),
            Input::Hop(hop) => self.accept(hop).await,
        }
        None
    }

    /// Nobody relies on this yet, and somebody wants it to be there for a while longer; perhaps for another ring, in which others
    /// feed it.
    fn keep_for(&mut self, open: OpenRing) {
        if !self.shadow {
            return;
        }
        self.lingers = Some(Instant::now() + STANDS_BY);
        if open.ring == self.open.ring {
            return;
        }
        let moved = self.machine.move_to(open.ring, open.stage, open.stages);
        if moved.is_ok() {
            (self.hop, self.held) = (None, None);
            self.open = open;
        }
    }

    /// Feeds whoever is kept for the next stage.
    fn feed(&mut self, wanted: &Shadow) {
        if self.shadow || wanted.stage != self.open.stage {
            return;
        }
        let feeder = self
            .feeder
            .take()
            .filter(|feeder| feeder.feeds(wanted.to.id));
        let mut feeder = feeder.unwrap_or_else(|| self.feeder(&wanted.to));
        feeder.retain(|session| self.machine.view(session).is_some());
        let fed = feeder.fed(wanted.at);
        if let Some(frames) = self.machine.shadow(wanted.at, fed, wanted.until) {
            feeder.send(wanted.at, frames);
        }
        self.feeder = Some(feeder);
    }

    fn feeder(&self, to: &Member) -> Feeder {
        let (ring, from_stage, me) = (self.open.ring, self.open.stage, self.needs.net.id());
        if to.id == me {
            let outlet = self.needs.own_shadow(me, (ring, from_stage + 1));
            return Feeder::over(me, std::future::ready(outlet));
        }
        let membership = self.needs.membership.clone();
        let hello = HopHello {
            ring,
            from_stage,
            membership,
        };
        Feeder::call(self.needs.net.clone(), to, hello)
    }

    /// A frame came from the stage before, or the hop ended.
    fn came(&mut self, frame: Result<Frame, EndReason>) -> Option<Event> {
        match frame {
            Ok((HopBody::Open(open), _)) if self.is_full_for(&open) => {
                self.held = Some((open, Instant::now() + ROOM_WAIT_MAX));
                None
            }
            Ok((HopBody::Open(open), _)) => Some(self.opens(open)),
            Ok((HopBody::Rows(rows), payload)) => Some(Event::Rows { rows, payload }),
            Err(reason) => {
                tracing::debug!(%reason, "the hop from the stage before ended");
                self.hop = None;
                None
            }
        }
    }

    /// A session begins, or goes on under another epoch: a shadow is not told by the coordinator.
    fn opens(&self, open: OpenSession) -> Event {
        let known = self.machine.view(open.session);
        if self.shadow && known.is_some_and(|known| known.epoch < open.epoch) {
            return Event::Epoch(NewEpoch {
                ring: self.open.ring,
                session: open.session,
                epoch: open.epoch,
                positions_max: None,
            });
        }
        Event::Open(open)
    }

    /// The ring goes on as another: the same stage, other neighbours. Nothing of the old ones counts any more.
    fn move_to(&mut self, open: OpenRing) {
        let moved = self.machine.move_to(open.ring, open.stage, open.stages);
        if let Err(error) = moved {
            return self.let_go(&refusal(RefusalCode::BadShape, error));
        }
        (self.forward, self.hop, self.held, self.lingers) = (None, None, None, None);
        (self.shadow, self.feeder) = (false, None);
        let (needs, wanted) = (self.needs.clone(), open.clone());
        self.dialing = Some(Box::pin(async move { needs.call_successor(&wanted).await }));
        self.open = open;
    }

    /// The next stage of the ring that goes on was reached.
    fn connected(&mut self, hop: Outlet) {
        self.forward = Some(hop);
        let ready = RingReady {
            ring: self.open.ring,
            contract: self.mine.clone(),
            load_ms: 0,
        };
        // A lost link to the coordinator ends this task.
        let _ = self
            .needs
            .links
            .send(self.coordinator, LinkBody::RingReady(ready));
    }

    /// The ring is broken here. The coordinator is told, and may let another one go on for it.
    fn let_go(&mut self, refused: &Refusal) {
        self.forward = None;
        self.lingers = Some(Instant::now() + LINGER);
        let (links, ring) = (&self.needs.links, self.open.ring);
        refuse(links, self.coordinator, ring, refused.code, &refused.detail);
    }

    /// Whether the engine ended since the last time, and with it all caches.
    fn lost_caches(&mut self) -> bool {
        let now = self.engine.host().ok().map(|host| host.serial());
        let before = std::mem::replace(&mut self.host, now);
        before.is_some() && before != now
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
                        if let Some(forward) = &mut self.forward {
                            forward.send(body, payload).await;
                        }
                    }
                    Effect::TrimCache { session, length } => self.trim(session, length),
                    Effect::DropCache { session } => {
                        if let Ok(host) = self.engine.host() {
                            host.drop_session(session);
                        }
                    }
                    // Nobody waits for a shadow, or minds its faults.
                    Effect::Tell(_) if self.shadow => {}
                    Effect::Tell(body) => {
                        // A lost link to the coordinator ends this task.
                        let _ = self.needs.links.send(self.coordinator, body);
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
pub(super) async fn admit(hop: IncomingHop, open: &OpenRing) -> Option<Inlet> {
    if hop.peer != open.predecessor || hop.hello.from_stage != open.stage - 1 {
        hop.refuse(RefusalCode::NotAMember).await;
        return None;
    }
    let hop = hop.accept().await.ok()?;
    Some(Inlet::Net(Box::new(hop)))
}

/// What the coordinator says to this stage: a node may host several of its ring.
fn control(body: LinkBody, stage: u32) -> Option<Event> {
    match body {
        LinkBody::CloseSession(at) => Some(Event::Close(at)),
        LinkBody::Ack(ack) => Some(Event::Ack(ack)),
        LinkBody::Epoch(epoch) => Some(Event::Epoch(epoch)),
        LinkBody::Resume(resume) if resume.stage == stage => Some(Event::Resume(resume)),
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

/// The end of the hop to the next stage, while there is one.
async fn ended(forward: &Option<Outlet>) -> EndReason {
    match forward {
        Some(forward) => forward.ended().await,
        None => std::future::pending().await,
    }
}

/// The answer of the next stage, while it is called.
async fn called(
    dialing: &mut Option<BoxFuture<'static, Result<Outlet, Refusal>>>,
) -> Result<Outlet, Refusal> {
    match dialing {
        Some(dialing) => dialing.await,
        None => std::future::pending().await,
    }
}

/// The end of a wait, if there is one.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

async fn next_frame(hop: &mut Option<Inlet>) -> Result<Frame, EndReason> {
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
