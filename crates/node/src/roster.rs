//! The members of the commons as this node knows them: what feeds `swarm::members`, and carries out what it says.
//!
//! Ads come by gossip; whoever links up hands over its own, and to a stranger all that it has. They are checked here,
//! once; the machine decides what they are worth. What happens to links and what was measured is told to it by whoever
//! knows. Once a minute somebody of before is called who is no longer heard of.

use crate::gossip::{Gossip, Heard};
use crate::remembered::Remembered;
use crate::standing::now_s;
use bytes::Bytes;
use identity::{NodeKey, check_ad, sign_ad};
use net::{Links, PeerState};
use proto::ad::{Ad, SignedAd};
use proto::codec;
use proto::ids::{CommonsId, NodeId};
use proto::member::Member;
use proto::ring::{ADS_BYTES_MAX, LinkBody};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use swarm::members::{Ask, Change, Effect, Estimate, Event, Identity, Members, Now, Offer, Seen};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often the machine is told that time passes.
const TICK: Duration = Duration::from_secs(1);
/// How often somebody of before is called.
const RECALL: Duration = Duration::from_secs(60);

/// The members of the commons. Clones are the same.
#[derive(Debug, Clone)]
pub struct Roster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Mutex<Members>,
    /// What the machine was last told that we offer.
    offer: Mutex<Offer>,
    /// Our newest ad, for whoever links up.
    own: Mutex<Option<SignedAd>>,
    before: Mutex<Remembered>,
    began: Instant,
    key: NodeKey,
    commons: CommonsId,
    links: Links,
    gossip: Gossip,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// A node that knows these members of `before`, none of them as there, and offers this.
    #[must_use]
    pub fn new(
        key: NodeKey,
        (me, offer): (Identity, Offer),
        before: &[Member],
        (links, gossip): (Links, Gossip),
    ) -> Self {
        let commons = me.commons;
        let mut remembered = Remembered::default();
        before
            .iter()
            .for_each(|member| remembered.note(member.clone()));
        let inner = Inner {
            machine: Mutex::new(Members::new(me, offer.clone())),
            offer: Mutex::new(offer),
            own: Mutex::default(),
            before: Mutex::new(remembered),
            began: Instant::now(),
            key,
            commons,
            links,
            gossip,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes in gossip and lets time pass, until the node ends.
    pub async fn run(
        self,
        circle: BTreeSet<NodeId>,
        mut heard: mpsc::Receiver<Heard>,
        stop: CancellationToken,
    ) {
        self.tell(Event::Circle(circle)).await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut recall = tokio::time::interval(RECALL);
        recall.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.pass_time().await,
                _ = recall.tick() => self.recall(),
                Some(Heard { from, message }) = heard.recv() => match codec::from_slice(&message) {
                    Ok(signed) => self.hear(from, signed).await,
                    Err(error) => debug!(from = %from.short(), %error, "gossip that is no ad"),
                },
            }
        }
    }

    async fn pass_time(&self) {
        let peers = self.inner.links.snapshot().into_iter();
        for peer in peers.filter(|peer| peer.state == PeerState::Up) {
            let (node, relayed) = (peer.member.id, peer.relayed);
            self.tell(Event::Way { node, relayed }).await;
            if let Some(rtt) = peer.rtt {
                let rtt_us = rtt.as_micros();
                let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX);
                self.tell(Event::Rtt { node, rtt_us }).await;
            }
        }
        self.tell(Event::Tick).await;
    }

    /// Calls somebody of before who is no longer heard of, and takes note of those that are.
    fn recall(&self) {
        let lost = {
            let machine = lock(&self.inner.machine);
            let mut before = lock(&self.inner.before);
            machine.ads().for_each(|ad| before.note(member(ad)));
            before.next(|node| machine.ad(node).is_some())
        };
        if let Some(lost) = lost {
            debug!(node = %lost.id.short(), "a member of before is called");
            self.inner.links.know(&lost);
        }
    }

    /// A member is linked: it learns what we offer, and a stranger whom we know; gossip gets a neighbour.
    pub async fn up(&self, member: &Member) {
        let stranger = is_stranger(self.incarnation(member.id), None);
        lock(&self.inner.before).note(member.clone());
        self.tell(Event::LinkUp(member.id)).await;
        self.inner.gossip.up(member.id).await;
        let own = lock(&self.inner.own).clone();
        let ads = match stranger {
            true => self.known(),
            false => own.into_iter().collect(),
        };
        self.introduce(member.id, ads);
    }

    /// The incarnation of a member whose ad is known.
    fn incarnation(&self, node: NodeId) -> Option<u64> {
        let machine = lock(&self.inner.machine);
        machine.ad(node).map(|ad| ad.incarnation)
    }

    /// A member's link is lost.
    pub async fn lost(&self, peer: NodeId) {
        self.inner.gossip.lost(peer).await;
        self.tell(Event::LinkLost(peer)).await;
    }

    /// A neighbour sent a message of gossip.
    pub async fn gossiped(&self, from: NodeId, message: Vec<u8>) {
        self.inner.gossip.message(from, message).await;
    }

    /// Ads that a neighbour holds.
    pub async fn bundle(&self, from: NodeId, ads: Vec<SignedAd>) {
        for signed in ads {
            self.hear(from, signed).await;
        }
    }

    /// Our own newest ad and those of all others.
    fn known(&self) -> Vec<SignedAd> {
        let own = lock(&self.inner.own).clone();
        let machine = lock(&self.inner.machine);
        let others = machine.ads().map(|ad| ad.signed().clone());
        own.into_iter().chain(others).collect()
    }

    /// Hands ads over, in as many messages as it takes.
    fn introduce(&self, to: NodeId, ads: Vec<SignedAd>) {
        let mut bundle = Vec::new();
        let mut bytes = 0;
        for ad in ads {
            let size = codec::to_vec(&ad).len();
            if bytes + size > ADS_BYTES_MAX {
                self.hand_over(to, std::mem::take(&mut bundle));
                bytes = 0;
            }
            bytes += size;
            bundle.push(ad);
        }
        self.hand_over(to, bundle);
    }

    fn hand_over(&self, to: NodeId, ads: Vec<SignedAd>) {
        if ads.is_empty() {
            return;
        }
        // Whoever takes messages too slowly hears of the others by gossip.
        if let Err(error) = self.inner.links.send(to, LinkBody::Ads(ads)) {
            debug!(to = %to.short(), %error, "ads were not handed over");
        }
    }

    async fn hear(&self, from: NodeId, signed: SignedAd) {
        match check_ad(signed, self.inner.commons) {
            Ok(ad) => {
                let (node, said) = (ad.node, ad.incarnation);
                let first_hand = from == node;
                let stranger = first_hand && is_stranger(self.incarnation(node), Some(said));
                self.tell(Event::Heard { ad, from }).await;
                if stranger {
                    self.introduce(node, self.known());
                }
            }
            Err(error) => debug!(from = %from.short(), %error, "an ad that is not genuine"),
        }
    }

    /// Tells the machine what happened, and does what it says.
    pub async fn tell(&self, event: Event) {
        let effects = lock(&self.inner.machine).handle(event, self.now());
        for effect in effects {
            self.carry_out(effect).await;
        }
    }

    async fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Publish(ad) => self.publish(&ad).await,
            Effect::Refuse { node, from, why } if why.is_misdeed() => {
                warn!(node = %node.short(), from = %from.short(), %why, "an ad is refused");
            }
            Effect::Refuse { node, from, why } => {
                debug!(node = %node.short(), from = %from.short(), %why, "an ad is not taken");
            }
            Effect::Member { node, change } => match change {
                Change::Changed => debug!(node = %node.short(), "a member offers something else"),
                change => info!(node = %node.short(), ?change, "a member"),
            },
            Effect::Call(node) => self.call(node),
        }
    }

    async fn publish(&self, ad: &Ad) {
        let signed = match sign_ad(&self.inner.key, ad) {
            Ok(signed) => signed,
            Err(error) => return warn!(%error, "this node's ad is not published"),
        };
        let message = Bytes::from(codec::to_vec(&signed));
        *lock(&self.inner.own) = Some(signed);
        self.inner.gossip.say(message).await;
    }

    /// Links up with a member that is known by its ad.
    fn call(&self, node: NodeId) {
        let member = lock(&self.inner.machine).ad(node).map(|ad| member(ad));
        if let Some(member) = member {
            self.inner.links.know(&member);
        }
    }

    /// Changes what this node offers; all others are told if it is something else than before.
    pub async fn offer(&self, change: impl FnOnce(&mut Offer)) {
        let changed = {
            let mut offer = lock(&self.inner.offer);
            let before = offer.clone();
            change(&mut offer);
            (*offer != before).then(|| offer.clone())
        };
        if let Some(offer) = changed {
            self.tell(Event::Offer(Box::new(offer))).await;
        }
    }

    /// What this node offers.
    #[must_use]
    pub fn offered(&self) -> Offer {
        lock(&self.inner.offer).clone()
    }

    /// Every member with what is known of it.
    #[must_use]
    pub fn view(&self, ask: &Ask<'_>) -> Vec<Seen> {
        lock(&self.inner.machine).view(ask, self.now())
    }

    /// Members of whom no bytes are taken at the moment.
    #[must_use]
    pub fn doubted(&self) -> BTreeSet<NodeId> {
        lock(&self.inner.machine).doubted(self.now())
    }

    /// Between two members, there and back.
    #[must_use]
    pub fn rtt_us(&self, a: NodeId, b: NodeId) -> Estimate {
        lock(&self.inner.machine).rtt_us(a, b)
    }

    fn now(&self) -> Now {
        let mono_ms = self.inner.began.elapsed().as_millis();
        Now {
            mono_ms: u64::try_from(mono_ms).unwrap_or(u64::MAX),
            wall_s: now_s(),
        }
    }
}

/// Whether a member knows nobody, as far as can be told: because nobody here knows it, or because it says itself that it
/// has started anew since its last ad, which is of the incarnation `known`. Without a word of its own, `said` is `None`.
fn is_stranger(known: Option<u64>, said: Option<u64>) -> bool {
    match (known, said) {
        (None, None) => true,
        // It is linked, so it was a stranger then, and was told of all others.
        (None, Some(_)) | (Some(_), None) => false,
        (Some(known), Some(said)) => said > known,
    }
}

/// A member as its ad says where it is.
fn member(ad: &Ad) -> Member {
    Member {
        id: ad.node,
        addrs: ad.addrs.clone(),
        name: ad.name.clone(),
        relays: Some(ad.relays.clone()).filter(|relays| !relays.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strangers_are_told_of_all_others() {
        for (known, said, expected) in [
            (None, None, true),
            (Some(3), None, false),
            (Some(3), Some(3), false),
            (Some(3), Some(4), true),
            (Some(3), Some(2), false),
            (None, Some(1), false),
        ] {
            assert_eq!(is_stranger(known, said), expected, "{known:?} {said:?}");
        }
    }
}
