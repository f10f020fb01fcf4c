use super::*;
use crate::spill::{Away, Spill};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Frames of 3, 2 and 4 one-value rows from position 10; row p holds the byte p.
fn filled() -> Retained {
    let mut retained = Retained::default();
    for (position, rows) in [(10, 3), (13, 2), (15, 4)] {
        let values = (position..position + rows).flat_map(|p| [p as u8; 4]);
        let output: Bytes = values.collect::<Vec<_>>().into();
        retained.push(Record {
            position,
            rows,
            input: Some(Hash([1; 32])),
            replaced: 0,
            output: Kept::Here(output),
        });
    }
    retained
}

fn check(change: impl FnOnce(&mut Retained), expected: &[(u32, u32)]) {
    let mut retained = filled();
    change(&mut retained);
    let spans: Vec<_> = retained
        .records
        .iter()
        .map(|r| (r.position, r.rows))
        .collect();
    assert_eq!(spans, expected);
    assert_eq!(
        retained.bytes,
        retained
            .records
            .iter()
            .map(|r| r.output.len())
            .sum::<usize>()
    );
    for record in &retained.records {
        let output = record.output.read().unwrap();
        assert_eq!(output.len(), record.rows as usize * 4);
        assert_eq!(u32::from(output[0]), record.position);
    }
}

#[test]
fn forgetting_and_cutting() {
    check(|_| (), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.forget_below(12), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.forget_below(13), &[(13, 2), (15, 4)]);
    check(|r| r.forget_below(99), &[]);
    check(|r| r.shrink(24, u32::MAX), &[(13, 2), (15, 4)]);
    check(|r| r.shrink(0, 14), &[(13, 2), (15, 4)]);
    check(|r| r.shrink(0, u32::MAX), &[]);
    check(|r| r.cut(19, 1), &[(10, 3), (13, 2), (15, 4)]);
    check(|r| r.cut(15, 1), &[(10, 3), (13, 2)]);
    check(|r| r.cut(14, 1), &[(10, 3), (13, 1)]);
    check(|r| r.cut(11, 1), &[(10, 1)]);
    check(|r| r.cut(10, 1), &[]);
    check(Retained::clear, &[]);
}

#[test]
fn a_cut_record_no_longer_claims_its_input() {
    let mut retained = filled();
    retained.cut(14, 1);
    assert_eq!(retained.find(13).unwrap().input, None);
    assert_eq!(retained.find(10).unwrap().input, Some(Hash([1; 32])));
}

#[test]
fn rows_of_several_records() {
    let rows = |position, rows| {
        let all = filled().rows(position, rows, 1).unwrap();
        all.iter().step_by(4).copied().collect::<Vec<u8>>()
    };
    assert_eq!(rows(10, 9), (10..19).collect::<Vec<u8>>());
    assert_eq!(rows(12, 4), [12, 13, 14, 15]);
    assert_eq!(rows(16, 2), [16, 17]);
    assert!(std::panic::catch_unwind(|| filled().rows(9, 2, 1)).is_err());
}

#[test]
fn finding() {
    let retained = filled();
    assert_eq!(retained.from(), Some(10));
    assert_eq!(retained.find(13).map(Record::end), Some(15));
    assert!(retained.find(14).is_none());
    assert_eq!(retained.around(14).map(|r| r.position), Some(13));
    assert_eq!(retained.around(15).map(|r| r.position), Some(15));
    assert!(retained.around(9).is_none() && retained.around(19).is_none());
    assert_eq!(retained.ending_at(19).map(|r| r.position), Some(15));
    assert!(retained.ending_at(15).is_none());
}

/// Keeps so many outputs, until it breaks.
#[derive(Debug)]
struct Shelf {
    room: AtomicUsize,
    broken: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Item(Bytes, Arc<AtomicBool>);

impl Spill for Shelf {
    fn put(&self, bytes: &[u8]) -> Option<Arc<dyn Away>> {
        let room = |room: usize| room.checked_sub(1);
        self.room.fetch_update(Relaxed, Relaxed, room).ok()?;
        let bytes = Bytes::copy_from_slice(bytes);
        Some(Arc::new(Item(bytes, self.broken.clone())))
    }
}

impl Away for Item {
    fn read(&self) -> Option<Bytes> {
        (!self.1.load(Relaxed)).then(|| self.0.clone())
    }
}

/// Ten one-value rows from position 0 in a record each, of which two are to stay in memory.
fn spilled(room: usize) -> (Retained, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let shelf = Shelf {
        room: AtomicUsize::new(room),
        broken: broken.clone(),
    };
    let mut retained = Retained::spilling(Some(Overflow {
        spill: Arc::new(shelf),
        memory_bytes_max: 8,
    }));
    for position in 0..10 {
        retained.push(Record {
            position,
            rows: 1,
            input: None,
            replaced: 0,
            output: Kept::Here(vec![position as u8; 4].into()),
        });
        retained.shrink(1 << 20, u32::MAX);
    }
    (retained, broken)
}

#[test]
fn what_memory_has_no_room_for_is_put_away_and_comes_back() {
    let all: Vec<u8> = (0..10).flat_map(|position| [position; 4]).collect();
    let (retained, _) = spilled(99);
    assert_eq!((retained.bytes, retained.here), (40, 8));
    assert_eq!(retained.rows(0, 10, 1).unwrap(), all);
    let (full, _) = spilled(3);
    assert_eq!(
        (full.bytes, full.here),
        (40, 28),
        "where there is no room it stays"
    );
    assert_eq!(full.rows(0, 10, 1).unwrap(), all);
    let (mut cut, _) = spilled(99);
    cut.cut(5, 1);
    assert_eq!((cut.bytes, cut.here), (20, 0));
    cut.forget_below(3);
    assert_eq!((cut.bytes, cut.from()), (8, Some(3)));
}

#[test]
fn what_cannot_be_read_any_more_is_told_and_never_made_up() {
    let (mut retained, broken) = spilled(99);
    broken.store(true, Relaxed);
    assert_eq!(retained.rows(6, 4, 1), Err(7));
    assert_eq!(
        retained.rows(8, 2, 1).unwrap(),
        [8, 8, 8, 8, 9, 9, 9, 9][..]
    );
    assert_eq!(retained.frames(2, 10, 1), Err(3));
    retained.forget_below(8);
    assert_eq!((retained.from(), retained.here), (Some(8), 8));
    let (mut cut, broken) = spilled(99);
    broken.store(true, Relaxed);
    cut.cut(5, 1);
    assert_eq!(cut.from(), Some(0), "nothing had to be read");
    cut.push(Record {
        position: 5,
        rows: 2,
        input: None,
        replaced: 0,
        output: Kept::Here(vec![7; 8].into()),
    });
    cut.cut(6, 1);
    assert_eq!(
        cut.rows(5, 1, 1).unwrap(),
        [7; 4][..],
        "the newest one is in memory"
    );
}
