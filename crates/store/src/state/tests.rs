use super::*;
use proto::ids::CommonsId;
use proto::member::{Membership, Vouch};
use std::fs;

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    (dir, path)
}

fn proof() -> Membership {
    let vouch = Vouch {
        commons: CommonsId([1; 32]),
        subject: NodeId([2; 32]),
        issuer: [1; 32],
        issued_s: 3,
        signature: [4; 64],
    };
    Membership { chain: vec![vouch] }
}

#[test]
fn every_life_has_a_higher_incarnation() {
    let (_dir, path) = fresh();
    for life in 1..=3 {
        assert_eq!(
            State::open(&path).unwrap().next_incarnation().unwrap(),
            life
        );
    }
}

#[test]
fn membership_and_members_survive() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    assert_eq!(state.membership::<Membership>().unwrap(), None);
    state.set_membership(&proof()).unwrap();
    state.remember_member(NodeId([2; 32]), &proof()).unwrap();
    state
        .remember_member(NodeId([1; 32]), &proof().chain[0])
        .unwrap();
    state.remember_member(NodeId([1; 32]), &proof()).unwrap();
    drop(state);
    let state = State::open(&path).unwrap();
    assert_eq!(state.membership().unwrap(), Some(proof()));
    let members = state.members::<Membership>().unwrap();
    assert_eq!(
        members,
        [(NodeId([1; 32]), proof()), (NodeId([2; 32]), proof())]
    );
    state.forget_member(NodeId([2; 32])).unwrap();
    assert_eq!(state.members::<Membership>().unwrap().len(), 1);
}

#[test]
fn a_record_that_does_not_decode_is_an_error_with_path_and_next_step() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    state.set_membership(&proof().chain[0]).unwrap();
    state
        .remember_member(NodeId([1; 32]), &proof().chain[0])
        .unwrap();
    let own = state.membership::<Membership>().unwrap_err().to_string();
    let others = state.members::<Membership>().unwrap_err().to_string();
    for error in [own, others] {
        assert!(
            error.contains("state.redb") && error.contains("proof of membership"),
            "{error}"
        );
        assert!(error.contains("move it away"), "{error}");
    }
}

#[test]
fn hashes_of_files_hold_until_the_file_changes() {
    let (_dir, path) = fresh();
    let state = State::open(&path).unwrap();
    let file = Path::new("/models/a.gguf");
    let facts = FileFacts {
        bytes: 5,
        modified_ns: Some(1_000_000_000),
    };
    let soon = UNIX_EPOCH + Duration::from_secs(2);
    let later = UNIX_EPOCH + Duration::from_secs(3);
    state
        .remember_path_hash(file, facts, Hash([7; 32]), soon)
        .unwrap();
    assert_eq!(
        state.path_hash(file, facts).unwrap(),
        None,
        "it may still be changing"
    );
    state
        .remember_path_hash(file, facts, Hash([7; 32]), later)
        .unwrap();
    assert_eq!(state.path_hash(file, facts).unwrap(), Some(Hash([7; 32])));
    for changed in [
        FileFacts { bytes: 6, ..facts },
        FileFacts {
            modified_ns: Some(1_000_000_001),
            ..facts
        },
        FileFacts {
            modified_ns: None,
            ..facts
        },
    ] {
        assert_eq!(state.path_hash(file, changed).unwrap(), None, "{changed:?}");
    }
}

#[test]
fn a_second_opener_is_told_so() {
    let (_dir, path) = fresh();
    let _held = State::open(&path).unwrap();
    let error = State::open(&path).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
}

/// Every damage is reported with path and next step, and the damaged file keeps its bytes.
#[test]
fn a_damaged_file_is_reported_and_left_alone() {
    let (dir, path) = fresh();
    let state = State::open(&path).unwrap();
    state.set_membership(&proof()).unwrap();
    drop(state);
    let good = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = vec![b"garbage".to_vec(), vec![0; 5000], vec![0xff; 100_000]];
    damaged.push(Vec::new());
    damaged.extend([1, 9, 100, 4095, 4096, 8192, good.len() / 2].map(|n| good[..n].to_vec()));
    for bytes in damaged {
        let bad = dir.path().join("bad.redb");
        fs::write(&bad, &bytes).unwrap();
        let error = State::open(&bad).unwrap_err();
        assert!(
            matches!(error, StateError::Damaged { .. }),
            "{} bytes: {error}",
            bytes.len()
        );
        assert!(
            error.to_string().contains("bad.redb") && error.to_string().contains("move the file")
        );
        assert!(
            fs::read(&bad).unwrap() == bytes,
            "{} bytes were overwritten",
            bytes.len()
        );
    }
}

/// Any byte of the file may be wrong: opening and reading it never panics.
#[test]
fn a_flipped_byte_anywhere_never_panics() {
    let (dir, path) = fresh();
    let state = State::open(&path).unwrap();
    state.set_membership(&proof()).unwrap();
    drop(state);
    let good = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|i| good[*i] != 0).collect();
    let mut refused = 0;
    for at in used.iter().step_by(used.len() / 150 + 1) {
        let bad = dir.path().join("bad.redb");
        let mut bytes = good.clone();
        bytes[*at] ^= 0x55;
        fs::write(&bad, &bytes).unwrap();
        let read = State::open(&bad).and_then(|s| s.membership::<Membership>());
        refused += usize::from(read.is_err());
    }
    assert!(refused > 0, "no flip was noticed: the test does not strike");
}

fn double(tx: &WriteTransaction) -> Result<(), redb::Error> {
    let mut counters = tx.open_table(COUNTERS)?;
    let value = counters.get(INCARNATION)?.map_or(0, |v| v.value());
    counters.insert(INCARNATION, value * 2)?;
    Ok(())
}

fn add_ten(tx: &WriteTransaction) -> Result<(), redb::Error> {
    let mut counters = tx.open_table(COUNTERS)?;
    let value = counters.get(INCARNATION)?.map_or(0, |v| v.value());
    counters.insert(INCARNATION, value + 10)?;
    Ok(())
}

fn fail(tx: &WriteTransaction) -> Result<(), redb::Error> {
    double(tx)?;
    Err(redb::Error::Corrupted("this step fails".to_owned()))
}

#[test]
fn old_formats_are_lifted_once_in_order() {
    let (_dir, path) = fresh();
    assert_eq!(
        State::open_with(&path, &[])
            .unwrap()
            .next_incarnation()
            .unwrap(),
        1
    );
    // (1 × 2) + 10 = 12, and the next life is 13; a second opening lifts nothing.
    assert_eq!(
        State::open_with(&path, &[double, add_ten])
            .unwrap()
            .next_incarnation()
            .unwrap(),
        13
    );
    assert_eq!(
        State::open_with(&path, &[double, add_ten])
            .unwrap()
            .next_incarnation()
            .unwrap(),
        14
    );
    assert_eq!(
        State::open_with(&path, &[double, add_ten, double])
            .unwrap()
            .next_incarnation()
            .unwrap(),
        29
    );
}

#[test]
fn a_step_that_fails_leaves_the_old_format() {
    let (_dir, path) = fresh();
    State::open_with(&path, &[])
        .unwrap()
        .next_incarnation()
        .unwrap();
    State::open_with(&path, &[add_ten, fail]).unwrap_err();
    assert_eq!(
        State::open_with(&path, &[])
            .unwrap()
            .next_incarnation()
            .unwrap(),
        2
    );
}

#[test]
fn a_newer_format_is_refused() {
    let (_dir, path) = fresh();
    State::open_with(&path, &[double, add_ten, double]).unwrap();
    let error = State::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("format 4") && error.contains("newer myzel"),
        "{error}"
    );
}
