//! Deadlines, leases, acknowledgements, epochs.

use super::*;

#[test]
fn slow_laps_are_reported_once_and_given_up_late() {
    let prefill = "no activations came back for 60000 ms in prefill from stage 1 (layers 1..11, node \
                   0101010101), stage 2 (layers 11..21, node 0202020202); look for an overloaded machine, then ask \
                   again";
    check(
        |rig| {
            rig.wait(5_000);
            rig.wait(1);
            rig.wait(1);
        },
        "suspect:5001>5000",
    );
    check_fault(|rig| (0..60).for_each(|_| rig.wait(1_000)), prefill);
    check(
        |rig| {
            rig.now_ms = 400;
            rig.back();
            rig.token(0, 3, false, true);
            rig.clear();
            rig.wait(500);
            rig.wait(1);
            rig.now_ms = 1_000;
            rig.back();
            rig.token(3, 4, false, true);
            rig.wait(1_800);
            rig.wait(1);
            assert_eq!(rig.session.status().suspicions, 2);
            assert_eq!(rig.session.status().decode_ms, Some(600));
        },
        "suspect:501>500 draw+head:3 token:4 decode:4+1@1 suspect:1801>1800",
    );
}

#[test]
fn a_prompt_may_wait_behind_those_of_all_sharers() {
    let mut rig = Rig::new(SessionPlan {
        sharers: 3,
        ..plan(3, 9)
    });
    sent(&mut rig);
    (0..179).for_each(|_| rig.wait(1_000));
    assert!(!rig.log.join(" ").contains("FAIL"), "{:?}", rig.log);
    rig.wait(1_000);
    let log = rig.log.join(" ");
    assert!(
        log.contains("no activations came back for 180000 ms in prefill"),
        "{log}"
    );
}

#[test]
fn leases_are_renewed() {
    check(|rig| rig.wait(LEASE_RENEWAL_MS - 1), "suspect:9999>5000");
    check(
        |rig| {
            rig.wait(LEASE_RENEWAL_MS);
            rig.wait(1);
            rig.wait(LEASE_RENEWAL_MS - 1);
        },
        "ack:1<0 ack:2<0 suspect:10000>5000 ack:1<0 ack:2<0",
    );
}

#[test]
fn acknowledgements_wait_until_stores_are_half_full() {
    fn check(stage_rows: usize, expected: &[&str]) {
        let mut rig = Rig::new(SessionPlan {
            stage_retained_bytes_max: stage_rows * 4,
            ..plan(1_024, 1)
        });
        rig.start();
        for position in [0, 256, 512, 768] {
            rig.head(position, 256);
            rig.back();
            match position {
                768 => rig.token(768, 1_024, false, false),
                _ => rig.tail(position),
            }
        }
        let acks = rig.log.iter().filter(|word| word.starts_with("ack:1"));
        assert_eq!(acks.collect::<Vec<_>>(), expected, "{stage_rows} rows");
    }
    check(4_096, &[]);
    check(2_048, &[]);
    check(2_047, &["ack:1<256"]);
    check(1_024, &["ack:1<256", "ack:1<512"]);
    check(0, &["ack:1<256", "ack:1<512", "ack:1<768", "ack:1<1024"]);
}

#[test]
fn what_is_on_its_way_is_kept_whatever_the_limit() {
    let mut rig = Rig::new(SessionPlan {
        retained_bytes_max: 1,
        ..plan(600, 1)
    });
    rig.start();
    rig.head(0, 256);
    rig.head(256, 256);
    rig.back();
    rig.tail(0);
    rig.head(512, 88);
    assert_eq!(rig.session.status().retained_bytes, (256 + 88) * 4);
}

#[test]
fn signs_of_life_are_asked_for_while_nothing_moves() {
    let mut rig = Rig::new(plan(3, 9));
    sent(&mut rig);
    (0..9).for_each(|_| rig.wait(100));
    let early = [200, 300, 400, 500, 600, 800, 900];
    assert_eq!(rig.doubts, early, "nobody knows how long a lap takes");
    rig.now_ms = 1_000;
    rig.back();
    rig.token(0, 3, false, true);
    rig.now_ms = 1_020;
    rig.back();
    rig.token(3, 4, false, true);
    rig.doubts.clear();
    (0..5).for_each(|_| rig.wait(60));
    assert_eq!(rig.doubts, [1_140, 1_260], "laps take 20 ms");
}

#[test]
fn standbys_are_fed_once_a_rebuild_would_take_long() {
    let mut rig = Rig::new(plan(300, 99));
    rig.start();
    rig.head(0, 256);
    rig.head(256, 44);
    let shadows = |rig: &Rig| -> Vec<String> {
        let words = rig.log.iter().filter(|word| word.starts_with("shadow"));
        words.cloned().collect()
    };
    rig.now_ms = 200;
    rig.back();
    assert!(shadows(&rig).is_empty(), "256 rows again take 200 ms");
    rig.now_ms = 450;
    rig.back();
    assert_eq!(shadows(&rig), ["shadow<300"]);
    let frames = rig.session.shadow(0, 300).unwrap();
    let heads: Vec<_> = frames.iter().map(|(head, _)| head.clone()).collect();
    let [
        HopBody::Open(open),
        HopBody::Rows(first),
        HopBody::Rows(second),
    ] = &heads[..]
    else {
        panic!("{heads:?}");
    };
    assert_eq!((open.epoch, open.positions_max), (1, 399));
    let span = |rows: &Rows| (rows.position, rows.rows, rows.kind);
    assert_eq!(span(first), (0, 256, RowsKind::Replay));
    assert_eq!(span(second), (256, 44, RowsKind::Replay));
    rig.tail(0);
    let mut at = 256;
    for position in 300..364 {
        rig.token(at, position, false, true);
        rig.now_ms += 5;
        rig.back();
        at = position;
    }
    assert_eq!(shadows(&rig), ["shadow<300", "shadow<332", "shadow<364"]);
    let frames = rig.session.shadow(332, 364).unwrap();
    assert_eq!(frames.len(), 2, "what it has is not sent again");
}
