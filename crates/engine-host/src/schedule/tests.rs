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
        guesses: Vec::new(),
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
