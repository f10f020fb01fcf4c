//! Tokens that are guessed, and go round with one that was drawn.

use super::*;
use std::time::Duration;

/// A text that has said 100 to 104 before, on a ring where guesses cost nothing.
fn guessing() -> SessionPlan {
    let mut costs = Costs::default();
    for guesses in 0..=8 {
        costs.learn(guesses, Duration::from_millis(100));
    }
    SessionPlan {
        prompt: vec![100, 101, 102, 103, 104, 100, 101],
        guesses_max: 3,
        costs,
        moves_max: 2,
        ..plan(7, 20)
    }
}

/// 102 was drawn, and what followed it last time is with the head.
fn guessed(rig: &mut Rig) {
    rig.session.set_lone(true);
    rig.start();
    rig.head(0, 7);
    rig.back();
    rig.clear();
    rig.tokens(0, &[102], 7, false, true);
}

/// And they are on their way.
fn sent_guesses(rig: &mut Rig) {
    guessed(rig);
    rig.head(8, 3);
    rig.clear();
}

fn check_guessing(script: impl FnOnce(&mut Rig), expected: &str) {
    check_plan(guessing(), script, expected);
}

impl Rig {
    /// The ring is lost, and stages of another one have so many rows and retain all outputs.
    fn over_another(&mut self, lengths: [u32; 2]) {
        self.sent.clear();
        self.event(Event::LinkLost { stage: 1 });
        self.found(lengths);
    }

    fn found(&mut self, lengths: [u32; 2]) {
        let stages = self.session.plan.stages.clone();
        let ring = RingId([3; 16]);
        self.event(Event::Rejoin(Way { ring, stages }));
        for (stage, length) in (1..).zip(lengths) {
            let at = self.session.at();
            let answer = EpochAnswer {
                at,
                stage,
                length,
                input: None,
                output: None,
                retained_from: 0,
            };
            self.event(Event::EpochAnswer { stage, answer });
        }
    }
}

#[test]
fn they_travel_in_one_frame() {
    check_guessing(
        |rig| (guessed(rig), rig.head(8, 3)).1,
        "token:7 head:8+3 decode:7+4@1?3",
    );
    // The head's row of the token did not come along.
    check_guessing(
        |rig| {
            rig.session.set_lone(true);
            rig.start();
            rig.head(0, 7);
            rig.back();
            rig.clear();
            rig.tokens(0, &[102], 7, false, false);
            rig.head(7, 4);
        },
        "token:7 head:7+4 decode:7+4@1?3",
    );
}

#[test]
fn those_that_were_right_are_tokens() {
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.tokens(7, &[103, 104, 5], 8, false, true);
        },
        "draw+head:7?3 token:8 token:9 token:10 decode:10+1@1",
    );
    // All of them: the row of the last one is of use.
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.tokens(7, &[103, 104, 100, 5], 8, false, true);
            let status = rig.session.status();
            assert_eq!((status.guessed, status.guessed_right), (3, 3));
        },
        "draw+head:7?3 token:8 token:9 token:10 token:11 decode:11+1@1",
    );
    // An end is no guess.
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.tokens(7, &[103, 5], 8, true, false);
        },
        "draw+head:7?3 token:8 token:9 close:1 close:2 drop End",
    );
}

#[test]
fn they_are_made_only_where_they_pay_and_fit() {
    let alone = |plan, expected| check_plan(plan, guessed, expected);
    alone(
        SessionPlan {
            guesses_max: 0,
            ..guessing()
        },
        "token:7 decode:7+1@1",
    );
    alone(
        SessionPlan {
            costs: Costs::default(),
            ..guessing()
        },
        "token:7 decode:7+1@1",
    );
    alone(
        SessionPlan {
            tokens_max: 3,
            ..guessing()
        },
        "token:7 head:8+1",
    );
    alone(
        SessionPlan {
            positions_max: 10,
            ..guessing()
        },
        "token:7 head:8+2",
    );
    check_guessing(
        |rig| {
            rig.start();
            rig.head(0, 7);
            rig.back();
            rig.clear();
            rig.tokens(0, &[102], 7, false, true);
        },
        "token:7 decode:7+1@1",
    );
}

#[test]
fn what_cannot_be_right_is_refused() {
    let fault = |script: fn(&mut Rig), expected: &str| {
        let mut rig = Rig::new(SessionPlan {
            moves_max: 0,
            ..guessing()
        });
        sent_guesses(&mut rig);
        script(&mut rig);
        let log = rig.log.join(" ");
        assert!(log.contains(expected), "{log}");
    };
    let answers = "FAIL the engine here failed: it answered";
    fault(
        |rig| (rig.back(), rig.tokens(7, &[104, 5], 8, false, true)).1,
        answers,
    );
    fault(
        |rig| (rig.back(), rig.tokens(7, &[103, 5], 9, false, true)).1,
        answers,
    );
    fault(
        |rig| {
            (
                rig.back(),
                rig.tokens(7, &[103, 104, 100, 5, 5], 8, false, true),
            )
                .1
        },
        answers,
    );
    fault(|rig| (rig.back(), rig.tail(7)).1, answers);
    // Half of a frame with guesses.
    fault(
        |rig| {
            rig.back_as(|rows, payload| {
                (rows.rows, rows.guessed) = (2, 1);
                payload.truncate(8);
            });
        },
        "FAIL stage 2",
    );
}

#[test]
fn with_their_ring_they_are_lost() {
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.over_another([11, 11]);
            rig.clear();
            // Row 7 comes from what stage 2 retains.
            rig.event(Event::Tick);
        },
        "",
    );
    let log = |lengths| {
        let mut rig = Rig::new(guessing());
        sent_guesses(&mut rig);
        rig.over_another(lengths);
        rig.log.join(" ")
    };
    let opening = "trim:8 strand epoch:1@2 epoch:2@2";
    assert_eq!(
        log([11, 11]),
        format!("{opening} resume:1=8>8/7 resume:2=8>7/7")
    );
    assert_eq!(
        log([11, 7]),
        format!("{opening} resume:1=8>7/7 resume:2=7>7/7")
    );
    assert_eq!(
        log([7, 7]),
        format!("{opening} resume:1=7>7/7 resume:2=7>7/7 decode:7+1@2")
    );
}

#[test]
fn the_heads_cache_is_cut_when_the_engine_is_done_with_it() {
    check_guessing(
        |rig| {
            guessed(rig);
            rig.clear();
            rig.event(Event::LinkLost { stage: 1 });
            rig.head(8, 3);
            rig.found([7, 7]);
        },
        "strand trim:8 epoch:1@2 epoch:2@2 resume:1=7>7/7 resume:2=7>7/7 decode:7+1@2",
    );
}

#[test]
fn who_found_another_ring_waits_until_they_were_judged() {
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.clear();
            rig.over_another([11, 11]);
            rig.tokens(7, &[103, 5], 8, false, true);
        },
        "strand epoch:1@2 epoch:2@2 token:8 token:9 resume:1=9>9/9 resume:2=9>9/9 decode:9+1@2",
    );
}

#[test]
fn a_row_in_the_place_of_a_guess_counts_when_it_has_come_back() {
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.tokens(7, &[5], 8, false, true);
            rig.clear();
            // Stage 1 has taken the row in the place of the guess, and stage 2 has the guesses still.
            rig.over_another([9, 11]);
            rig.clear();
            // Nobody has heard of that when this ring is lost, too.
            rig.over_another([9, 11]);
        },
        "strand epoch:1@3 epoch:2@3 resume:1=8>8/8 resume:2=8>8/8 decode:8+1@3",
    );
    check_guessing(
        |rig| {
            sent_guesses(rig);
            rig.back();
            rig.tokens(7, &[5], 8, false, true);
            rig.back();
            rig.token(8, 9, false, true);
            rig.clear();
            rig.over_another([10, 9]);
        },
        "strand epoch:1@2 epoch:2@2 resume:1=10>9/9 resume:2=9>9/9",
    );
}
