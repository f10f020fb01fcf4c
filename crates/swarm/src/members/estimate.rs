//! What to reckon with: our own measurements first, then what several others say, then what a member says of itself,
//! at a discount. Nobody is left out for being unknown; the unknown is merely taken for slow.

use super::Members;
use super::limits::{
    ANNOUNCED_PERCENT, ASSUMED_LAYER_US, ASSUMED_RTT_US, SPEED_VOICES, UNKNOWN_PERCENT,
};
use super::table::branch;
use super::view::{Estimate, Source};
use identity::CheckedAd;
use proto::ad::{Ad, Measured};
use proto::ids::{Hash, NodeId};
use std::collections::BTreeMap;

/// What all ads say of the speed of all members with one model.
#[derive(Debug)]
pub(super) struct Speeds {
    model: Hash,
    /// Per member, what each branch measured, one voice each.
    reported: BTreeMap<NodeId, BTreeMap<NodeId, u32>>,
    /// The median of what members say of themselves.
    usual_us: Option<u64>,
}

impl Speeds {
    pub(super) fn of<'a>(ads: impl Iterator<Item = &'a CheckedAd>, model: Hash) -> Self {
        let mut reported: BTreeMap<NodeId, BTreeMap<NodeId, u32>> = BTreeMap::new();
        let mut announced = Vec::new();
        for ad in ads {
            let voice = branch(ad);
            for link in &ad.links {
                if let Some(stage) = link.stage.filter(|stage| stage.model == model) {
                    reported
                        .entry(link.node)
                        .or_default()
                        .insert(voice, stage.layer_us);
                }
            }
            announced.extend(announced_us(ad, model));
        }
        Self {
            model,
            reported,
            usual_us: median(announced),
        }
    }

    pub(super) fn model(&self) -> Hash {
        self.model
    }

    /// What one row takes through one layer on this member.
    pub(super) fn layer_us(&self, members: &Members, ad: &Ad) -> Estimate {
        let announced = announced_us(ad, self.model);
        if let Some(own_us) = members
            .own
            .get(ad.node)
            .and_then(|own| own.layer_us(self.model))
        {
            return known(own_us.into(), Source::Measured);
        }
        let voices = self.voices(ad);
        if voices.len() >= SPEED_VOICES
            && let Some(reported) = median(voices.clone())
        {
            return known(reported, Source::Reported);
        }
        let Some(announced) = announced else {
            let usual = self.usual_us.unwrap_or(ASSUMED_LAYER_US);
            return known(percent(usual, UNKNOWN_PERCENT), Source::Assumed);
        };
        let worst = voices.into_iter().max().unwrap_or(0);
        let announced = percent(announced, ANNOUNCED_PERCENT.max(candour(members, ad)));
        known(announced.max(worst), Source::Announced)
    }

    /// What branches other than its own measured of a member.
    fn voices(&self, ad: &Ad) -> Vec<u64> {
        let own = branch(ad);
        let voices = self.reported.get(&ad.node).into_iter().flatten();
        let foreign = voices.filter(|(voice, _)| **voice != own);
        foreign.map(|(_, layer_us)| u64::from(*layer_us)).collect()
    }
}

/// How much slower than announced a member proved to be with other models, in percent.
fn candour(members: &Members, ad: &Ad) -> u64 {
    let own = members.own.get(ad.node);
    let stages = own.into_iter().flat_map(|own| own.stages());
    let ratios = stages.filter_map(|stage| {
        let announced = announced_us(ad, stage.model)?.max(1);
        Some(u64::from(stage.layer_us) * 100 / announced)
    });
    ratios.max().unwrap_or(0)
}

/// What a member says of itself.
pub(super) fn announced_us(ad: &Ad, model: Hash) -> Option<u64> {
    let speed = ad.speeds.iter().find(|speed| speed.model == model);
    speed.map(|speed| speed.layer_us.into())
}

/// From us to a member and back.
pub(super) fn rtt_to(members: &Members, node: NodeId) -> Estimate {
    let own = members.own.get(node).and_then(|own| own.rtt_us);
    if let Some(own_us) = own {
        return known(own_us.into(), Source::Measured);
    }
    match measured_by(members, node, members.node()) {
        Some(theirs) => known(
            percent(theirs.rtt_us.into(), ANNOUNCED_PERCENT),
            Source::Announced,
        ),
        None => known(ASSUMED_RTT_US, Source::Assumed),
    }
}

/// From one member to another and back: the longer of what both measured, else the way over here.
pub(super) fn rtt_between(members: &Members, a: NodeId, b: NodeId) -> Estimate {
    let theirs = [measured_by(members, a, b), measured_by(members, b, a)];
    let reported = theirs
        .into_iter()
        .flatten()
        .map(|measured| measured.rtt_us)
        .max();
    match reported {
        Some(rtt_us) => known(rtt_us.into(), Source::Reported),
        None => {
            let ways = [rtt_to(members, a), rtt_to(members, b)];
            let value = ways[0].value.saturating_add(ways[1].value);
            known(value, Source::Assumed)
        }
    }
}

fn measured_by(members: &Members, by: NodeId, of: NodeId) -> Option<Measured> {
    let links = &members.table.get(by)?.ad.links;
    links.iter().find(|measured| measured.node == of).copied()
}

fn known(value: u64, source: Source) -> Estimate {
    Estimate { value, source }
}

fn percent(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

/// The middle one; of two the greater one, as it is the slower one.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
