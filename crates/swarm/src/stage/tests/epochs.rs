//! New epochs, trimming and replay.

use super::*;

#[test]
fn late_frames_of_an_old_epoch_do_not_silence_a_refusal() {
    check(
        |rig| {
            settled(rig);
            rig.epoch(2);
            rig.frame(1, 4, 1, 4.0);
            rig.frame(1, 5, 1, 5.0);
            rig.frame(2, 9, 1, 9.0);
            rig.frame(2, 9, 1, 9.0);
        },
        "answer:4/0##@2 OldEpoch@2 Gap@2",
    );
}

#[test]
fn a_new_epoch_aborts_what_was_in_flight() {
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 4, 1, 4.0);
            rig.frame(1, 5, 1, 5.0);
            rig.epoch(2);
            rig.frame(2, 4, 1, 6.0);
            rig.mark("stale:");
            rig.done();
            rig.mark("fresh:");
            rig.done();
        },
        "compute:4+1 trim:4 answer:4/0##@2 compute:4+1 stale: fresh: send:4+1=60@2",
    );
    check(
        |rig| (settled(rig), rig.epoch(2), rig.epoch(1)).2,
        "answer:4/0##@2 OldEpoch@2",
    );
    check(
        |rig| (settled(rig), rig.epoch(9), rig.epoch(9)).2,
        "answer:4/0##@9 answer:4/0##@9",
    );
    check(|rig| (rig.open(1), rig.epoch(2)).1, "open:1 answer:0/0--@2");
    check(|rig| rig.epoch(2), "UnknownSession@2");
}

#[test]
fn the_first_other_frame_of_an_epoch_trims() {
    check(
        |rig| {
            settled(rig);
            rig.epoch(2);
            rig.frame(2, 2, 1, 7.0);
            rig.done();
            rig.mark("strict:");
            rig.frame(2, 2, 1, 8.0);
        },
        "answer:4/0##@2 trim:2 compute:2+1 send:2+1=70@2 strict: Conflict@2",
    );
    check(
        |rig| {
            settled(rig);
            rig.epoch(2);
            rig.frame(2, 0, 2, 1.0);
            rig.frame(2, 2, 1, 2.0);
            rig.frame(2, 3, 1, 9.0);
            rig.done();
        },
        "answer:4/0##@2 send:0+2=10@2 send:2+1=20@2 trim:3 compute:3+1 send:3+1=90@2",
    );
    check(
        |rig| {
            settled(rig);
            rig.epoch(2);
            rig.frame(2, 1, 3, 5.0);
            rig.epoch(3);
        },
        "answer:4/0##@2 trim:1 compute:1+3 trim:1 answer:1/0-#@3",
    );
    check(
        |rig| {
            settled(rig);
            rig.ack(1, 4);
            rig.epoch(2);
            rig.frame(2, 0, 1, 5.0);
            rig.done();
            rig.epoch(3);
        },
        "answer:4/4#-@2 trim:0 compute:0+1 send:0+1=50@2 answer:1/0##@3",
    );
}

#[test]
fn replayed_rows_rebuild_and_are_not_wanted_twice() {
    let replay = |rig: &mut Rig, position, rows, value| {
        rig.frame_of(1, position, rows, value, RowsKind::Replay);
    };
    check(
        |rig| {
            (
                settled(rig),
                replay(rig, 0, 2, 99.0),
                replay(rig, 2, 2, 1.0),
            )
                .2
        },
        "",
    );
    check(|rig| (settled(rig), replay(rig, 5, 1, 1.0)).1, "Gap@1");
    check(
        |rig| {
            rig.open(1);
            replay(rig, 0, 4, 1.0);
            rig.done();
            rig.epoch(1);
        },
        "open:1 compute:0+4 replay:0+4=10@1 answer:4/0##@1",
    );
    check(
        |rig| {
            settled(rig);
            replay(rig, 2, 5, 1.0);
            rig.done();
        },
        "compute:4+3 replay:4+3=10@1",
    );
    check(
        |rig| {
            rig.open(1);
            replay(rig, 0, 1, 1.0);
            rig.frame(1, 0, 1, 1.0);
            rig.done();
        },
        "open:1 compute:0+1 send:0+1=10@1",
    );
}

#[test]
fn replay_leaves_the_right_to_trim() {
    check(
        |rig| {
            settled(rig);
            rig.epoch(2);
            rig.frame_of(2, 0, 2, 99.0, RowsKind::Replay);
            rig.frame(2, 3, 1, 4.0);
        },
        "answer:4/0##@2 trim:3 compute:3+1",
    );
}

#[test]
fn an_engine_failure_is_told_once_and_ends_the_epoch() {
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 4, 1, 4.0);
            rig.frame(1, 5, 1, 5.0);
            rig.broken();
            rig.frame(1, 6, 1, 6.0);
            rig.frame(1, 2, 1, 9.0);
            rig.epoch(2);
            rig.frame(2, 4, 1, 4.0);
            rig.done();
        },
        "compute:4+1 EngineFailed@1 answer:4/0##@2 compute:4+1 send:4+1=40@2",
    );
}

#[test]
fn a_session_that_goes_on_keeps_its_rows_and_sends_what_the_next_stage_lacks() {
    check(
        |rig| {
            settled(rig);
            rig.announce(2, Some(50));
            rig.mark("waits:");
            rig.frame(2, 4, 1, 4.0);
            rig.mark("goes on:");
            rig.resume(2, 4, 1, 3);
            rig.done();
            rig.resume(2, 0, 0, 0);
        },
        "answer:4/0##@2 waits: goes on: replay:1+2=10@2 send:3+1=30@2 compute:4+1 send:4+1=40@2",
    );
    check(
        |rig| {
            settled(rig);
            rig.announce(2, Some(50));
            rig.resume(2, 2, 5, 5);
            rig.frame_of(2, 2, 3, 7.0, RowsKind::Replay);
            rig.frame(2, 5, 1, 8.0);
            rig.done();
            rig.mark("the next stage has those:");
            rig.done();
        },
        "answer:4/0##@2 trim:2 compute:2+3 compute:5+1 the next stage has those: send:5+1=80@2",
    );
}

#[test]
fn who_does_not_have_a_session_that_goes_on_opens_it() {
    check(
        |rig| {
            rig.announce(3, Some(50));
            rig.frame_of(3, 0, 4, 1.0, RowsKind::Replay);
            rig.resume(3, 0, 2, 4);
            rig.frame(3, 4, 1, 5.0);
            rig.done();
            rig.done();
        },
        "answer:0/0--@3 compute:0+4 replay:2+2=10@3 compute:4+1 send:4+1=50@3",
    );
    check(
        |rig| {
            rig.open(1);
            rig.event(Event::Close(SessionRef {
                ring: RING,
                session: SESSION,
                epoch: 1,
            }));
            rig.announce(2, Some(50));
        },
        "open:1 drop UnknownSession@2",
    );
    check(|rig| rig.announce(2, Some(101)), "BadShape@2");
}

#[test]
fn what_cannot_be_sent_again_is_refused() {
    check(
        |rig| {
            settled(rig);
            rig.ack(1, 2);
            rig.announce(2, Some(50));
            rig.resume(1, 4, 4, 4);
            rig.resume(2, 4, 0, 4);
        },
        "answer:4/2##@2 Forgotten@2",
    );
    check(
        |rig| {
            (
                settled(rig),
                rig.announce(2, Some(50)),
                rig.resume(2, 5, 5, 4),
            )
                .2
        },
        "answer:4/0##@2 Forgotten@2",
    );
}

#[test]
fn a_stage_that_moves_to_another_ring_keeps_what_is_computed_for_itself() {
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 4, 1, 4.0);
            rig.stage.move_to(RingId([9; 16]), 2, 2).unwrap();
            rig.done();
            rig.mark("moved:");
            rig.announce(2, Some(50));
            rig.resume(2, 5, 4, 4);
        },
        "compute:4+1 moved: answer:5/0##@2 send:4+1=40@2",
    );
    let mut rig = Rig::new(plan());
    assert!(rig.stage.move_to(RING, 3, 2).is_err());
}

#[test]
fn caches_that_are_lost_are_told_of_once_and_begin_anew() {
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 4, 1, 4.0);
            rig.event(Event::CachesLost);
            rig.broken();
            rig.frame(1, 5, 1, 5.0);
            rig.announce(2, Some(50));
            rig.resume(2, 0, 0, 4);
            rig.frame_of(2, 0, 4, 1.0, RowsKind::Replay);
        },
        "compute:4+1 EngineFailed@1 answer:0/0--@2 compute:0+4",
    );
}

#[test]
fn rows_that_are_being_replayed_when_the_next_epoch_comes_are_kept_where_they_are_of_use() {
    fn replays(rig: &mut Rig) {
        settled(rig);
        rig.frame_of(1, 4, 3, 2.0, RowsKind::Replay);
        rig.announce(2, Some(50));
    }
    check(
        |rig| {
            replays(rig);
            rig.resume(2, 4, 4, 7);
            rig.frame_of(2, 4, 3, 2.0, RowsKind::Replay);
            rig.frame(2, 7, 1, 8.0);
            rig.mark("nothing is computed twice:");
            rig.done();
        },
        "compute:4+3 answer:4/0##@2 nothing is computed twice: replay:4+3=20@2 compute:7+1",
    );
    check(
        |rig| {
            replays(rig);
            rig.done();
            rig.announce(2, Some(50));
            rig.resume(2, 4, 4, 7);
            rig.frame(2, 7, 1, 8.0);
        },
        "compute:4+3 answer:4/0##@2 answer:4/0##@2 replay:4+3=20@2 compute:7+1",
    );
    check(
        |rig| {
            replays(rig);
            rig.resume(2, 4, 4, 5);
            rig.frame_of(2, 4, 1, 2.0, RowsKind::Replay);
            rig.mark("the engine answers late:");
            rig.done();
            rig.done();
        },
        "compute:4+3 answer:4/0##@2 trim:4 compute:4+1 the engine answers late: replay:4+1=20@2",
    );
    check(
        |rig| {
            replays(rig);
            rig.done();
            rig.announce(3, None);
            rig.frame(3, 4, 1, 5.0);
        },
        "compute:4+3 answer:4/0##@2 trim:4 answer:4/0##@3 compute:4+1",
    );
}
