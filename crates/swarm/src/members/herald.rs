//! Our own ads: what they say, and when the next one is due.

use super::limits::{AD_PAUSE_MS, LOST_KEPT_MS, NEWS_FACTOR, renew_ms};
use super::message::{Identity, Now, Offer};
use proto::ad::{AD_LIFE_MAX_S, AD_LIFE_MIN_S, AD_LOST_MAX, Ad, Lost, Measured};
use proto::ids::NodeId;

/// How soon others should hear of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// With the next renewal.
    Renewal,
    /// As news: [`NEWS_FACTOR`] times as often as renewals may come.
    News,
    /// At once.
    Now,
}

/// Speaks for this node.
#[derive(Debug)]
pub(super) struct Herald {
    pub(super) me: Identity,
    pub(super) offer: Offer,
    /// Of the newest ad; 0 before the first.
    sequence: u64,
    /// When the newest ad was made.
    last_ms: Option<u64>,
    urgency: Urgency,
    /// Neighbours that were lost, and when, the oldest first.
    lost: Vec<(u64, Lost)>,
}

impl Herald {
    pub(super) fn new(me: Identity, offer: Offer) -> Self {
        Self {
            me,
            offer,
            sequence: 0,
            last_ms: None,
            urgency: Urgency::Now,
            lost: Vec::new(),
        }
    }

    /// The pair of our newest ad.
    pub(super) fn age(&self) -> (u64, u64) {
        (self.me.incarnation, self.sequence)
    }

    pub(super) fn urge(&mut self, urgency: Urgency) {
        self.urgency = self.urgency.max(urgency);
    }

    /// Somebody has an ad of ours that we do not know of: an earlier life was longer than we remember.
    pub(super) fn outdo(&mut self, heard: (u64, u64)) {
        if heard > self.age() {
            self.me.incarnation = heard.0.saturating_add(1);
            self.sequence = 0;
            self.urge(Urgency::Now);
        }
    }

    pub(super) fn lose(&mut self, lost: Lost, now: Now) {
        self.found(lost.node);
        if self.lost.len() >= AD_LOST_MAX {
            self.lost.remove(0);
        }
        self.lost.push((now.mono_ms, lost));
        self.urge(Urgency::News);
    }

    /// A neighbour that was lost is there again.
    pub(super) fn found(&mut self, node: NodeId) {
        self.lost.retain(|(_, lost)| lost.node != node);
    }

    /// The next ad, when it is due in a commons of so many members.
    pub(super) fn due(
        &mut self,
        members: usize,
        links: impl FnOnce() -> Vec<Measured>,
        now: Now,
    ) -> Option<Ad> {
        let renew_ms = renew_ms(members);
        let pause_ms = match self.urgency {
            Urgency::Renewal => renew_ms - self.jitter(renew_ms / 4),
            Urgency::News => renew_ms / NEWS_FACTOR,
            Urgency::Now => AD_PAUSE_MS,
        };
        let due = self
            .last_ms
            .is_none_or(|last_ms| now.mono_ms >= last_ms.saturating_add(pause_ms));
        due.then(|| self.ad(renew_ms, links(), now))
    }

    /// Less than `below`, another number for every ad and node, so that not all speak at once.
    fn jitter(&self, below: u64) -> u64 {
        let mixed = (self.me.secret ^ self.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) % below.max(1)
    }

    fn ad(&mut self, renew_ms: u64, links: Vec<Measured>, now: Now) -> Ad {
        let fresh_ms = now.mono_ms.saturating_sub(LOST_KEPT_MS);
        self.lost.retain(|(at_ms, _)| *at_ms >= fresh_ms);
        self.sequence += 1;
        self.last_ms = Some(now.mono_ms);
        self.urgency = Urgency::Renewal;
        let (me, offer) = (&self.me, self.offer.clone());
        Ad {
            commons: me.commons,
            node: me.node,
            incarnation: me.incarnation,
            sequence: self.sequence,
            issued_s: now.wall_s,
            life_s: ((renew_ms * 3 / 1_000) as u32).clamp(AD_LIFE_MIN_S, AD_LIFE_MAX_S),
            name: offer.name,
            addrs: offer.addrs,
            relay: offer.relay,
            relays: offer.relays,
            room: Some(offer.room),
            standing: Some(offer.standing),
            memory_bytes: offer.memory_bytes,
            cpu_class: offer.cpu_class,
            build: offer.build,
            speeds: offer.speeds,
            held: offer.held,
            links,
            lost: self.lost.iter().map(|(_, lost)| *lost).collect(),
            membership: me.membership.clone(),
        }
    }
}
