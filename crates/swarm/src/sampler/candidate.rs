//! Tokens that can be drawn, their order, and the best k of many without sorting all.

use std::cmp::Ordering;

/// Room beyond k that [`keep_best`] leaves before it selects again, so that a small k does not select at every step.
const SLACK: usize = 64;

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
    pub(super) fn unweighted((id, &logit): (usize, &f32)) -> Self {
        Self {
            weight: 0,
            id: id as u32,
            logit,
        }
    }

    /// The id as the engine counts.
    pub(super) fn token(&self) -> i32 {
        self.id as i32
    }

    /// NaN and −∞ cannot be drawn.
    pub(super) fn is_possible(&self) -> bool {
        self.logit > f32::NEG_INFINITY
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

/// Puts the `k` first by rank into `best`, in no order; all when there are fewer.
///
/// One pass: what ranks behind the k-th of everything seen so far is skipped at once, the rest is gathered and cut
/// back to k whenever it has doubled. Linear in the worst case, and close to one comparison a token in the usual one.
pub(super) fn keep_best(
    best: &mut Vec<Candidate>,
    candidates: impl Iterator<Item = Candidate>,
    k: usize,
) {
    best.clear();
    let gathered_max = k.saturating_mul(2).saturating_add(SLACK);
    let mut bar: Option<Candidate> = None;
    for candidate in candidates {
        if bar.is_some_and(|bar| candidate.rank(&bar).is_gt()) {
            continue;
        }
        best.push(candidate);
        if best.len() == gathered_max {
            cut(best, k);
            bar = best.last().copied();
        }
    }
    cut(best, k);
}

/// Keeps the `k` first by rank, the last of them at the end.
fn cut(best: &mut Vec<Candidate>, k: usize) {
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, Candidate::rank);
        best.truncate(k);
    }
}
