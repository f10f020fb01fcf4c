//! Members that are no longer counted: what they said last, and what they lied.

use super::limits::{FALSE_KEPT_MAX, FALSE_PAUSE_MS, SHUNNED_MAX, TOMBS_MAX};
use super::message::Evidence;
use identity::CheckedAd;
use proto::ad::AD_SKEW_S;
use proto::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The newest ads of members that are gone. Their old ads are known, and cannot be played back.
#[derive(Debug, Default)]
pub(super) struct Tombs {
    ages: BTreeMap<NodeId, (u64, u64, u64)>,
    by_end: BTreeSet<(u64, NodeId)>,
}

impl Tombs {
    /// Remembers an ad for as long as it, or an older one, could still pass for new.
    pub(super) fn bury(&mut self, ad: &CheckedAd, mono_ms: u64) {
        let end_ms = mono_ms.saturating_add((u64::from(ad.life_s) + 2 * AD_SKEW_S) * 1_000);
        self.forget(ad.node);
        if self.ages.len() >= TOMBS_MAX
            && let Some((_, node)) = self.by_end.pop_first()
        {
            self.ages.remove(&node);
        }
        let (incarnation, sequence) = ad.age();
        self.ages.insert(ad.node, (incarnation, sequence, end_ms));
        self.by_end.insert((end_ms, ad.node));
    }

    /// The pair of a member's last ad.
    pub(super) fn age(&self, node: NodeId) -> Option<(u64, u64)> {
        let (incarnation, sequence, _) = self.ages.get(&node)?;
        Some((*incarnation, *sequence))
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some((_, _, end_ms)) = self.ages.remove(&node) {
            self.by_end.remove(&(end_ms, node));
        }
    }

    /// Forgets what cannot be played back any longer.
    pub(super) fn sweep(&mut self, mono_ms: u64) {
        while let Some((end_ms, node)) = self.by_end.first().copied()
            && end_ms <= mono_ms
        {
            self.forget(node);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ages.len()
    }
}

/// Members that lied to somebody, with the proof.
#[derive(Debug, Default)]
pub(super) struct Shunned {
    evidence: BTreeMap<NodeId, Evidence>,
    /// In the order in which they were found out.
    order: Vec<NodeId>,
}

impl Shunned {
    pub(super) fn shun(&mut self, evidence: Evidence) {
        let node = evidence.first.node;
        if self.order.len() >= SHUNNED_MAX {
            let first = self.order.remove(0);
            self.evidence.remove(&first);
        }
        if self.evidence.insert(node, evidence).is_none() {
            self.order.push(node);
        }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.evidence.contains_key(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.values()
    }
}

/// Members that sent false bytes of a model, and until when nothing is asked of them: whether they lie or are broken, the
/// next bytes are as doubtful. To leave and come back, or to start anew, does not shorten that.
#[derive(Debug, Default)]
pub(super) struct False(BTreeMap<NodeId, u64>);

impl False {
    pub(super) fn note(&mut self, node: NodeId, mono_ms: u64) {
        if self.0.len() >= FALSE_KEPT_MAX && !self.0.contains_key(&node) {
            let first = self.0.iter().min_by_key(|(_, until_ms)| **until_ms);
            if let Some(first) = first.map(|(node, _)| *node) {
                self.0.remove(&first);
            }
        }
        self.0.insert(node, mono_ms.saturating_add(FALSE_PAUSE_MS));
    }

    /// How long nothing is asked of a member yet, in milliseconds.
    pub(super) fn left_ms(&self, node: NodeId, mono_ms: u64) -> Option<u64> {
        let left_ms = self.0.get(&node)?.saturating_sub(mono_ms);
        (left_ms > 0).then_some(left_ms)
    }

    /// Those of whom nothing is asked.
    pub(super) fn iter(&self, mono_ms: u64) -> impl Iterator<Item = NodeId> {
        let barred = self.0.iter().filter(move |(_, until)| **until > mono_ms);
        barred.map(|(node, _)| *node)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
