//! What a world is like when it begins.

use crate::churn::{Churn, Exodus};
use crate::liar::Lie;
use crate::node::{Machine, Node, Peer, Traffic};
use crate::weather::{Place, Weather};
use crate::world::{CHECK_S, SECOND_US, What, World};
use identity::NodeKey;
use proto::ids::NodeId;
use proto::member::Membership;
use proto::model::LayerRange;

/// How far wall clocks are off, in seconds.
const SKEW_S: f64 = 140.0;
/// The longest chain of introductions in a world.
const CHAIN_MAX: usize = 5;
/// What those that come late are: as good as any machine of a world.
const LATE: (u64, u32) = (16_000_000_000, 300);
/// When requests begin, in seconds.
const ASKS_S: u64 = 30;

/// What a world is to be like.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What everything follows from.
    pub seed: u64,
    /// Nodes that are there at a time.
    pub nodes: usize,
    /// How restless they are.
    pub churn: Churn,
    /// How the network is.
    pub weather: Weather,
    /// Who lies, and how many do.
    pub lies: Vec<(Lie, usize)>,
    /// Requests in a second, of all nodes together.
    pub asks: f64,
    /// Every which node listens; 1 is all of them.
    pub listens: usize,
    /// Within which time the first nodes come, in seconds.
    pub arrive_s: u64,
    /// Coordinators that keep a ring up, the first of the nodes.
    pub rings: usize,
    /// When others join all at once, in seconds, and how many of the nodes these are; their machines are fast and large.
    pub late: Option<(u64, usize)>,
    /// Who leaves for good.
    pub exodus: Option<Exodus>,
}

impl Setup {
    /// A quiet world of honest nodes.
    #[must_use]
    pub fn quiet(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            churn: Churn { a_minute: 0.0 },
            weather: Weather::default(),
            lies: Vec::new(),
            asks: 0.0,
            listens: 1,
            arrive_s: 10,
            rings: 0,
            late: None,
            exodus: None,
        }
    }
}

impl World {
    pub(crate) fn populate(&mut self) {
        let crowd = (self.setup.nodes as f64 * self.setup.churn.crowd()).ceil() as usize;
        for number in 0..crowd {
            self.add_node(number);
        }
        let lies = self.setup.lies.clone();
        let liars = lies
            .iter()
            .flat_map(|(lie, count)| std::iter::repeat_n(*lie, *count));
        // The founder and the victim are honest.
        for (lie, node) in liars.zip(2_usize..) {
            let at = node.min(self.nodes.len() - 1);
            let (key, membership) = (
                self.nodes[at].key.clone(),
                self.nodes[at].membership.clone(),
            );
            let liar = lie.liar((&key, &membership), &self.ads, &mut self.dice);
            let peer = Peer(at as u32);
            self.puppets
                .extend(liar.puppets().into_iter().map(|puppet| (puppet, peer)));
            self.nodes[at].liar = Some(liar);
        }
        self.victim = Peer(1_u32.min(self.nodes.len() as u32 - 1));
    }

    fn add_node(&mut self, number: usize) {
        let key = NodeKey::from_bytes(self.dice.bytes());
        let id = key.id();
        let membership = match number {
            0 => self.ads.found(id),
            _ => self.introduce(number, id),
        };
        let dice = &mut self.dice;
        let first = dice.below(24) as u32;
        let node = Node {
            addr: format!(
                "11.{}.{}.{}:7717",
                number >> 16,
                (number >> 8) & 255,
                number & 255
            ),
            place: Place::any(dice),
            skew_s: dice.between(-SKEW_S, SKEW_S) as i64,
            machine: Machine {
                memory_bytes: (3e9 * (0.6 * dice.normal()).exp()).clamp(1.3e9, 16e9) as u64,
                layer_us: (2_000.0 * (0.6 * dice.normal()).exp()) as u32,
                on_disk: LayerRange {
                    first,
                    end: first + 8,
                },
            },
            taken_bytes: 0,
            listens: number.is_multiple_of(self.setup.listens),
            key,
            id,
            membership,
            liar: None,
            life: 0,
            up: false,
            left: false,
            changed_us: 0,
            gossip: None,
            members: None,
            links: Default::default(),
            conns: Default::default(),
            neighbours: 0,
            remembered: Vec::new(),
            own: None,
            renewed_us: 0,
            traffic: Traffic::default(),
        };
        self.by_id.insert(id, Peer(number as u32));
        self.nodes.push(node);
        if self.is_late(number) {
            let machine = &mut self.nodes[number].machine;
            (machine.memory_bytes, machine.layer_us) = LATE;
        }
    }

    fn schedule_exodus(&mut self) {
        let Some(Exodus {
            from_s,
            lasts_s,
            share,
        }) = self.setup.exodus
        else {
            return;
        };
        for number in 0..self.nodes.len() {
            if self.dice.chance(share) {
                let later_us = (self.dice.unit() * (lasts_s * SECOND_US) as f64) as u64;
                let at_us = from_s * SECOND_US + later_us;
                self.queue.put(at_us, What::Leave(Peer(number as u32)));
            }
        }
    }

    /// Whether a node is one of those that join late.
    fn is_late(&self, number: usize) -> bool {
        let late = self.setup.late.map_or(0, |(_, count)| count);
        (self.setup.nodes - late..self.setup.nodes).contains(&number)
    }

    /// Somebody lets a newcomer in: often the founder, else anybody whose chain is not too long.
    fn introduce(&mut self, number: usize, id: NodeId) -> Membership {
        let by = if self.dice.chance(0.3) {
            0
        } else {
            self.dice.below(number)
        };
        let short = self.nodes[by].membership.chain.len() < CHAIN_MAX;
        let by = &self.nodes[if short { by } else { 0 }];
        self.ads.let_in(&by.membership, &by.key, id)
    }

    pub(crate) fn schedule(&mut self) {
        for number in 0..self.nodes.len() {
            let early_us = (self.dice.unit() * (self.setup.arrive_s * SECOND_US) as f64) as u64;
            let late_us = (self.setup.churn.away_s(&mut self.dice) * SECOND_US as f64) as u64;
            let at_us = match self.setup.late {
                Some((at_s, _)) if self.is_late(number) => at_s * SECOND_US + early_us,
                _ if number < self.setup.nodes => early_us,
                _ => late_us,
            };
            self.queue.put(at_us, What::Up(Peer(number as u32)));
        }
        self.schedule_exodus();
        for number in 0..self.setup.rings {
            self.keep_ring(Peer(number as u32));
        }
        for cut in &self.setup.weather.cuts {
            self.queue.put(cut.from_s * SECOND_US, What::Cut);
        }
        self.queue.put(CHECK_S * SECOND_US, What::Check);
        if self.setup.asks > 0.0 {
            self.queue.put(ASKS_S * SECOND_US, What::Ask);
        }
    }
}
