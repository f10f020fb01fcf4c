//! One session at a stage: what it holds, and the judgement of frames.

use super::message::{Compute, StagePlan, StageView};
use crate::frame::{chunk_of, last_row, row_bytes};
use crate::retained::{Record, Retained};
use crate::shadow;
use crate::spill::{Kept, Overflow};
use bytes::Bytes;
use proto::ids::Hash;
use proto::ring::{HopBody, OpenSession, RETAINED_BYTES_MAX, RefusalCode, Rows, RowsKind};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Frames of one session that wait for the engine or are being computed. Coordinators keep at most
/// [`crate::session::FRAMES_IN_FLIGHT_MAX`] on their way.
pub const FRAMES_QUEUED_MAX: usize = 8;

const _: () = assert!(crate::session::FRAMES_IN_FLIGHT_MAX <= FRAMES_QUEUED_MAX);

/// A frame whose shape was found right.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) rows: Rows,
    pub(super) hash: Hash,
    pub(super) payload: Bytes,
}

/// What is to become of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken, after the cache is trimmed, and without its first `skip` rows, which are here.
    Take { trim: Option<u32>, skip: u32 },
    /// Computed before from the same input.
    Repeat(Bytes),
    /// Being computed from the same input; the output goes out when it is there.
    Wait,
    /// Nothing to do.
    Ignore,
    /// Refused, with a sentence for people.
    Refuse(RefusalCode, String),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Entry {
    open: OpenSession,
    epoch: u32,
    heard_ms: u64,
    /// Rows in the cache whose output is known.
    length: u32,
    /// Frames taken and not computed, at most [`FRAMES_QUEUED_MAX`]; together they follow `length` without a gap.
    queue: VecDeque<Queued>,
    /// The epoch under which the engine got the front of the queue, if it has it.
    computing: Option<u32>,
    /// What came of the front of the queue before it was said how to go on.
    early: Option<Bytes>,
    retained: Retained,
    /// BLAKE3 of the input of the row before `length`.
    last_input: Option<Hash>,
    /// Nothing was taken under this epoch yet, so frames may trim.
    fresh: bool,
    /// The first of the rows of the newest frame that are guesses: the next frame may begin there or behind.
    guessed_from: Option<u32>,
    /// The epoch was answered, and how to go on was not said yet. Frames that come meanwhile wait in `held`.
    awaiting: bool,
    held: Vec<Input>,
    /// Outputs before this position are not forwarded: the next stage has them.
    forwards_from: u32,
    /// The stage moved to another ring under this epoch: outputs are kept and not forwarded.
    detached: bool,
    /// The engine failed under this epoch.
    failed: bool,
    /// The coordinator was told of a refusal under this epoch.
    told: bool,
    /// The coordinator was told of an old frame under this epoch. Counted by itself, since late frames are normal
    /// after a change of epoch and must not silence a real refusal.
    told_old: bool,
}

#[derive(Debug)]
struct Queued {
    rows: Rows,
    hash: Hash,
    /// BLAKE3 of the last row.
    last: Hash,
    /// Empty once the engine has it.
    payload: Bytes,
}

impl Entry {
    pub(super) fn new(open: OpenSession, now_ms: u64, overflow: Option<Overflow>) -> Self {
        Self {
            open,
            epoch: open.epoch,
            heard_ms: now_ms,
            length: 0,
            queue: VecDeque::new(),
            computing: None,
            early: None,
            retained: Retained::spilling(overflow),
            last_input: None,
            fresh: false,
            guessed_from: None,
            awaiting: false,
            held: Vec::new(),
            forwards_from: 0,
            detached: false,
            failed: false,
            told: false,
            told_old: false,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn positions_max(&self) -> u32 {
        self.open.positions_max
    }

    pub(super) fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Of the last row that went in and that came out, as far as they are known.
    pub(super) fn last_hashes(&self, embedding_length: u32) -> (Option<Hash>, Option<Hash>) {
        let ending = self.retained.ending_at(self.length);
        let output = ending.and_then(|record| record.output.read());
        let output = output.map(|output| last_row(&output, embedding_length));
        (self.last_input, output)
    }

    /// What of an output goes on to the next stage: how many of its first rows do not; `None` when nothing does.
    pub(super) fn forwards(&self, rows: &Rows) -> Option<u32> {
        let skip = self.forwards_from.saturating_sub(rows.position);
        (!self.detached && skip < rows.rows).then_some(skip)
    }

    pub(super) fn detach(&mut self) {
        self.detached = true;
    }

    pub(super) fn is_awaiting(&self) -> bool {
        self.awaiting
    }

    pub(super) fn await_resume(&mut self) {
        self.awaiting = true;
    }

    /// Keeps a frame until it was said how to go on. False when there is no room for it.
    pub(super) fn hold(&mut self, input: Input, bytes_max: usize) -> bool {
        let bytes = |input: &Input| input.payload.len();
        let fits = self.held.iter().map(bytes).sum::<usize>() + bytes(&input) <= bytes_max;
        if fits {
            self.held.push(input);
        }
        fits
    }

    /// How to go on was said; the frames that waited for it.
    pub(super) fn resume(&mut self, from: u32) -> Vec<Input> {
        (self.awaiting, self.fresh) = (false, false);
        self.forwards_from = from;
        std::mem::take(&mut self.held)
    }

    /// Retained outputs from `from` on, in frames of the grid that also end at `wanted`; else the end of those that cannot be read any
    /// more.
    pub(super) fn again(
        &self,
        from: u32,
        wanted: u32,
        embedding_length: u32,
    ) -> Result<Vec<(u32, u32, Bytes)>, u32> {
        let wanted = wanted.clamp(from, self.length.max(from));
        let frames = |from, until| self.retained.frames(from, until, embedding_length);
        Ok([frames(from, wanted)?, frames(wanted, self.length)?].concat())
    }

    /// What whoever stands by for the next stage lacks, if it has the rows before `from`.
    pub(super) fn shadow(
        &self,
        stage: u32,
        (from, until): (u32, u32),
        embedding_length: u32,
    ) -> Option<Vec<(HopBody, Bytes)>> {
        let open = OpenSession {
            epoch: self.epoch,
            ..self.open
        };
        let span = (from, until.min(self.length));
        shadow::frames(&self.retained, (open, stage), span, embedding_length)
    }

    /// The engine's caches are gone.
    pub(super) fn lose_cache(&mut self) {
        self.fail();
        self.length = 0;
        self.last_input = None;
        self.retained.clear();
    }

    /// Epoch and position of what the engine has.
    pub(super) fn computing(&self) -> Option<(u32, u32)> {
        self.computing
            .zip(self.computing_rows().map(|rows| rows.position))
    }

    /// The head of the frame that the engine has.
    pub(super) fn computing_rows(&self) -> Option<Rows> {
        self.queue
            .front()
            .filter(|_| self.computing.is_some())
            .map(|queued| queued.rows)
    }

    pub(super) fn view(&self) -> StageView {
        StageView {
            epoch: self.epoch,
            length: self.length,
            accepted: self.accepted(),
            queued_frames: self.queue.len(),
            retained_from: self.retained.from().unwrap_or(self.length),
            retained_bytes: self.retained.bytes(),
        }
    }

    /// The end of the rows that were taken.
    fn accepted(&self) -> u32 {
        self.queue.back().map_or(self.length, |queued| {
            queued.rows.position + queued.rows.rows
        })
    }

    /// A repeated opening is passed on again, since the repetition may be needed further down.
    pub(super) fn judge_open(&self, open: &OpenSession) -> Result<(), (RefusalCode, String)> {
        self.judge_newer(open.epoch)?;
        if open.positions_max == self.open.positions_max {
            return Ok(());
        }
        let (first, then) = (self.open.positions_max, open.positions_max);
        Err((
            RefusalCode::Conflict,
            format!("opened for {first} positions, then for {then}"),
        ))
    }

    pub(super) fn judge_epoch(&self, epoch: u32) -> Result<(), (RefusalCode, String)> {
        self.judge_newer(epoch)?;
        if epoch == self.epoch {
            return Ok(());
        }
        Err((
            RefusalCode::OldEpoch,
            format!("epoch {epoch}, the session is at {}", self.epoch),
        ))
    }

    fn judge_newer(&self, epoch: u32) -> Result<(), (RefusalCode, String)> {
        if epoch <= self.epoch {
            return Ok(());
        }
        Err((
            RefusalCode::UnknownEpoch,
            format!("epoch {epoch}, the newest is {}", self.epoch),
        ))
    }

    /// Judges a frame of the present epoch. Changes nothing.
    pub(super) fn judge(&self, input: &Input) -> Verdict {
        let Rows {
            position,
            rows,
            kind,
            ..
        } = input.rows;
        let accepted = self.accepted();
        let replayed = (kind == RowsKind::Replay).then(|| accepted.saturating_sub(position));
        match (replayed, position.cmp(&accepted)) {
            (Some(here), _) if here >= rows => Verdict::Ignore,
            (Some(here), Ordering::Less | Ordering::Equal) => self.take_replay(input, here),
            (None, Ordering::Equal) => self.take_or_wait(None, 0),
            (_, Ordering::Greater) => {
                let detail = format!("position {position}, the rows here end at {accepted}");
                Verdict::Refuse(RefusalCode::Gap, detail)
            }
            (None, Ordering::Less) => self.judge_again(input),
        }
    }

    fn take_or_wait(&self, trim: Option<u32>, skip: u32) -> Verdict {
        if self.queue.len() < FRAMES_QUEUED_MAX {
            return Verdict::Take { trim, skip };
        }
        let detail = format!("{FRAMES_QUEUED_MAX} frames wait here, no more fit");
        Verdict::Refuse(RefusalCode::NoRoom, detail)
    }

    /// What was retained elsewhere comes at once: as many bytes may wait as a stage retains.
    fn take_replay(&self, input: &Input, skip: u32) -> Verdict {
        let waiting: usize = self.queue.iter().map(|queued| queued.payload.len()).sum();
        if waiting + input.payload.len() <= RETAINED_BYTES_MAX {
            return Verdict::Take { trim: None, skip };
        }
        let detail = format!("{waiting} bytes of replayed rows wait here, no more fit");
        Verdict::Refuse(RefusalCode::NoRoom, detail)
    }

    /// Judges a frame that begins before the end of the rows taken.
    fn judge_again(&self, input: &Input) -> Verdict {
        let Rows { position, rows, .. } = input.rows;
        let conflict = || {
            let detail = format!("position {position} came before with other rows");
            Verdict::Refuse(RefusalCode::Conflict, detail)
        };
        let forgotten = |before: u32| {
            let detail = format!("outputs before {before} are gone");
            Verdict::Refuse(RefusalCode::Forgotten, detail)
        };
        if let Some(queued) = self
            .queue
            .iter()
            .find(|queued| queued.rows.position == position)
        {
            let same = queued.rows.rows == rows && queued.hash == input.hash;
            return if same { Verdict::Wait } else { conflict() };
        }
        if self.replaces_guesses(position) {
            return self.take_or_wait(Some(position), 0);
        }
        let same = |record: &&Record| {
            record.rows + record.replaced == rows && record.input == Some(input.hash)
        };
        match self.retained.find(position).filter(same) {
            // What came of it was of use, and has gone on.
            Some(record) if record.replaced > 0 => Verdict::Ignore,
            Some(record) => match record.output.read() {
                Some(output) => Verdict::Repeat(output),
                None => forgotten(record.end()),
            },
            None if self.fresh => self.take_or_wait(Some(position), 0),
            None if position < self.view().retained_from => forgotten(self.view().retained_from),
            None => conflict(),
        }
    }

    /// Whether rows from here on were guesses, which others may take the place of. Nobody does before their outputs have gone on.
    fn replaces_guesses(&self, position: u32) -> bool {
        let guesses = self.guessed_from.map(|from| from..self.length);
        self.queue.is_empty() && guesses.is_some_and(|guesses| guesses.contains(&position))
    }

    pub(super) fn heard(&mut self, now_ms: u64) {
        self.heard_ms = self.heard_ms.max(now_ms);
    }

    /// Somebody downstream wants the output of a frame that was only replayed so far.
    pub(super) fn promise(&mut self, rows: &Rows) {
        let queued = self
            .queue
            .iter_mut()
            .find(|queued| queued.rows.position == rows.position);
        if let Some(queued) = queued.filter(|queued| queued.rows.kind == RowsKind::Replay) {
            queued.rows.kind = rows.kind;
        }
    }

    /// Queues a frame without its first `skip` rows.
    pub(super) fn take(&mut self, input: Input, skip: u32, embedding_length: u32) {
        let Input {
            mut rows,
            mut hash,
            mut payload,
        } = input;
        if skip > 0 {
            rows.position += skip;
            rows.rows -= skip;
            rows.chunk = chunk_of(rows.position);
            payload = payload.slice(skip as usize * row_bytes(embedding_length)..);
            hash = Hash::of(&payload);
        }
        self.fresh = false;
        let end = rows.position + rows.rows;
        self.guessed_from = (rows.guessed > 0).then(|| end - rows.guessed);
        let last = last_row(&payload, embedding_length);
        self.queue.push_back(Queued {
            rows,
            hash,
            last,
            payload,
        });
    }

    /// Hands the front of the queue to the engine, unless the engine has it.
    pub(super) fn next_compute(&mut self) -> Option<Compute> {
        if self.computing.is_some() || self.early.is_some() {
            return None;
        }
        let Queued { rows, payload, .. } = self.queue.front_mut()?;
        self.computing = Some(self.epoch);
        Some(Compute {
            session: rows.session,
            epoch: self.epoch,
            position: rows.position,
            rows: rows.rows,
            payload: std::mem::take(payload),
        })
    }

    /// The engine is done with the front of the queue.
    pub(super) fn commit(&mut self, output: Bytes, retained_bytes_max: usize) {
        let front = self.queue.pop_front();
        let Queued {
            rows, hash, last, ..
        } = front.expect("a frame is being computed");
        self.computing = None;
        self.length = rows.position + rows.rows;
        self.last_input = Some(last);
        let (position, input) = (rows.position, Some(hash));
        self.retained.push(Record {
            position,
            rows: rows.rows,
            input,
            replaced: 0,
            output: Kept::Here(output),
        });
        self.retained.shrink(retained_bytes_max, self.length);
    }

    /// Ends the epoch's work here; the cache holds what was committed.
    pub(super) fn fail(&mut self) {
        self.queue.clear();
        self.held.clear();
        (self.computing, self.early) = (None, None);
        self.failed = true;
    }

    /// Begins `epoch` if it is newer. Says whether the engine was at work for nothing, so that its cache may be too long. What it makes of
    /// replayed rows may be of use yet, where it will be said how to go on.
    pub(super) fn advance(&mut self, epoch: u32, goes_on: bool) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        self.epoch = epoch;
        let was_busy = self.computing.is_some() || self.early.is_some();
        let replays = |rows: Rows| rows.kind == RowsKind::Replay;
        let may_do = self.early.is_some() || self.computing_rows().is_some_and(replays);
        let is_kept = goes_on && may_do;
        self.queue.truncate(usize::from(is_kept));
        if !is_kept {
            (self.computing, self.early) = (None, None);
        }
        self.held.clear();
        (self.fresh, self.guessed_from) = (true, None);
        (self.awaiting, self.detached, self.forwards_from) = (false, false, 0);
        (self.failed, self.told, self.told_old) = (false, false, false);
        was_busy && !is_kept
    }

    /// The engine is done with the front of the queue, and how to go on was not said yet.
    pub(super) fn is_early(&mut self, output: &Bytes) -> bool {
        if self.awaiting {
            (self.computing, self.early) = (None, Some(output.clone()));
        }
        self.awaiting
    }

    /// It was said how to go on, from `keep` rows here and `wanted` at the coordinator: what the engine was at work at under the
    /// epoch before is taken, if it is of use. False when it is not, so that the cache may be too long.
    pub(super) fn settle(&mut self, keep: u32, wanted: u32, retained_bytes_max: usize) -> bool {
        let Some(front) = self.queue.front() else {
            return true;
        };
        if keep < self.length || front.rows.position + front.rows.rows > wanted {
            self.queue.clear();
            (self.computing, self.early) = (None, None);
            return false;
        }
        if let Some(output) = self.early.take() {
            self.commit(output, retained_bytes_max);
        }
        true
    }

    /// Takes rows from `length` on back.
    pub(super) fn trim(&mut self, length: u32, plan: &StagePlan) {
        match self.replaces_guesses(length) {
            true => self.retained.replace(length, plan.embedding_length),
            false => self.retained.cut(length, plan.embedding_length),
        }
        self.length = length;
        self.last_input = None;
    }

    /// What ends before `position` cannot be sent again.
    pub(super) fn forget(&mut self, position: u32) {
        self.retained.forget_below(position);
    }

    pub(super) fn acknowledge(&mut self, position: u32) {
        self.retained.forget_below(position.min(self.length));
    }

    /// Whether a refusal is news to the coordinator; from then on it is not.
    pub(super) fn may_tell(&mut self, code: RefusalCode) -> bool {
        let told = match code {
            RefusalCode::OldEpoch => &mut self.told_old,
            _ => &mut self.told,
        };
        !std::mem::replace(told, true)
    }
}
