//! Rings that stand: each coordinator keeps one up, looks now and then whether another is worth moving to, and its stages
//! take memory that nobody else has then. As in the node, with the same rule ([`is_worth_moving`]).

use crate::node::Peer;
use crate::request::{AGAIN_US, Answer, LOAD_US, REFUSED_US, SHAPE};
use crate::world::{SECOND_US, What, World};
use proto::ad::Standing;
use proto::ids::NodeId;
use std::collections::BTreeMap;
use swarm::members::Event;
use swarm::plan::{Goal, Plan, is_worth_moving};

/// When rings begin, in seconds.
const BEGIN_S: f64 = 30.0;
/// Between two looks of a coordinator, in seconds; a random part of it comes on top.
const REVIEW_S: f64 = 20.0;
/// How often a node looks at what it offers, in seconds.
const LOOK_S: f64 = 5.0;

/// A coordinator's ring.
#[derive(Debug)]
struct Ring {
    home: Peer,
    /// Who holds how many bytes for it.
    hosts: BTreeMap<NodeId, u64>,
    /// Who did, until it is up again: that memory is free, whatever their ads say.
    freed: BTreeMap<NodeId, u64>,
    /// Since when it is not up, if it was, in microseconds.
    since_us: Option<u64>,
    token_ms: f64,
    moves: u32,
}

/// All rings that stand.
#[derive(Debug, Default)]
pub struct Rings {
    all: Vec<Ring>,
    /// Loads that hosts refused, since others had taken the memory.
    pub refused: u64,
    /// Moves of all rings.
    pub moves: u64,
    /// How long rings that had been up were not, all together, in microseconds.
    down_us: u64,
}

impl Rings {
    /// Rings that are up; a model that fits at its coordinator whole is one, too.
    #[must_use]
    pub fn up(&self) -> usize {
        let up = |ring: &&Ring| ring.token_ms > 0.0 && ring.since_us.is_none();
        self.all.iter().filter(up).count()
    }

    /// Which share of so much time all rings were up, on average. The first forming does not count.
    #[must_use]
    pub fn up_share(&self, time_us: u64) -> f64 {
        let still = self.all.iter().filter_map(|ring| ring.since_us);
        let still_us: u64 = still.map(|since| time_us.saturating_sub(since)).sum();
        let all_us = time_us as f64 * self.all.len().max(1) as f64;
        1.0 - (self.down_us + still_us) as f64 / all_us
    }

    /// The most moves of one ring.
    #[must_use]
    pub fn moves_most(&self) -> u32 {
        self.all.iter().map(|ring| ring.moves).max().unwrap_or(0)
    }

    /// The mean time of a token that the rings expect, in milliseconds.
    #[must_use]
    pub fn token_ms(&self) -> f64 {
        let sum: f64 = self.all.iter().map(|ring| ring.token_ms).sum();
        sum / self.all.len().max(1) as f64
    }
}

impl World {
    /// All rings that stand.
    #[must_use]
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// This coordinator keeps a ring from some moment on.
    pub(crate) fn keep_ring(&mut self, home: Peer) {
        self.rings.all.push(Ring {
            home,
            hosts: BTreeMap::new(),
            freed: BTreeMap::new(),
            since_us: None,
            token_ms: 0.0,
            moves: 0,
        });
        let begin_s = BEGIN_S + self.dice.between(0.0, BEGIN_S);
        self.put(us(begin_s), What::Review(self.rings.all.len() - 1));
    }

    /// A coordinator forms its ring, or holds it against what the planner would do now.
    pub(crate) fn review(&mut self, number: usize) {
        let (home, hosts) = {
            let ring = &self.rings.all[number];
            (ring.home, ring.hosts.clone())
        };
        let own = match hosts.is_empty() {
            true => &self.rings.all[number].freed,
            false => &hosts,
        };
        let Some(best) = self.plan(home, own, |_| true) else {
            return self.put(AGAIN_US, What::Review(number));
        };
        let next_us = us(self.dice.between(REVIEW_S, 2.0 * REVIEW_S));
        if !hosts.is_empty() {
            let kept = self.plan(home, &hosts, |node| hosts.contains_key(node));
            let moves = |kept: Plan| is_worth_moving(&kept.forecast, &best.forecast, Goal::Latency);
            if !kept.is_some_and(moves) {
                return self.put(next_us, What::Review(number));
            }
            self.let_go(number);
            let ring = &mut self.rings.all[number];
            (ring.freed, ring.since_us) = (hosts, Some(self.now_us));
            ring.moves += 1;
            self.rings.moves += 1;
        }
        let after_us = match self.load_all(number, &best) {
            true => LOAD_US + next_us,
            false => REFUSED_US,
        };
        self.put(after_us, What::Review(number));
    }

    /// Asks every host of a plan to load; all of them do, or none.
    fn load_all(&mut self, number: usize, plan: &Plan) -> bool {
        let home = self.rings.all[number].home;
        for stage in &plan.stages {
            let event = match self.load(home, stage.node, stage.layers) {
                Answer::Loads => {
                    let bytes =
                        u64::from(stage.layers.len()) * SHAPE.layer_bytes + SHAPE.engine_bytes;
                    self.rings.all[number].hosts.insert(stage.node, bytes);
                    self.take(stage.node, bytes as i64);
                    Event::Loaded(stage.node)
                }
                Answer::Refuses => Event::Refused(stage.node),
                Answer::Silent => Event::CallFailed(stage.node),
            };
            let loads = matches!(event, Event::Loaded(_));
            self.tell(home, event);
            if !loads {
                self.rings.refused += 1;
                self.let_go(number);
                return false;
            }
        }
        let (ring, now_us) = (&mut self.rings.all[number], self.now_us);
        ring.token_ms = plan.forecast.token_ms();
        ring.freed.clear();
        if let Some(since_us) = ring.since_us.take() {
            self.rings.down_us += now_us + LOAD_US - since_us;
        }
        self.note(9, home, &ring_of(plan));
        true
    }

    fn let_go(&mut self, number: usize) {
        let hosts = std::mem::take(&mut self.rings.all[number].hosts);
        for (node, bytes) in hosts {
            self.take(node, -(bytes as i64));
        }
    }

    /// Memory of a node is taken, or free again; it offers so when it looks.
    fn take(&mut self, node: NodeId, bytes: i64) {
        let Some(peer) = self.by_id.get(&node).copied() else {
            return;
        };
        let host = self.node_mut(peer);
        host.taken_bytes = host.taken_bytes.saturating_add_signed(bytes);
        let look_us = us(self.dice.between(0.0, LOOK_S));
        self.put(look_us, What::Offer(peer));
    }

    /// A node looks at what it offers.
    pub(crate) fn offer(&mut self, peer: Peer) {
        let offer = self.node(peer).offer(Standing::Serving);
        self.tell(peer, Event::Offer(Box::new(offer)));
    }
}

fn us(seconds: f64) -> u64 {
    (seconds * SECOND_US as f64) as u64
}

/// What a plan says, for the history.
fn ring_of(plan: &Plan) -> Vec<u8> {
    let stages = plan.stages.iter();
    stages
        .flat_map(|stage| {
            [
                stage.node.0[0],
                stage.layers.first as u8,
                stage.layers.end as u8,
            ]
        })
        .collect()
}
