//! One remote stage of a ring, for many sessions.
//!
//! # Story
//!
//! The node that hosts a stage owns one [`Stage`] for as long as the ring is open. It turns what comes in (frames on the
//! hop from the predecessor, control on the link from the coordinator, answers of the engine, a clock tick about once
//! a second) into [`Event`]s, and carries out the [`Effect`]s it gets back, *in their order*. Calls to the engine for one session
//! must reach it in that order too; at most one [`Effect::Compute`] a session and epoch is unanswered at any time.
//!
//! The rules, for a frame at `position` of a session whose accepted rows end at `length`:
//!
//! | frame | verdict |
//! | --- | --- |
//! | at `length` | taken: queued, computed in order, output kept and forwarded |
//! | before it, same rows and same hash as before | the stored output goes out again; once, if still being computed |
//! | before it, at a row that the newest frame guessed | taken in place of that row and those behind it |
//! | before it, another input | [`RefusalCode::Conflict`] |
//! | before it, output no longer kept | [`RefusalCode::Forgotten`] |
//! | behind it | [`RefusalCode::Gap`] |
//! | of an older epoch, or one never announced | [`RefusalCode::OldEpoch`], [`RefusalCode::UnknownEpoch`] |
//! | of a wrong shape or beyond the session | [`RefusalCode::BadShape`] |
//! | replay of rows that are here | ignored: they only rebuild caches further up |
//! | session closed | ignored: it was on its way when the session ended |
//!
//! A new epoch aborts what is queued or being computed and leaves the committed rows; but what the engine makes of replayed rows is kept,
//! where the session goes on over another ring and can use it. Until the first frame is taken
//! under it, a frame before `length` that is no exact repeat trims the cache to its position instead of being refused: that is how a coordinator
//! takes rejected rows back. When stages may be new ([`NewEpoch::positions_max`](proto::ring::NewEpoch)), frames wait until the
//! coordinator has said what stays here and what the next stage lacks ([`Event::Resume`]): retained outputs go out again from
//! there on, and nothing that the next stage has. A refusal changes nothing about a session; it is told to the coordinator once an epoch.
//! A failure of the engine ends the session's epoch here: told once, and every frame is ignored until the next.
//!
//! A session ends when the coordinator closes it, or when nothing was heard of it for [`LEASE_MS`].
//!
//! ```
//! use bytes::Bytes;
//! use proto::ids::{RingId, SessionId};
//! use proto::ring::{OpenSession, RETAINED_BYTES_MAX, Rows, RowsKind};
//! use swarm::stage::{Effect, Event, Stage, StagePlan};
//!
//! let plan = StagePlan {
//!     ring: RingId([1; 16]),
//!     stage: 1,
//!     stages: 1,
//!     embedding_length: 2,
//!     positions_max: 512,
//!     sessions_max: 4,
//!     retained_bytes_max: RETAINED_BYTES_MAX,
//! };
//! let mut stage = Stage::new(plan)?;
//! let session = SessionId([2; 16]);
//! stage.handle(Event::Open(OpenSession { session, epoch: 1, positions_max: 512 }), 0);
//!
//! let rows = Rows { session, epoch: 1, position: 0, rows: 1, chunk: 0, stage: 0, kind: RowsKind::Decode, guessed: 0 };
//! let effects = stage.handle(Event::Rows { rows, payload: Bytes::from(vec![0; 8]) }, 5);
//! let Effect::Compute(compute) = &effects[0] else { panic!("{effects:?}") };
//! // ... the node sends `compute.run()` and `compute.payload` to its engine, and some time later:
//! let output = Bytes::from(vec![0; 8]);
//! let done = Event::Computed { session, epoch: compute.epoch, position: compute.position, output };
//! assert!(matches!(stage.handle(done, 9)[..], [Effect::Forward { .. }]));
//! # Ok::<(), swarm::stage::StageError>(())
//! ```

mod entry;
mod goes_on;
mod message;
#[cfg(test)]
mod tests;
mod tombs;

pub use entry::FRAMES_QUEUED_MAX;
pub use message::{Compute, Effect, Event, StageError, StagePlan, StageView};
pub use tombs::TOMBS_MAX;

use crate::frame::{EMBEDDING_LENGTH_MAX, Shape, check_payload, chunk_of, clean, row_bytes};
use crate::spill::{Overflow, Spills};
use bytes::Bytes;
use entry::{Entry, Input, Verdict};
use proto::host::SESSIONS_MAX;
use proto::ids::{Hash, RingId, SessionId};
use proto::ring::{
    Ack, HopBody, LEASE_MS, LinkBody, OpenSession, RefusalCode, Rows, STAGES_MAX, SessionFailed,
    SessionRef,
};
use std::collections::BTreeMap;
use std::fmt;
use tombs::{Tomb, Tombs};

/// The machine of one stage; see the [module](self).
pub struct Stage {
    plan: StagePlan,
    /// Open sessions, at most [`StagePlan::sessions_max`].
    entries: BTreeMap<SessionId, Entry>,
    tombs: Tombs,
    /// Where sessions put outputs away, and how many bytes of them stay in memory.
    spills: Option<(Spills, usize)>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            plan,
            entries,
            tombs,
            ..
        } = self;
        f.debug_struct("Stage")
            .field("plan", plan)
            .field("entries", entries)
            .field("tombs", tombs)
            .finish_non_exhaustive()
    }
}

impl Stage {
    /// A stage without sessions.
    ///
    /// # Errors
    ///
    /// [`StageError`] when the plan cannot be carried out by anybody.
    pub fn new(plan: StagePlan) -> Result<Self, StageError> {
        if !(1..=EMBEDDING_LENGTH_MAX).contains(&plan.embedding_length) {
            return Err(StageError::Embedding {
                embedding_length: plan.embedding_length,
            });
        }
        if plan.stage == 0 || plan.stage > plan.stages || plan.stages > STAGES_MAX {
            return Err(StageError::Stage {
                stage: plan.stage,
                stages: plan.stages,
            });
        }
        if plan.sessions_max == 0 || plan.sessions_max > SESSIONS_MAX {
            return Err(StageError::Sessions {
                sessions: plan.sessions_max,
            });
        }
        if plan.positions_max == 0 {
            return Err(StageError::NoPositions);
        }
        Ok(Self {
            plan,
            entries: BTreeMap::new(),
            tombs: Tombs::default(),
            spills: None,
        })
    }

    /// Lets sessions put outputs away of which more than so many bytes each are in memory.
    #[must_use]
    pub fn spilling(self, spills: Spills, memory_bytes_max: usize) -> Self {
        Self {
            spills: Some((spills, memory_bytes_max)),
            ..self
        }
    }

    /// Takes in what happened at `now_ms` of a clock that never goes back, and says what to do, in order.
    pub fn handle(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Open(open) => self.open(open, now_ms, &mut out),
            Event::Rows { rows, payload } => self.rows(rows, payload, now_ms, &mut out),
            Event::Computed {
                session,
                epoch,
                position,
                output,
            } => {
                self.computed(session, (epoch, position), output, &mut out);
            }
            Event::ComputeFailed {
                session,
                epoch,
                position,
                detail,
            } => {
                if self.entry_computing(session, (epoch, position)).is_some() {
                    self.engine_failed(session, &detail, &mut out);
                }
            }
            Event::Ack(ack) => self.ack(ack, now_ms),
            Event::Epoch(epoch) => self.epoch(epoch, now_ms, &mut out),
            Event::Resume(resume) => self.resume(resume, now_ms, &mut out),
            Event::Close(at) => self.close(at, &mut out),
            Event::SuccessorLost => self.successor_lost(&mut out),
            Event::CachesLost => self.caches_lost(&mut out),
            Event::Tick => self.tick(now_ms, &mut out),
        }
        out
    }

    /// The ring goes on as another, in which this is stage `stage` of `stages`. Sessions keep what they have; nothing of theirs
    /// is forwarded until their next epoch.
    ///
    /// # Errors
    ///
    /// [`StageError`] when there is no such stage; nothing changes then.
    pub fn move_to(&mut self, ring: RingId, stage: u32, stages: u32) -> Result<(), StageError> {
        if stage == 0 || stage > stages || stages > STAGES_MAX {
            return Err(StageError::Stage { stage, stages });
        }
        (self.plan.ring, self.plan.stage, self.plan.stages) = (ring, stage, stages);
        self.entries.values_mut().for_each(Entry::detach);
        Ok(())
    }

    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.entries.len()
    }

    /// The sessions that are open.
    pub fn open_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.entries.keys().copied()
    }

    /// Where a session stands here; `None` when it is not open.
    #[must_use]
    pub fn view(&self, session: SessionId) -> Option<StageView> {
        self.entries.get(&session).map(Entry::view)
    }

    /// Frames for whoever stands by for the next stage and has the session's rows before `from`: outputs from there on, up to `until`
    /// or as far as they are computed. `None` when the session is not at this epoch here, or they are not kept.
    #[must_use]
    pub fn shadow(&self, at: SessionRef, from: u32, until: u32) -> Option<Vec<(HopBody, Bytes)>> {
        let entry = self.entries.get(&at.session)?;
        let of_it = at.ring == self.plan.ring && at.epoch == entry.epoch();
        of_it
            .then(|| entry.shadow(self.plan.stage, (from, until), self.plan.embedding_length))
            .flatten()
    }

    /// How many closed or refused sessions are remembered, at most [`TOMBS_MAX`].
    #[must_use]
    pub fn tombs(&self) -> usize {
        self.tombs.len()
    }

    fn open(&mut self, open: OpenSession, now_ms: u64, out: &mut Vec<Effect>) {
        let session = open.session;
        if let Some(entry) = self.entries.get_mut(&session) {
            match entry.judge_open(&open) {
                Ok(()) => {
                    entry.heard(now_ms);
                    self.pass_on(open, out);
                }
                Err((code, detail)) => self.refuse(session, code, &detail, out),
            }
            return;
        }
        match self.tombs.get(session) {
            Some(Tomb::Closed) => return,
            Some(Tomb::Answered) => self.tombs.remove(session),
            None => {}
        }
        if self.admit(open, now_ms, out) {
            self.pass_on(open, out);
        }
    }

    /// Opens a session that is not open, if there is room for it.
    fn admit(&mut self, open: OpenSession, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let OpenSession {
            session,
            epoch,
            positions_max,
        } = open;
        let limit = self.plan.positions_max;
        let refusal = if positions_max == 0 || positions_max > limit {
            Some((
                RefusalCode::BadShape,
                format!("{positions_max} positions, the stage has {limit}"),
            ))
        } else if self.entries.len() >= self.plan.sessions_max as usize {
            let detail = format!("{} sessions are open, no more fit", self.entries.len());
            Some((RefusalCode::NoRoom, detail))
        } else {
            None
        };
        if let Some((code, detail)) = refusal {
            self.tombs.put(session, Tomb::Answered);
            out.push(self.failed(session, epoch, code, &detail));
            return false;
        }
        let overflow = self.spills.as_ref().and_then(|(spills, memory_bytes_max)| {
            Some(Overflow {
                spill: spills()?,
                memory_bytes_max: *memory_bytes_max,
            })
        });
        self.entries
            .insert(session, Entry::new(open, now_ms, overflow));
        true
    }

    /// The last stage has nobody behind it who would open anything.
    fn pass_on(&self, open: OpenSession, out: &mut Vec<Effect>) {
        if self.plan.stage < self.plan.stages {
            out.push(Effect::Forward {
                body: HopBody::Open(open),
                payload: Bytes::new(),
            });
        }
    }

    fn rows(&mut self, rows: Rows, payload: Bytes, now_ms: u64, out: &mut Vec<Effect>) {
        let session = rows.session;
        let Some(entry) = self.entries.get_mut(&session) else {
            if self.tombs.get(session).is_none() {
                self.tombs.put(session, Tomb::Answered);
                let detail = "activations came for a session that was not opened here";
                out.push(self.failed(session, rows.epoch, RefusalCode::UnknownSession, detail));
            }
            return;
        };
        if entry.has_failed() {
            return;
        }
        if let Err((code, detail)) = entry.judge_epoch(rows.epoch) {
            return self.refuse(session, code, &detail, out);
        }
        let shape = Shape {
            from_stage: self.plan.stage - 1,
            embedding_length: self.plan.embedding_length,
            positions_max: entry.positions_max(),
        };
        if let Err(fault) = shape.check(&rows, &payload) {
            return self.refuse(session, RefusalCode::BadShape, &fault.to_string(), out);
        }
        let input = Input {
            rows,
            hash: Hash::of(&payload),
            payload,
        };
        if !entry.is_awaiting() {
            return self.take(input, now_ms, out);
        }
        if !entry.hold(input, self.plan.retained_bytes_max) {
            let detail = "too many rows came before it was said how to go on";
            self.refuse(session, RefusalCode::NoRoom, detail, out);
        }
    }

    /// Does what is to be done with a frame of the present epoch.
    fn take(&mut self, input: Input, now_ms: u64, out: &mut Vec<Effect>) {
        let (rows, session) = (input.rows, input.rows.session);
        let Some(entry) = self.entries.get_mut(&session) else {
            return;
        };
        match entry.judge(&input) {
            Verdict::Refuse(code, detail) => return self.refuse(session, code, &detail, out),
            Verdict::Ignore => {}
            Verdict::Wait => entry.promise(&rows),
            Verdict::Repeat(output) => {
                let epoch = entry.epoch();
                out.extend(forward(&self.plan, entry, epoch, &rows, output));
            }
            Verdict::Take { trim, skip } => {
                if let Some(length) = trim {
                    entry.trim(length, &self.plan);
                    out.push(Effect::TrimCache { session, length });
                }
                entry.take(input, skip, self.plan.embedding_length);
                out.extend(entry.next_compute().map(Effect::Compute));
            }
        }
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.heard(now_ms);
        }
    }

    /// The session's entry, if what the engine answers is what it waits for.
    fn entry_computing(&mut self, session: SessionId, at: (u32, u32)) -> Option<&mut Entry> {
        self.entries
            .get_mut(&session)
            .filter(|entry| entry.computing() == Some(at))
    }

    fn computed(
        &mut self,
        session: SessionId,
        at: (u32, u32),
        output: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let plan = self.plan;
        let Some(entry) = self.entry_computing(session, at) else {
            return;
        };
        let epoch = entry.epoch();
        let rows = entry.computing_rows().expect("a frame is being computed");
        if let Err(fault) = check_payload(&output, rows.rows, plan.embedding_length, plan.stage) {
            let length = entry.view().length;
            out.push(Effect::TrimCache { session, length });
            return self.engine_failed(session, &fault.to_string(), out);
        }
        if entry.is_early(&output) {
            return;
        }
        entry.commit(output.clone(), plan.retained_bytes_max);
        let compute = entry.next_compute();
        out.extend(forward(&plan, entry, epoch, &rows, output));
        out.extend(compute.map(Effect::Compute));
    }

    fn engine_failed(&mut self, session: SessionId, detail: &str, out: &mut Vec<Effect>) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.fail();
            self.refuse(session, RefusalCode::EngineFailed, detail, out);
        }
    }

    fn ack(&mut self, Ack { at, position }: Ack, now_ms: u64) {
        if let Some(entry) = self.entries.get_mut(&at.session) {
            entry.heard(now_ms);
            if at.epoch == entry.epoch() {
                entry.acknowledge(position);
            }
        }
    }

    fn close(&mut self, at: SessionRef, out: &mut Vec<Effect>) {
        self.tombs.put(at.session, Tomb::Closed);
        if self.entries.remove(&at.session).is_some() {
            out.push(Effect::DropCache {
                session: at.session,
            });
        }
    }

    fn successor_lost(&mut self, out: &mut Vec<Effect>) {
        let sessions: Vec<SessionId> = self.entries.keys().copied().collect();
        for session in sessions {
            let detail = "the connection to the next stage is gone";
            self.refuse(session, RefusalCode::SuccessorLost, detail, out);
        }
    }

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let silent = |entry: &Entry| now_ms.saturating_sub(entry.heard_ms());
        let expired = self
            .entries
            .extract_if(.., |_, entry| silent(entry) >= LEASE_MS);
        for (session, entry) in expired.collect::<Vec<_>>() {
            self.tombs.put(session, Tomb::Answered);
            out.push(Effect::DropCache { session });
            let detail = format!("nothing was heard of the session for {} ms", silent(&entry));
            out.push(self.failed(session, entry.epoch(), RefusalCode::LeaseExpired, &detail));
        }
    }

    /// Tells the coordinator of an open session, unless it was told of this epoch before.
    fn refuse(
        &mut self,
        session: SessionId,
        code: RefusalCode,
        detail: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.entries.get_mut(&session) else {
            return;
        };
        if entry.may_tell(code) {
            let epoch = entry.epoch();
            out.push(self.failed(session, epoch, code, detail));
        }
    }

    fn failed(&self, session: SessionId, epoch: u32, code: RefusalCode, detail: &str) -> Effect {
        Effect::Tell(LinkBody::SessionFailed(SessionFailed {
            at: SessionRef {
                ring: self.plan.ring,
                session,
                epoch,
            },
            stage: self.plan.stage,
            code: Some(code),
            detail: clean(detail),
        }))
    }
}

/// An output on its way, without rows that the next stage has: the input's head with our name on it.
fn forward(
    plan: &StagePlan,
    entry: &Entry,
    epoch: u32,
    rows: &Rows,
    payload: Bytes,
) -> Option<Effect> {
    let skip = entry.forwards(rows)?;
    let position = rows.position + skip;
    let body = HopBody::Rows(Rows {
        epoch,
        position,
        rows: rows.rows - skip,
        guessed: rows.guessed.min(rows.rows - skip - 1),
        chunk: chunk_of(position),
        stage: plan.stage,
        ..*rows
    });
    let payload = payload.slice(skip as usize * row_bytes(plan.embedding_length)..);
    Some(Effect::Forward { body, payload })
}
