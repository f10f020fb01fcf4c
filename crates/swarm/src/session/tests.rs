mod care;
mod guesses;
mod moves;

use super::*;
use crate::draft::Costs;
use proto::host::{Drawn, Output, Role, Run};
use proto::ids::{Hash, NodeId, RingId, SessionId};
use proto::model::{LayerRange, Sampling};
use proto::ring::{
    Ack, EpochAnswer, HopBody, RefusalCode, Rows, RowsKind, SessionFailed, SessionRef,
};

const RING: RingId = RingId([1; 16]);
const SESSION: SessionId = SessionId([2; 16]);

fn plan(prompt: usize, tokens_max: u32) -> SessionPlan {
    let stage = |at: u32| RemoteStage {
        node: NodeId([at as u8; 32]),
        layers: LayerRange {
            first: at * 10 - 9,
            end: at * 10 + 1,
        },
    };
    SessionPlan {
        ring: RING,
        session: SESSION,
        epoch: 1,
        stages: vec![stage(1), stage(2)],
        embedding_length: 1,
        positions_max: 2_000,
        prompt: (0..prompt as i32).collect(),
        tokens_max,
        sampling: Sampling::GREEDY,
        moves_max: 0,
        retained_bytes_max: 1 << 20,
        stage_retained_bytes_max: 1 << 20,
        sharers: 1,
        guesses_max: 0,
        costs: Costs::default(),
    }
}

/// A session whose ring and engine answer when told to. Every effect becomes a word of the log.
struct Rig {
    session: Session,
    now_ms: u64,
    log: Vec<String>,
    sent: Vec<Rows>,
    /// When signs of life were asked for.
    doubts: Vec<u64>,
    rebuilds: Vec<Rebuild>,
}

impl Rig {
    fn new(plan: SessionPlan) -> Self {
        let session = Session::new(plan).unwrap();
        Self {
            session,
            now_ms: 0,
            log: Vec::new(),
            sent: Vec::new(),
            doubts: Vec::new(),
            rebuilds: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) {
        for effect in self.session.handle(event, self.now_ms) {
            match &effect {
                Effect::Doubt => self.doubts.push(self.now_ms),
                Effect::Resumed(rebuild) => self.rebuilds.push(rebuild.clone()),
                effect => self.log.push(word(effect)),
            }
            if let Effect::Forward {
                body: HopBody::Rows(rows),
                ..
            } = effect
            {
                self.sent.push(rows);
            }
        }
    }

    fn start(&mut self) {
        self.event(Event::Start);
    }

    fn head(&mut self, position: u32, rows: usize) {
        self.event(Event::HeadDone {
            position,
            rows: vec![0; rows * 4].into(),
        });
    }

    /// The oldest frame comes back, after a change.
    fn back_as(&mut self, change: impl FnOnce(&mut Rows, &mut Vec<u8>)) {
        let mut rows = self.sent.remove(0);
        rows.stage = 2;
        let mut payload = vec![0; rows.rows as usize * 4];
        change(&mut rows, &mut payload);
        self.event(Event::Returned {
            rows,
            payload: payload.into(),
        });
    }

    fn back(&mut self) {
        self.back_as(|_, _| ());
    }

    fn tail(&mut self, position: u32) {
        self.event(Event::TailDone {
            position,
            drawn: Vec::new(),
            head_rows: None,
        });
    }

    fn token(&mut self, run: u32, position: u32, end: bool, head_rows: bool) {
        self.tokens(run, &[5], position, end, head_rows);
    }

    /// What was drawn behind `run`: the first token at `position`, the others behind it.
    fn tokens(&mut self, run: u32, tokens: &[i32], position: u32, end: bool, head_rows: bool) {
        let last = position + tokens.len() as u32 - 1;
        let drawn = (position..).zip(tokens).map(|(position, token)| Drawn {
            token: *token,
            position,
            piece: Vec::new(),
            end: end && position == last,
            logprobs: None,
            reused: 0,
        });
        let drawn = drawn.collect();
        let head_rows = head_rows.then(|| vec![0; 4].into());
        self.event(Event::TailDone {
            position: run,
            drawn,
            head_rows,
        });
    }

    fn failed(&mut self, stage: u32, epoch: u32, code: RefusalCode) {
        let at = SessionRef {
            ring: RING,
            session: SESSION,
            epoch,
        };
        let detail = "because\n".into();
        let failed = SessionFailed {
            at,
            stage: 9,
            code: Some(code),
            detail,
        };
        self.event(Event::StageFailed { stage, failed });
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.event(Event::Tick);
    }

    fn clear(&mut self) {
        self.log.clear();
    }
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::RunHead(Run {
            role: Role::Head,
            position,
            tokens,
            output: Output::Rows,
            ..
        }) => {
            assert!(
                tokens
                    .first()
                    .is_some_and(|&token| token == *position as i32 || token == 5 || token >= 100)
            );
            format!("head:{position}+{}", tokens.len())
        }
        Effect::RunTail { run, .. } if run.role == Role::Tail => match run.output {
            Output::Nothing => format!("tail:{}", run.position),
            Output::Token(draw) => {
                let head = if draw.then_head { "+head" } else { "" };
                format!(
                    "draw{head}:{}{}",
                    run.position,
                    guesses(run.guesses.len() as u32)
                )
            }
            _ => panic!("{run:?}"),
        },
        Effect::Forward {
            body: HopBody::Open(open),
            ..
        } => {
            format!("open:{}@{}", open.positions_max, open.epoch)
        }
        Effect::Forward {
            body: HopBody::Rows(r),
            payload,
        } => {
            assert_eq!(payload.len(), r.rows as usize * 4);
            let kind = match r.kind {
                RowsKind::Decode => "decode",
                RowsKind::Prefill => "prefill",
                RowsKind::Replay => "replay",
            };
            let guessed = guesses(r.guessed);
            format!("{kind}:{}+{}@{}{guessed}", r.position, r.rows, r.epoch)
        }
        Effect::Tell { stage, body } => match body {
            LinkBody::CloseSession(_) => format!("close:{stage}"),
            LinkBody::Ack(Ack { position, .. }) => format!("ack:{stage}<{position}"),
            LinkBody::Epoch(at) => format!("epoch:{stage}@{}", at.epoch),
            LinkBody::Resume(r) => {
                assert_eq!(r.stage, *stage);
                format!("resume:{stage}={}>{}/{}", r.keep, r.from, r.wanted)
            }
            other => panic!("{other:?}"),
        },
        Effect::Token(drawn) => format!("token:{}", drawn.position),
        Effect::Suspect(s) => format!("suspect:{}>{}", s.waited_ms, s.deadline_ms),
        Effect::Shadow { until } => format!("shadow<{until}"),
        Effect::Strand(_) => "strand".into(),
        Effect::TrimCaches { length } => format!("trim:{length}"),
        Effect::DropCaches => "drop".into(),
        Effect::Finish(reason) => format!("{reason:?}"),
        Effect::Fail(fault) => format!("FAIL {fault}"),
        other => panic!("{other:?}"),
    }
}

fn guesses(count: u32) -> String {
    match count {
        0 => String::new(),
        count => format!("?{count}"),
    }
}

fn check_plan(plan: SessionPlan, script: impl FnOnce(&mut Rig), expected: &str) {
    let mut rig = Rig::new(plan);
    script(&mut rig);
    assert_eq!(rig.log.join(" "), expected);
}

/// Three tokens in, their frame on its way.
fn sent(rig: &mut Rig) {
    rig.start();
    rig.head(0, 3);
    rig.clear();
}

fn check(script: impl FnOnce(&mut Rig), expected: &str) {
    check_plan(plan(3, 9), |rig| (sent(rig), script(rig)).1, expected);
}

/// As [`check`], for faults: what comes before the closing words is left out.
fn check_fault(script: impl FnOnce(&mut Rig), expected: &str) {
    let mut rig = Rig::new(plan(3, 9));
    sent(&mut rig);
    script(&mut rig);
    let log = rig.log.join(" ");
    let (_, fault) = log
        .split_once("close:1 close:2 drop FAIL ")
        .unwrap_or(("", &log));
    assert_eq!(fault, expected);
    rig.clear();
    rig.start();
    rig.failed(1, 1, RefusalCode::Gap);
    rig.wait(1_000_000);
    rig.event(Event::Cancel);
    assert_eq!(rig.log.join(" "), "", "the session speaks after its end");
}

#[test]
fn a_short_answer() {
    check_plan(
        plan(3, 3),
        |rig| {
            rig.start();
            rig.head(0, 3);
            rig.back();
            rig.token(0, 3, false, true);
            rig.back();
            rig.token(3, 4, false, true);
            rig.back();
            rig.token(4, 5, false, false);
        },
        "open:6@1 head:0+3 decode:0+3@1 draw+head:0 token:3 decode:3+1@1 draw+head:3 token:4 \
         decode:4+1@1 draw:4 token:5 close:1 close:2 drop Length",
    );
}

#[test]
fn endings() {
    let first = |rig: &mut Rig, end| {
        rig.start();
        rig.head(0, 3);
        rig.clear();
        rig.back();
        rig.token(0, 3, end, false);
    };
    check_plan(
        plan(3, 9),
        |rig| first(rig, true),
        "draw+head:0 token:3 close:1 close:2 drop End",
    );
    check_plan(
        plan(3, 1),
        |rig| first(rig, false),
        "draw:0 token:3 close:1 close:2 drop Length",
    );
    let full = SessionPlan {
        positions_max: 3,
        ..plan(3, 9)
    };
    check_plan(
        full,
        |rig| first(rig, false),
        "draw:0 token:3 close:1 close:2 drop Context",
    );
    check(
        |rig| rig.event(Event::Cancel),
        "close:1 close:2 drop Cancelled",
    );
    check_plan(plan(3, 9), |rig| rig.event(Event::Cancel), "Cancelled");
    check_plan(plan(3, 9), |rig| (rig.wait(9), rig.back_nothing()).1, "");
}

impl Rig {
    /// A frame before the session began.
    fn back_nothing(&mut self) {
        let (session, kind) = (SESSION, RowsKind::Decode);
        let rows = Rows {
            session,
            epoch: 1,
            position: 0,
            rows: 1,
            chunk: 0,
            stage: 2,
            kind,
            guessed: 0,
        };
        self.event(Event::Returned {
            rows,
            payload: vec![0; 4].into(),
        });
    }
}

#[test]
fn a_head_that_was_not_run_with_the_draw_is_run_after_it() {
    check(
        |rig| (rig.back(), rig.token(0, 3, false, false)).1,
        "draw+head:0 token:3 head:3+1",
    );
}

#[test]
fn a_long_prompt_goes_in_frames_and_few_at_once() {
    check_plan(
        plan(1_500, 1),
        |rig| {
            rig.start();
            for position in [0, 256, 512, 768] {
                rig.head(position, 256);
            }
            rig.log.push("full:".into());
            rig.back();
            rig.log.push("the tail still has it:".into());
            rig.tail(0);
            rig.head(1024, 256);
        },
        "open:1501@1 head:0+256 prefill:0+256@1 head:256+256 prefill:256+256@1 head:512+256 \
         prefill:512+256@1 head:768+256 prefill:768+256@1 full: tail:0 the tail still has it: \
         head:1024+256 prefill:1024+256@1",
    );
}

#[test]
fn only_the_last_frame_of_a_prompt_draws() {
    check_plan(
        plan(300, 1),
        |rig| {
            rig.start();
            rig.head(0, 256);
            rig.head(256, 44);
            rig.clear();
            rig.back();
            rig.back();
            rig.tail(0);
            rig.token(256, 300, false, false);
        },
        "tail:0 draw:256 token:300 close:1 close:2 drop Length",
    );
}

#[test]
fn frames_that_do_not_count_are_ignored() {
    let other = SessionId([9; 16]);
    check(|rig| rig.back_as(|rows, _| rows.epoch = 0), "");
    check(
        |rig| rig.back_as(|rows, _| rows.kind = RowsKind::Replay),
        "",
    );
    check(|rig| rig.back_as(|rows, _| rows.session = other), "");
    check(|rig| (rig.back(), rig.clear(), rig.back_nothing()).2, "");
}

#[test]
fn frames_that_cannot_be_right_name_the_last_stage() {
    fn check(change: impl FnOnce(&mut Rows, &mut Vec<u8>), expected: &str) {
        let start =
            "stage 2 (layers 11..21, node 0202020202) sent activations that cannot be right: ";
        let end = "; ask again, without this node if it repeats";
        check_fault(
            |rig| rig.back_as(change),
            &format!("{start}{expected}{end}"),
        );
    }
    check(|r, _| r.epoch = 2, "epoch 2, the newest is 1");
    check(
        |r, _| r.position = 1,
        "3 rows at position 1, expected at most 3 at 0",
    );
    check(
        |r, _| r.rows = 4,
        "4 rows at position 0, expected at most 3 at 0",
    );
    check(
        |r, _| r.stage = 1,
        "the frame is of stage 1, expected stage 2",
    );
    check(|r, _| r.chunk = 4, "chunk 4, expected 0");
    check(|_, p| p.truncate(8), "a payload of 8 bytes, expected 12");
    check(
        |_, p| p[8..].copy_from_slice(&f32::NAN.to_le_bytes()),
        "value 0 of row 2 from stage 2 is not finite",
    );
}

#[test]
fn a_frame_that_nobody_asked_for_fails() {
    check_fault(
        |rig| {
            rig.sent.push(Rows {
                position: 3,
                rows: 1,
                ..rig.sent[0]
            });
            rig.back();
            rig.back();
        },
        "stage 2 (layers 11..21, node 0202020202) sent activations that cannot be right: position 3, \
         and nothing is on its way; ask again, without this node if it repeats",
    );
}

#[test]
fn failures_of_peers_name_them() {
    check_fault(
        |rig| {
            rig.event(Event::PeerSilent {
                stage: 1,
                silent_ms: 3_100,
            })
        },
        "stage 1 (layers 1..11, node 0101010101) has been silent for 3100 ms; see that its node runs and is \
         reachable, then ask again",
    );
    check_fault(
        |rig| rig.event(Event::LinkLost { stage: 2 }),
        "stage 2 (layers 11..21, node 0202020202) closed its connection; see that its node runs and is \
         reachable, then ask again",
    );
    check_fault(
        |rig| rig.failed(1, 1, RefusalCode::EngineFailed),
        "stage 1 (layers 1..11, node 0101010101) cannot go on: the engine failed: because ; ask again",
    );
    check_fault(
        |rig| rig.failed(1, 0, RefusalCode::UnknownEpoch),
        "stage 1 (layers 1..11, node 0101010101) cannot go on: epoch not announced: because ; ask again",
    );
    check(|rig| rig.event(Event::LinkLost { stage: 0 }), "");
    check(|rig| rig.event(Event::LinkLost { stage: 3 }), "");
    check(|rig| rig.failed(1, 1, RefusalCode::OldEpoch), "");
    check(|rig| rig.failed(1, 0, RefusalCode::Gap), "");
}

#[test]
fn failures_of_the_engine() {
    let fault = |what: &str| {
        format!("the engine here failed: {what}; ask again, and see the log if it repeats")
    };
    check_fault(
        |rig| rig.event(Event::EngineFailed { detail: "x".into() }),
        &fault("x"),
    );
    check_fault(
        |rig| rig.head(3, 1),
        &fault("it answered for the head at position 3 and was not asked"),
    );
    check_fault(
        |rig| (rig.back(), rig.token(0, 4, false, true)).1,
        &fault(
            "it answered [Drawn { token: 5, position: 4, piece: [], end: false, logprobs: None, reused: 0 }] to the tail's run at 0",
        ),
    );
    check_fault(
        |rig| (rig.back(), rig.tail(0)).1,
        &fault("it answered [] to the tail's run at 0"),
    );
}

#[test]
fn impossible_plans_are_refused() {
    fn check(change: fn(&mut SessionPlan), expected: &str) {
        let mut plan = plan(3, 3);
        change(&mut plan);
        assert_eq!(Session::new(plan).unwrap_err().to_string(), expected);
    }
    check(|p| p.stages.clear(), "0 remote stages, a ring has 1 to 64");
    check(
        |p| p.prompt.clear(),
        "the prompt has no token; send some text",
    );
    check(
        |p| p.positions_max = 2,
        "the prompt has 3 tokens and the context 2; shorten the prompt",
    );
    check(
        |p| p.tokens_max = 0,
        "0 tokens were asked for; ask for at least 1",
    );
    check(
        |p| p.embedding_length = 0,
        "rows of 0 numbers, supported are 1 to 2097152",
    );
}
