//! How sessions begin and end, and what bounds them.

use super::*;

#[test]
fn opening() {
    let open = |rig: &mut Rig, id: u8, positions_max| {
        let session = SessionId([id; 16]);
        rig.event(Event::Open(OpenSession {
            session,
            epoch: 1,
            positions_max,
        }));
    };
    check(|rig| (rig.open(1), rig.open(1)).1, "open:1 open:1");
    check(
        |rig| (rig.open(1), rig.epoch(2), rig.open(2)).2,
        "open:1 answer:0/0--@2 open:2",
    );
    check(|rig| (rig.open(1), rig.open(2)).1, "open:1 UnknownEpoch@1");
    check(|rig| (rig.open(1), open(rig, 7, 51)).1, "open:1 Conflict@1");
    check(|rig| open(rig, 7, 0), "BadShape@1");
    check(|rig| open(rig, 7, 101), "BadShape@1");
    check(
        |rig| {
            (1..=3).for_each(|id| open(rig, id, 9));
            rig.event(Event::Close(SessionRef {
                ring: RING,
                session: SessionId([1; 16]),
                epoch: 1,
            }));
            open(rig, 3, 9);
        },
        "open:1 open:1 NoRoom@1 drop open:1",
    );
    check_plan(
        StagePlan {
            stages: 2,
            ..plan()
        },
        |rig| rig.open(1),
        "",
    );
}

#[test]
fn a_closed_session_stays_closed_and_quiet() {
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 4, 1, 4.0);
            rig.close();
            rig.done();
            rig.frame(1, 5, 1, 5.0);
            rig.open(1);
            rig.ack(1, 2);
            rig.close();
        },
        "compute:4+1 drop",
    );
    check(
        |rig| (rig.close(), rig.open(1), rig.frame(1, 0, 1, 1.0)).2,
        "",
    );
}

#[test]
fn strangers_are_answered_once() {
    let twice = |rig: &mut Rig| (rig.frame(1, 0, 1, 1.0), rig.frame(1, 0, 1, 1.0)).1;
    check(twice, "UnknownSession@1");
    check(|rig| (twice(rig), rig.open(1)).1, "UnknownSession@1 open:1");
}

#[test]
fn leases_run_out() {
    check(
        |rig| {
            settled(rig);
            rig.wait(LEASE_MS - 1);
            rig.ack(1, 0);
            rig.wait(LEASE_MS - 1);
            rig.mark("still");
            rig.wait(1);
            rig.frame(1, 4, 1, 4.0);
        },
        "still drop LeaseExpired@1",
    );
    check(
        |rig| {
            settled(rig);
            rig.wait(LEASE_MS - 1);
            rig.frame(1, 9, 1, 4.0);
            rig.mark("refused frames renew nothing:");
            rig.wait(1);
        },
        "Gap@1 refused frames renew nothing: drop LeaseExpired@1",
    );
}

#[test]
fn queue_and_tombs_are_bounded() {
    let mut rig = Rig::new(plan());
    rig.open(1);
    for position in 0..FRAMES_QUEUED_MAX as u32 + 3 {
        rig.frame(1, position, 1, 1.0);
    }
    assert_eq!(rig.log.join(" "), "open:1 compute:0+1 NoRoom@1");
    assert_eq!(
        rig.stage.view(SESSION).unwrap().queued_frames,
        FRAMES_QUEUED_MAX
    );
    for id in 0..2 * TOMBS_MAX as u16 {
        let mut name = [9; 16];
        name[..2].copy_from_slice(&id.to_le_bytes());
        rig.event(Event::Close(SessionRef {
            ring: RING,
            session: SessionId(name),
            epoch: 1,
        }));
    }
    assert_eq!(rig.stage.tombs(), TOMBS_MAX);
}

#[test]
fn impossible_plans_are_refused() {
    fn check(change: fn(&mut StagePlan), expected: &str) {
        let mut plan = plan();
        change(&mut plan);
        assert_eq!(Stage::new(plan).unwrap_err().to_string(), expected);
    }
    check(
        |p| p.embedding_length = 0,
        "rows of 0 numbers, supported are 1 to 2097152",
    );
    check(
        |p| p.embedding_length = u32::MAX,
        "rows of 4294967295 numbers, supported are 1 to 2097152",
    );
    check(|p| p.stage = 0, "stage 0 of 3, a ring has 1 to 64 stages");
    check(|p| p.stage = 4, "stage 4 of 3, a ring has 1 to 64 stages");
    check(
        |p| p.stages = 65,
        "stage 2 of 65, a ring has 1 to 64 stages",
    );
    check(
        |p| p.sessions_max = 0,
        "0 sessions, an engine holds 1 to 64",
    );
    check(|p| p.positions_max = 0, "a cache of 0 positions");
}
