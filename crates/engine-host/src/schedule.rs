//! Which runs go into the next step.
//!
//! Each session has its runs in the order they came; sessions take turns. The session whose turn it is decides what the step
//! computes: a chunk of a long run alone, or its single row together with the single rows of all other sessions that wait
//! for the same part.

use proto::host::{Role, Run};
use proto::ids::SessionId;
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
    /// What came out so far.
    pub(crate) out: Vec<f32>,
}

impl Pending {
    /// Rows of the next step: up to the next line of the absolute grid of `step_rows_max`.
    pub(crate) fn next_rows(&self, step_rows_max: u32) -> usize {
        let at = self.run.position as usize + self.done;
        let grid = step_rows_max as usize;
        (self.rows - self.done).min(grid - at % grid)
    }
}

/// Runs waiting for their turn.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    waiting: HashMap<SessionId, VecDeque<Pending>>,
    /// Sessions with waiting runs, the next to be served first.
    turns: VecDeque<SessionId>,
}

impl Schedule {
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Puts a run behind all others of its session.
    pub(crate) fn push(&mut self, pending: Pending) {
        self.entry(pending.run.session).push_back(pending);
    }

    /// Puts a run that is not finished before all others of its session; its turn comes after everybody else's.
    pub(crate) fn put_back(&mut self, pending: Pending) {
        self.entry(pending.run.session).push_front(pending);
    }

    fn entry(&mut self, session: SessionId) -> &mut VecDeque<Pending> {
        if !self.waiting.contains_key(&session) {
            self.turns.push_back(session);
        }
        self.waiting.entry(session).or_default()
    }

    /// Takes the runs of the next step: one of several rows, or several of one row in the same part.
    pub(crate) fn next(&mut self, step_rows_max: u32) -> Vec<Pending> {
        let Some(&first) = self.turns.front() else {
            return Vec::new();
        };
        let front = |queue: &VecDeque<Pending>| -> Option<(Role, usize)> {
            queue.front().map(|p| (p.run.role, p.rows - p.done))
        };
        let Some((role, rows)) = self.waiting.get(&first).and_then(front) else {
            return Vec::new();
        };
        let together: Vec<SessionId> = if rows > 1 {
            vec![first]
        } else {
            let fits = |s: &&SessionId| self.waiting.get(s).and_then(front) == Some((role, 1));
            self.turns
                .iter()
                .filter(fits)
                .take(step_rows_max as usize)
                .copied()
                .collect()
        };
        together
            .iter()
            .filter_map(|session| self.take(*session))
            .collect()
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

    fn pending(id: u64, session: u8, role: Role, rows: usize) -> Pending {
        let session = SessionId([session; 16]);
        let run = Run {
            session,
            role,
            position: 0,
            tokens: vec![0; rows],
            output: Output::Nothing,
        };
        Pending {
            id,
            run,
            values: Vec::new(),
            rows,
            done: 0,
            out: Vec::new(),
        }
    }

    fn check(runs: &[(u64, u8, Role, usize)], steps: &[&[u64]]) {
        let mut schedule = Schedule::default();
        for &(id, session, role, rows) in runs {
            schedule.push(pending(id, session, role, rows));
        }
        for step in steps {
            let got: Vec<u64> = schedule.next(512).iter().map(|p| p.id).collect();
            assert_eq!(&got, step);
        }
        assert!(schedule.is_empty());
    }

    #[test]
    fn single_rows_of_one_part_go_together() {
        use Role::{Head, Tail};
        check(
            &[(1, 1, Tail, 1), (2, 2, Tail, 1), (3, 3, Head, 1)],
            &[&[1, 2], &[3]],
        );
    }

    #[test]
    fn a_long_run_goes_alone_and_in_turn() {
        use Role::Whole;
        check(
            &[(1, 1, Whole, 1), (2, 2, Whole, 9), (3, 3, Whole, 1)],
            &[&[1, 3], &[2]],
        );
        check(
            &[(2, 2, Whole, 9), (1, 1, Whole, 1), (3, 3, Whole, 1)],
            &[&[2], &[1, 3]],
        );
    }

    #[test]
    fn runs_of_one_session_keep_their_order() {
        use Role::Whole;
        check(
            &[(1, 1, Whole, 1), (2, 1, Whole, 1), (3, 2, Whole, 1)],
            &[&[1, 3], &[2]],
        );
    }

    #[test]
    fn steps_end_on_the_grid() {
        let mut p = pending(1, 1, Role::Whole, 1000);
        p.run.position = 500;
        assert_eq!(p.next_rows(512), 12);
        p.done = 12;
        assert_eq!(p.next_rows(512), 512);
        p.done = 524;
        assert_eq!(p.next_rows(512), 476);
    }

    #[test]
    fn a_removed_session_leaves_nothing_behind() {
        let mut schedule = Schedule::default();
        schedule.push(pending(1, 1, Role::Whole, 1));
        schedule.push(pending(2, 1, Role::Whole, 1));
        assert_eq!(schedule.remove(SessionId([1; 16])).len(), 2);
        assert!(schedule.is_empty());
    }
}
