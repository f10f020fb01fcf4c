use super::*;

const MINE: Option<ShareScope> = Some(ShareScope([1; 16]));
const THEIRS: Option<ShareScope> = Some(ShareScope([2; 16]));

fn tokens(count: usize) -> Vec<i32> {
    (0..count as i32).collect()
}

/// A slot that holds `count` tokens of [`MINE`], still open.
fn held(count: usize, slots: u32) -> (Slots, u32) {
    let mut all = Slots::new(slots);
    let (slot, begin) = all.open(MINE, &tokens(count)).unwrap();
    assert_eq!(begin, Begin::Empty);
    all.computed(slot, &tokens(count));
    (all, slot)
}

#[test]
fn a_kept_prefix_is_shared_in_whole_chunks_and_one_row_is_left() {
    let check = |held_rows, asked, rows| {
        let (mut all, slot) = held(held_rows, 2);
        assert!(all.close(slot));
        let (got, begin) = all.open(MINE, &tokens(asked)).unwrap();
        let expected = match rows {
            0 => (0 != slot, Begin::Empty),
            rows => (got == slot, Begin::Keep { rows }),
        };
        assert_eq!(begin, expected.1, "{held_rows} {asked}");
        assert_eq!(all.tokens(got).len(), rows);
    };
    check(200, 300, 192);
    check(200, 193, 192);
    check(200, 192, 128);
    check(64, 65, 64);
    check(64, 64, 0);
    check(100, 40, 0);
}

#[test]
fn nothing_crosses_scopes() {
    for scope in [THEIRS, None] {
        let (mut all, slot) = held(200, 2);
        all.close(slot);
        assert_eq!(all.open(scope, &tokens(300)).unwrap().1, Begin::Empty);
    }
    let mut all = Slots::new(2);
    let (slot, _) = all.open(None, &tokens(200)).unwrap();
    all.computed(slot, &tokens(200));
    assert!(!all.close(slot), "without a scope nothing is kept");
    assert_eq!(all.open(None, &tokens(300)).unwrap().1, Begin::Empty);
}

#[test]
fn an_open_session_is_copied_from() {
    let (mut all, from) = held(200, 2);
    let (slot, begin) = all.open(MINE, &tokens(130)).unwrap();
    assert_ne!(slot, from);
    assert_eq!(begin, Begin::Copy { from, rows: 128 });
    assert_eq!(all.tokens(slot), tokens(128));
}

#[test]
fn kept_slots_give_way_oldest_first_and_open_ones_never() {
    let mut all = Slots::new(2);
    for first in [1000, 2000] {
        let text: Vec<i32> = (first..first + 100).collect();
        let (slot, _) = all.open(MINE, &text).unwrap();
        all.computed(slot, &text);
    }
    assert_eq!(all.open(MINE, &tokens(9)), None);
    all.close(1);
    all.close(0);
    assert_eq!(all.open(THEIRS, &tokens(9)), Some((1, Begin::Empty)));
    assert!(all.tokens(1).is_empty(), "the old rows are not its own");
    assert_eq!(all.open(THEIRS, &tokens(9)), Some((0, Begin::Empty)));
    assert_eq!(all.open(THEIRS, &tokens(9)), None);
}

#[test]
fn a_cut_cache_shares_only_what_is_left() {
    let (mut all, slot) = held(200, 1);
    all.trim(slot, 70);
    all.close(slot);
    assert_eq!(
        all.open(MINE, &tokens(200)).unwrap().1,
        Begin::Keep { rows: 64 }
    );
}
