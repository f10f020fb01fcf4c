//! Rows taken back: a driver in the coordinator's place goes back under new epochs, with the same rows or with others, in the
//! same frames or in others, and puts an empty machine in the place of stage 1.

use crate::engine::{Part, from_bytes, to_bytes};
use crate::ring::{Arrival, POSITIONS_MAX, RING, Ring, SESSION, Sabotage};
use crate::rng::Rng;
use crate::run_seeds;
use bytes::Bytes;
use proto::model::LayerRange;
use proto::ring::{
    CHUNK_ROWS, EpochAnswer, HopBody, LinkBody, NewEpoch, OpenSession, RefusalCode, Rows, RowsKind,
    SessionRef,
};
use swarm::split::split;

/// Rows that a run sends before it ends.
const ROWS_WANTED: u32 = 300;
/// A run that always goes back never ends.
const REWINDS_MAX: usize = 25;
/// Frames on their way at once.
const FLIGHT_MAX: usize = 4;
const STEPS_MAX: usize = 100_000;

#[derive(Debug, Default, Clone, PartialEq)]
struct Outcome {
    steps: usize,
    rewinds: usize,
    exact_repeats: usize,
    other_rows: usize,
    other_frames: usize,
    replacements: usize,
    checked_rows: usize,
}

struct Driver {
    ring: Ring,
    remote: Vec<LayerRange>,
    /// All remote layers in one machine.
    whole: Part,
    epoch: u32,
    /// What goes in, and what must come out.
    rows: Vec<u64>,
    expected: Vec<u64>,
    /// Ends of the frames in which `rows` were sent.
    ends: Vec<u32>,
    sent: u32,
    /// Rows that came all the way round. What a stage has beyond them may be rows that were taken back before it
    /// heard of that, so the driver never goes on from there.
    returned: u32,
    /// Ends of frames on their way.
    flight: Vec<u32>,
    /// Answers to the epoch, while they are awaited: stage and length.
    answers: Option<Vec<(u32, u32)>>,
    replaced: bool,
    outcome: Outcome,
}

fn run(seed: u64, sabotage: Sabotage) -> (Result<Outcome, String>, usize) {
    let mut rng = Rng::new(seed);
    let stages = 1 + rng.below(3) as u32;
    let split =
        split(stages + 2 + rng.below(5) as u32, stages, 1).expect("there are enough layers");
    let between = LayerRange {
        first: split.head.end,
        end: split.tail.first,
    };
    let mut driver = Driver {
        ring: Ring::new(rng, &split.remote, sabotage, Part::new(between)),
        remote: split.remote,
        whole: Part::new(between),
        epoch: 1,
        rows: Vec::new(),
        expected: Vec::new(),
        ends: Vec::new(),
        sent: 0,
        returned: 0,
        flight: Vec::new(),
        answers: None,
        replaced: false,
        outcome: Outcome::default(),
    };
    let outcome = driver.run();
    (outcome.map(|()| driver.outcome), driver.ring.strikes)
}

impl Driver {
    fn run(&mut self) -> Result<(), String> {
        let open = OpenSession {
            session: SESSION,
            epoch: 1,
            positions_max: POSITIONS_MAX,
        };
        self.ring.forward(0, HopBody::Open(open), Bytes::new());
        for step in 0..STEPS_MAX {
            self.outcome.steps = step;
            self.act()?;
            match self.ring.step()? {
                Some(arrival) => self.arrive(arrival)?,
                None if self.sent >= ROWS_WANTED && self.flight.is_empty() => {
                    return self.check_end();
                }
                None if self.answers.is_none() && self.flight.len() < FLIGHT_MAX => {}
                None => return Err(format!("nothing moves any more: {:?}", self.outcome)),
            }
        }
        Err(format!("{STEPS_MAX} steps and no end"))
    }

    fn act(&mut self) -> Result<(), String> {
        if self.answers.is_some() {
            return Ok(());
        }
        let may_rewind = self.sent > 0 && self.outcome.rewinds < REWINDS_MAX;
        if may_rewind && self.ring.is_open_everywhere() && self.ring.rng.once_in(60) {
            self.rewind();
        } else if self.flight.len() < FLIGHT_MAX && self.sent < ROWS_WANTED {
            self.send(RowsKind::Decode)?;
        }
        Ok(())
    }

    /// Sends the next frame: as before if it was sent before, else of new rows.
    fn send(&mut self, kind: RowsKind) -> Result<(), String> {
        let position = self.sent;
        let known = self.ends.iter().copied().find(|&end| end > position);
        let end = known.unwrap_or_else(|| position + 1 + self.ring.rng.below(6) as u32);
        while self.rows.len() < end as usize {
            let row = self.ring.rng.next();
            self.rows.push(row);
        }
        let new = &self.rows[self.expected.len()..];
        self.expected
            .extend(self.whole.run(self.expected.len() as u32, new)?);
        if known.is_none() {
            self.ends.push(end);
        }
        self.sent = end;
        if kind != RowsKind::Replay {
            self.flight.push(end);
        }
        let payload = to_bytes(&self.rows[position as usize..end as usize]);
        let (session, epoch, rows) = (SESSION, self.epoch, end - position);
        let chunk = position / CHUNK_ROWS;
        let rows = Rows {
            session,
            epoch,
            position,
            rows,
            chunk,
            stage: 0,
            kind,
            guessed: 0,
        };
        self.ring.forward(0, HopBody::Rows(rows), payload);
        Ok(())
    }

    fn rewind(&mut self) {
        self.epoch += 1;
        self.outcome.rewinds += 1;
        self.flight.clear();
        self.answers = Some(Vec::new());
        self.replaced = self.ring.rng.once_in(4);
        if self.replaced {
            self.outcome.replacements += 1;
            self.ring.replace(0, self.remote[0], self.epoch);
        }
        let epoch = NewEpoch {
            ring: RING,
            session: SESSION,
            epoch: self.epoch,
            positions_max: None,
        };
        for stage in 1..=self.remote.len() as u32 {
            self.ring.tell(stage, LinkBody::Epoch(epoch));
        }
    }

    /// All have answered. A stage that was replaced has nothing and is fed by replay.
    fn resume(&mut self, answers: &[(u32, u32)]) -> Result<(), String> {
        let counted = answers
            .iter()
            .filter(|(stage, _)| !(self.replaced && *stage == 1));
        let shortest = counted
            .map(|&(_, length)| length)
            .min()
            .unwrap_or(u32::MAX)
            .min(self.returned);
        let kept = match self.ring.rng.below(3) {
            0 => shortest,
            _ => self.ring.rng.below(shortest as usize + 1) as u32,
        };
        self.forget(kept);
        self.sent = 0;
        if self.replaced {
            self.ends.clear();
            while self.sent < kept {
                let end = (self.sent + 100 + self.ring.rng.below(100) as u32).min(kept);
                self.ends.push(end);
                self.send(RowsKind::Replay)?;
            }
        } else {
            let before = self
                .ends
                .iter()
                .copied()
                .filter(|&end| end <= kept)
                .max()
                .unwrap_or(0);
            self.sent = if self.ring.rng.once_in(2) {
                before
            } else {
                kept
            };
        }
        Ok(())
    }

    /// Decides what becomes of the rows behind `kept`.
    fn forget(&mut self, kept: u32) {
        match self.ring.rng.below(3) {
            0 => self.outcome.exact_repeats += 1,
            1 => {
                self.outcome.other_frames += 1;
                self.ends.retain(|&end| end <= kept);
            }
            _ => {
                self.outcome.other_rows += 1;
                self.ends.retain(|&end| end <= kept);
                self.returned = kept;
                self.rows.truncate(kept as usize);
                self.expected.truncate(kept as usize);
                self.whole
                    .trim(self.expected.len() as u32)
                    .expect("the whole has these rows");
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<(), String> {
        match arrival {
            Arrival::Elsewhere => Ok(()),
            Arrival::Hop(HopBody::Rows(rows), payload) => self.check_rows(&rows, &payload),
            Arrival::Link(stage, LinkBody::EpochAnswer(answer)) => self.answered(stage, &answer),
            Arrival::Link(_, LinkBody::SessionFailed(failed))
                if failed.at.epoch < self.epoch || failed.code == Some(RefusalCode::OldEpoch) =>
            {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn answered(&mut self, stage: u32, answer: &EpochAnswer) -> Result<(), String> {
        let Some(answers) = &mut self.answers else {
            return Ok(());
        };
        if answer.at.epoch == self.epoch {
            answers.push((stage, answer.length));
        }
        if answers.len() < self.remote.len() {
            return Ok(());
        }
        let answers = self.answers.take().unwrap_or_default();
        self.resume(&answers)
    }

    fn check_rows(&mut self, rows: &Rows, payload: &[u8]) -> Result<(), String> {
        if rows.epoch < self.epoch || rows.kind == RowsKind::Replay {
            return Ok(());
        }
        let (from, end) = (rows.position as usize, rows.position + rows.rows);
        if self.expected.get(from..end as usize) != Some(&from_bytes(payload)[..]) {
            return Err(format!("other rows came out: {rows:?}"));
        }
        self.outcome.checked_rows += rows.rows as usize;
        let next = self.flight.first().copied();
        if next != Some(end) {
            return Err(format!("{rows:?} came back, expected an end at {next:?}"));
        }
        self.flight.remove(0);
        self.returned = self.returned.max(end);
        Ok(())
    }

    fn check_end(&mut self) -> Result<(), String> {
        let at = SessionRef {
            ring: RING,
            session: SESSION,
            epoch: self.epoch,
        };
        for stage in 1..=self.remote.len() as u32 {
            self.ring.tell(stage, LinkBody::CloseSession(at));
        }
        while self.ring.step()?.is_some() {}
        self.ring.check_empty()
    }
}

#[test]
fn rows_taken_back_leave_no_trace() {
    let outcomes = run_seeds(0..1_000, |seed| run(seed, Sabotage::None).0);
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    for (what, struck) in [
        ("rewinds", sum(|o| o.rewinds)),
        ("exact repeats", sum(|o| o.exact_repeats)),
        ("other rows", sum(|o| o.other_rows)),
        ("other frames", sum(|o| o.other_frames)),
        ("replacements", sum(|o| o.replacements)),
        ("rows checked", sum(|o| o.checked_rows)),
    ] {
        assert!(struck >= 100, "{what}: only {struck}");
    }
}

#[test]
fn a_forgotten_trim_is_noticed() {
    let runs: Vec<_> = (0..100)
        .map(|seed| run(seed, Sabotage::ForgetTrim))
        .collect();
    let struck = runs.iter().filter(|(_, strikes)| *strikes > 0).count();
    let noticed = runs
        .iter()
        .filter(|(run, strikes)| run.is_err() && *strikes > 0)
        .count();
    assert!(struck >= 50, "struck only {struck} times");
    assert!(noticed * 10 >= struck * 9, "{noticed} of {struck} noticed");
}
