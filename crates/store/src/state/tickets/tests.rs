use super::super::format::Step;
use super::*;
use std::path::PathBuf;

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    (dir, path)
}

fn record(issued_s: u64, not_after_s: u64) -> TicketRecord {
    TicketRecord {
        issued_s,
        not_after_s,
        uses_max: Some(1),
        revoked_s: None,
    }
}

#[test]
fn tickets_are_counted_over_restarts() {
    let (_dir, path) = fresh();
    for (nonce, uses_max, allowed) in [
        (1, Some(1), 1),
        (2, Some(3), 3),
        (3, None, 5),
        (4, Some(0), 0),
    ] {
        let mut counted = 0;
        for _ in 0..5 {
            let state = State::open(&path).unwrap();
            let used = state.use_ticket(TicketId([nonce; 16]), uses_max).unwrap();
            counted += usize::from(used == TicketUse::Counted);
        }
        assert_eq!(counted, allowed, "ticket {nonce}");
    }
}

#[test]
fn a_ticket_used_by_many_at_once_is_counted_exactly() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    let counted: usize = std::thread::scope(|scope| {
        let id = TicketId([9; 16]);
        let state = &state;
        let use_it = move || state.use_ticket(id, Some(3)).unwrap() == TicketUse::Counted;
        let uses: Vec<_> = (0..8).map(|_| scope.spawn(use_it)).collect();
        uses.into_iter()
            .map(|u| usize::from(u.join().unwrap()))
            .sum()
    });
    assert_eq!(counted, 3);
}

#[test]
fn a_revoked_ticket_stays_revoked_and_others_are_not_touched() {
    let (_dir, path) = fresh();
    let (a, b, old) = (TicketId([1; 16]), TicketId([2; 16]), TicketId([3; 16]));
    let state = State::open(&path).unwrap();
    state.issue_ticket(a, &record(10, 100)).unwrap();
    state.issue_ticket(b, &record(11, 100)).unwrap();
    assert_eq!(state.use_ticket(a, Some(9)).unwrap(), TicketUse::Counted);
    let revoked = state.revoke_ticket(a, None, 50).unwrap().unwrap();
    assert_eq!(revoked.revoked_s, Some(50));
    // The first time counts, and one that nobody knows is not there to be revoked.
    let again = state.revoke_ticket(a, None, 60).unwrap().unwrap();
    assert_eq!(again.revoked_s, Some(50));
    assert_eq!(state.revoke_ticket(old, None, 50).unwrap(), None);
    state
        .revoke_ticket(old, Some(record(0, 100)), 50)
        .unwrap()
        .unwrap();
    drop(state);
    let state = State::open(&path).unwrap();
    for (id, expected) in [
        (a, TicketUse::Revoked),
        (old, TicketUse::Revoked),
        (b, TicketUse::Counted),
    ] {
        assert_eq!(state.use_ticket(id, Some(9)).unwrap(), expected, "{id}");
    }
    let listed: Vec<_> = state
        .tickets()
        .unwrap()
        .into_iter()
        .map(|t| (t.id, t.uses, t.record.revoked_s))
        .collect();
    let expected = [(b, 1, None), (a, 1, Some(50)), (old, 0, Some(50))];
    assert_eq!(listed, expected);
}

#[test]
fn tickets_whose_life_is_long_over_are_forgotten() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    let (ended, lives) = (TicketId([1; 16]), TicketId([2; 16]));
    state.issue_ticket(ended, &record(0, 100)).unwrap();
    state.use_ticket(ended, Some(1)).unwrap();
    state.issue_ticket(lives, &record(1, 101)).unwrap();
    let now_s = 101 + ENDED_KEPT_S;
    let new = TicketId([3; 16]);
    state.issue_ticket(new, &record(now_s, now_s + 9)).unwrap();
    let ids: Vec<_> = state.tickets().unwrap().iter().map(|t| t.id).collect();
    assert_eq!(ids, [new, lives]);
}

#[test]
fn only_so_many_are_kept() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    let bytes = codec::to_vec(&record(1, 9));
    let fill = state.write(|tx| {
        let mut issued = tx.open_table(ISSUED)?;
        for n in 0..TICKETS_KEPT_MAX {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            issued.insert(&id, bytes.as_slice())?;
        }
        Ok(())
    });
    fill.unwrap();
    let error = state.issue_ticket(TicketId([9; 16]), &record(2, 9));
    let error = error.unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
}

#[test]
fn a_damaged_record_lets_nobody_in() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    let id = TicketId([1; 16]);
    let damage = state.write(|tx| {
        tx.open_table(ISSUED)?.insert(&id.0, [0xff].as_slice())?;
        Ok(())
    });
    damage.unwrap();
    let error = state.use_ticket(id, None).unwrap_err().to_string();
    assert!(error.contains("record of a ticket"), "{error}");
    assert!(state.revoke_ticket(id, None, 1).is_err());
}

#[test]
fn a_file_of_the_second_format_gets_the_table() {
    let (_dir, path) = fresh();
    let nothing: [Step; 1] = [|_| Ok(())];
    let old = State::open_with(&path, &nothing).unwrap();
    old.write(|tx| Ok(tx.delete_table(ISSUED)?)).unwrap();
    assert!(
        old.tickets().is_err(),
        "the second format has no such table"
    );
    drop(old);
    assert_eq!(State::open(&path).unwrap().tickets().unwrap(), []);
}
