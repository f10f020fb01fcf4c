use super::*;

const ME: NodeId = NodeId([5; 32]);
const SMALLER: NodeId = NodeId([4; 32]);
const LARGER: NodeId = NodeId([6; 32]);

fn member(id: NodeId) -> Member {
    Member {
        id,
        addrs: vec!["127.0.0.1:7".into()],
        name: String::new(),
        relays: None,
    }
}

fn table() -> Table {
    let mut table = Table::new(ME);
    assert!(table.learn(&member(SMALLER), true).is_some());
    assert!(table.learn(&member(LARGER), true).is_some());
    table
}

fn taken(turn: Turn) -> Place {
    let Turn::Taken(place) = turn else {
        panic!("not taken: {turn:?}")
    };
    place
}

#[test]
fn of_two_crossing_calls_the_one_of_the_smaller_id_goes_on() {
    let mut table = table();
    table.begin_dial(SMALLER).unwrap();
    taken(table.claim_for_their_call(SMALLER, Instant::now()));

    table.begin_dial(LARGER).unwrap();
    let arrived = Instant::now();
    let turn = table.claim_for_their_call(LARGER, arrived);
    assert!(
        matches!(turn, Turn::Wait(_, PeerState::Dialing)),
        "{turn:?}"
    );
    taken(table.claim_for_own_call(LARGER));
    let turn = table.claim_for_their_call(LARGER, arrived);
    assert!(matches!(turn, Turn::Duplicate), "{turn:?}");
}

#[test]
fn a_waiting_call_has_its_turn_when_ours_failed() {
    let mut table = table();
    table.begin_dial(LARGER).unwrap();
    let arrived = Instant::now();
    assert!(matches!(
        table.claim_for_their_call(LARGER, arrived),
        Turn::Wait(..)
    ));
    assert!(table.dial_failed(LARGER, String::new()));
    taken(table.claim_for_their_call(LARGER, arrived));
}

#[test]
fn a_call_after_link_up_replaces_the_link() {
    let mut table = table();
    let old = taken(table.claim_for_their_call(LARGER, Instant::now()));
    let turn = table.claim_for_their_call(LARGER, Instant::now());
    assert!(matches!(turn, Turn::Wait(_, PeerState::Up)), "{turn:?}");
    assert!(old.replaced.is_cancelled());
    table.release(&old, String::new());
    let new = taken(table.claim_for_their_call(LARGER, Instant::now()));
    table.release(&old, "late".into());
    assert!(
        table.outbox(LARGER).is_some(),
        "a late release ends nobody else's link"
    );
    table.release(&new, String::new());
    assert!(table.outbox(LARGER).is_none());
}

#[test]
fn no_second_call_is_made_while_one_is_under_way_or_a_link_is_up() {
    let mut table = table();
    table.begin_dial(LARGER).unwrap();
    assert!(table.begin_dial(LARGER).is_none());
    let place = taken(table.claim_for_own_call(LARGER));
    assert!(table.begin_dial(LARGER).is_none());
    table.release(&place, String::new());
    assert!(table.begin_dial(LARGER).is_some());
}

#[test]
fn who_flooded_a_link_gets_none_for_a_while() {
    let mut table = table();
    let now = Instant::now();
    let place = taken(table.claim_for_their_call(LARGER, now));
    table.bar(LARGER, now + Duration::from_secs(60));
    table.release(&place, "flood".into());
    assert!(table.begin_dial(LARGER).is_none());
    let turn = table.claim_for_their_call(LARGER, now + Duration::from_secs(59));
    assert!(matches!(turn, Turn::Barred), "{turn:?}");
    taken(table.claim_for_their_call(LARGER, now + Duration::from_secs(60)));
    taken(table.claim_for_their_call(SMALLER, now));
}

#[test]
fn hearsay_is_forgotten_and_members_are_not() {
    let mut table = table();
    let heard = NodeId([9; 32]);
    assert!(table.learn(&member(heard), false).is_some());
    for (id, stays) in [(heard, false), (LARGER, true)] {
        let mut known = true;
        for _ in 0..HEARSAY_DIALS_MAX {
            table.begin_dial(id).unwrap();
            known = table.dial_failed(id, String::new());
        }
        assert_eq!(known, stays);
    }
}

#[test]
fn hearsay_changes_nothing_about_a_member_and_is_not_passed_on() {
    let mut table = table();
    let elsewhere = Member {
        addrs: vec!["127.0.0.1:8".into()],
        ..member(LARGER)
    };
    assert!(table.learn(&elsewhere, false).is_none());
    assert!(table.members().contains(&member(LARGER)));
    // But where it is said to be is worth a call.
    let places = table.begin_dial(LARGER).unwrap();
    let both: Vec<_> = places.direct.iter().map(ToString::to_string).collect();
    assert_eq!(both, ["127.0.0.1:7", "127.0.0.1:8"]);
    assert!(table.learn(&elsewhere, true).is_none());
    assert!(table.members().contains(&elsewhere));
    table.learn(&member(NodeId([9; 32])), false).unwrap();
    assert_eq!(table.members().len(), 2);
}

#[test]
fn the_table_has_room_for_so_many_and_not_for_itself() {
    let mut table = Table::new(ME);
    assert!(table.learn(&member(ME), true).is_none());
    let mut learnt = 0;
    for n in 0..=MEMBERS_MAX {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        learnt += usize::from(table.learn(&member(NodeId(id)), true).is_some());
    }
    assert_eq!(learnt, MEMBERS_MAX);
    assert!(matches!(
        table.claim_for_their_call(LARGER, Instant::now()),
        Turn::Full
    ));
}

#[test]
fn round_trips_are_smoothed() {
    let vitals = Vitals::default();
    assert_eq!(vitals.rtt(), None);
    vitals.measured(800);
    assert_eq!(vitals.rtt(), Some(Duration::from_micros(800)));
    vitals.measured(1600);
    assert_eq!(vitals.rtt(), Some(Duration::from_micros(900)));
    assert_eq!(vitals.laps(), Duration::from_micros(900 + 1600));
    vitals.measured(900);
    assert_eq!(vitals.laps(), Duration::from_micros(900 + 1400));
}
