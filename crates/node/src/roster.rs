//! The members of the commons as this node knows them: what feeds `swarm::members`, and carries out what it says.
//!
//! Ads come by gossip, and in a bundle from everybody who links up. They are checked here, once; the machine decides
//! what they are worth. What happens to links and what was measured is told to it by whoever knows.

use crate::gossip::{Gossip, Heard};
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
    /// A node that knows nobody yet, and offers this.
    #[must_use]
    pub fn new(key: NodeKey, me: Identity, offer: Offer, (links, gossip): (Links, Gossip)) -> Self {
        let commons = me.commons;
        let inner = Inner {
            machine: Mutex::new(Members::new(me, offer.clone())),
            offer: Mutex::new(offer),
            own: Mutex::default(),
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
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.pass_time().await,
                Some(Heard { from, message }) = heard.recv() => match codec::from_slice(&message) {
                    Ok(signed) => self.hear(from, signed).await,
                    Err(error) => debug!(from = %from.short(), %error, "gossip that is no ad"),
                },
            }
        }
    }

    async fn pass_time(&self) {
        for peer in self.inner.links.snapshot() {
            if let (PeerState::Up, Some(rtt)) = (peer.state, peer.rtt) {
                let (node, rtt_us) = (peer.member.id, rtt.as_micros());
                let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX);
                self.tell(Event::Rtt { node, rtt_us }).await;
            }
        }
        self.tell(Event::Tick).await;
    }

    /// A member is linked: it learns whom we know, and gossip gets a neighbour.
    pub async fn up(&self, member: &Member) {
        self.tell(Event::LinkUp(member.id)).await;
        self.inner.gossip.up(member.id).await;
        let mut bundle = Vec::new();
        let mut bytes = 0;
        for ad in self.known() {
            let size = codec::to_vec(&ad).len();
            if bytes + size > ADS_BYTES_MAX {
                self.introduce(member.id, std::mem::take(&mut bundle));
                bytes = 0;
            }
            bytes += size;
            bundle.push(ad);
        }
        self.introduce(member.id, bundle);
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

    fn introduce(&self, to: NodeId, ads: Vec<SignedAd>) {
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
            Ok(ad) => self.tell(Event::Heard { ad, from }).await,
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
        let member = lock(&self.inner.machine).ad(node).map(|ad| Member {
            id: ad.node,
            addrs: ad.addrs.clone(),
            name: ad.name.clone(),
            relays: Some(ad.relays.clone()).filter(|relays| !relays.is_empty()),
        });
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
