//! Tokens that can be drawn, their order, and the best k of many without sorting all.

use std::cmp::Ordering;

/// Room beyond k that [`keep_best`] leaves before it selects again, so that a small k does not select at every step.
const SLACK: usize = 64;
/// Logits that are looked at together, since most are far below the best.
const BLOCK: usize = 64;

/// A token that can be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Its share of the draw; see [`super::weight`].
    pub(super) weight: u64,
    /// The token.
    pub(super) id: u32,
    /// Its logit.
    pub(super) logit: f32,
}

impl Candidate {
    /// The id as the engine counts.
    pub(super) fn token(&self) -> i32 {
        self.id as i32
    }

    /// Larger logits first, lower ids first among equal ones: a total order, since NaN is no candidate.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        let by_logit = other
            .logit
            .partial_cmp(&self.logit)
            .unwrap_or(Ordering::Equal);
        by_logit.then(self.id.cmp(&other.id))
    }
}

/// Calls `take` with every logit above a bar, which each call may raise; from low to high ids. NaN is above nothing.
fn above(logits: &[f32], mut bar: f32, mut take: impl FnMut(u32, f32) -> f32) {
    for (at, block) in logits.chunks(BLOCK).enumerate() {
        // Without an early exit, so that this is a few vector instructions.
        if !block.iter().fold(false, |any, &logit| any | (logit > bar)) {
            continue;
        }
        for (id, &logit) in (at * BLOCK..).zip(block) {
            if logit > bar {
                bar = take(id as u32, logit);
            }
        }
    }
}

/// The largest logit and, of equal ones, the lowest id. NaN and −∞ are no candidates.
pub(super) fn largest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut found = None;
    above(logits, f32::NEG_INFINITY, |id, logit| {
        found = Some((id, logit));
        logit
    });
    found
}

/// Puts the `k` first by rank into `best`, in no order and without weights; all candidates when there are fewer.
///
/// One pass: what is not above the k-th of everything seen so far is skipped, the rest is gathered and cut
/// back to k whenever it has doubled. An equal logit is behind it as well, since its id is higher.
pub(super) fn keep_best(best: &mut Vec<Candidate>, logits: &[f32], k: usize) {
    best.clear();
    let gathered_max = k.saturating_mul(2).saturating_add(SLACK);
    let mut bar = f32::NEG_INFINITY;
    above(logits, bar, |id, logit| {
        best.push(Candidate {
            weight: 0,
            id,
            logit,
        });
        if best.len() == gathered_max {
            cut(best, k);
            bar = best[k - 1].logit;
        }
        bar
    });
    cut(best, k);
}

/// Keeps the `k` first by rank, the last of them at the end.
fn cut(best: &mut Vec<Candidate>, k: usize) {
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, Candidate::rank);
        best.truncate(k);
    }
}
