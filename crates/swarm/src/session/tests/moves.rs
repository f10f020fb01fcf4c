//! Sessions that lose their ring and go on over another.

use super::*;

/// As [`plan`], and the session may move twice.
fn movable(prompt: usize, tokens_max: u32) -> SessionPlan {
    SessionPlan {
        moves_max: 2,
        ..plan(prompt, tokens_max)
    }
}

fn way(n: u8, stages: u32) -> Way {
    let stage = |at: u32| RemoteStage {
        node: NodeId([n; 32]),
        layers: LayerRange {
            first: at * 10 - 9,
            end: at * 10 + 1,
        },
    };
    Way {
        ring: RingId([n; 16]),
        stages: (1..=stages).map(stage).collect(),
    }
}

impl Rig {
    fn lose(&mut self) {
        self.sent.clear();
        self.event(Event::LinkLost { stage: 1 });
    }

    /// Another ring is found, of stages that have so many rows and retain outputs from there on.
    fn rejoin(&mut self, n: u8, stages: &[(u32, u32)]) {
        let answer = |(length, from): &(u32, u32)| (*length, *from, None, None);
        self.rejoin_with(n, &stages.iter().map(answer).collect::<Vec<_>>());
    }

    fn rejoin_with(&mut self, n: u8, stages: &[(u32, u32, Option<Hash>, Option<Hash>)]) {
        self.event(Event::Rejoin(way(n, stages.len() as u32)));
        for (stage, &(length, retained_from, input, output)) in (1..).zip(stages) {
            let at = SessionRef {
                ring: RingId([n; 16]),
                session: SESSION,
                epoch: self.session.status().epoch,
            };
            let answer = EpochAnswer {
                at,
                stage,
                length,
                input,
                output,
                retained_from,
            };
            self.event(Event::EpochAnswer { stage, answer });
        }
    }

    /// For each stage, rows replayed and rows computed a second time.
    fn rows(&self) -> Vec<(u32, u32)> {
        let rebuild = self.rebuilds.last().unwrap();
        let stages = rebuild.stages.iter();
        stages.map(|s| (s.replayed, s.recomputed)).collect()
    }

    /// Three tokens of prompt, three drawn, the fourth under way.
    fn decode_three(&mut self) {
        self.start();
        self.head(0, 3);
        self.back();
        self.token(0, 3, false, true);
        for position in [3, 4] {
            self.back();
            self.token(position, position + 1, false, true);
        }
        self.clear();
    }
}

#[test]
fn a_lost_stage_is_fed_and_the_others_keep_what_they_have() {
    // The first one is lost: the head feeds the one in its place, and the second takes what is new.
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.wait(1_000);
            rig.rejoin(7, &[(0, 0), (5, 0)]);
            assert_eq!(rig.rows(), [(5, 0), (0, 0)]);
            assert_eq!(rig.rebuilds[0].rows_resent, 6);
            rig.log.push("rebuilt:".into());
            rig.sent.remove(0);
            rig.back();
            rig.token(5, 6, false, true);
            rig.back();
            rig.token(6, 7, false, false);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=0>5/5 resume:2=5>5/5 replay:0+5@2 decode:5+1@2 rebuilt: \
         draw+head:5 token:6 decode:6+1@2 draw:6 token:7 close:1 close:2 drop Length",
    );
    // The second one is lost: the first one feeds it, and has the pending row as well.
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7, &[(6, 0), (0, 0)]);
            assert_eq!(rig.rows(), [(0, 0), (5, 0)]);
            assert_eq!(rig.rebuilds[0].rows_resent, 6);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=6>0/5 resume:2=0>5/5",
    );
    // What the last one had sent back when the ring broke is sent again.
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7, &[(6, 0), (6, 2)]);
            assert_eq!(rig.rows(), [(0, 0), (0, 0)]);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=6>6/5 resume:2=6>5/5",
    );
}

#[test]
fn who_retains_too_little_computes_again_and_no_more_than_that() {
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7, &[(6, 4), (0, 0)]);
            assert_eq!(rig.rows(), [(0, 6), (5, 0)]);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=0>0/5 resume:2=0>5/5 replay:0+5@2 decode:5+1@2",
    );
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7, &[(6, 4), (3, 3)]);
            assert_eq!(rig.rows(), [(0, 3), (2, 0)]);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=3>3/5 resume:2=3>5/5 replay:3+2@2 decode:5+1@2",
    );
}

#[test]
fn caches_of_other_rows_are_not_kept() {
    let row = Hash::of(&[0; 4]);
    let other = Some(Hash([9; 32]));
    let rejoined = |first, second| {
        let mut rig = Rig::new(movable(3, 5));
        rig.decode_three();
        rig.lose();
        rig.rejoin_with(7, &[first, second]);
        rig.rows()
    };
    let good = Some(row);
    assert_eq!(
        rejoined((5, 0, good, other), (5, 0, other, None)),
        [(0, 0), (0, 0)]
    );
    assert_eq!(
        rejoined((5, 0, other, other), (5, 0, other, None)),
        [(0, 5), (0, 0)]
    );
    assert_eq!(
        rejoined((5, 0, good, good), (5, 0, other, None)),
        [(0, 0), (0, 5)]
    );
    assert_eq!(
        rejoined((6, 0, good, good), (5, 0, other, None)),
        [(0, 0), (0, 0)],
        "rows of other positions"
    );
}

#[test]
fn everything_is_computed_from_the_tokens_when_the_head_keeps_too_little() {
    let forgetful = SessionPlan {
        retained_bytes_max: 4,
        ..movable(3, 5)
    };
    check_plan(
        forgetful,
        |rig| {
            rig.decode_three();
            rig.back();
            rig.lose();
            rig.rejoin(7, &[(0, 0), (6, 6)]);
            rig.log.push("engine:".into());
            rig.token(5, 6, false, true);
            assert!(rig.rebuilds[0].from_tokens);
            assert_eq!(rig.rows(), [(6, 0), (0, 6)]);
            rig.head(0, 7);
            rig.back();
            rig.token(0, 7, false, false);
        },
        "draw+head:5 strand epoch:1@2 epoch:2@2 engine: token:6 trim:0 resume:1=0>0/0 resume:2=0>0/0 \
         head:0+7 decode:0+7@2 draw:0 token:7 close:1 close:2 drop Length",
    );
}

#[test]
fn who_says_that_he_has_what_nobody_sent_fails_the_session() {
    let mut rig = Rig::new(movable(3, 5));
    rig.decode_three();
    rig.lose();
    rig.rejoin(7, &[(7, 0)]);
    let log = rig.log.join(" ");
    let says = "FAIL stage 1 (layers 1..11, node 0707070707) says that it has 7 positions of 6";
    assert!(log.contains(says), "{log}");
}

#[test]
fn what_comes_late_is_of_an_old_epoch() {
    let mut rig = Rig::new(movable(3, 5));
    rig.decode_three();
    let late = Rows {
        stage: 2,
        ..rig.sent[0]
    };
    rig.lose();
    rig.rejoin(7, &[(0, 0), (5, 0)]);
    rig.clear();
    rig.event(Event::Returned {
        rows: late,
        payload: vec![0; 4].into(),
    });
    rig.failed(1, 1, RefusalCode::LeaseExpired);
    assert_eq!(rig.log.join(" "), "");
    rig.sent.remove(0);
    rig.back();
    assert_eq!(rig.log.join(" "), "draw+head:5");
}

#[test]
fn what_came_back_is_drawn_from_while_there_is_no_ring() {
    check_plan(
        movable(3, 5),
        |rig| {
            sent(rig);
            rig.back();
            rig.lose();
            rig.token(0, 3, false, true);
            rig.wait(20_000);
            rig.rejoin(7, &[(0, 0)]);
        },
        "draw+head:0 strand token:3 epoch:1@2 resume:1=0>3/3 replay:0+3@2 decode:3+1@2",
    );
}

#[test]
fn a_ring_that_is_lost_in_the_middle_of_a_prompt() {
    check_plan(
        movable(1_500, 1),
        |rig| {
            rig.start();
            for position in [0, 256, 512, 768] {
                rig.head(position, 256);
            }
            rig.back();
            rig.tail(0);
            rig.clear();
            rig.lose();
            rig.head(1_024, 256);
            rig.rejoin(7, &[(600, 0), (512, 0)]);
            rig.log.push("in other frames:".into());
            let [first, rest] = [(256, 100), (356, 156)].map(|(position, rows)| Rows {
                position,
                rows,
                chunk: 1,
                ..rig.sent[0]
            });
            rig.sent.splice(..0, [first, rest]);
            rig.back();
            rig.back();
        },
        "strand epoch:1@2 epoch:2@2 resume:1=600>512/256 resume:2=512>256/256 prefill:600+168@2 \
         prefill:768+256@2 in other frames: tail:256",
    );
}

#[test]
fn long_answers_are_rebuilt_in_large_frames() {
    check_plan(
        movable(3, 1_200),
        |rig| {
            rig.start();
            rig.head(0, 3);
            rig.back();
            rig.token(0, 3, false, true);
            for position in 3..1_100 {
                rig.back();
                rig.token(position, position + 1, false, true);
            }
            rig.clear();
            rig.lose();
            rig.rejoin(7, &[(0, 0)]);
        },
        "strand epoch:1@2 resume:1=0>1100/1100 replay:0+256@2 replay:256+256@2 replay:512+256@2 \
         replay:768+256@2 replay:1024+76@2 decode:1100+1@2",
    );
}

#[test]
fn a_ring_is_lost_again_while_it_is_rebuilt_and_not_for_ever() {
    check_plan(
        movable(3, 9),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7, &[(0, 0)]);
            rig.lose();
            rig.event(Event::Rejoin(way(9, 1)));
            rig.lose();
        },
        "strand epoch:1@2 resume:1=0>5/5 replay:0+5@2 decode:5+1@2 strand epoch:1@3 close:1 drop FAIL stage 1 \
         (layers 1..11, node 0909090909) closed its connection; see that its node runs and is reachable, then ask \
         again",
    );
}

#[test]
fn who_does_not_answer_is_asked_for_a_sign_of_life_and_then_lost() {
    let mut rig = Rig::new(movable(3, 9));
    rig.decode_three();
    rig.lose();
    rig.event(Event::Rejoin(way(7, 2)));
    (0..4).for_each(|_| rig.wait(100));
    assert!(!rig.doubts.is_empty());
    (0..300).for_each(|_| rig.wait(100));
    assert_eq!(rig.log.iter().filter(|word| *word == "strand").count(), 2);
}

#[test]
fn giving_up_says_why() {
    check_plan(
        movable(3, 9),
        |rig| {
            sent(rig);
            rig.lose();
            rig.event(Event::GiveUp {
                why: "nobody is left".into(),
            });
        },
        "strand close:1 close:2 drop FAIL stage 1 (layers 1..11, node 0101010101) closed its \
         connection; see that its node runs and is reachable, then ask again; no other nodes took over: nobody is left",
    );
    check(|rig| rig.event(Event::GiveUp { why: "x".into() }), "");
    check(|rig| rig.event(Event::Rejoin(way(7, 1))), "");
}

#[test]
fn what_is_no_accident_fails_at_once() {
    let fails = |script: fn(&mut Rig)| {
        let mut rig = Rig::new(movable(3, 9));
        sent(&mut rig);
        script(&mut rig);
        let log = rig.log.join(" ");
        assert!(log.contains("FAIL") && !log.contains("strand"), "{log}");
    };
    fails(|rig| rig.back_as(|rows, _| rows.rows = 4));
    fails(|rig| rig.event(Event::EngineFailed { detail: "x".into() }));
}

#[test]
fn who_goes_away_while_there_is_no_ring_is_let_go() {
    check_plan(
        movable(3, 9),
        |rig| {
            sent(rig);
            rig.lose();
            rig.event(Event::Cancel);
        },
        "strand close:1 close:2 drop Cancelled",
    );
}
