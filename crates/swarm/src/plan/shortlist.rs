//! Narrowing many candidates down to those of which every set can be weighed.

use super::lap::{cycle_ms, detour};
use super::shares::{Host, Shares};
use super::{PlanError, Question, WEIGHED_MAX};
use proto::ring::STAGES_MAX;

/// At most [`WEIGHED_MAX`] candidates that hold the model together, or the fewest that do.
///
/// Greedy: while the model does not fit, whoever costs least for each layer that it takes; afterwards whoever
/// makes the ring best, or spoils it least.
pub(super) fn shortlist(question: &Question<'_>) -> Result<Vec<usize>, PlanError> {
    let able = |candidate: &usize| Host::remote(question, *candidate).most > 0;
    let mut left: Vec<usize> = (0..question.others.len()).filter(able).collect();
    if left.len() <= WEIGHED_MAX {
        fits(question, &left)?;
        return Ok(left);
    }
    fits(question, &largest(question, left.clone()))?;
    let mut ring = Vec::new();
    while ring.len() < STAGES_MAX as usize {
        let whole = Shares::of(question, &ring).is_some() && !ring.is_empty();
        if whole && ring.len() >= WEIGHED_MAX {
            break;
        }
        let missing = missing(question, &ring);
        let cost = |candidate: &usize| match missing {
            0 => cost_with(question, &ring, *candidate),
            missing => cost_a_layer(question, &ring, *candidate, missing),
        };
        let best = left
            .iter()
            .copied()
            .min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let Some(best) = best else { break };
        left.retain(|candidate| *candidate != best);
        ring.insert(detour(question.delays, &ring, best).0, best);
    }
    Ok(ring)
}

/// Other ways to choose as many: the fastest, the nearest, and those with the most room for what they cost.
pub(super) fn others(question: &Question<'_>) -> [Vec<usize>; 3] {
    let delays = question.delays;
    let fast = |at: &usize| question.others[*at].layer_ms;
    let near = |at: &usize| delays.ms(0, at + 1) + delays.ms(at + 1, 0);
    let roomy = |at: &usize| {
        let host = Host::remote(question, *at);
        (near(at) + host.ms(host.most)) / f64::from(host.most.max(1))
    };
    [
        first(question, &[], fast),
        first(question, &[], near),
        first(question, &[], roomy),
    ]
}

/// A ring, and those that would cost it the least.
pub(super) fn around(question: &Question<'_>, ring: &[usize]) -> Vec<usize> {
    first(question, ring, |at| cost_with(question, ring, *at))
}

/// These, and the best of all others that have room, as many as can be weighed.
fn first(question: &Question<'_>, kept: &[usize], cost: impl Fn(&usize) -> f64) -> Vec<usize> {
    let able = |at: &usize| Host::remote(question, *at).most > 0 && !kept.contains(at);
    let mut left: Vec<(f64, usize)> = (0..question.others.len())
        .filter(able)
        .map(|at| (cost(&at), at))
        .collect();
    left.sort_by(|a, b| a.0.total_cmp(&b.0));
    let left = left.into_iter().map(|(_, at)| at);
    kept.iter().copied().chain(left).take(WEIGHED_MAX).collect()
}

/// Layers that have no place at home or with these.
fn missing(question: &Question<'_>, ring: &[usize]) -> u32 {
    let remote = ring
        .iter()
        .map(|candidate| Host::remote(question, *candidate).most);
    let room = remote.fold(Host::home(question).most, u32::saturating_add);
    question.shape.layers.saturating_sub(room)
}

/// Those with most room, as many as a ring may have.
fn largest(question: &Question<'_>, mut all: Vec<usize>) -> Vec<usize> {
    all.sort_by_key(|candidate| std::cmp::Reverse(Host::remote(question, *candidate).most));
    all.truncate(STAGES_MAX as usize);
    all
}

fn fits(question: &Question<'_>, all: &[usize]) -> Result<(), PlanError> {
    match missing(question, all) {
        0 => Ok(()),
        missing => Err(PlanError::NoRoom {
            missing,
            layers: question.shape.layers,
            missing_bytes: u64::from(missing).saturating_mul(question.shape.layer_bytes),
        }),
    }
}

/// What a candidate adds to a token, for each of the missing layers that it takes.
fn cost_a_layer(question: &Question<'_>, ring: &[usize], candidate: usize, missing: u32) -> f64 {
    let host = Host::remote(question, candidate);
    let layers = host.most.min(missing);
    let (_, detour_ms) = detour(question.delays, ring, candidate);
    (host.ms(layers) + detour_ms + question.hop_ms) / f64::from(layers)
}

/// What a token costs with a candidate more.
fn cost_with(question: &Question<'_>, ring: &[usize], candidate: usize) -> f64 {
    let (at, _) = detour(question.delays, ring, candidate);
    let mut ring = ring.to_vec();
    ring.insert(at, candidate);
    let hops = ring.len() as f64 + 1.0;
    let lap_ms = cycle_ms(question.delays, &ring) + hops * question.hop_ms;
    let shares = Shares::of(question, &ring);
    shares.map_or(f64::INFINITY, |shares| {
        shares.forecast(lap_ms).cost(question.goal)
    })
}
