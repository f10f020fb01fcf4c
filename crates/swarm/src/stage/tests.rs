mod epochs;
mod guesses;
mod life;

use super::*;
use proto::ids::RingId;
use proto::packet::f32_to_bytes;
use proto::ring::{CHUNK_ROWS, DETAIL_BYTES_MAX, NewEpoch, Resume, RowsKind};
use std::collections::VecDeque;

const SESSION: SessionId = SessionId([7; 16]);
const RING: RingId = RingId([1; 16]);

fn plan() -> StagePlan {
    StagePlan {
        ring: RING,
        stage: 2,
        stages: 3,
        embedding_length: 1,
        positions_max: 100,
        sessions_max: 2,
        retained_bytes_max: 1 << 20,
    }
}

/// A stage whose engine answers when told to. Every effect becomes a word of the log.
struct Rig {
    stage: Stage,
    now_ms: u64,
    log: Vec<String>,
    /// What the engine was asked and has not answered.
    asked: VecDeque<Compute>,
}

impl Rig {
    fn new(plan: StagePlan) -> Self {
        let stage = Stage::new(plan).unwrap();
        Self {
            stage,
            now_ms: 0,
            log: Vec::new(),
            asked: VecDeque::new(),
        }
    }

    fn event(&mut self, event: Event) {
        for effect in self.stage.handle(event, self.now_ms) {
            self.log.push(word(&effect));
            if let Effect::Compute(compute) = effect {
                self.asked.push_back(compute);
            }
        }
    }

    fn open(&mut self, epoch: u32) {
        self.event(Event::Open(OpenSession {
            session: SESSION,
            epoch,
            positions_max: 50,
        }));
    }

    /// A frame whose rows all hold `value`.
    fn frame(&mut self, epoch: u32, position: u32, rows: u32, value: f32) {
        self.frame_of(epoch, position, rows, value, RowsKind::Decode);
    }

    fn frame_of(&mut self, epoch: u32, position: u32, rows: u32, value: f32, kind: RowsKind) {
        let chunk = position / CHUNK_ROWS;
        let rows = Rows {
            session: SESSION,
            epoch,
            position,
            rows,
            chunk,
            stage: 1,
            kind,
            guessed: 0,
        };
        let payload = f32_to_bytes(&vec![value; rows.rows as usize]).into();
        self.event(Event::Rows { rows, payload });
    }

    /// The engine answers its oldest call with rows that hold the input's value times ten.
    fn done(&mut self) {
        let Compute {
            session,
            epoch,
            position,
            payload,
            ..
        } = self.asked.pop_front().unwrap();
        let values = proto::packet::f32_from_bytes(&payload).unwrap();
        let output = values.iter().map(|value| value * 10.0).collect::<Vec<_>>();
        let output = f32_to_bytes(&output).into();
        self.event(Event::Computed {
            session,
            epoch,
            position,
            output,
        });
    }

    fn broken(&mut self) {
        let Compute {
            session,
            epoch,
            position,
            ..
        } = self.asked.pop_front().unwrap();
        let detail = "no".into();
        self.event(Event::ComputeFailed {
            session,
            epoch,
            position,
            detail,
        });
    }

    fn epoch(&mut self, epoch: u32) {
        self.announce(epoch, None);
    }

    fn announce(&mut self, epoch: u32, positions_max: Option<u32>) {
        self.event(Event::Epoch(NewEpoch {
            ring: RING,
            session: SESSION,
            epoch,
            positions_max,
        }));
    }

    fn resume(&mut self, epoch: u32, keep: u32, from: u32, wanted: u32) {
        let at = SessionRef {
            ring: RING,
            session: SESSION,
            epoch,
        };
        self.event(Event::Resume(Resume {
            at,
            stage: 2,
            keep,
            from,
            wanted,
        }));
    }

    fn ack(&mut self, epoch: u32, position: u32) {
        let at = SessionRef {
            ring: RING,
            session: SESSION,
            epoch,
        };
        self.event(Event::Ack(Ack { at, position }));
    }

    fn close(&mut self) {
        self.event(Event::Close(SessionRef {
            ring: RING,
            session: SESSION,
            epoch: 1,
        }));
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.event(Event::Tick);
    }

    fn mark(&mut self, text: &str) {
        self.log.push(text.into());
    }
}

fn first_value(payload: &[u8]) -> f32 {
    proto::packet::f32_from_bytes(payload).unwrap()[0]
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Compute(c) => format!("compute:{}+{}", c.position, c.rows),
        Effect::Forward {
            body: HopBody::Open(open),
            ..
        } => format!("open:{}", open.epoch),
        Effect::Forward {
            body: HopBody::Rows(r),
            payload,
        } => {
            assert_eq!((r.stage, r.chunk), (2, r.position / CHUNK_ROWS));
            assert_eq!(payload.len(), r.rows as usize * 4);
            let kind = if r.kind == RowsKind::Replay {
                "replay"
            } else {
                "send"
            };
            format!(
                "{kind}:{}+{}={}@{}",
                r.position,
                r.rows,
                first_value(payload),
                r.epoch
            )
        }
        Effect::TrimCache { length, .. } => format!("trim:{length}"),
        Effect::DropCache { .. } => "drop".into(),
        Effect::Tell(LinkBody::SessionFailed(f)) => {
            assert!(f.stage == 2 && f.detail.len() <= DETAIL_BYTES_MAX);
            format!("{:?}@{}", f.code.unwrap(), f.at.epoch)
        }
        Effect::Tell(LinkBody::EpochAnswer(a)) => {
            let hashes = [a.input, a.output].map(|hash| if hash.is_some() { "#" } else { "-" });
            format!(
                "answer:{}/{}{}@{}",
                a.length,
                a.retained_from,
                hashes.concat(),
                a.at.epoch
            )
        }
        Effect::Tell(other) => panic!("{other:?}"),
    }
}

fn check_plan(plan: StagePlan, script: impl FnOnce(&mut Rig), expected: &str) {
    let mut rig = Rig::new(plan);
    script(&mut rig);
    assert_eq!(rig.log.join(" "), expected);
}

fn check(script: impl FnOnce(&mut Rig), expected: &str) {
    check_plan(plan(), script, expected);
}

/// Opened at epoch 1, with frames of 2, 1 and 1 rows computed: length 4.
fn settled(rig: &mut Rig) {
    rig.open(1);
    for (position, rows, value) in [(0, 2, 1.0), (2, 1, 2.0), (3, 1, 3.0)] {
        rig.frame(1, position, rows, value);
        rig.done();
    }
    rig.log.clear();
}

#[test]
fn frames_in_turn_are_taken_and_computed_in_order() {
    check(
        |rig| {
            rig.open(1);
            rig.frame(1, 0, 2, 1.0);
            rig.frame(1, 2, 3, 2.0);
            rig.frame(1, 5, 1, 3.0);
            rig.done();
            rig.done();
            rig.done();
        },
        "open:1 compute:0+2 send:0+2=10@1 compute:2+3 send:2+3=20@1 compute:5+1 send:5+1=30@1",
    );
}

#[test]
fn repeats_are_sent_again_and_never_computed_again() {
    check(
        |rig| (settled(rig), rig.frame(1, 2, 1, 2.0)).1,
        "send:2+1=20@1",
    );
    check(
        |rig| {
            settled(rig);
            rig.frame(1, 0, 2, 1.0);
            rig.frame(1, 0, 2, 1.0);
        },
        "send:0+2=10@1 send:0+2=10@1",
    );
    check(
        |rig| {
            rig.open(1);
            rig.frame(1, 0, 1, 1.0);
            rig.frame(1, 0, 1, 1.0);
            rig.frame(1, 1, 1, 2.0);
            rig.frame(1, 1, 1, 2.0);
            rig.done();
            rig.done();
        },
        "open:1 compute:0+1 send:0+1=10@1 compute:1+1 send:1+1=20@1",
    );
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    fn check(frame: impl Fn(&mut Rig), expected: &str) {
        super::tests::check(
            |rig| {
                settled(rig);
                let before = rig.stage.view(SESSION);
                frame(rig);
                frame(rig);
                assert_eq!(
                    rig.stage.view(SESSION),
                    before,
                    "a refusal changed the session"
                );
                rig.frame(1, 4, 1, 4.0);
                rig.done();
            },
            &format!("{expected} compute:4+1 send:4+1=40@1"),
        );
    }
    check(|rig| rig.frame(1, 5, 1, 1.0), "Gap@1");
    check(|rig| rig.frame(1, 2, 1, 2.5), "Conflict@1");
    check(|rig| rig.frame(1, 2, 2, 2.0), "Conflict@1");
    check(|rig| rig.frame(1, 1, 1, 1.0), "Conflict@1");
    check(|rig| rig.frame(0, 4, 1, 1.0), "OldEpoch@1");
    check(|rig| rig.frame(2, 4, 1, 1.0), "UnknownEpoch@1");
    check(|rig| rig.frame(1, 4, 0, 1.0), "BadShape@1");
    check(|rig| rig.frame(1, 4, 47, 1.0), "BadShape@1");
    check(|rig| rig.frame(1, u32::MAX, 1, 1.0), "BadShape@1");
    check(|rig| rig.frame(1, 4, 1, f32::NAN), "BadShape@1");
}

#[test]
fn a_frame_of_another_size_or_sender_is_refused() {
    fn check(change: impl Fn(&mut Rows, &mut Vec<u8>)) {
        super::tests::check(
            |rig| {
                settled(rig);
                let (session, kind) = (SESSION, RowsKind::Decode);
                let (epoch, position) = (1, 4);
                let mut rows = Rows {
                    session,
                    epoch,
                    position,
                    rows: 1,
                    chunk: 0,
                    stage: 1,
                    kind,
                    guessed: 0,
                };
                let mut payload = vec![0; 4];
                change(&mut rows, &mut payload);
                rig.event(Event::Rows {
                    rows,
                    payload: payload.into(),
                });
            },
            "BadShape@1",
        );
    }
    check(|_, payload| payload.truncate(3));
    check(|_, payload| payload.extend([0; 4]));
    check(|rows, _| rows.stage = 2);
    check(|rows, _| rows.chunk = 1);
}

#[test]
fn outputs_are_kept_up_to_a_limit() {
    let small = StagePlan {
        retained_bytes_max: 8,
        ..plan()
    };
    check_plan(
        small,
        |rig| {
            settled(rig);
            assert_eq!(rig.stage.view(SESSION).unwrap().retained_bytes, 8);
            rig.frame(1, 3, 1, 3.0);
            rig.frame(1, 0, 2, 1.0);
            rig.epoch(2);
        },
        "send:3+1=30@1 Forgotten@1 answer:4/2##@2",
    );
    let none = StagePlan {
        retained_bytes_max: 0,
        ..plan()
    };
    check_plan(none, |rig| (settled(rig), rig.epoch(2)).1, "answer:4/4#-@2");
}

#[test]
fn acknowledged_outputs_are_gone() {
    check(
        |rig| {
            settled(rig);
            rig.ack(0, 4);
            rig.ack(1, 1);
            rig.epoch(1);
            rig.ack(1, 3);
            rig.epoch(1);
            rig.frame(1, 3, 1, 3.0);
            rig.frame(1, 2, 1, 2.0);
            rig.ack(1, 999);
            rig.epoch(1);
        },
        "answer:4/0##@1 answer:4/3##@1 send:3+1=30@1 Forgotten@1 answer:4/4#-@1",
    );
}

#[test]
fn an_unusable_output_is_an_engine_failure() {
    fn check(output: Vec<u8>) {
        super::tests::check(
            |rig| {
                settled(rig);
                rig.frame(1, 4, 1, 4.0);
                let output = output.into();
                let (session, epoch, position) = (SESSION, 1, 4);
                rig.event(Event::Computed {
                    session,
                    epoch,
                    position,
                    output,
                });
            },
            "compute:4+1 trim:4 EngineFailed@1",
        );
    }
    check(vec![0; 8]);
    check(f32_to_bytes(&[f32::INFINITY]));
}

#[test]
fn a_lost_successor_is_told_and_work_goes_on() {
    check(
        |rig| {
            settled(rig);
            rig.event(Event::SuccessorLost);
            rig.event(Event::SuccessorLost);
            rig.frame(1, 4, 1, 4.0);
            rig.done();
            rig.epoch(2);
            rig.event(Event::SuccessorLost);
        },
        "SuccessorLost@1 compute:4+1 send:4+1=40@1 answer:5/0##@2 SuccessorLost@2",
    );
}
