//! Those who lie, each in one way. A liar's node runs the honest machines; it only says something else.

use crate::ads::{AdRef, Ads};
use crate::dice::Dice;
use identity::NodeKey;
use proto::ad::Ad;
use proto::ids::NodeId;
use proto::member::Membership;
use std::fmt::Debug;

/// How much faster and larger a boaster says it is.
const BOAST: u32 = 10;
/// How many foreign keys a sybil speaks for in a second.
const SYBILS_A_SECOND: usize = 100;
/// How many ads of others a replayer keeps.
const REPLAYS_MAX: usize = 300;
/// How far ahead a future-dater dates its ads, in seconds.
const AHEAD_S: u64 = 3_600;

/// What a liar speaks with.
#[derive(Debug)]
pub struct Mouth<'a> {
    /// Its key.
    pub key: &'a NodeKey,
    /// Its proof.
    pub membership: &'a Membership,
    /// All ads.
    pub ads: &'a mut Ads,
    /// Chance.
    pub dice: &'a mut Dice,
    /// What it says, in this order.
    pub said: Vec<AdRef>,
}

impl Mouth<'_> {
    /// Says this in its own name.
    pub fn say(&mut self, ad: &Ad) -> AdRef {
        let said = self.ads.sign(self.key, ad);
        self.said.push(said);
        said
    }
}

/// A way to lie.
pub trait Liar: Debug {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// It would say this if it were honest.
    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        mouth.say(honest);
    }

    /// It heard of somebody.
    fn hear(&mut self, _ad: AdRef, _dice: &mut Dice) {}

    /// Another second passed.
    fn idle(&mut self, _mouth: &mut Mouth<'_>) {}

    /// Whom it tells newcomers of.
    fn introduce(&self, honest: Vec<AdRef>) -> Vec<AdRef> {
        honest
    }

    /// Whether it answers calls and loads stages.
    fn answers(&self) -> bool {
        true
    }

    /// Keys beside its own that it speaks for.
    fn puppets(&self) -> Vec<NodeId> {
        Vec::new()
    }

    /// Whether it seeks links with the victim, the one node that eclipsers agreed on, and keeps all ads from it.
    fn hunts(&self) -> bool {
        false
    }
}

/// Says that it is faster and larger than it is.
#[derive(Debug)]
pub struct Boaster;

impl Liar for Boaster {
    fn name(&self) -> &'static str {
        "boaster"
    }

    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        let mut boast = honest.clone();
        boast.memory_bytes *= u64::from(BOAST);
        for speed in &mut boast.speeds {
            speed.layer_us /= BOAST;
        }
        mouth.say(&boast);
    }
}

/// Says that it serves, and never answers.
#[derive(Debug)]
pub struct Ghost;

impl Liar for Ghost {
    fn name(&self) -> &'static str {
        "ghost"
    }

    fn answers(&self) -> bool {
        false
    }
}

/// Speaks for many keys on one host, all of which it let in.
#[derive(Debug)]
pub struct Sybil {
    puppets: Vec<(NodeKey, Membership)>,
    newest: Option<Ad>,
    next: usize,
    sequence: u64,
}

impl Sybil {
    /// One with so many keys.
    pub fn new(count: usize, mine: (&NodeKey, &Membership), ads: &Ads, dice: &mut Dice) -> Self {
        let puppets = (0..count).map(|_| {
            let key = NodeKey::from_bytes(dice.bytes());
            let membership = ads.let_in(mine.1, mine.0, key.id());
            (key, membership)
        });
        Self {
            puppets: puppets.collect(),
            newest: None,
            next: 0,
            sequence: 0,
        }
    }

    fn speak_for(&mut self, mouth: &mut Mouth<'_>) -> Option<()> {
        let newest = self.newest.as_ref()?;
        let (key, membership) = self.puppets.get(self.next % self.puppets.len().max(1))?;
        let ad = Ad {
            node: key.id(),
            sequence: self.sequence,
            membership: membership.clone(),
            ..newest.clone()
        };
        let said = mouth.ads.sign(key, &ad);
        mouth.said.push(said);
        self.next += 1;
        Some(())
    }
}

impl Liar for Sybil {
    fn name(&self) -> &'static str {
        "sybil"
    }

    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        self.newest = Some(honest.clone());
        self.next = 0;
        self.sequence += 1;
        mouth.say(honest);
    }

    fn idle(&mut self, mouth: &mut Mouth<'_>) {
        for _ in 0..SYBILS_A_SECOND.min(self.puppets.len().saturating_sub(self.next)) {
            self.speak_for(mouth);
        }
    }

    fn puppets(&self) -> Vec<NodeId> {
        self.puppets.iter().map(|(key, _)| key.id()).collect()
    }
}

/// Signs two different ads with one number.
#[derive(Debug)]
pub struct Equivocator;

impl Liar for Equivocator {
    fn name(&self) -> &'static str {
        "equivocator"
    }

    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        mouth.say(honest);
        mouth.say(&Ad {
            memory_bytes: honest.memory_bytes / 2,
            ..honest.clone()
        });
    }
}

/// Plays old ads of others again.
#[derive(Debug, Default)]
pub struct Replayer {
    kept: Vec<AdRef>,
}

impl Liar for Replayer {
    fn name(&self) -> &'static str {
        "replayer"
    }

    fn hear(&mut self, ad: AdRef, dice: &mut Dice) {
        if self.kept.len() < REPLAYS_MAX {
            self.kept.push(ad);
        } else if dice.chance(0.05) {
            let at = dice.below(REPLAYS_MAX);
            self.kept[at] = ad;
        }
    }

    fn idle(&mut self, mouth: &mut Mouth<'_>) {
        mouth.said.extend(mouth.dice.pick(&self.kept));
    }
}

/// Seeks links with one victim, and tells it of nobody but puppets.
#[derive(Debug)]
pub struct Eclipser(pub Sybil);

impl Liar for Eclipser {
    fn name(&self) -> &'static str {
        "eclipser"
    }

    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        self.0.speak(honest, mouth);
    }

    fn idle(&mut self, mouth: &mut Mouth<'_>) {
        self.0.idle(mouth);
    }

    fn introduce(&self, _honest: Vec<AdRef>) -> Vec<AdRef> {
        Vec::new()
    }

    fn puppets(&self) -> Vec<NodeId> {
        self.0.puppets()
    }

    fn hunts(&self) -> bool {
        true
    }
}

/// Dates its ads ahead, so that they would outlive all others.
#[derive(Debug)]
pub struct FutureDater;

impl Liar for FutureDater {
    fn name(&self) -> &'static str {
        "future-dater"
    }

    fn speak(&mut self, honest: &Ad, mouth: &mut Mouth<'_>) {
        mouth.say(&Ad {
            issued_s: honest.issued_s + AHEAD_S,
            ..honest.clone()
        });
    }
}

/// The ways to lie, for those who set up worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// [`Boaster`].
    Boast,
    /// [`Ghost`].
    Haunt,
    /// [`Sybil`] with so many keys.
    Sybil(usize),
    /// [`Equivocator`].
    Equivocate,
    /// [`Replayer`].
    Replay,
    /// [`Eclipser`] with so many keys.
    Eclipse(usize),
    /// [`FutureDater`].
    FutureDate,
}

impl Lie {
    /// A node that lies so.
    pub fn liar(self, mine: (&NodeKey, &Membership), ads: &Ads, dice: &mut Dice) -> Box<dyn Liar> {
        match self {
            Self::Boast => Box::new(Boaster),
            Self::Haunt => Box::new(Ghost),
            Self::Sybil(keys) => Box::new(Sybil::new(keys, mine, ads, dice)),
            Self::Equivocate => Box::new(Equivocator),
            Self::Replay => Box::new(Replayer::default()),
            Self::Eclipse(keys) => Box::new(Eclipser(Sybil::new(keys, mine, ads, dice))),
            Self::FutureDate => Box::new(FutureDater),
        }
    }
}
