//! Sessions that lose their ring and go on over another.

use super::*;

/// As [`plan`], and the session may move twice.
fn movable(prompt: usize, tokens_max: u32) -> SessionPlan {
    SessionPlan {
        moves_max: 2,
        ..plan(prompt, tokens_max)
    }
}

fn way(n: u8) -> Way {
    Way {
        ring: RingId([n; 16]),
        session: SessionId([n + 1; 16]),
        stages: vec![RemoteStage {
            node: NodeId([n; 32]),
            layers: LayerRange { first: 1, end: 21 },
        }],
    }
}

impl Rig {
    fn lose(&mut self) {
        self.sent.clear();
        self.event(Event::LinkLost { stage: 1 });
    }

    fn rejoin(&mut self, n: u8) {
        self.event(Event::Rejoin(way(n)));
    }

    /// The oldest frame comes back over a ring of one remote stage.
    fn back_from_one(&mut self) {
        self.back_as(|rows, _| rows.stage = 1);
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
fn the_answer_goes_on_over_another_ring() {
    check_plan(
        movable(3, 5),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.wait(1_000);
            rig.rejoin(7);
            rig.log.push("rebuilt:".into());
            rig.back_from_one();
            rig.back_from_one();
            rig.token(5, 6, false, true);
            rig.back_from_one();
            rig.token(6, 7, false, false);
        },
        "close:1 close:2 strand open:8@1 prefill:0+5@1 decode:5+1@1 rebuilt: draw+head:5 token:6 \
         decode:6+1@1 draw:6 token:7 close:1 drop Length",
    );
}

#[test]
fn the_engine_knows_the_session_by_its_first_name_and_the_ring_by_a_new_one() {
    let mut rig = Rig::new(movable(3, 5));
    rig.decode_three();
    rig.lose();
    rig.rejoin(7);
    assert!(
        rig.sent
            .iter()
            .all(|rows| rows.session == SessionId([8; 16]))
    );
    let late = Rows {
        session: SESSION,
        ..rig.sent[1]
    };
    rig.clear();
    rig.event(Event::Returned {
        rows: Rows { stage: 1, ..late },
        payload: vec![0; 4].into(),
    });
    rig.failed(1, 1, RefusalCode::LeaseExpired);
    assert_eq!(
        rig.log.join(" "),
        "",
        "what the old ring says does not count"
    );
    rig.back_from_one();
    let effects = rig.session.handle(
        Event::Returned {
            rows: Rows {
                stage: 1,
                ..rig.sent[0]
            },
            payload: vec![0; 4].into(),
        },
        0,
    );
    let [Effect::RunTail { run, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(run.session, SESSION);
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
            rig.rejoin(7);
        },
        "draw+head:0 close:1 close:2 strand token:3 open:8@1 prefill:0+3@1 decode:3+1@1",
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
            rig.rejoin(7);
            rig.back_from_one();
        },
        "close:1 close:2 strand open:1501@1 prefill:0+256@1 prefill:256+256@1 prefill:512+256@1 \
         prefill:768+256@1 prefill:1024+256@1",
    );
}

#[test]
fn long_answers_are_rebuilt_a_few_frames_at_a_time() {
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
            rig.rejoin(7);
            rig.log.push("full:".into());
            rig.back_from_one();
            rig.back_from_one();
        },
        "close:1 close:2 strand open:1203@1 prefill:0+256@1 prefill:256+256@1 prefill:512+256@1 \
         prefill:768+256@1 full: prefill:1024+76@1 decode:1100+1@1",
    );
}

#[test]
fn a_ring_is_lost_again_while_it_is_rebuilt_and_not_for_ever() {
    check_plan(
        movable(3, 9),
        |rig| {
            rig.decode_three();
            rig.lose();
            rig.rejoin(7);
            rig.lose();
            rig.rejoin(9);
            rig.lose();
        },
        "close:1 close:2 strand open:12@1 prefill:0+5@1 decode:5+1@1 close:1 strand open:12@1 \
         prefill:0+5@1 decode:5+1@1 close:1 drop FAIL stage 1 (layers 1..21, node 0909090909) closed its \
         connection; see that its node runs and is reachable, then ask again",
    );
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
        "close:1 close:2 strand close:1 close:2 drop FAIL stage 1 (layers 1..11, node 0101010101) closed its \
         connection; see that its node runs and is reachable, then ask again; no other nodes took over: nobody is left",
    );
    check(|rig| rig.event(Event::GiveUp { why: "x".into() }), "");
    check(|rig| rig.rejoin(7), "");
}

#[test]
fn what_is_no_accident_or_cannot_be_sent_again_fails_at_once() {
    let fails = |plan: SessionPlan, script: fn(&mut Rig)| {
        let mut rig = Rig::new(plan);
        sent(&mut rig);
        script(&mut rig);
        let log = rig.log.join(" ");
        assert!(log.contains("FAIL") && !log.contains("strand"), "{log}");
    };
    fails(movable(3, 9), |rig| rig.back_as(|rows, _| rows.rows = 2));
    fails(movable(3, 9), |rig| {
        rig.event(Event::EngineFailed { detail: "x".into() });
    });
    let forgetful = SessionPlan {
        retained_bytes_max: 4,
        ..movable(3, 9)
    };
    fails(forgetful, |rig| {
        rig.back();
        rig.token(0, 3, false, true);
        rig.lose();
    });
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
        "close:1 close:2 strand close:1 close:2 drop Cancelled",
    );
}
