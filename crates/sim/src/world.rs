//! The clock, the queue, links and gossip.

use crate::ads::{AdRef, Ads, DAWN_S};
use crate::check::Check;
use crate::churn::GOODBYES;
use crate::dice::Dice;
use crate::liar::{Liar, Mouth};
use crate::node::{Node, Peer};
use crate::queue::Queue;
use crate::request::Requests;
use crate::ring::Rings;
use crate::setup::Setup;
use crate::wires::IDLE_US;
use iroh_gossip::proto::{
    Command, Config, InEvent, Message, PeerData, Scope, State, Timer, TopicId,
};
use proto::ad::{Ad, Standing};
use proto::ids::NodeId;
use std::collections::BTreeMap;
use std::time::Duration;
use swarm::members::limits::renew_ms;
use swarm::members::{Effect, Event, Identity, Members, Now, Refusal};

/// The largest message of gossip, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// How long gossip waits for what it was told of before it asks for it: longer than a way round the earth.
const GRAFT_MS: u64 = 400;
/// How often a node calls somebody whom it remembers and does not know any longer, in seconds.
const REMEMBER_S: u64 = 60;
/// How often all that must hold for all is checked, in seconds.
pub(crate) const CHECK_S: u64 = 10;

pub(crate) const SECOND_US: u64 = 1_000_000;

/// The one topic.
pub(crate) fn topic() -> TopicId {
    TopicId::from_bytes([7; 32])
}

/// What is going to happen.
#[derive(Debug)]
pub(crate) enum What {
    Up(Peer),
    Down {
        peer: Peer,
        life: u32,
    },
    Tick {
        peer: Peer,
        life: u32,
    },
    Timer {
        peer: Peer,
        life: u32,
        timer: Timer<Peer>,
    },
    Message {
        to: Peer,
        from: Peer,
        message: Message<Peer>,
    },
    Broken {
        peer: Peer,
        other: Peer,
    },
    Answer {
        caller: Peer,
        life: u32,
        callee: Peer,
    },
    Unanswered {
        caller: Peer,
        life: u32,
        callee: Peer,
    },
    Bundle {
        to: Peer,
        from: Peer,
        ads: Vec<AdRef>,
    },
    Silent {
        peer: Peer,
        life: u32,
        other: Peer,
    },
    Lost {
        peer: Peer,
        life: u32,
        other: Peer,
    },
    Leave(Peer),
    Cut,
    Check,
    Ask,
    Step(usize),
    Review(usize),
    Offer(Peer),
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Ads that nodes made.
    pub published: u64,
    /// Refusals of ads, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Nodes that went.
    pub departures: u64,
    /// Events of any kind.
    pub events: u64,
}

/// A commons and all that happens to it.
#[derive(Debug)]
pub struct World {
    pub(crate) setup: Setup,
    pub(crate) dice: Dice,
    pub(crate) now_us: u64,
    pub(crate) queue: Queue<What>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<NodeId, Peer>,
    /// Keys that somebody else speaks for.
    pub(crate) puppets: BTreeMap<NodeId, Peer>,
    pub(crate) ads: Ads,
    pub(crate) requests: Requests,
    pub(crate) rings: Rings,
    pub(crate) check: Check,
    /// Whom eclipsers hunt.
    pub(crate) victim: Peer,
    /// What was counted.
    pub tally: Tally,
    epoch: tokio::time::Instant,
    history: blake3::Hasher,
}

impl World {
    /// A world in which nothing has happened yet; its nodes come within the first seconds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let mut dice = Dice::new(setup.seed);
        let ads = Ads::new(dice.bytes());
        let mut world = Self {
            dice,
            ads,
            now_us: 0,
            queue: Queue::new(),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            puppets: BTreeMap::new(),
            requests: Requests::default(),
            rings: Rings::default(),
            check: Check::default(),
            victim: Peer(0),
            tally: Tally::default(),
            epoch: tokio::time::Instant::now(),
            history: blake3::Hasher::new(),
            setup,
        };
        world.populate();
        world.schedule();
        world
    }

    /// Lets so many seconds pass.
    pub fn run(&mut self, seconds: u64) {
        let until_us = self.now_us + seconds * SECOND_US;
        while let Some((at_us, what)) = self.queue.next(until_us) {
            self.now_us = at_us;
            self.tally.events += 1;
            self.happen(what);
        }
        self.now_us = until_us;
    }

    /// The hash of all that happened so far.
    #[must_use]
    pub fn history(&self) -> String {
        self.history.finalize().to_hex()[..16].to_owned()
    }

    pub(crate) fn note(&mut self, kind: u8, peer: Peer, what: &[u8]) {
        self.history.update(&self.now_us.to_be_bytes());
        self.history.update(&[kind]);
        self.history.update(&peer.0.to_be_bytes());
        self.history.update(what);
    }

    pub(crate) fn node(&self, peer: Peer) -> &Node {
        &self.nodes[peer.0 as usize]
    }

    pub(crate) fn node_mut(&mut self, peer: Peer) -> &mut Node {
        &mut self.nodes[peer.0 as usize]
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = Peer> + use<> {
        (0..self.nodes.len() as u32).map(Peer)
    }

    /// When the world began, for machines that want a moment of this computer's clock.
    pub(crate) fn epoch(&self) -> tokio::time::Instant {
        self.epoch
    }

    pub(crate) fn lives(&self, peer: Peer, life: u32) -> bool {
        self.node(peer).up && self.node(peer).life == life
    }

    pub(crate) fn passes(&self, a: Peer, b: Peer) -> bool {
        let (a, b) = (&self.node(a).place, &self.node(b).place);
        self.setup.weather.passes(a, b, self.now_us)
    }

    pub(crate) fn delay_us(&mut self, a: Peer, b: Peer) -> u64 {
        let (a, b) = (self.node(a).place, self.node(b).place);
        self.setup.weather.delay_us(&a, &b, &mut self.dice)
    }

    pub(crate) fn put(&mut self, after_us: u64, what: What) {
        self.queue.put(self.now_us + after_us, what);
    }

    pub(crate) fn now_at(&self, peer: Peer) -> Now {
        let seconds = (DAWN_S + self.now_us / SECOND_US) as i64;
        Now {
            mono_ms: self.now_us / 1_000,
            wall_s: (seconds + self.node(peer).skew_s) as u64,
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Up(peer) if !self.node(peer).left => self.come(peer),
            What::Leave(peer) => {
                self.node_mut(peer).left = true;
                if self.node(peer).up {
                    self.go(peer);
                }
            }
            What::Down { peer, life } if self.lives(peer, life) => self.go(peer),
            What::Tick { peer, life } if self.lives(peer, life) => self.tick(peer),
            What::Timer { peer, life, timer } if self.lives(peer, life) => {
                self.gossip(peer, InEvent::TimerExpired(timer));
            }
            What::Message { to, from, message } if self.node(to).up => {
                self.node_mut(to).conns.insert(from);
                self.gossip(to, InEvent::RecvMessage(from, message));
            }
            What::Broken { peer, other } if self.node_mut(peer).conns.remove(&other) => {
                self.gossip(peer, InEvent::PeerDisconnected(other));
            }
            What::Answer {
                caller,
                life,
                callee,
            } if self.lives(caller, life) => {
                self.answer(caller, callee);
            }
            What::Unanswered {
                caller,
                life,
                callee,
            } if self.lives(caller, life) => {
                let callee = self.node(callee).id;
                self.tell(caller, Event::CallFailed(callee));
            }
            What::Bundle { to, from, ads } if self.node(to).up => {
                ads.into_iter().for_each(|ad| self.hear(to, ad, from));
            }
            What::Silent { peer, life, other } => self.miss(peer, life, other, Event::LinkSilent),
            What::Lost { peer, life, other } => self.miss(peer, life, other, Event::LinkLost),
            What::Cut => self.cut(),
            What::Check => {
                self.check_all();
                self.put(CHECK_S * SECOND_US, What::Check);
            }
            What::Ask => self.ask(),
            What::Step(request) => self.step(request),
            What::Review(ring) => self.review(ring),
            What::Offer(peer) => self.offer(peer),
            _ => {}
        }
    }

    fn come(&mut self, peer: Peer) {
        let rng = self.dice.fork();
        let mut config = Config {
            max_message_size: MESSAGE_BYTES_MAX,
            ..Config::default()
        };
        config.broadcast.graft_timeout_1 = Duration::from_millis(GRAFT_MS);
        config.broadcast.graft_timeout_2 = Duration::from_millis(GRAFT_MS / 2);
        let (commons, secret, now_us) = (self.ads.commons(), self.dice.number(), self.now_us);
        let node = self.node_mut(peer);
        node.life += 1;
        (node.up, node.changed_us, node.neighbours) = (true, now_us, 0);
        node.gossip = Some(State::new(peer, PeerData::default(), config, rng));
        let me = Identity {
            commons,
            node: node.id,
            incarnation: node.life.into(),
            membership: node.membership.clone(),
            secret,
        };
        node.members = Some(Members::new(me, node.offer(Standing::Serving)));
        let life = node.life;
        self.note(1, peer, &[]);
        self.gossip(peer, InEvent::Command(topic(), Command::Join(Vec::new())));
        self.meet(peer);
        let phase_us = self.dice.below(SECOND_US as usize) as u64;
        self.put(phase_us, What::Tick { peer, life });
        let session_s = match life {
            1 => self.setup.churn.rest_s(&mut self.dice),
            _ => self.setup.churn.session_s(&mut self.dice),
        };
        if let Some(session_s) = session_s {
            self.put(
                (session_s * SECOND_US as f64) as u64,
                What::Down { peer, life },
            );
        }
    }

    /// Calls up to three whom it remembers, or for whom it has a ticket.
    fn meet(&mut self, peer: Peer) {
        let there: Vec<Peer> = self
            .peers()
            .filter(|other| *other != peer && self.node(*other).up)
            .collect();
        for _ in 0..3 {
            let remembered = self.nodes[peer.0 as usize].remembered.clone();
            let known = self.dice.pick(&remembered);
            let other = known
                .filter(|other| self.node(*other).up)
                .or_else(|| self.dice.pick(&there));
            if let Some(other) = other {
                self.call(peer, other);
            }
        }
    }

    fn go(&mut self, peer: Peer) {
        let goodbye = self.dice.chance(GOODBYES);
        if goodbye {
            let leaving = self.node(peer).offer(Standing::Leaving);
            self.tell(peer, Event::Offer(Box::new(leaving)));
            self.gossip(peer, InEvent::Command(topic(), Command::Quit));
        }
        self.note(2, peer, &[goodbye.into()]);
        self.tally.departures += 1;
        let now_us = self.now_us;
        let node = self.node_mut(peer);
        (node.up, node.changed_us) = (false, now_us);
        (node.gossip, node.members, node.own) = (None, None, None);
        let (links, conns) = (
            std::mem::take(&mut node.links),
            std::mem::take(&mut node.conns),
        );
        for other in links {
            self.part(other, peer, goodbye);
        }
        for other in conns {
            let after_us = if goodbye {
                self.delay_us(peer, other)
            } else {
                IDLE_US
            };
            self.put(
                after_us,
                What::Broken {
                    peer: other,
                    other: peer,
                },
            );
        }
        let away_us = (self.setup.churn.away_s(&mut self.dice) * SECOND_US as f64) as u64;
        self.put(away_us, What::Up(peer));
    }

    fn tick(&mut self, peer: Peer) {
        let life = self.node(peer).life;
        self.put(SECOND_US, What::Tick { peer, life });
        if self.node(peer).listens || self.renews(peer) {
            self.tell(peer, Event::Tick);
        }
        self.lie(peer, |liar, mouth| liar.idle(mouth));
        if self
            .node(peer)
            .liar
            .as_ref()
            .is_some_and(|liar| liar.hunts())
            && !self.node(peer).links.contains(&self.victim)
        {
            self.call(peer, self.victim);
        }
        let alone = self.node(peer).conns.is_empty();
        if alone && self.now_us > self.node(peer).changed_us + 5 * SECOND_US {
            self.meet(peer);
        }
        if (self.now_us - self.node(peer).changed_us) / SECOND_US % REMEMBER_S == REMEMBER_S - 1 {
            self.recall(peer);
        }
    }

    /// Whether a node that does not listen is to renew its ad.
    fn renews(&mut self, peer: Peer) -> bool {
        let (now_us, pause_us) = (self.now_us, renew_ms(self.setup.nodes) * 1_000);
        let node = self.node_mut(peer);
        let due = node.own.is_none() || now_us >= node.renewed_us + pause_us;
        if due {
            node.renewed_us = now_us;
        }
        due
    }

    /// Calls somebody whom it remembers and has lost sight of. This is what joins a commons that fell apart.
    fn recall(&mut self, peer: Peer) {
        let node = self.node(peer);
        let Some(members) = node.members.as_ref().filter(|_| node.listens) else {
            return;
        };
        let lost = node
            .remembered
            .iter()
            .copied()
            .filter(|other| members.ad(self.node(*other).id).is_none());
        let lost: Vec<Peer> = lost.collect();
        if let Some(other) = self.dice.pick(&lost) {
            self.call(peer, other);
        }
    }

    /// Tells a node's members what happened, checks them, and does what they say.
    pub(crate) fn tell(&mut self, peer: Peer, event: Event) {
        let now = self.now_at(peer);
        let Some(members) = self.node_mut(peer).members.as_mut() else {
            return;
        };
        let effects = members.handle(event, now);
        self.check_bounds(peer);
        for effect in effects {
            self.carry_out(peer, effect);
        }
    }

    fn carry_out(&mut self, peer: Peer, effect: Effect) {
        match effect {
            Effect::Publish(ad) => self.publish(peer, *ad),
            Effect::Refuse { node, why, .. } => {
                self.note(4, peer, &node.0);
                *self.tally.refused.entry(reason(why)).or_default() += 1;
            }
            Effect::Member { node, change } => {
                self.note(5, peer, &node.0);
                self.note(6, peer, format!("{change:?}").as_bytes());
                self.check_change(peer, node, change);
            }
            Effect::Call(node) => {
                self.note(7, peer, &node.0);
                // A puppet is nobody: it does not answer.
                match self.by_id.get(&node).copied() {
                    Some(other) => self.call(peer, other),
                    None => self.tell(peer, Event::CallFailed(node)),
                }
            }
        }
    }

    fn publish(&mut self, peer: Peer, mut ad: Ad) {
        self.note(3, peer, &ad.sequence.to_be_bytes());
        self.tally.published += 1;
        if !self.node(peer).listens {
            ad.life_s = (renew_ms(self.setup.nodes) * 3 / 1_000) as u32;
        }
        if self.node(peer).liar.is_some() {
            return self.lie(peer, |liar, mouth| liar.speak(&ad, mouth));
        }
        let said = self.ads.sign(&self.nodes[peer.0 as usize].key, &ad);
        self.spread(peer, said);
    }

    /// Lets a liar speak.
    fn lie(&mut self, peer: Peer, speak: impl FnOnce(&mut dyn Liar, &mut Mouth<'_>)) {
        let node = &mut self.nodes[peer.0 as usize];
        let Some(liar) = node.liar.as_mut() else {
            return;
        };
        let mut mouth = Mouth {
            key: &node.key,
            membership: &node.membership,
            ads: &mut self.ads,
            dice: &mut self.dice,
            said: Vec::new(),
        };
        speak(liar.as_mut(), &mut mouth);
        let said = mouth.said;
        said.into_iter().for_each(|ad| self.spread(peer, ad));
    }

    pub(crate) fn spread(&mut self, peer: Peer, ad: AdRef) {
        if self.ads.get(ad).node == self.node(peer).id {
            self.node_mut(peer).own = Some(ad);
        }
        let broadcast = Command::Broadcast(self.ads.bytes(ad), Scope::Swarm);
        self.gossip(peer, InEvent::Command(topic(), broadcast));
    }
}

fn reason(why: Refusal) -> &'static str {
    match why {
        Refusal::Own => "own",
        Refusal::OtherCommons => "other commons",
        Refusal::Known => "known",
        Refusal::Older => "older",
        Refusal::FutureDated { .. } => "future-dated",
        Refusal::Expired { .. } => "expired",
        Refusal::Equivocation => "equivocation",
        Refusal::Shunned => "shunned",
        Refusal::HostQuota => "host quota",
        Refusal::IntroducerQuota => "introducer quota",
        Refusal::Full => "full",
    }
}
