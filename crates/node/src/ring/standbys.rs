//! Who loads a stage beforehand, in case that its host is lost: spare members, each stage one of them; where there is none,
//! the host of the next stage, if its memory allows.

use super::{Ring, Work};
use crate::status::StandbyStatus;
use proto::host::Loaded;
use proto::ids::{NodeId, RingId};
use proto::member::Member;
use proto::model::LayerRange;
use proto::ring::{LinkBody, STANDBY_MS, StandingBy};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{debug, info};

/// How often members are asked again, before they let go of what they keep.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(STANDBY_MS / 3);

/// A stage that a member has loaded beforehand.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    status: StandbyStatus,
    member: Member,
    /// For which ring it was asked last.
    ring: RingId,
}

/// Stages that members have loaded beforehand. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Standbys(Arc<Mutex<Vec<Kept>>>);

impl Standbys {
    /// A member says how it stands with a stage that it was asked to keep.
    fn note(&self, said: Kept, kept: bool) -> bool {
        let mut all = self.lock();
        let of = |kept: &Kept| (kept.status.node, kept.status.layers);
        let news = !all.iter().any(|other| of(other) == of(&said));
        // One for each stage, whoever was asked last: the one that is fed is the one that takes over.
        let layers = said.status.layers;
        all.retain(|other| of(other) != of(&said) && !(kept && other.status.layers == layers));
        if kept {
            all.push(said);
        }
        news && kept
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has these layers of this ring.
    pub(super) fn of(&self, ring: RingId, layers: LayerRange) -> Option<Member> {
        let all = self.lock();
        let mut kept = all.iter();
        let kept = kept.find(|kept| kept.ring == ring && kept.status.layers == layers)?;
        Some(kept.member.clone())
    }

    /// Whether this member has these layers.
    pub(super) fn has(&self, node: NodeId, layers: LayerRange) -> bool {
        let of = |kept: &Kept| (kept.status.node, kept.status.layers);
        self.lock().iter().any(|kept| of(kept) == (node, layers))
    }

    /// Whatever is not of these members and layers is of no use any more.
    fn retain(&self, useful: impl Fn(NodeId, LayerRange) -> bool) {
        self.lock()
            .retain(|kept| useful(kept.status.node, kept.status.layers));
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<StandbyStatus> {
        let all = self.lock();
        all.iter().map(|kept| kept.status.clone()).collect()
    }
}

/// For each of so many stages one of so many spare members, in turn: whoever is lost, somebody else stands by for it as long as
/// there are as many as stages.
fn spread(stages: usize, spare: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..stages)
        .filter(move |_| spare > 0)
        .map(move |stage| (stage, stage % spare))
}

impl Work {
    /// Asks spare members to load stages of the ring, or to keep what they loaded.
    pub(super) fn ask_standbys(&self, ring: &Ring) {
        let Ok(host) = ring.engine.host() else { return };
        let hosts: BTreeSet<NodeId> = ring.layout.hosts.iter().map(|host| host.id).collect();
        let rooms = &self.plan.rooms;
        let fit = |id: &&NodeId| {
            let free = !hosts.contains(id) && !self.refused.contains_key(id);
            free && rooms.holds(rooms.room, **id)
        };
        let spare = self.room_of(self.members.keys().filter(fit));
        let stages = &ring.layout.split.remote;
        self.standbys.retain(|node, layers| {
            let there = self.members.contains_key(&node);
            let hosts_it = stages.iter().zip(&ring.layout.hosts);
            let mut hosts_it = hosts_it.filter(|(_, host)| host.id == node);
            there && stages.contains(&layers) && !hosts_it.any(|(had, _)| *had == layers)
        });
        for (at, turn) in spread(stages.len(), spare.len()) {
            let (node, room) = spare[turn];
            if room >= stages[at].len() || self.standbys.has(node, stages[at]) {
                self.ask(ring, at, node, host.loaded());
            }
        }
        let count = stages.len();
        for at in (0..count).filter(|_| spare.is_empty()) {
            let node = ring.layout.hosts[(at + 1) % count].id;
            if node != ring.layout.hosts[at].id {
                self.ask(ring, at, node, host.loaded());
            }
        }
    }

    fn ask(&self, ring: &Ring, at: usize, node: NodeId, loaded: &Loaded) {
        let open = self.request(ring.id, (at, None), &ring.layout, loaded);
        // Whoever is lost is not asked again.
        let _ = self
            .plan
            .links
            .send(node, LinkBody::Standby(Box::new(open)));
    }

    /// A member says how it stands with what it was asked to keep.
    pub(super) fn stands_by(&self, ring: &Ring, node: NodeId, said: &StandingBy) {
        let mut stages = (1..).zip(&ring.layout.split.remote);
        let stage = stages.find(|(_, layers)| **layers == said.layers);
        let (Some((stage, layers)), Some(member)) = (stage, self.members.get(&node)) else {
            return;
        };
        if said.ring != ring.id {
            return;
        }
        if let Some(why) = &said.refused {
            debug!(node = %node.short(), %layers, why, "a member does not stand by");
        }
        let status = StandbyStatus {
            node,
            stage,
            layers: *layers,
            model: self.plan.model.name.clone(),
        };
        let kept = Kept {
            status,
            member: member.clone(),
            ring: ring.id,
        };
        if self.standbys.note(kept, said.refused.is_none()) {
            info!(node = %node.short(), stage, %layers, "a member stands by");
        }
    }
}

#[cfg(test)]
mod tests;
