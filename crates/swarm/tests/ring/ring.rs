//! The stages of a ring, their engines, and the streams between all members.

use crate::engine::{EMBEDDING_LENGTH, Part, from_bytes, to_bytes};
use crate::rng::Rng;
use crate::shadow::Shadow;
use bytes::Bytes;
use proto::host::Run;
use proto::ids::{RingId, SessionId};
use proto::model::LayerRange;
use proto::ring::{HopBody, LinkBody, OpenSession, Rows};
use std::collections::VecDeque;
use std::sync::Arc;
use swarm::spill::{Away, Spill};
use swarm::stage::{Compute, Effect, Event, FRAMES_QUEUED_MAX, Stage, StagePlan};

pub(crate) const RING: RingId = RingId([1; 16]);
pub(crate) const SESSION: SessionId = SessionId([2; 16]);
/// Positions of every cache.
pub(crate) const POSITIONS_MAX: u32 = 2_000;
/// Each stage retains as many rows of 16 bytes.
pub(crate) const RETAINED_BYTES_MAX: usize = 2_200 * 16;
/// Of those as many bytes in memory.
const MEMORY_BYTES_MAX: usize = 20 * 16;
/// How many frames a hop remembers for repetition.
const LOG_FRAMES: usize = 4;

/// One of the ways in which the world may be broken, to show that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// Engines do not trim.
    ForgetTrim,
    /// A hop loses a frame and nobody learns of it.
    LoseFrame,
    /// Engines compute a frame twice.
    ComputeTwice,
    /// A bit of an activation flips.
    FlipBit,
}

/// A call on its way to an engine.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Stage(Compute),
    Coordinator(Run, Bytes),
    Trim(u32),
    Drop,
}

#[derive(Debug, Clone)]
enum Packet {
    Hop(HopBody, Bytes),
    Link(LinkBody),
    Call(Call),
}

/// Streams, in one row of queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// From a stage to the next; 0 is the coordinator, which also stands behind the last.
    Hop(usize),
    /// From the coordinator to a stage.
    Down(usize),
    /// From a stage to the coordinator.
    Up(usize),
    /// To the engine of a member; 0 is the coordinator.
    Engine(usize),
}

/// What comes to the coordinator.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Something that a stage dealt with.
    Elsewhere,
    Hop(HopBody, Bytes),
    Link(u32, LinkBody),
    Call(Call),
}

#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) stages: Vec<Stage>,
    pub(crate) parts: Vec<Part>,
    pub(crate) sabotage: Sabotage,
    pub(crate) strikes: usize,
    /// Rows that survivors computed though they had them.
    pub(crate) recomputed: usize,
    lanes: Vec<VecDeque<Packet>>,
    logs: Vec<VecDeque<(HopBody, Bytes)>>,
    /// How many rings there were.
    id: RingId,
    /// Stages that do nothing any more.
    dead: Vec<bool>,
    /// The longest cache that each stage ever had, as its machine knows.
    held: Vec<u32>,
    /// How long they are now.
    lengths: Vec<u32>,
    /// How many of their rows are not of guesses.
    sure: Vec<u32>,
    /// The same, of a frame that waits until it was said how to go on.
    waiting: Vec<Option<u32>>,
    /// Rows of guesses whose place others took.
    pub(crate) replaced: usize,
    /// All layers, undisturbed.
    pub(crate) truth: Part,
    /// Who stands by for each stage, once it was fed.
    pub(crate) shadows: Vec<Option<Shadow>>,
    /// Rows that those had who took over.
    pub(crate) spared: u32,
}

pub(crate) fn plan(ring: RingId, stage: usize, stages: usize) -> StagePlan {
    StagePlan {
        ring,
        stage: stage as u32 + 1,
        stages: stages as u32,
        embedding_length: EMBEDDING_LENGTH,
        positions_max: POSITIONS_MAX,
        sessions_max: 1,
        retained_bytes_max: RETAINED_BYTES_MAX,
    }
}

/// A stage that puts outputs away as soon as it has more than a few.
pub(crate) fn stage(ring: RingId, at: usize, stages: usize) -> Stage {
    let stage = Stage::new(plan(ring, at, stages)).expect("the plan is sound");
    stage.spilling(Box::new(|| Some(Arc::new(Shelf))), MEMORY_BYTES_MAX)
}

#[derive(Debug)]
struct Shelf;

#[derive(Debug)]
struct Item(Bytes);

impl Spill for Shelf {
    fn put(&self, bytes: &[u8]) -> Option<Arc<dyn Away>> {
        // Now and then there is no room.
        let room = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5 > 0;
        room.then(|| Arc::new(Item(Bytes::copy_from_slice(bytes))) as Arc<dyn Away>)
    }
}

impl Away for Item {
    fn read(&self) -> Option<Bytes> {
        Some(self.0.clone())
    }
}

impl Ring {
    pub(crate) fn new(rng: Rng, layers: &[LayerRange], sabotage: Sabotage, truth: Part) -> Self {
        let mut ring = Self {
            rng,
            now_ms: 0,
            stages: Vec::new(),
            parts: Vec::new(),
            sabotage,
            strikes: 0,
            recomputed: 0,
            lanes: Vec::new(),
            logs: Vec::new(),
            id: RING,
            dead: Vec::new(),
            held: Vec::new(),
            lengths: Vec::new(),
            sure: Vec::new(),
            waiting: Vec::new(),
            replaced: 0,
            truth,
            shadows: Vec::new(),
            spared: 0,
        };
        ring.furnish(layers);
        ring
    }

    /// Empty stages for these layers, and streams between them.
    fn furnish(&mut self, layers: &[LayerRange]) {
        let stages = layers.len();
        self.stages = (0..stages).map(|at| stage(self.id, at, stages)).collect();
        self.parts = layers.iter().map(|&range| Part::new(range)).collect();
        self.lanes = vec![VecDeque::new(); 4 * (stages + 1)];
        self.logs = vec![VecDeque::new(); stages + 1];
        self.dead = vec![false; stages];
        self.shadows = layers.iter().map(|_| None).collect();
        (self.held, self.lengths) = (vec![0; stages], vec![0; stages]);
        (self.sure, self.waiting) = (vec![u32::MAX; stages], vec![None; stages]);
    }

    fn next_id(&mut self) -> RingId {
        self.id.0[0] += 1;
        self.id
    }

    /// Other machines take all stages over, cut as they like. What the old ones said last may still come; says how much does.
    pub(crate) fn renew(&mut self, layers: &[LayerRange]) -> (RingId, usize) {
        let (old, stages) = (self.stages.len(), layers.len());
        let calls = std::mem::take(self.lane(Lane::Engine(0)));
        let mut late = std::mem::take(self.lane(Lane::Hop(old)));
        late.extend(std::mem::take(self.lane(Lane::Up(old))));
        let zombies: Vec<Packet> = late.into_iter().filter(|_| self.rng.once_in(2)).collect();
        let id = self.next_id();
        self.furnish(layers);
        *self.lane(Lane::Engine(0)) = calls;
        let count = zombies.len();
        for packet in zombies {
            let lane = match packet {
                Packet::Link(_) => Lane::Up(stages),
                _ => Lane::Hop(stages),
            };
            self.lane(lane).push_back(packet);
        }
        (id, count)
    }

    /// From now on a stage does nothing any more. What it said before may still come.
    pub(crate) fn kill(&mut self, at: usize) -> bool {
        for lane in [Lane::Down(at + 1), Lane::Engine(at + 1)] {
            self.lose(lane);
        }
        !std::mem::replace(&mut self.dead[at], true)
    }

    pub(crate) fn dead(&self) -> Vec<usize> {
        (0..self.dead.len()).filter(|&at| self.dead[at]).collect()
    }

    /// Empty machines take the places of those that are lost, and all others keep what they have. Old hops end; what was on
    /// them is lost, or comes late.
    pub(crate) fn mend(&mut self, lost: &[usize]) -> (RingId, usize) {
        let (id, stages) = (self.next_id(), self.stages.len());
        let mut zombies = 0;
        for hop in 0..=stages {
            let late = std::mem::take(self.lane(Lane::Hop(hop)));
            let late: Vec<Packet> = late.into_iter().filter(|_| self.rng.once_in(2)).collect();
            zombies += late.len();
            self.lane(Lane::Hop(hop)).extend(late);
        }
        for at in 0..stages {
            if !lost.contains(&at) {
                let moved = self.stages[at].move_to(id, at as u32 + 1, stages as u32);
                moved.expect("there is such a stage");
                continue;
            }
            self.kill(at);
            self.dead[at] = false;
            if let Some(shadow) = self.shadows[at].take().filter(|_| !self.rng.once_in(4)) {
                (self.stages[at], self.parts[at]) = (shadow.stage, shadow.part);
                let length = self.parts[at].length();
                (self.held[at], self.lengths[at], self.sure[at]) = (length, length, u32::MAX);
                self.spared += length;
                let moved = self.stages[at].move_to(id, at as u32 + 1, stages as u32);
                moved.expect("there is such a stage");
                continue;
            }
            let layers = self.parts[at].layers();
            self.stages[at] = stage(id, at, stages);
            self.parts[at] = Part::new(layers);
            (self.held[at], self.lengths[at], self.sure[at]) = (0, 0, u32::MAX);
        }
        self.move_shadows(id);
        (id, zombies)
    }

    /// A stage's engine is started again.
    pub(crate) fn restart(&mut self, at: usize) -> Result<(), String> {
        let calls = std::mem::take(self.lane(Lane::Engine(at + 1)));
        self.parts[at] = Part::new(self.parts[at].layers());
        (self.held[at], self.lengths[at], self.sure[at]) = (0, 0, u32::MAX);
        self.stage(at, Event::CachesLost)?;
        for packet in calls {
            if let Packet::Call(Call::Stage(compute)) = packet {
                let failed = Event::ComputeFailed {
                    session: compute.session,
                    epoch: compute.epoch,
                    position: compute.position,
                    detail: "it died".to_owned(),
                };
                self.stage(at, failed)?;
            }
        }
        Ok(())
    }

    /// The ring as it is.
    pub(crate) fn id(&self) -> RingId {
        self.id
    }

    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Packet> {
        let (kind, at) = match lane {
            Lane::Hop(at) => (0, at),
            Lane::Down(at) => (1, at),
            Lane::Up(at) => (2, at),
            Lane::Engine(at) => (3, at),
        };
        &mut self.lanes[at * 4 + kind]
    }

    fn strikes(&mut self, sabotage: Sabotage) -> bool {
        let strikes = self.sabotage == sabotage && self.rng.once_in(4);
        self.strikes += usize::from(strikes);
        strikes
    }

    pub(crate) fn forward(&mut self, from: usize, body: HopBody, mut payload: Bytes) {
        if matches!(body, HopBody::Rows(_)) && self.strikes(Sabotage::LoseFrame) {
            return;
        }
        if matches!(body, HopBody::Rows(_)) && self.strikes(Sabotage::FlipBit) {
            let mut rows = from_bytes(&payload);
            rows[0] ^= 1 << 40;
            payload = to_bytes(&rows);
        }
        let log = &mut self.logs[from];
        log.push_back((body.clone(), payload.clone()));
        if log.len() > LOG_FRAMES {
            log.pop_front();
        }
        self.lane(Lane::Hop(from))
            .push_back(Packet::Hop(body, payload));
    }

    pub(crate) fn tell(&mut self, stage: u32, body: LinkBody) {
        self.lane(Lane::Down(stage as usize))
            .push_back(Packet::Link(body));
    }

    pub(crate) fn call(&mut self, member: usize, call: Call) {
        self.lane(Lane::Engine(member))
            .push_back(Packet::Call(call));
    }

    /// A hop was connected anew: its sender repeats the newest frames.
    pub(crate) fn repeat(&mut self, from: usize) -> usize {
        let frames = self.rng.below(LOG_FRAMES) + 1;
        let log = &self.logs[from];
        let again: Vec<_> = log
            .iter()
            .skip(log.len().saturating_sub(frames))
            .cloned()
            .collect();
        let count = again.len();
        self.lane(Lane::Hop(from))
            .extend(again.into_iter().map(|(b, p)| Packet::Hop(b, p)));
        count
    }

    /// Whatever is on a lane is lost.
    pub(crate) fn lose(&mut self, lane: Lane) -> usize {
        let lane = self.lane(lane);
        let lost = lane.len();
        lane.clear();
        lost
    }

    /// Another machine takes a stage over, with nothing in its cache.
    pub(crate) fn replace(&mut self, at: usize, layers: LayerRange, epoch: u32) {
        for lane in [
            Lane::Hop(at),
            Lane::Down(at + 1),
            Lane::Up(at + 1),
            Lane::Engine(at + 1),
        ] {
            self.lose(lane);
        }
        let mut stage = stage(self.id, at, self.stages.len());
        let open = OpenSession {
            session: SESSION,
            epoch,
            positions_max: POSITIONS_MAX,
        };
        stage.handle(Event::Open(open), self.now_ms);
        self.stages[at] = stage;
        self.parts[at] = Part::new(layers);
        (self.held[at], self.lengths[at], self.sure[at]) = (0, 0, u32::MAX);
    }

    pub(crate) fn is_open_everywhere(&self) -> bool {
        self.stages.iter().all(|stage| stage.sessions() == 1)
    }

    /// Delivers from a lane of the seed's choice; `None` when all are empty.
    pub(crate) fn step(&mut self) -> Result<Option<Arrival>, String> {
        let busy: Vec<usize> = (0..self.lanes.len())
            .filter(|&lane| !self.lanes[lane].is_empty())
            .collect();
        if busy.is_empty() {
            return Ok(None);
        }
        self.now_ms += self.rng.below(4) as u64;
        let lane = busy[self.rng.below(busy.len())];
        let (at, packet) = (
            lane / 4,
            self.lanes[lane].pop_front().expect("the lane is busy"),
        );
        let members = self.stages.len() + 1;
        let to = match lane % 4 {
            0 if at + 1 < members => Some(at),
            1 | 3 => at.checked_sub(1),
            _ => None,
        };
        if to.is_some_and(|to| self.dead[to]) {
            return Ok(Some(Arrival::Elsewhere));
        }
        Ok(Some(match packet {
            Packet::Hop(body, payload) if at + 1 == members => Arrival::Hop(body, payload),
            Packet::Hop(HopBody::Open(open), _) => self.stage(at, Event::Open(open))?,
            Packet::Hop(HopBody::Rows(rows), payload) => self.rows(at, rows, payload)?,
            Packet::Link(body) if lane % 4 == 2 => Arrival::Link(at as u32, body),
            Packet::Link(LinkBody::Ack(ack)) => self.stage(at - 1, Event::Ack(ack))?,
            Packet::Link(LinkBody::Epoch(epoch)) => {
                self.waiting[at - 1] = None;
                self.stage(at - 1, Event::Epoch(epoch))?
            }
            Packet::Link(LinkBody::Resume(resume)) => {
                // From now on nothing may be there that is not sure, but for what waited for this.
                self.sure[at - 1] = self.waiting[at - 1].take().unwrap_or(u32::MAX);
                self.stage(at - 1, Event::Resume(resume))?
            }
            Packet::Link(LinkBody::CloseSession(end)) => self.stage(at - 1, Event::Close(end))?,
            Packet::Link(other) => return Err(format!("to stage {at}: {other:?}")),
            Packet::Call(call) if at == 0 => Arrival::Call(call),
            Packet::Call(call) => self.compute(at - 1, call)?,
        }))
    }

    /// A frame comes to a stage.
    fn rows(&mut self, at: usize, rows: Rows, payload: Bytes) -> Result<Arrival, String> {
        let view = |ring: &Self| {
            let view = ring.stages[at].view(SESSION);
            view.map(|view| (view.length, view.accepted))
        };
        let (before, sure) = (view(self), self.sure[at]);
        let then_sure = match rows.guessed {
            0 => u32::MAX,
            guessed => rows.position + rows.rows - guessed,
        };
        self.sure[at] = sure.min(then_sure);
        let held = self.held[at];
        self.held[at] = held.min(rows.position);
        let arrival = self.stage(at, Event::Rows { rows, payload })?;
        let after = view(self);
        let replaced = before
            .zip(after)
            .map_or(0, |(long, short)| long.0.saturating_sub(short.0));
        self.replaced += replaced as usize;
        if replaced == 0 {
            self.held[at] = held;
        }
        if before == after {
            (self.sure[at], self.waiting[at]) = (sure, Some(then_sure));
        } else {
            self.sure[at] = then_sure;
        }
        Ok(arrival)
    }

    fn compute(&mut self, at: usize, call: Call) -> Result<Arrival, String> {
        match call {
            Call::Stage(Compute {
                session,
                epoch,
                position,
                payload,
                ..
            }) => {
                let rows = from_bytes(&payload);
                let output = self.parts[at].run(position, &rows)?;
                if self.strikes(Sabotage::ComputeTwice) {
                    self.parts[at].run(position, &rows)?;
                }
                let output = to_bytes(&output);
                self.stage(
                    at,
                    Event::Computed {
                        session,
                        epoch,
                        position,
                        output,
                    },
                )
            }
            Call::Trim(length) => {
                if !self.strikes(Sabotage::ForgetTrim) {
                    self.parts[at].trim(length)?;
                }
                Ok(Arrival::Elsewhere)
            }
            Call::Drop => {
                self.parts[at].trim(0)?;
                Ok(Arrival::Elsewhere)
            }
            Call::Coordinator(run, _) => Err(format!("to the engine of a stage: {run:?}")),
        }
    }

    pub(crate) fn stage(&mut self, at: usize, event: Event) -> Result<Arrival, String> {
        for effect in self.stages[at].handle(event, self.now_ms) {
            match effect {
                Effect::Compute(compute) => self.call(at + 1, Call::Stage(compute)),
                Effect::Forward { body, payload } => self.forward(at + 1, body, payload),
                Effect::TrimCache { length, .. } => self.call(at + 1, Call::Trim(length)),
                Effect::DropCache { .. } => self.call(at + 1, Call::Drop),
                Effect::Tell(body) => {
                    self.lane(Lane::Up(at + 1)).push_back(Packet::Link(body));
                }
            }
        }
        self.check(at)?;
        Ok(Arrival::Elsewhere)
    }

    /// What holds for a stage after every step.
    fn check(&mut self, at: usize) -> Result<(), String> {
        let Some(view) = self.stages[at].view(SESSION) else {
            return Ok(());
        };
        let known = self.held[at].min(view.length);
        self.recomputed += known.saturating_sub(self.lengths[at]) as usize;
        self.lengths[at] = view.length;
        // Guesses count for nothing.
        self.held[at] = self.held[at].max(view.length.min(self.sure[at]));
        // What lies behind is about to be cut.
        let sure = self.sure[at].min(view.length);
        if self.sabotage == Sabotage::None && !self.parts[at].is_begun_as(&self.truth, sure) {
            return Err(format!("stage {}: its cache holds other rows", at + 1));
        }
        let sane = view.retained_from <= view.length
            && view.length <= view.accepted
            && view.accepted <= POSITIONS_MAX
            && view.queued_frames <= FRAMES_QUEUED_MAX
            && view.retained_bytes <= RETAINED_BYTES_MAX;
        if !sane {
            return Err(format!("stage {}: {view:?}", at + 1));
        }
        let idle = self.lane(Lane::Engine(at + 1)).is_empty();
        let length = self.parts[at].length();
        if idle && length != view.length && view.queued_frames == 0 {
            return Err(format!("stage {}: a cache of {length}, {view:?}", at + 1));
        }
        Ok(())
    }

    /// What holds at the end: nobody keeps anything.
    pub(crate) fn check_empty(&self) -> Result<(), String> {
        let alive = |at: &usize| !self.dead[*at];
        let all = || (0..self.stages.len()).filter(alive);
        let open: usize = all().map(|at| self.stages[at].sessions()).sum();
        let rows: u32 = all().map(|at| self.parts[at].length()).sum();
        if open > 0 || rows > 0 {
            return Err(format!(
                "{open} sessions and {rows} cached rows are left over"
            ));
        }
        Ok(())
    }
}
