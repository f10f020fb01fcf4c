//! Requests: planned with what their coordinator knows, broken by reality, planned again.

use crate::node::{MODEL, Peer};
use crate::world::{SECOND_US, What, World};
use proto::ad::{Room, Speed};
use proto::ids::NodeId;
use proto::model::LayerRange;
use std::collections::BTreeMap;
use swarm::members::{Ask, Event, Members, Seen, WhyNot};
use swarm::plan::{Candidate, Delays, Goal, Placed, Plan, Question, Shape, plan};

/// The model of all requests: too large for most machines of a world.
pub(crate) const SHAPE: Shape = Shape {
    layers: 32,
    layer_bytes: 220_000_000,
    ends_bytes: 500_000_000,
    engine_bytes: 200_000_000,
    output_layers: 2.0,
};
/// What handing a row on costs, in milliseconds.
const HOP_MS: f64 = 0.3;
/// The most members that are asked about.
const CANDIDATES_MAX: usize = 12;
/// Tokens of a request.
const TOKENS: (f64, f64) = (50.0, 250.0);
/// After how long a request that did not finish has failed, in seconds.
const PATIENCE_S: u64 = 300;
/// How long loading a ring takes, with the prompt, in microseconds.
pub(crate) const LOAD_US: u64 = 2 * SECOND_US;
/// After how long a coordinator notices that a stage is gone, or does not answer, in microseconds.
const NOTICE_US: u64 = 3_500_000;
/// After how long a coordinator plans again when a stage refused, in microseconds.
pub(crate) const REFUSED_US: u64 = SECOND_US;
/// Between two plans while there is none, in microseconds.
pub(crate) const AGAIN_US: u64 = 5 * SECOND_US;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Finished,
    Failed,
    /// All nodes together could not hold the model for some time.
    Uncovered,
    /// Its coordinator went.
    Orphaned,
}

/// What a node says that is asked to load a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Loads,
    Refuses,
    Silent,
}

#[derive(Debug)]
struct Request {
    home: Peer,
    life: u32,
    tokens: f64,
    /// Where it runs: stages with the life that they had when they loaded, and the time of one token.
    ring: Option<(Vec<(Peer, u32)>, f64)>,
    began_us: u64,
    stepped_us: u64,
    uncovered: bool,
    end: Option<End>,
}

/// All requests of a world.
#[derive(Debug, Default)]
pub struct Requests {
    all: Vec<Request>,
    /// Plans that were made.
    pub plans: u64,
    /// Rings that lost a stage.
    pub losses: u64,
}

/// How requests ended, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// They got all their tokens.
    pub finished: usize,
    /// They did not, although enough nodes were there.
    pub failed: usize,
    /// For some time not enough nodes were there.
    pub uncovered: usize,
    /// Their coordinator went.
    pub orphaned: usize,
    /// They run still.
    pub open: usize,
}

impl Ends {
    /// Which share finished, of those that could.
    #[must_use]
    pub fn finished_share(&self) -> f64 {
        self.finished as f64 / (self.finished + self.failed).max(1) as f64
    }
}

impl Requests {
    /// How they ended.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let count = |end: Option<End>| self.all.iter().filter(|request| request.end == end).count();
        Ends {
            finished: count(Some(End::Finished)),
            failed: count(Some(End::Failed)),
            uncovered: count(Some(End::Uncovered)),
            orphaned: count(Some(End::Orphaned)),
            open: count(None),
        }
    }
}

impl World {
    /// All requests.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Somebody asks, and after some time somebody else does.
    pub(crate) fn ask(&mut self) {
        let pause_s = self.dice.exponential() / self.setup.asks;
        self.put((pause_s * SECOND_US as f64) as u64, What::Ask);
        let there = self
            .peers()
            .filter(|peer| self.node(*peer).is_honest() && self.node(*peer).listens);
        let there: Vec<Peer> = there.collect();
        let Some(home) = self.dice.pick(&there) else {
            return;
        };
        let request = Request {
            home,
            life: self.node(home).life,
            tokens: self.dice.between(TOKENS.0, TOKENS.1),
            ring: None,
            began_us: self.now_us,
            stepped_us: self.now_us,
            uncovered: false,
            end: None,
        };
        self.requests.all.push(request);
        self.step(self.requests.all.len() - 1);
    }

    /// A request goes on.
    pub(crate) fn step(&mut self, number: usize) {
        let request = &self.requests.all[number];
        let home = self.node(request.home);
        let late = self.now_us > request.began_us + PATIENCE_S * SECOND_US;
        if !home.up || home.life != request.life {
            self.end(number, End::Orphaned);
        } else if late {
            let end = if request.uncovered {
                End::Uncovered
            } else {
                End::Failed
            };
            self.end(number, end);
        } else if request.ring.is_some() {
            self.decode(number);
        } else {
            self.form(number);
        }
    }

    fn end(&mut self, number: usize, end: End) {
        let request = &mut self.requests.all[number];
        request.end = Some(end);
        let home = request.home;
        self.note(8, home, &[end as u8]);
    }

    /// Tokens pass, unless a stage is gone.
    fn decode(&mut self, number: usize) {
        let now_us = self.now_us;
        let request = &mut self.requests.all[number];
        let home = request.home;
        let Some((stages, token_us)) = request.ring.take() else {
            return;
        };
        let gone = |world: &Self, (peer, life): &(Peer, u32)| {
            let node = world.node(*peer);
            !node.up || node.life != *life || !world.passes(home, *peer)
        };
        let lost: Vec<_> = stages
            .iter()
            .copied()
            .filter(|stage| gone(self, stage))
            .collect();
        if !lost.is_empty() {
            self.requests.losses += 1;
            self.blame(home, lost.into_iter().map(|(peer, _)| peer));
            return self.put(NOTICE_US, What::Step(number));
        }
        let request = &mut self.requests.all[number];
        request.tokens -= (now_us - request.stepped_us) as f64 / token_us;
        request.stepped_us = now_us;
        if request.tokens <= 0.0 {
            self.learn(home, &stages);
            return self.end(number, End::Finished);
        }
        let left_us = (request.tokens * token_us) as u64 + 1;
        request.ring = Some((stages, token_us));
        self.put(left_us.min(SECOND_US), What::Step(number));
    }

    /// The coordinator measured its stages.
    fn learn(&mut self, home: Peer, stages: &[(Peer, u32)]) {
        for (peer, _) in stages {
            let stage = self.node(*peer);
            let speed = Speed {
                model: MODEL,
                layer_us: stage.machine.layer_us,
            };
            let node = stage.id;
            self.tell(home, Event::LayerTime { node, speed });
        }
    }

    fn blame(&mut self, home: Peer, peers: impl Iterator<Item = Peer>) {
        for peer in peers {
            let node = self.node(peer).id;
            self.tell(home, Event::CallFailed(node));
        }
    }

    /// Plans a ring, and tries to load it.
    fn form(&mut self, number: usize) {
        let home = self.requests.all[number].home;
        self.requests.plans += 1;
        let Some(plan) = self.plan(home, &BTreeMap::new(), |_| true) else {
            let covered = self.is_covered(home);
            self.requests.all[number].uncovered |= !covered;
            return self.put(AGAIN_US, What::Step(number));
        };
        let answers: Vec<_> = plan
            .stages
            .iter()
            .map(|stage| (stage.node, self.load(home, stage.node, stage.layers)))
            .collect();
        let silent = answers.iter().any(|(_, answer)| *answer == Answer::Silent);
        let all = answers.iter().all(|(_, answer)| *answer == Answer::Loads);
        for (node, answer) in answers {
            let event = match answer {
                Answer::Loads if all => Event::Loaded(node),
                Answer::Loads => continue,
                Answer::Refuses => Event::Refused(node),
                Answer::Silent => Event::CallFailed(node),
            };
            self.tell(home, event);
        }
        if !all {
            let after_us = if silent { NOTICE_US } else { REFUSED_US };
            return self.put(after_us, What::Step(number));
        }
        let placed = |stage: &Placed| Some((*self.by_id.get(&stage.node)?, stage.layers));
        let ring: Vec<(Peer, LayerRange)> = plan.stages.iter().filter_map(placed).collect();
        let token_us = self.token_us(home, plan.home_layers, &ring);
        let stages = ring
            .iter()
            .map(|(peer, _)| (*peer, self.node(*peer).life))
            .collect();
        let request = &mut self.requests.all[number];
        request.stepped_us = self.now_us + LOAD_US;
        request.ring = Some((stages, token_us));
        self.put(LOAD_US, What::Step(number));
    }

    /// What comes of asking a node to load these layers.
    pub(crate) fn load(&self, home: Peer, node: NodeId, layers: LayerRange) -> Answer {
        let bytes = u64::from(layers.len()) * SHAPE.layer_bytes + SHAPE.engine_bytes;
        match self.by_id.get(&node).copied() {
            Some(peer) if self.node(peer).answers() && self.passes(home, peer) => {
                if bytes <= self.node(peer).free_bytes() {
                    Answer::Loads
                } else {
                    Answer::Refuses
                }
            }
            _ => Answer::Silent,
        }
    }

    /// What a token really takes, in microseconds.
    fn token_us(&self, home: Peer, home_layers: u32, ring: &[(Peer, LayerRange)]) -> f64 {
        let layers = ring
            .iter()
            .map(|(peer, layers)| layers.len() * self.node(*peer).machine.layer_us);
        let compute = layers.sum::<u32>() + home_layers * self.node(home).machine.layer_us;
        let stops: Vec<Peer> = [home]
            .into_iter()
            .chain(ring.iter().map(|(peer, _)| *peer))
            .chain([home])
            .collect();
        let way = |two: &[Peer]| self.node(two[0]).place.way_us(&self.node(two[1]).place);
        let lap: u64 = if ring.is_empty() {
            0
        } else {
            stops.windows(2).map(way).sum()
        };
        f64::from(compute) + lap as f64
    }

    /// Whether those who are there could hold the model.
    fn is_covered(&self, home: Peer) -> bool {
        let room = |peer: &Peer| {
            let bytes = self
                .node(*peer)
                .machine
                .memory_bytes
                .saturating_sub(SHAPE.engine_bytes);
            (bytes / SHAPE.layer_bytes) as u32
        };
        let there = self.peers().filter(|peer| {
            *peer != home && self.node(*peer).is_honest() && self.passes(home, *peer)
        });
        there.map(|peer| room(&peer)).sum::<u32>() >= SHAPE.layers
    }

    /// Asks the planner: of the others, for those that are `able`. These `hosts` hold so many bytes for this node, which
    /// are free for whatever comes in place of that.
    pub(crate) fn plan(
        &self,
        home: Peer,
        hosts: &BTreeMap<NodeId, u64>,
        able: impl Fn(&NodeId) -> bool,
    ) -> Option<Plan> {
        let node = self.node(home);
        let members = node.members.as_ref()?;
        let ask = Ask {
            room: Room::Square,
            model: MODEL,
            layer_bytes: SHAPE.layer_bytes + SHAPE.engine_bytes,
            build: None,
        };
        let mut seen = members.view(&ask, self.now_at(home));
        for seen in &mut seen {
            if let Some(bytes) = hosts.get(&seen.node) {
                seen.memory_bytes = seen.memory_bytes.max(*bytes);
                let full = matches!(seen.why_not, Some(WhyNot::TooLittleMemory { .. }));
                seen.why_not = seen.why_not.filter(|_| !full);
            }
        }
        seen.retain(|seen| able(&seen.node) && seen.why_not.is_none_or(|why| !why.bars()));
        nearest(&mut seen, node.id.0[0]);
        let others: Vec<Candidate> = seen.iter().map(candidate).collect();
        let delays = delays(members, &seen);
        let question = Question {
            shape: SHAPE,
            home: &Candidate {
                id: node.id,
                memory_bytes: node.machine.memory_bytes,
                layer_ms: f64::from(node.machine.layer_us) / 1e3,
                on_disk: vec![node.machine.on_disk],
                relayed: false,
            },
            others: &others,
            delays: &delays,
            hop_ms: HOP_MS,
            goal: Goal::Latency,
        };
        plan(&question).ok()
    }
}

/// Keeps those that promise most: a layer's time and the way there. Among equals, each coordinator looks at others first.
fn nearest(seen: &mut Vec<Seen>, salt: u8) {
    let cost = |seen: &Seen| seen.layer_us.value * 8 + seen.rtt_us.value;
    seen.sort_by_key(|seen| (cost(seen), seen.node.0[1] ^ salt, seen.node));
    seen.truncate(CANDIDATES_MAX);
}

fn candidate(seen: &Seen) -> Candidate {
    Candidate {
        id: seen.node,
        memory_bytes: seen.memory_bytes,
        layer_ms: seen.layer_us.value as f64 / 1e3,
        on_disk: seen.on_disk.clone(),
        relayed: seen.relayed,
    }
}

fn delays(members: &Members, seen: &[Seen]) -> Delays {
    let node = |at: usize| {
        if at == 0 {
            members.node()
        } else {
            seen[at - 1].node
        }
    };
    Delays::new(seen.len(), |from, to| {
        if from == to {
            return 0.0;
        }
        members.rtt_us(node(from), node(to)).value as f64 / 2e3
    })
}
