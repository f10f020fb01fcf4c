//! Who is to compute what: as many members as people asked for, or those that the planner chooses.

use super::recoveries::Loss;
use super::{AGAIN, Lost, News, Ring, State, Why, Work, mend};

use crate::placement::Placement;
use proto::ids::NodeId;
use proto::member::Member;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarm::members::Event;
use swarm::plan::{Forecast, is_worth_moving};
use swarm::split::Split;

/// How long a member that refused is left alone, as long as others can be asked.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How long those that are left of a lost ring keep its stages while no other can be formed.
const KEPT: Duration = Duration::from_secs(30);
/// How often the planner is asked again while it finds no plan: members' ads change without news for the ring.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often an idle ring is held against what the planner would do now; a random part of it comes on top, so that
/// not everybody moves at once.
const REVIEW: Duration = Duration::from_secs(20);

/// How layers are given out.
#[derive(Debug, Clone)]
pub enum Placing {
    /// People said how many remote stages: these layers, on any members.
    Asked(Split),
    /// The planner weighs the members.
    Weighed(Arc<Placement>),
}

/// Which member computes what.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) split: Split,
    /// One member a remote stage.
    pub(super) hosts: Vec<Member>,
    /// What the planner expects, if it was asked.
    pub(super) forecast: Option<Forecast>,
}

impl Layout {
    /// How many layers each host has.
    pub(super) fn layers(&self) -> BTreeMap<NodeId, u32> {
        let mut layers = BTreeMap::new();
        for (host, range) in self.hosts.iter().zip(&self.split.remote) {
            *layers.entry(host.id).or_default() += range.len();
        }
        layers
    }
}

impl Work {
    /// Waits until there are members for the whole model. `None` when nobody sends news any more.
    pub(super) async fn gather(&mut self, mut why: Option<Why>) -> Option<Layout> {
        loop {
            while let Ok(news) = self.inbox.try_recv() {
                self.note(&news);
            }
            self.refused.retain(|_, at| at.elapsed() < REFUSED_FOR);
            if self
                .lost
                .as_ref()
                .is_some_and(|lost| lost.since.elapsed() > KEPT)
            {
                self.let_go(&[]);
            }
            let pause = match self.mended().map_or_else(|| self.layout(), Ok) {
                Ok(layout) => return Some(layout),
                Err(None) => REFUSED_FOR,
                Err(Some(obstacle)) => {
                    why = Some(Why::Unformed(obstacle));
                    ASK_AGAIN
                }
            };
            let state = State::Waiting {
                have: self.inside(),
                why: why.clone(),
            };
            self.publish.send_replace(state);
            // Silence is news, too: a refusal is forgotten after a while.
            match tokio::time::timeout(pause, self.inbox.recv()).await {
                Ok(Some(news)) => {
                    if matches!(news, News::Up(_)) && self.enough(1) {
                        why = None;
                    }
                    self.note(&news);
                }
                Ok(None) => return None,
                Err(_) => {}
            }
        }
    }

    /// A member refused its stage, or was lost while it loaded: for a while others come first.
    pub(super) async fn refused_by(&mut self, node: NodeId) {
        match &self.plan.placing {
            Placing::Asked(_) => {
                self.refused.insert(node, Instant::now());
            }
            Placing::Weighed(placement) => placement.tell(Event::Refused(node)).await,
        }
    }

    /// All members of a ring loaded their stages.
    pub(super) async fn loaded_by(&self, ring: &Ring) {
        if let Placing::Weighed(placement) = &self.plan.placing {
            for stage in &ring.stages {
                placement.tell(Event::Loaded(stage.member.id)).await;
            }
        }
    }

    /// Linked members of the room.
    pub(super) fn inside(&self) -> usize {
        let rooms = &self.plan.rooms;
        let ids = self.members.keys();
        ids.filter(|id| rooms.holds(rooms.room, **id)).count()
    }

    /// Whether with so many members more there would be as many as people asked for.
    fn enough(&self, more: usize) -> bool {
        match &self.plan.placing {
            Placing::Asked(split) => self.inside() + more >= split.remote.len(),
            Placing::Weighed(_) => false,
        }
    }

    /// The members to use; or that there are too few, or what else is in the way.
    fn layout(&self) -> Result<Layout, Option<String>> {
        match &self.plan.placing {
            Placing::Asked(split) => self.anybody(split).ok_or(None),
            Placing::Weighed(placement) => self.weighed(placement).map_err(Some),
        }
    }

    /// A ring has ended for a stage; sessions that go on without it need another one, and not with that stage's host: that its
    /// link is lost may be heard later.
    pub(super) fn outlived(&mut self, ring: &Ring, loss: Option<&Loss>) {
        let Some(loss) = loss.filter(|_| ring.is_needed()) else {
            return;
        };
        if let Some(host) = ring.layout.hosts.get(loss.stage as usize - 1) {
            self.lost = Some(Lost {
                ring: ring.id,
                layout: ring.layout.clone(),
                since: tokio::time::Instant::now(),
            });
            self.refused.insert(host.id, Instant::now());
            self.recovery = Some(self.recoveries.begin(loss.clone()));
        }
    }

    /// The ring that was lost, with others in place of whoever is gone: head and tail stay where the caches of requests
    /// are. Where nobody takes a place, those that are left share the layers between.
    fn mended(&self) -> Option<Layout> {
        let lost = &self.lost.as_ref()?.layout;
        let rooms = &self.plan.rooms;
        let there = |id: &NodeId| {
            let member = self.members.get(id)?;
            let fit = rooms.holds(rooms.room, *id) && !self.refused.contains_key(id);
            fit.then(|| member.clone())
        };
        let places: Vec<mend::Place> = lost
            .hosts
            .iter()
            .zip(&lost.split.remote)
            .map(|(host, layers)| mend::Place {
                left: there(&host.id).map(|member| member.id),
                layers: *layers,
            })
            .collect();
        let named: BTreeSet<NodeId> = lost.hosts.iter().map(|host| host.id).collect();
        let others = self.members.keys().filter(|id| !named.contains(id));
        let spare: Vec<(NodeId, u32)> = self.room_of(others.filter(|id| there(id).is_some()));
        let loaded = |node, layers| self.standbys.has(node, layers);
        let placed = mend::mend(&places, &spare, loaded)?;
        let hosts = placed.iter().map(|(id, _)| there(id));
        Some(Layout {
            split: Split {
                remote: placed.iter().map(|(_, layers)| *layers).collect(),
                ..lost.split.clone()
            },
            hosts: hosts.collect::<Option<_>>()?,
            forecast: None,
        })
    }

    /// Members with the layers that each has memory for, those first that promise most.
    pub(super) fn room_of<'a>(
        &self,
        members: impl Iterator<Item = &'a NodeId>,
    ) -> Vec<(NodeId, u32)> {
        match &self.plan.placing {
            Placing::Asked(_) => members.map(|id| (*id, u32::MAX)).collect(),
            Placing::Weighed(placement) => placement.room_of(&members.copied().collect()),
        }
    }

    fn anybody(&self, split: &Split) -> Option<Layout> {
        let need = split.remote.len();
        // Those that refused a moment ago come last: others may do better.
        let rooms = &self.plan.rooms;
        let inside = |member: &&Member| rooms.holds(rooms.room, member.id);
        let mut candidates: Vec<&Member> = self.members.values().filter(inside).collect();
        candidates.sort_by_key(|member| self.refused.contains_key(&member.id));
        let fresh = candidates
            .iter()
            .filter(|member| !self.refused.contains_key(&member.id))
            .count();
        let there = candidates.len() >= need && (fresh >= need || self.refused.is_empty());
        there.then(|| Layout {
            split: split.clone(),
            hosts: candidates.into_iter().take(need).cloned().collect(),
            forecast: None,
        })
    }

    fn weighed(&self, placement: &Placement) -> Result<Layout, String> {
        let able = |node: &NodeId| self.members.contains_key(node);
        let chosen = placement
            .choose(able)
            .map_err(|(error, _)| error.to_string())?;
        let split = chosen
            .plan
            .split()
            .ok_or("the model fits on this node whole; start it without a ring")?;
        let hosts = chosen.plan.stages.iter();
        Ok(Layout {
            split,
            hosts: hosts
                .map(|stage| self.members[&stage.node].clone())
                .collect(),
            forecast: Some(chosen.plan.forecast),
        })
    }

    /// Whether the ring is idle, and the planner would now choose another one that is worth moving to.
    pub(super) fn moves(&self, ring: &Ring) -> bool {
        if !ring.sessions().is_empty() {
            return false;
        }
        let placement = match &self.plan.placing {
            // After a loss fewer may compute more.
            Placing::Asked(split) => {
                let ids = ring.layout.hosts.iter().map(|host| host.id);
                let alone = ids.collect::<BTreeSet<_>>().len() == split.remote.len();
                let as_asked = ring.layout.split == *split && alone;
                return !as_asked && self.inside() >= split.remote.len();
            }
            Placing::Weighed(placement) => placement,
        };
        let now = ring.layout.layers();
        let able = |node: &NodeId| self.members.contains_key(node);
        let (Ok(best), Ok(kept)) = (
            placement.choose_beside(&now, able),
            placement.choose_beside(&now, |node| now.contains_key(node)),
        ) else {
            return false;
        };
        let moves = is_worth_moving(&kept.plan.forecast, &best.plan.forecast, placement.goal);
        if moves {
            placement.frees(now);
        }
        moves
    }
}

/// The time until an idle ring is held against others.
pub(super) fn review() -> Duration {
    REVIEW + REVIEW.mul_f64(rand::random::<f64>())
}

/// The pause before a ring is formed again: not all coordinators at the same moment.
pub(super) fn pause() -> Duration {
    AGAIN + AGAIN.mul_f64(rand::random::<f64>())
}
