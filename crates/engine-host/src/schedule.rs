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
        let first = self.front(&first).map(Pending::kind);
        let fits = |s: &&SessionId| {
            self.front(s)
                .is_some_and(|p| p.left() == 1 && Some(p.kind()) == first)
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
mod tests {
    use super::*;
    use proto::host::Output;

    const SIZE: StepSize = StepSize {
        alone: 512,
        beside: 64,
        sessions: 4,
    };

    fn pending(id: u64, session: u8, role: Role, rows: usize) -> Pending {
        let session = SessionId([session; 16]);
        let run = Run {
            session,
            role,
            position: 0,
            tokens: vec![0; rows],
            output: Output::Nothing,
            scope: None,
            adapters: Vec::new(),
        };
        Pending::new(id, run, rows)
    }

    /// Steps as (calls, rows of each); unfinished long runs are put back, as the host does.
    fn check(runs: &[(u64, u8, Role, usize)], steps: &[(&[u64], usize)]) {
        let mut schedule = Schedule::default();
        for &(id, session, role, rows) in runs {
            schedule.push(pending(id, session, role, rows));
        }
        for step in steps {
            let got = schedule.next(SIZE);
            let ids: Vec<u64> = got.iter().map(|p| p.id).collect();
            assert_eq!((ids.as_slice(), got[0].next), *step);
            for mut pending in got {
                pending.done += pending.next;
                if pending.done < pending.rows {
                    schedule.put_back(pending);
                }
            }
        }
        assert!(schedule.is_empty());
    }

    use Role::{Head, Tail, Whole};

    #[test]
    fn single_rows_of_one_part_go_together() {
        check(
            &[(1, 1, Tail, 1), (2, 2, Tail, 1), (3, 3, Head, 1)],
            &[(&[1, 2], 1), (&[3], 1)],
        );
    }

    #[test]
    fn single_rows_with_other_adapters_go_by_themselves() {
        let mut schedule = Schedule::default();
        for (id, scale) in [
            (1, None),
            (2, Some(1.0)),
            (3, None),
            (4, Some(0.5)),
            (5, Some(1.0)),
        ] {
            let mut pending = pending(id, id as u8, Whole, 1);
            let name = "a".to_owned();
            pending.run.adapters = scale
                .map(|scale| AdapterUse { name, scale })
                .into_iter()
                .collect();
            schedule.push(pending);
        }
        let mut ids = || schedule.next(SIZE).iter().map(|p| p.id).collect::<Vec<_>>();
        assert_eq!([ids(), ids(), ids()], [vec![1, 3], vec![2, 5], vec![4]]);
    }

    #[test]
    fn a_common_prefix_is_computed_once() {
        let mut schedule = Schedule::default();
        for (id, scope) in [
            (1, Some(7)),
            (2, Some(7)),
            (3, Some(8)),
            (4, None),
            (5, None),
        ] {
            let mut pending = pending(id, id as u8, Whole, GRID_ROWS + 1);
            pending.run.scope = scope.map(|scope| ShareScope([scope; 16]));
            schedule.push(pending);
        }
        let mut ids = || schedule.next(SIZE).iter().map(|p| p.id).collect::<Vec<_>>();
        assert_eq!([ids(), ids()], [vec![1, 3, 4, 5], vec![2]]);
    }

    #[test]
    fn no_step_decodes_more_sessions_than_its_share() {
        let runs: Vec<_> = (1..=6).map(|n| (u64::from(n), n, Tail, 1)).collect();
        check(&runs, &[(&[1, 2, 3, 4], 1), (&[5, 6], 1)]);
    }

    #[test]
    fn decoding_and_short_chunks_alternate() {
        check(
            &[
                (1, 1, Whole, 1),
                (2, 2, Whole, 164),
                (3, 1, Whole, 1),
                (4, 1, Whole, 1),
            ],
            &[
                (&[1], 1),
                (&[2], 64),
                (&[3], 1),
                (&[2], 64),
                (&[4], 1),
                (&[2], 36),
            ],
        );
        check(
            &[
                (1, 1, Whole, 1),
                (2, 2, Tail, 40),
                (3, 3, Tail, 41),
                (4, 4, Tail, 42),
                (5, 1, Whole, 1),
            ],
            &[(&[1], 1), (&[2], 40), (&[3], 41), (&[5], 1), (&[4], 42)],
        );
        check(&[(2, 2, Whole, 600)], &[(&[2], 512), (&[2], 88)]);
    }

    #[test]
    fn the_shortest_prompt_is_first() {
        check(
            &[(1, 1, Tail, 700), (2, 2, Tail, 50), (3, 3, Tail, 60)],
            &[(&[2], 50), (&[3], 60), (&[1], 512), (&[1], 188)],
        );
    }

    #[test]
    fn short_prompts_share_a_step() {
        check(
            &[(1, 1, Whole, 700), (2, 2, Whole, 50), (3, 3, Whole, 60)],
            &[(&[2, 3], 50), (&[1], 512), (&[1], 188)],
        );
        check(
            &[
                (1, 1, Whole, 30),
                (2, 2, Whole, 40),
                (3, 3, Whole, 20),
                (4, 4, Whole, 1),
                (5, 4, Whole, 1),
            ],
            &[(&[4], 1), (&[3, 1], 20), (&[2], 40), (&[5], 1)],
        );
        check(
            &[(1, 1, Whole, 30), (2, 1, Whole, 40), (3, 2, Head, 20)],
            &[(&[3], 20), (&[1], 30), (&[2], 40)],
        );
    }

    #[test]
    fn who_is_passed_over_gains() {
        let mut schedule = Schedule::default();
        schedule.push(pending(0, 0, Tail, 400));
        let mut steps = 0;
        loop {
            schedule.push(pending(9, 9, Tail, 100));
            steps += 1;
            if schedule.next(SIZE)[0].id == 0 {
                break;
            }
        }
        assert_eq!(
            steps, 4,
            "300 rows passed before it was as short as the others"
        );
    }

    #[test]
    fn runs_of_one_session_keep_their_order() {
        check(
            &[(1, 1, Whole, 1), (2, 1, Whole, 1), (3, 2, Whole, 1)],
            &[(&[1, 3], 1), (&[2], 1)],
        );
    }

    #[test]
    fn chunks_end_on_the_grid() {
        let size = ChunkSize {
            grid: 512,
            last: 600,
        };
        let mut p = pending(1, 1, Whole, 1200);
        p.run.position = 500;
        assert_eq!(p.chunk(size), 12);
        p.done = 12;
        assert_eq!(p.chunk(size), 512);
        p.done = 524;
        assert_eq!(p.chunk(size), 512);
        p.done = 600;
        assert_eq!(p.chunk(size), 600, "the last one need not");
    }

    #[test]
    fn a_removed_session_leaves_nothing_behind() {
        let mut schedule = Schedule::default();
        schedule.push(pending(1, 1, Whole, 1));
        schedule.push(pending(2, 1, Whole, 1));
        assert_eq!(schedule.remove(SessionId([1; 16])).len(), 2);
        assert!(schedule.is_empty());
    }
}
