//! What is asked of a ring, and the same on one machine.

use crate::engine::{EMBEDDING_LENGTH, Part, draw, embed, habit_at};
use crate::ring::{POSITIONS_MAX, RETAINED_BYTES_MAX, RING, SESSION};
use crate::rng::Rng;
use proto::host::GUESSES_MAX;
use proto::ids::NodeId;
use proto::model::{LayerRange, Sampling};
use std::time::Duration;
use swarm::draft::Costs;
use swarm::session::{FinishReason, RemoteStage, SessionPlan};

/// How often a session may leave its ring at most for one thing that is wrong: it is said, it is noticed, and it is not yet known
/// when the next ring is formed.
pub(crate) const MOVES_A_WRONG: u32 = 3;

/// The same request on one machine, and its caches.
pub(crate) fn alone(plan: &SessionPlan, layers: u32, habit: u32) -> (Vec<i32>, FinishReason, Part) {
    let mut whole = Part::new(LayerRange {
        first: 0,
        end: layers,
    });
    let mut tokens = plan.prompt.clone();
    let mut rows = whole.run(0, &embed(&tokens)).expect("the cache is empty");
    let mut drawn = Vec::new();
    loop {
        let position = tokens.len() as u32;
        let token = draw(rows[rows.len() - 1], &plan.sampling, position, habit);
        drawn.push(token.token);
        tokens.push(token.token);
        if token.end {
            return (drawn, FinishReason::End, whole);
        }
        if drawn.len() as u32 == plan.tokens_max {
            return (drawn, FinishReason::Length, whole);
        }
        if position == plan.positions_max {
            return (drawn, FinishReason::Context, whole);
        }
        rows = whole
            .run(position, &embed(&[token.token]))
            .expect("the row is next");
    }
}

/// Laps on which guesses cost nothing.
fn cheap() -> Costs {
    let mut costs = Costs::default();
    for guesses in 0..=GUESSES_MAX {
        costs.learn(guesses, Duration::from_millis(100));
    }
    costs
}

pub(crate) fn plan(rng: &mut Rng, remote: &[LayerRange], habit: u32) -> SessionPlan {
    let prompt = match rng.below(4) {
        0 => 1 + rng.below(1_600),
        1 => 250 + rng.below(20),
        _ => 1 + rng.below(40),
    };
    let room = if rng.once_in(8) {
        rng.below(6) as u32
    } else {
        POSITIONS_MAX - prompt as u32
    };
    let moves_max = MOVES_A_WRONG * [0, 2, 6][rng.below(3)];
    SessionPlan {
        ring: RING,
        session: SESSION,
        epoch: 1,
        stages: remote
            .iter()
            .map(|&layers| RemoteStage {
                node: NodeId([9; 32]),
                layers,
            })
            .collect(),
        embedding_length: EMBEDDING_LENGTH,
        positions_max: prompt as u32 + room,
        prompt: (0..prompt as u32)
            .map(|at| match habit {
                0 => rng.below(1_000) as i32,
                _ => habit_at(habit, at),
            })
            .collect(),
        tokens_max: 1 + rng.below(40) as u32,
        sampling: Sampling {
            temperature: [0.0, 0.8, 1.5][rng.below(3)],
            top_k: [0, 5][rng.below(2)],
            top_p: [1.0, 0.9][rng.below(2)],
            seed: rng.next(),
        },
        moves_max,
        retained_bytes_max: [usize::MAX, rng.below(40_000)][rng.below(2)],
        stage_retained_bytes_max: RETAINED_BYTES_MAX,
        sharers: 1,
        guesses_max: [0, 1, 3, 8][rng.below(4)],
        costs: cheap(),
    }
}
