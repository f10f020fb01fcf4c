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
        "answer:4/4##@2 trim:0 compute:0+1 send:0+1=50@2 answer:1/0##@3",
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
