//! The members as a planner needs them, with measured values, and why one is not used.

use super::estimate::{Speeds, announced_us, rtt_to};
use super::limits::BOAST_PERCENT;
use super::table::{Entry, is_public};
use super::{Ask, Link, Members, Now};
use identity::CheckedAd;
use proto::ad::{Ad, Room, Standing};
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// We measured it.
    Measured,
    /// The median of what several others measured.
    Reported,
    /// The member says so of itself; it is taken for less.
    Announced,
    /// Nobody knows; something bad is assumed.
    Assumed,
}

/// A number, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// What to reckon with.
    pub value: u64,
    /// Where it comes from.
    pub source: Source,
}

/// How a member is reached right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// We have a link to it.
    Linked,
    /// We had a link that fell silent or broke, or a call failed.
    Silent,
    /// We never called it.
    Unlinked,
}

/// A member as it is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its key.
    pub node: NodeId,
    /// What its owner calls it.
    pub name: String,
    /// Which start of it.
    pub incarnation: u64,
    /// Where it is called.
    pub addrs: Vec<String>,
    /// Relays that it is reached through.
    pub relays: Vec<String>,
    /// Whether it is reached through relays only.
    pub relayed: bool,
    /// Memory that it offers, in bytes.
    pub memory_bytes: u64,
    /// What one row takes through one layer of the model, in microseconds.
    pub layer_us: Estimate,
    /// From here to there and back, in microseconds.
    pub rtt_us: Estimate,
    /// What goes through to it, in bytes a second.
    pub bytes_per_s: Option<u64>,
    /// Layers of the model that it has on disk.
    pub on_disk: Vec<LayerRange>,
    /// Whether it has all of the model.
    pub whole: bool,
    /// Whether we have a link.
    pub reach: Reach,
    /// How long ago its newest ad came, in milliseconds.
    pub age_ms: u64,
    /// Why it is not used, or is used with care.
    pub why_not: Option<WhyNot>,
}

/// Why a member is not used for a request, or not as it would like to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// It signed two different ads with one number.
    #[error("it told different members different things, and is shunned")]
    Shunned,
    /// It is not of the request's room.
    #[error("it does not serve this room")]
    OtherRoom,
    /// It takes no new work.
    #[error("it takes no new work")]
    NotServing(Option<Standing>),
    /// It may be gone.
    #[error("it did not answer lately; it is used again when it does")]
    Suspect,
    /// Its ad is about to end and was not renewed.
    #[error("nothing was heard of it for {age_s} s")]
    Stale {
        /// Since the last ad, in seconds.
        age_s: u64,
    },
    /// It runs another engine build than the request needs.
    #[error("its engine is of another build")]
    OtherBuild,
    /// Not even one layer fits.
    #[error("it offers {memory_bytes} bytes of memory, and one layer needs {needed_bytes}")]
    TooLittleMemory {
        /// What it offers.
        memory_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// It refused stages of ours, although it offers them.
    #[error("it refused the last stage it was asked to load; it is asked again in {again_s} s")]
    Refused {
        /// Until it is planned with again, in seconds.
        again_s: u64,
    },
    /// It sent bytes of a model that are not what they must be.
    #[error("it sent false bytes of a model; nothing is asked of it for {again_s} s")]
    FalseBytes {
        /// Until it is asked for anything again, in seconds.
        again_s: u64,
    },
    /// It is slower than it says. It is used, and counts with its measured speed.
    #[error(
        "it takes {measured_us} µs for a layer and announces {announced_us}; the measured time counts"
    )]
    SlowerThanAnnounced {
        /// What it says.
        announced_us: u64,
        /// What was measured.
        measured_us: u64,
    },
}

impl WhyNot {
    /// Whether the member must not be planned with.
    #[must_use]
    pub fn bars(&self) -> bool {
        !matches!(self, Self::SlowerThanAnnounced { .. })
    }
}

impl Members {
    /// Every member with what is known of it, by key: for the planner (those that nothing bars) and for people.
    /// Shunned ones come last.
    #[must_use]
    pub fn view(&self, ask: &Ask<'_>, now: Now) -> Vec<Seen> {
        let speeds = Speeds::of(self.ads(), ask.model);
        let seen = self.table.iter().map(|(node, entry)| {
            let seen = self.seen(
                &entry.ad,
                &speeds,
                now.mono_ms.saturating_sub(entry.arrived_ms),
            );
            Seen {
                reach: self.reach(node, entry, now),
                why_not: self.why_not(entry, ask, &seen, now),
                ..seen
            }
        });
        let shunned = self.evidence().map(|evidence| Seen {
            why_not: Some(WhyNot::Shunned),
            ..self.seen(&evidence.first, &speeds, 0)
        });
        seen.chain(shunned).collect()
    }

    fn seen(&self, ad: &CheckedAd, speeds: &Speeds, age_ms: u64) -> Seen {
        let held = ad.held.iter().find(|held| held.model == speeds.model());
        Seen {
            node: ad.node,
            name: ad.name.clone(),
            incarnation: ad.incarnation,
            addrs: ad.addrs.clone(),
            relays: ad.relays.clone(),
            relayed: self.is_relayed(ad),
            memory_bytes: ad.memory_bytes,
            layer_us: speeds.layer_us(self, ad),
            rtt_us: rtt_to(self, ad.node),
            bytes_per_s: self.own.get(ad.node).and_then(|own| own.bytes_per_s),
            on_disk: held.map(|held| held.layers.clone()).unwrap_or_default(),
            whole: held.is_some_and(|held| held.whole),
            reach: Reach::Unlinked,
            age_ms,
            why_not: None,
        }
    }

    /// Whether a member is reached through relays only: as its link goes, or else as far as its ad tells.
    fn is_relayed(&self, ad: &Ad) -> bool {
        let linked = self.links.contains_key(&ad.node);
        let own = self.own.get(ad.node).filter(|_| linked);
        let known = own.and_then(|own| own.relayed);
        known.unwrap_or_else(|| ad.addrs.is_empty() || (!ad.relays.is_empty() && !is_public(ad)))
    }

    fn reach(&self, node: NodeId, entry: &Entry, now: Now) -> Reach {
        match self.links.get(&node) {
            Some(Link::Up) => Reach::Linked,
            Some(Link::Silent) => Reach::Silent,
            None if entry.lost || entry.barred_until_ms > now.mono_ms => Reach::Silent,
            None => Reach::Unlinked,
        }
    }

    fn why_not(&self, entry: &Entry, ask: &Ask<'_>, seen: &Seen, now: Now) -> Option<WhyNot> {
        let ad = &entry.ad;
        let linked = self.links.get(&ad.node) == Some(&Link::Up);
        let life_ms = u64::from(ad.life_s) * 1_000;
        let doubt_ms = self.false_bytes.left_ms(ad.node, now.mono_ms);
        let reasons = [
            (!self.serves(ad, ask.room), WhyNot::OtherRoom),
            (
                ad.standing != Some(Standing::Serving),
                WhyNot::NotServing(ad.standing),
            ),
            (
                doubt_ms.is_some(),
                WhyNot::FalseBytes {
                    again_s: doubt_ms.unwrap_or(0).div_ceil(1_000),
                },
            ),
            (self.is_suspect(entry, now), WhyNot::Suspect),
            (
                !linked && seen.age_ms * 3 > life_ms * 2,
                WhyNot::Stale {
                    age_s: seen.age_ms / 1_000,
                },
            ),
            (
                entry.refused_until_ms > now.mono_ms,
                WhyNot::Refused {
                    again_s: entry
                        .refused_until_ms
                        .saturating_sub(now.mono_ms)
                        .div_ceil(1_000),
                },
            ),
            (
                ask.build.is_some_and(|build| build != ad.build),
                WhyNot::OtherBuild,
            ),
            (
                ad.memory_bytes < ask.layer_bytes,
                WhyNot::TooLittleMemory {
                    memory_bytes: ad.memory_bytes,
                    needed_bytes: ask.layer_bytes,
                },
            ),
        ];
        let bars = reasons.into_iter().find(|(holds, _)| *holds);
        bars.map(|(_, why)| why)
            .or_else(|| boasts(ad, ask.model, seen.layer_us))
    }

    /// Whether a member may see a request of this room, and wants to.
    fn serves(&self, ad: &Ad, room: Room) -> bool {
        let friend = self.circle.contains(&ad.node);
        match (room, ad.room) {
            (Room::Alone, _) | (_, None | Some(Room::Alone)) => false,
            (Room::Circle, _) | (Room::Square, Some(Room::Circle)) => friend,
            (Room::Square, Some(Room::Square)) => true,
        }
    }
}

/// Whether a member proved to be slower than it says.
fn boasts(ad: &Ad, model: Hash, layer_us: Estimate) -> Option<WhyNot> {
    let announced_us = announced_us(ad, model)?;
    let proven = layer_us.source <= Source::Reported;
    let slower = layer_us.value.saturating_mul(100) > announced_us.saturating_mul(BOAST_PERCENT);
    (proven && slower).then_some(WhyNot::SlowerThanAnnounced {
        announced_us,
        measured_us: layer_us.value,
    })
}
