//! What must hold, after each step and for the commons as a whole.

use crate::node::Peer;
use crate::world::{SECOND_US, World};
use identity::CheckedAd;
use proto::ad::AD_SKEW_S;
use proto::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use swarm::members::limits::{
    FALSE_KEPT_MAX, HOST_UNLINKED_MAX, LINKS_KEPT_MAX, MEASURED_MAX, MEMBERS_MAX, SHUNNED_MAX,
    TOMBS_MAX,
};
use swarm::members::{Change, Gone, Members};

/// Faults that are kept in words.
const FAULTS_MAX: usize = 20;
/// How long an ad may be under way to the last node, in seconds.
const TRAVEL_S: u64 = 60;

/// What was found.
#[derive(Debug, Default)]
pub struct Check {
    /// What did not hold, in words; at most the first few.
    pub faults: Vec<String>,
    /// Who saw two ads of whom with one number, in which life.
    caught: BTreeSet<(Peer, u32, NodeId)>,
    /// What honest nodes know of each other.
    pub sight: Sight,
}

/// How well honest nodes see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight {
    /// Pairs of honest nodes that were there for a while.
    pub pairs: u64,
    /// Those of them where one knows the other.
    pub known: u64,
    /// Members that nodes count and do not suspect.
    pub counted: u64,
    /// Those of them that are there.
    pub there: u64,
}

impl Sight {
    /// Which share of the others a node knows.
    #[must_use]
    pub fn complete(&self) -> f64 {
        self.known as f64 / self.pairs.max(1) as f64
    }

    /// Which share of the members that a node counts is there.
    #[must_use]
    pub fn true_share(&self) -> f64 {
        self.there as f64 / self.counted.max(1) as f64
    }
}

impl World {
    /// What did not hold, in words; at most the first few.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.check.faults
    }

    pub(crate) fn fault(&mut self, text: String) {
        if self.check.faults.len() < FAULTS_MAX {
            let seconds = self.now_us as f64 / SECOND_US as f64;
            self.check.faults.push(format!("{seconds:.1} s: {text}"));
        }
    }

    /// After each step: nothing grows beyond its limit.
    pub(crate) fn check_bounds(&mut self, peer: Peer) {
        let Some(members) = &self.node(peer).members else {
            return;
        };
        let sizes = members.sizes();
        let holds = sizes.members <= MEMBERS_MAX
            && sizes.links <= LINKS_KEPT_MAX
            && sizes.tombs <= TOMBS_MAX
            && sizes.shunned <= SHUNNED_MAX
            && sizes.false_bytes <= FALSE_KEPT_MAX
            && sizes.measured <= MEASURED_MAX;
        if !holds {
            self.fault(format!("{peer:?} is out of bounds: {sizes:?}"));
        }
    }

    /// Before an ad is taken in: whoever sees a lie must shun the liar from then on.
    pub(crate) fn check_heard(&mut self, peer: Peer, ad: &CheckedAd) {
        let node = self.node(peer);
        let known = node
            .members
            .as_ref()
            .and_then(|members| members.ad(ad.node));
        if known.is_some_and(|known| known.age() == ad.age() && known.hash() != ad.hash()) {
            let life = node.life;
            self.check.caught.insert((peer, life, ad.node));
        }
    }

    /// Nobody is shunned who did not lie.
    pub(crate) fn check_change(&mut self, peer: Peer, node: NodeId, change: Change) {
        let liar = self
            .by_id
            .get(&node)
            .is_some_and(|maker| self.node(*maker).is_a("equivocator"));
        if change == Change::Gone(Gone::Shunned) && !liar {
            self.fault(format!("{peer:?} shuns {} for nothing", node.short()));
        }
    }

    /// What must hold for the commons as a whole.
    pub(crate) fn check_all(&mut self) {
        let listeners: Vec<Peer> = self
            .peers()
            .filter(|peer| self.node(*peer).is_honest())
            .collect();
        for &peer in &listeners {
            let node = self.node(peer);
            let Some(members) = node.members.as_ref().filter(|_| node.listens) else {
                continue;
            };
            let found = self.look(peer, members);
            let sight = self.see(peer, members, &listeners);
            found.into_iter().for_each(|text| self.fault(text));
            let all = &mut self.check.sight;
            all.pairs += sight.pairs;
            all.known += sight.known;
            all.counted += sight.counted;
            all.there += sight.there;
        }
    }

    /// What is wrong with what a node knows.
    fn look(&self, peer: Peer, members: &Members) -> Vec<String> {
        let mut found = Vec::new();
        let mut puppets: BTreeMap<Peer, u32> = BTreeMap::new();
        let life = self.node(peer).life;
        for ad in members.ads() {
            if let Some(owner) = self.puppets.get(&ad.node) {
                *puppets.entry(*owner).or_default() += 1;
            }
            if self.check.caught.contains(&(peer, life, ad.node)) {
                found.push(format!(
                    "{peer:?} still counts the liar {}",
                    ad.node.short()
                ));
            }
            let Some(maker) = self.by_id.get(&ad.node).map(|maker| self.node(*maker)) else {
                continue;
            };
            let gone_us = self.now_us.saturating_sub(maker.changed_us);
            let bound_s = u64::from(ad.life_s) + AD_SKEW_S + TRAVEL_S;
            if !maker.up && gone_us > bound_s * SECOND_US {
                found.push(format!(
                    "{peer:?} counts {} that is gone for {gone_us} µs",
                    ad.node.short()
                ));
            }
            if maker.is_a("future-dater") {
                found.push(format!("{peer:?} took an ad from the future"));
            }
        }
        let many = puppets
            .into_iter()
            .filter(|(_, count)| *count > HOST_UNLINKED_MAX);
        found.extend(
            many.map(|(owner, count)| format!("{peer:?} knows {count} puppets of {owner:?}")),
        );
        found
    }

    /// Which share of the honest nodes the victim knows.
    pub(crate) fn victim_sees(&self) -> f64 {
        let honest: Vec<Peer> = self
            .peers()
            .filter(|peer| self.node(*peer).is_honest())
            .collect();
        let members = self.node(self.victim).members.as_ref();
        members.map_or(0.0, |members| {
            self.see(self.victim, members, &honest).complete()
        })
    }

    fn see(&self, peer: Peer, members: &Members, honest: &[Peer]) -> Sight {
        let settled_us = self.now_us.saturating_sub(20 * SECOND_US);
        let old = |peer: Peer| self.node(peer).changed_us < settled_us;
        let others = honest
            .iter()
            .filter(|other| **other != peer && old(**other) && old(peer));
        let others: Vec<Peer> = others.copied().collect();
        let known = others
            .iter()
            .filter(|other| members.ad(self.node(**other).id).is_some());
        let counted = members.trusted().filter_map(|node| self.by_id.get(&node));
        let counted: Vec<Peer> = counted.copied().collect();
        let there = counted.iter().filter(|other| self.node(**other).up);
        Sight {
            pairs: others.len() as u64,
            known: known.count() as u64,
            counted: counted.len() as u64,
            there: there.count() as u64,
        }
    }
}
