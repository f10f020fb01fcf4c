//! State files in which bytes have changed: they are opened or refused, and nothing panics or goes on for ever.

#[path = "../../../../fuzz/bodies/mutation.rs"]
mod mutation;

use mutation::{mutate, mutation};
use proptest::prelude::*;
use proto::disk::ModelDeaths;
use proto::ids::{CommonsId, Hash, NodeId, TicketId};
use proto::member::{Membership, Vouch};
use std::path::Path;
use std::sync::LazyLock;
use store::state::State;

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

/// A file with something in every table.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let state = State::open(&path).unwrap();
    for n in 0..40 {
        state.remember_member(NodeId([n; 32]), &proof()).unwrap();
    }
    state.set_membership(&proof()).unwrap();
    write(&state).unwrap();
    drop(state);
    std::fs::read(&path).unwrap()
});

fn write(state: &State) -> Result<(), store::state::StateError> {
    state.next_incarnation()?;
    state.set_membership(&proof())?;
    state.remember_member(NodeId([7; 32]), &proof())?;
    state.forget_member(NodeId([9; 32]))?;
    state.use_ticket(TicketId([5; 16]), Some(3))?;
    Ok(())
}

fn read(state: &State) -> Result<(), store::state::StateError> {
    state.membership::<Membership>()?;
    state.members::<Membership>()?;
    state.tickets()?;
    state.ticket_revoked(TicketId([5; 16]))?;
    state.deaths()?;
    Ok(())
}

/// Whether the file was opened.
fn open(path: &Path) -> bool {
    match State::open(path) {
        Ok(state) => {
            // Whatever is damaged further in shows here, as an error.
            let _ = (read(&state), write(&state), read(&state));
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("state.redb"), "{error}");
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_state_file_is_opened_or_refused(
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let mut bytes = SOUND.clone();
        mutations.into_iter().for_each(|mutation| mutate(&mut bytes, mutation));
        std::fs::write(&path, &bytes).unwrap();
        let opened = open(&path);
        if !opened {
            prop_assert_eq!(std::fs::read(&path).unwrap(), bytes, "what is refused stays as it is");
        }
    }
}

#[test]
fn the_sound_file_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    std::fs::write(&path, &*SOUND).unwrap();
    let state = State::open(&path).unwrap();
    let members = state.members::<Membership>().unwrap();
    assert_eq!(members.len(), 39, "one was forgotten again");
    let deaths = ModelDeaths {
        name: "m".into(),
        times_s: vec![1],
        ..ModelDeaths::default()
    };
    state.set_deaths(Hash([3; 32]), Some(&deaths)).unwrap();
    assert_eq!(state.deaths().unwrap().len(), 1);
}
