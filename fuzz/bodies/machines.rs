//! What must hold for the machines of a session and of a stage, whatever happens to them in whatever order. Bytes are read as events: most
//! are what a sound engine or peer would do next, the others are anything.

use bytes::Bytes;
use proto::host::{Drawn, GUESSES_MAX, Role};
use proto::ids::{Hash, NodeId, RingId, SessionId};
use proto::model::{LayerRange, Sampling};
use proto::ring::{
    Ack, EpochAnswer, HopBody, NewEpoch, OpenSession, RefusalCode, Resume, Rows, RowsKind,
    SessionFailed, SessionRef,
};
use std::time::Duration;
use swarm::draft::Costs;
use swarm::session::{self, FRAMES_IN_FLIGHT_MAX, RemoteStage, Session, SessionPlan, Way};
use swarm::stage::{self, FRAMES_QUEUED_MAX, Stage, StagePlan, TOMBS_MAX};

/// Positions of a cache, and bytes that are retained: small, so that both are soon full.
const POSITIONS_MAX: u32 = 600;
const RETAINED_BYTES_MAX: usize = 300 * 4;
const SESSIONS_MAX: u32 = 3;

/// How far a run came; what never happens is not tested.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) tokens: usize,
    pub(crate) finished: usize,
    pub(crate) failed: usize,
    pub(crate) strandings: usize,
    pub(crate) resumed: usize,
    pub(crate) computed: usize,
    pub(crate) forwarded: usize,
    pub(crate) refused: usize,
    pub(crate) went_on: usize,
    /// Tokens that were guessed right, and others.
    pub(crate) right: usize,
    pub(crate) wrong: usize,
}

/// Bytes as numbers; when there are none left, 0.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::from(self.byte()) * end / 256
    }

    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// Mostly `right`; else near it, or anything.
    fn near(&mut self, right: u32) -> u32 {
        match self.byte() {
            0..250 => right,
            250 | 251 => right.wrapping_add(1),
            252 => right.wrapping_sub(1),
            253 | 254 => u32::from(self.byte()),
            _ => u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        }
    }

    fn hash(&mut self) -> Option<Hash> {
        (!self.once_in(4)).then(|| Hash([self.byte() % 2; 32]))
    }

    /// A payload for so many rows of one number each; seldom of another length, or with what is no number.
    fn rows(&mut self, rows: u32) -> Bytes {
        let count = match self.once_in(200) {
            true => self.below(9),
            false => rows.min(POSITIONS_MAX),
        };
        let value = match self.once_in(200) {
            true => f32::NAN,
            false => f32::from(self.byte() % 3),
        };
        value.to_le_bytes().repeat(count as usize).into()
    }

    fn code(&mut self) -> Option<RefusalCode> {
        use RefusalCode::{Conflict, EngineFailed, Forgotten, Gap, NoRoom, OldEpoch, UnknownEpoch};
        let codes = [
            Gap,
            Conflict,
            Forgotten,
            EngineFailed,
            NoRoom,
            OldEpoch,
            UnknownEpoch,
        ];
        codes.get(self.below(9) as usize).copied()
    }
}

/// Panics when something does not hold.
pub(crate) fn run(bytes: &[u8]) -> Reached {
    let Some((which, rest)) = bytes.split_first() else {
        return Reached::default();
    };
    match which % 2 {
        0 => session(Tape(rest)),
        _ => stage(Tape(rest)),
    }
}

const SESSION: SessionId = SessionId([7; 16]);

fn ring(number: u32) -> RingId {
    RingId([number as u8; 16])
}

fn remote(count: u32) -> Vec<RemoteStage> {
    let stage = |at: u32| RemoteStage {
        node: NodeId([at as u8; 32]),
        layers: LayerRange {
            first: 1 + at,
            end: 2 + at,
        },
    };
    (0..count).map(stage).collect()
}

/// What a session wants and has not got.
#[derive(Default)]
struct Pending {
    head: Option<(u32, u32)>,
    /// Position, the end of the rows, whether a token is drawn, and whether the head runs on it.
    tail: Option<(u32, u32, bool, bool)>,
    /// The tokens of the last of these rows.
    guesses: Vec<i32>,
    sent: Vec<Rows>,
    epoch: u32,
    ring: u32,
    over: bool,
    stranded: bool,
    next_token: u32,
}

/// Texts say the same again after so many tokens.
const HABIT: u32 = 7;

fn habit_at(position: u32) -> i32 {
    (position % HABIT) as i32
}

/// Laps on which guesses cost nothing.
fn cheap() -> Costs {
    let mut costs = Costs::default();
    for guesses in 0..=GUESSES_MAX {
        costs.learn(guesses, Duration::from_millis(100));
    }
    costs
}

fn session(mut tape: Tape<'_>) -> Reached {
    let prompt = 1 + tape.below(256) * 2;
    let stages = 1 + tape.below(3);
    let plan = SessionPlan {
        ring: ring(0),
        session: SESSION,
        epoch: 1,
        stages: remote(stages),
        embedding_length: 1,
        positions_max: POSITIONS_MAX,
        prompt: (0..prompt).map(habit_at).collect(),
        tokens_max: 1 + tape.below(40),
        sampling: Sampling::GREEDY,
        moves_max: tape.below(4),
        retained_bytes_max: RETAINED_BYTES_MAX,
        stage_retained_bytes_max: RETAINED_BYTES_MAX,
        sharers: 1,
        guesses_max: tape.below(10),
        costs: cheap(),
    };
    let mut session = Session::new(plan).expect("the plan is sound");
    let (mut reached, mut now_ms) = (Reached::default(), 0);
    let mut pending = Pending {
        epoch: 1,
        next_token: prompt,
        ..Pending::default()
    };
    let mut event = session::Event::Start;
    loop {
        session.set_lone(!tape.once_in(20));
        let effects = session.handle(event, now_ms);
        assert!(
            !pending.over || effects.is_empty(),
            "it speaks after its end: {effects:?}"
        );
        effects
            .into_iter()
            .for_each(|effect| note(effect, &mut pending, &mut reached));
        let status = session.status();
        assert_eq!(status.over, pending.over);
        reached.right = status.guessed_right as usize;
        reached.wrong = (status.guessed - status.guessed_right) as usize;
        assert!(
            status.frames_in_flight <= FRAMES_IN_FLIGHT_MAX,
            "{status:?}"
        );
        for from in [0, status.position] {
            let _ = session.shadow(from, status.position);
        }
        if tape.0.is_empty() {
            return reached;
        }
        now_ms += u64::from(tape.byte());
        event = session_event(&mut tape, &mut pending, stages);
    }
}

fn note(effect: session::Effect, pending: &mut Pending, reached: &mut Reached) {
    use session::Effect;
    match effect {
        Effect::RunHead(run) => {
            assert_eq!(run.role, Role::Head);
            let busy = pending
                .head
                .replace((run.position, run.tokens.len() as u32));
            assert!(busy.is_none(), "two runs of the head at once");
        }
        Effect::RunTail { run, payload } => {
            assert!(!payload.is_empty() && payload.len().is_multiple_of(4));
            let draws = match run.output {
                proto::host::Output::Token(draw) => Some(draw.then_head),
                _ => None,
            };
            let end = run.position + payload.len() as u32 / 4;
            let wants = (run.position, end, draws.is_some(), draws == Some(true));
            pending.guesses = run.guesses;
            let busy = pending.tail.replace(wants);
            assert!(busy.is_none(), "two runs of the tail at once");
        }
        Effect::Forward {
            body: HopBody::Rows(rows),
            payload,
        } => {
            assert_eq!(payload.len(), rows.rows as usize * 4);
            pending.epoch = rows.epoch;
            pending.sent.push(rows);
        }
        Effect::Token(drawn) => {
            assert_eq!(
                drawn.position, pending.next_token,
                "tokens come in order and once"
            );
            pending.next_token += 1;
            reached.tokens += 1;
        }
        Effect::Strand(_) => {
            (pending.stranded, reached.strandings) = (true, reached.strandings + 1);
            pending.sent.clear();
        }
        Effect::Resumed(_) => reached.resumed += 1,
        Effect::Finish(_) => (pending.over, reached.finished) = (true, reached.finished + 1),
        Effect::Fail(_) => (pending.over, reached.failed) = (true, reached.failed + 1),
        _ => {}
    }
}

fn session_event(tape: &mut Tape<'_>, pending: &mut Pending, stages: u32) -> session::Event {
    use session::Event;
    match tape.byte() {
        0..70 if pending.head.is_some() || tape.once_in(200) => {
            let (position, rows) = pending.head.take().unwrap_or((0, 1));
            Event::HeadDone {
                position: tape.near(position),
                rows: tape.rows(rows),
            }
        }
        70..140 if !pending.sent.is_empty() => returned(tape, pending.sent.remove(0), stages),
        70..200 if pending.tail.is_some() || tape.once_in(200) => tail_done(tape, pending),
        200..232 => peer_event(tape, pending, stages),
        232..244 => {
            if pending.stranded {
                (pending.stranded, pending.ring) = (false, pending.ring + 1);
                pending.epoch += 1;
            }
            Event::Rejoin(Way {
                ring: ring(pending.ring),
                stages: remote(tape.near(stages).min(4)),
            })
        }
        244 => Event::GiveUp { why: String::new() },
        245 => Event::Cancel,
        246 => Event::EngineFailed {
            detail: String::new(),
        },
        _ => Event::Tick,
    }
}

/// A frame comes back.
fn returned(tape: &mut Tape<'_>, sent: Rows, stages: u32) -> session::Event {
    let rows = Rows {
        epoch: tape.near(sent.epoch),
        position: tape.near(sent.position),
        rows: tape.near(sent.rows),
        stage: tape.near(stages),
        ..sent
    };
    let payload = tape.rows(rows.rows);
    session::Event::Returned { rows, payload }
}

/// The engine has run the tail.
fn tail_done(tape: &mut Tape<'_>, pending: &mut Pending) -> session::Event {
    let wants = pending.tail.take().unwrap_or((0, 1, false, false));
    let (position, end, draws, then_head) = wants;
    let guesses = std::mem::take(&mut pending.guesses);
    let mut drawn: Vec<Drawn> = Vec::new();
    let wanted = draws != tape.once_in(200);
    for at in (end - guesses.len() as u32)..=end {
        if !wanted {
            break;
        }
        let token = Drawn {
            token: match tape.once_in(6) {
                true => 99,
                false => habit_at(at),
            },
            position: at,
            piece: Vec::new(),
            end: tape.once_in(30),
            logprobs: None,
            reused: 0,
        };
        let right = !token.end && guesses.get(drawn.len()) == Some(&token.token);
        drawn.push(token);
        if right == tape.once_in(200) {
            break;
        }
    }
    let ended = drawn.last().is_none_or(|drawn| drawn.end);
    let head_rows = (then_head && !ended).then(|| tape.rows(1));
    session::Event::TailDone {
        position: tape.near(position),
        drawn,
        head_rows,
    }
}

/// A peer says something, or is lost.
fn peer_event(tape: &mut Tape<'_>, pending: &Pending, stages: u32) -> session::Event {
    use session::Event;
    let at = SessionRef {
        ring: ring(pending.ring),
        session: SESSION,
        epoch: tape.near(pending.epoch),
    };
    let stage = 1 + tape.below(stages + 1);
    match tape.below(16) {
        0..3 => Event::LinkLost { stage },
        3..5 => Event::PeerSilent {
            stage,
            silent_ms: 5,
        },
        5..8 => Event::StageFailed {
            stage,
            failed: SessionFailed {
                at,
                stage,
                code: tape.code(),
                detail: String::new(),
            },
        },
        _ => Event::EpochAnswer {
            stage,
            answer: EpochAnswer {
                at,
                stage,
                length: tape.near(tape_position(pending)),
                input: tape.hash(),
                output: tape.hash(),
                retained_from: tape.near(0),
            },
        },
    }
}

/// Where a stage that lost nothing would be.
fn tape_position(pending: &Pending) -> u32 {
    let sent = pending.sent.last().map(|rows| rows.position + rows.rows);
    sent.unwrap_or(pending.next_token.saturating_sub(1))
}

fn stage(mut tape: Tape<'_>) -> Reached {
    let plan = StagePlan {
        ring: ring(0),
        stage: 1,
        stages: 2,
        embedding_length: 1,
        positions_max: POSITIONS_MAX,
        sessions_max: SESSIONS_MAX,
        retained_bytes_max: RETAINED_BYTES_MAX,
    };
    let mut stage = Stage::new(plan).expect("the plan is sound");
    let (mut reached, mut now_ms, mut number) = (Reached::default(), 0, 0);
    // What the engine was asked, in its order.
    let mut asked: Vec<stage::Compute> = Vec::new();
    while !tape.0.is_empty() {
        now_ms += u64::from(tape.byte()) * 8;
        let session = SessionId([tape.below(5) as u8; 16]);
        let event = stage_event(&mut tape, (&stage, session), (number, &mut asked));
        reached.computed += usize::from(matches!(event, stage::Event::Computed { .. }));
        reached.went_on += usize::from(matches!(event, stage::Event::Resume(_)));
        for effect in stage.handle(event, now_ms) {
            match effect {
                stage::Effect::Compute(compute) => {
                    assert_eq!(compute.payload.len(), compute.rows as usize * 4);
                    let same = |other: &stage::Compute| {
                        (other.session, other.epoch) == (compute.session, compute.epoch)
                    };
                    assert!(
                        !asked.iter().any(same),
                        "two frames of one session and epoch at once"
                    );
                    asked.push(compute);
                }
                stage::Effect::Forward {
                    body: HopBody::Rows(rows),
                    payload,
                } => {
                    assert_eq!(payload.len(), rows.rows as usize * 4);
                    assert_eq!(rows.stage, 1, "the sender's name is on it");
                    reached.forwarded += 1;
                }
                stage::Effect::Tell(_) => reached.refused += 1,
                _ => {}
            }
        }
        if tape.once_in(60) {
            number += 1;
            stage
                .move_to(ring(number), 1, 2)
                .expect("there is such a stage");
        }
        check(&stage);
    }
    reached
}

fn check(stage: &Stage) {
    assert!(stage.sessions() <= SESSIONS_MAX as usize && stage.tombs() <= TOMBS_MAX);
    for session in stage.open_sessions() {
        let view = stage.view(session).expect("it is open");
        let sane = view.retained_from <= view.length
            && view.length <= view.accepted
            && view.accepted <= POSITIONS_MAX
            && view.retained_bytes <= RETAINED_BYTES_MAX.max(256 * 4);
        assert!(sane, "{view:?}");
        // Replayed rows are bounded in bytes, all others in frames.
        assert!(
            view.queued_frames <= FRAMES_QUEUED_MAX + POSITIONS_MAX as usize,
            "{view:?}"
        );
    }
}

fn stage_event(
    tape: &mut Tape<'_>,
    (stage, session): (&Stage, SessionId),
    (number, asked): (u32, &mut Vec<stage::Compute>),
) -> stage::Event {
    use stage::Event;
    let view = stage.view(session);
    let (known, accepted) = view.map_or((1, 0), |view| (view.epoch, view.accepted));
    let length = view.map_or(0, |view| view.length);
    let epoch = tape.near(known);
    let at = SessionRef {
        ring: ring(number),
        session,
        epoch,
    };
    match tape.byte() {
        0..24 => Event::Open(OpenSession {
            session,
            epoch,
            positions_max: tape.near(POSITIONS_MAX),
        }),
        24..110 => frame(tape, at, accepted),
        110..180 if !asked.is_empty() => computed(tape, asked.remove(0)),
        110..196 => Event::Epoch(NewEpoch {
            ring: at.ring,
            session,
            epoch: known.wrapping_add(tape.below(3)),
            positions_max: (!tape.once_in(3)).then(|| tape.near(POSITIONS_MAX)),
        }),
        196..222 => {
            let back = tape.below(9);
            Event::Resume(Resume {
                at,
                stage: 1,
                keep: tape.near(length),
                from: tape.near(length.saturating_sub(back)),
                wanted: tape.near(length),
            })
        }
        222..234 => Event::Ack(Ack {
            at,
            position: tape.near(length / 2),
        }),
        234..239 => Event::Close(at),
        239..242 => Event::SuccessorLost,
        242..244 => {
            // A started engine answers nothing that the one before was asked.
            asked.clear();
            Event::CachesLost
        }
        244..250 => Event::Tick,
        _ => {
            let _ = stage.shadow(at, tape.near(0), tape.near(length));
            Event::Tick
        }
    }
}

/// A frame comes from the stage before.
fn frame(tape: &mut Tape<'_>, at: SessionRef, accepted: u32) -> stage::Event {
    let (count, guessed) = match tape.below(3) {
        0 => (1 + tape.below(256), 0),
        1 => (1, 0),
        _ => {
            let guessed = tape.below(GUESSES_MAX as u32 + 1);
            (1 + guessed, guessed)
        }
    };
    // Into the guesses before it, if there were any.
    let back = match tape.once_in(3) {
        true => tape.below(GUESSES_MAX as u32),
        false => 0,
    };
    let position = tape.near(accepted.saturating_sub(back));
    let kinds = [RowsKind::Decode, RowsKind::Prefill, RowsKind::Replay];
    let rows = Rows {
        session: at.session,
        epoch: at.epoch,
        position,
        rows: tape.near(count),
        chunk: tape.near(position / 256),
        stage: tape.near(0),
        kind: kinds[tape.below(3) as usize],
        guessed: tape.near(guessed),
    };
    let payload = tape.rows(rows.rows);
    stage::Event::Rows { rows, payload }
}

/// The engine answers.
fn computed(tape: &mut Tape<'_>, asked: stage::Compute) -> stage::Event {
    let stage::Compute {
        session,
        epoch,
        position,
        rows,
        ..
    } = asked;
    if tape.once_in(20) {
        return stage::Event::ComputeFailed {
            session,
            epoch,
            position,
            detail: String::new(),
        };
    }
    stage::Event::Computed {
        session,
        epoch,
        position,
        output: tape.rows(rows),
    }
}
