//! Which runs go into the next step.
//!
//! Each session has its runs in the order they came. A step computes either one row each of several sessions (*decoding*), or
//! a chunk of a long run (*prefill*), and chunks of further ones where all together are no larger than one may be: larger
//! steps are computed at a higher rate. While both wait they take turns, and between two turns of those that decode so few
//! rows are computed that they hardly notice. The run with the fewest rows left goes first, so that the first tokens of most callers
//! come early; whoever is passed over gains with every chunk, so nobody waits for ever.

use crate::prefix::GRID_ROWS;
use proto::host::{AdapterUse, Role, Run};
use proto::ids::{SessionId, ShareScope};
use std::collections::{HashMap, VecDeque};

/// A run that is not finished.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The call to answer.
    pub(crate) id: u64,
    /// What was asked.
    pub(crate) run: Run,
    /// Its activations, where it has some.
    pub(crate) values: Vec<f32>,
    /// How many rows it has.
    pub(crate) rows: usize,
    /// How many of them are computed.
    pub(crate) done: usize,
    /// How many of these another session had computed.
    pub(crate) reused: u32,
    /// How many the next step computes; guesses behind them not counted.
    pub(crate) next: usize,
    /// What came out so far.
    pub(crate) out: Vec<f32>,
    /// Rows that others computed while this waited, since its last chunk.
    pub(crate) passed: usize,
}

impl Pending {
    /// A run of `rows` rows, nothing of it computed.
    pub(crate) fn new(id: u64, run: Run, rows: usize) -> Self {
        Self {
            id,
            run,
            values: Vec::new(),
            rows,
            done: 0,
            reused: 0,
            next: 0,
            out: Vec::new(),
            passed: 0,
        }
    }

    /// Runs of one kind can be computed in one step.
    fn kind(&self) -> (Role, Vec<AdapterUse>) {
        (self.run.role, self.run.adapters.clone())
    }

    /// Who may share the first rows, and what they are computed from; none where nothing is shared.
    fn beginning(&self) -> Option<(ShareScope, &[i32])> {
        let tokens = self.run.tokens.get(..GRID_ROWS);
        self.run
            .scope
            .zip(tokens.filter(|_| self.run.position == 0))
    }

    /// Whether this run could begin with rows that the other one computes.
    fn shares(&self, other: &Self) -> bool {
        self.beginning().is_some() && self.beginning() == other.beginning()
    }

    /// Rows of guesses come with its own: it is computed by itself.
    fn is_guessed(&self) -> bool {
        !self.run.guesses.is_empty()
    }

    fn left(&self) -> usize {
        self.rows - self.done
    }

    /// Rows of the next chunk.
    fn chunk(&self, size: ChunkSize) -> usize {
        let (at, left) = (self.run.position as usize + self.done, self.left());
        if left <= size.last {
            left
        } else {
            size.grid - at % size.grid
        }
    }
}

/// How large the chunks of a step are.
#[derive(Debug, Clone, Copy)]
struct ChunkSize {
    /// Chunks end on lines so many rows apart, counted from the first position.
    grid: usize,
    /// The last chunk of a run may be larger: a small one behind it would be computed at a low rate.
    last: usize,
}

/// How large steps may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepSize {
    /// Rows of a chunk while nobody decodes.
    pub(crate) alone: usize,
    /// Rows of a chunk while others decode.
    pub(crate) beside: usize,
    /// Sessions that decode in one step at most.
    pub(crate) sessions: usize,
}

/// Runs waiting for their turn.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    waiting: HashMap<SessionId, VecDeque<Pending>>,
    /// Sessions with waiting runs, the next to be served first.
    turns: VecDeque<SessionId>,
    /// Rows of chunks that may still be computed before those that decode are next.
    room: usize,
}

impl Schedule {
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Sessions that wait.
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Puts a run behind all others of its session.
    pub(crate) fn push(&mut self, pending: Pending) {
        self.entry(pending.run.session).push_back(pending);
    }

    /// Puts a run that is not finished before all others of its session.
    pub(crate) fn put_back(&mut self, pending: Pending) {
        self.entry(pending.run.session).push_front(pending);
    }

    fn entry(&mut self, session: SessionId) -> &mut VecDeque<Pending> {
        if !self.waiting.contains_key(&session) {
            self.turns.push_back(session);
        }
        self.waiting.entry(session).or_default()
    }

    fn front(&self, session: &SessionId) -> Option<&Pending> {
        self.waiting.get(session).and_then(VecDeque::front)
    }

    /// Takes the runs of the next step, their [`Pending::next`] set.
    pub(crate) fn next(&mut self, size: StepSize) -> Vec<Pending> {
        let single = |session: &&SessionId| self.front(session).is_some_and(|p| p.left() == 1);
        let first_single = self.turns.iter().find(single).copied();
        let first_long = self.shortest(|_| true);
        let grid = match first_single {
            Some(_) => size.beside,
            None => size.alone,
        };
        let last = (grid + grid / 2).min(size.alone);
        let chunk = ChunkSize { grid, last };
        let fits = |long| {
            self.front(&long)
                .is_some_and(|p| p.chunk(chunk) <= self.room)
        };
        match (first_single, first_long) {
            (Some(session), long) if !long.is_some_and(fits) => {
                self.room = last;
                self.decode(session, size.sessions)
            }
            (_, Some(session)) => {
                let step = self.prefill(session, chunk);
                let rows: usize = step.iter().map(|pending| pending.next).sum();
                self.room = self.room.saturating_sub(rows);
                step
            }
            _ => Vec::new(),
        }
    }

    /// The session whose long run is next: the fewest rows left, less what it had to let pass.
    fn shortest(&self, fits: impl Fn(&Pending) -> bool) -> Option<SessionId> {
        let left = |session: &SessionId| {
            let pending = self.front(session).filter(|pending| fits(pending))?;
            let rows = pending.left();
            (rows > 1).then(|| rows.saturating_sub(pending.passed))
        };
        let longs = self.turns.iter().filter_map(|s| Some((*s, left(s)?)));
        longs
            .min_by_key(|(_, left)| *left)
            .map(|(session, _)| session)
    }

    fn decode(&mut self, first: SessionId, sessions: usize) -> Vec<Pending> {
        let front = self.front(&first);
        let (kind, guessed) = (
            front.map(Pending::kind),
            front.is_some_and(Pending::is_guessed),
        );
        let fits = |s: &&SessionId| {
            let alone = |p: &Pending| guessed || p.is_guessed();
            self.front(s).is_some_and(|p| {
                p.left() == 1 && Some(p.kind()) == kind && (!alone(p) || **s == first)
            })
        };
        let together: Vec<SessionId> = self
            .turns
            .iter()
            .filter(fits)
            .take(sessions)
            .copied()
            .collect();
        let mut step = Vec::new();
        for session in together {
            step.extend(
                self.take(session)
                    .map(|pending| Pending { next: 1, ..pending }),
            );
        }
        step
    }

    /// A chunk of a session's long run, and of others beside it.
    fn prefill(&mut self, first: SessionId, size: ChunkSize) -> Vec<Pending> {
        let Some(first) = self.take(first) else {
            return Vec::new();
        };
        let mut room = size.grid.saturating_sub(first.chunk(size));
        let mut step = vec![first];
        while let Some(next) = self.companion(&step, room, size).and_then(|s| self.take(s)) {
            room -= next.chunk(size);
            step.push(next);
        }
        for pending in &mut step {
            (pending.next, pending.passed) = (pending.chunk(size), 0);
        }
        let rows: usize = step.iter().map(|pending| pending.next).sum();
        for queue in self.waiting.values_mut() {
            if let Some(passed) = queue.front_mut().filter(|p| p.left() > 1) {
                passed.passed += rows;
            }
        }
        step
    }

    /// The session whose long run can be computed in the same step, in so many rows.
    fn companion(&self, step: &[Pending], room: usize, size: ChunkSize) -> Option<SessionId> {
        // Stages keep the order of rows in steps of one run only.
        let first = step.first().filter(|p| p.run.role == Role::Whole)?;
        // Runs of one session follow each other, and a prefix that two have in common is computed once.
        let apart = |run: &Pending, p: &Pending| run.run.session != p.run.session && !run.shares(p);
        self.shortest(|run| {
            let fits = run.chunk(size) <= room && run.kind() == first.kind();
            fits && step.iter().all(|p| apart(run, p))
        })
    }

    fn take(&mut self, session: SessionId) -> Option<Pending> {
        let queue = self.waiting.get_mut(&session)?;
        let pending = queue.pop_front();
        self.turns.retain(|s| *s != session);
        if queue.is_empty() {
            self.waiting.remove(&session);
        } else {
            self.turns.push_back(session);
        }
        pending
    }

    /// Takes every run of a session out.
    pub(crate) fn remove(&mut self, session: SessionId) -> VecDeque<Pending> {
        self.turns.retain(|s| *s != session);
        self.waiting.remove(&session).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
