//! Who is known, who is being called, who has a link.
//!
//! No waiting and no clock but for the ages in a snapshot: tasks look at the table for a moment and wait outside, on
//! the peer's [`Phase`].

use super::{PeerState, PeerStatus};
use crate::limits::{HEARSAY_DIALS_MAX, OUTBOX_MAX};
use crate::ways::{Places, Way};
use bytes::Bytes;
use proto::ids::NodeId;
use proto::member::{MEMBERS_MAX, Member};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What tasks wait for: where a peer stands.
pub(crate) type Phase = watch::Receiver<PeerState>;

/// The peers of one node.
#[derive(Debug)]
pub(crate) struct Table {
    me: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    links_made: u64,
}

#[derive(Debug)]
struct Peer {
    member: Member,
    /// Where others say that it is, should that be news.
    rumour: Places,
    /// Whether it has ever proven to be a member; hearsay is forgotten when nobody answers.
    met: bool,
    failed_dials: u32,
    phase: watch::Sender<PeerState>,
    since: Instant,
    fault: Option<String>,
    live: Option<Live>,
    /// Until when it gets no link, since it flooded the last one.
    barred: Option<Instant>,
}

#[derive(Debug)]
struct Live {
    serial: u64,
    outbox: mpsc::Sender<Bytes>,
    vitals: Arc<Vitals>,
    replaced: CancellationToken,
}

/// What a link measures while it is up.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Smoothed round trip in microseconds; 0 is not measured.
    rtt_us: AtomicU64,
    /// The longest round trip lately, in microseconds.
    longest_us: AtomicU64,
    incarnation: AtomicU64,
    heard: AtomicBool,
    way: OnceLock<Way>,
    relayed: AtomicBool,
    /// Told when somebody doubts that the peer is there.
    doubt: Notify,
}

/// A link's place in the table, for the task that runs it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) peer: NodeId,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) outbox: mpsc::Receiver<Bytes>,
    /// For the link's own answers.
    pub(crate) own: mpsc::Sender<Bytes>,
    /// Fires when a newer link is to take the place.
    pub(crate) replaced: CancellationToken,
    serial: u64,
}

/// What an incoming call leads to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The caller has the place.
    Taken(Place),
    /// Wait until the phase is no longer the one given, then ask again.
    Wait(Phase, PeerState),
    /// The link that exists was made by a call that crossed this one.
    Duplicate,
    /// It flooded its last link.
    Barred,
    /// Too many members are known.
    Full,
}

impl Vitals {
    /// Takes a measured round trip in, with the weight that RFC 6298 gives a sample.
    pub(crate) fn measured(&self, rtt_us: u64) {
        let before = self.rtt_us.load(Ordering::Relaxed);
        let smoothed = if before == 0 {
            rtt_us
        } else {
            before - before / 8 + rtt_us / 8
        };
        self.rtt_us.store(smoothed.max(1), Ordering::Relaxed);
        let longest = self.longest_us.load(Ordering::Relaxed);
        let longest = rtt_us.max(longest - longest / 8);
        self.longest_us.store(longest, Ordering::Relaxed);
    }

    pub(crate) fn heard_incarnation(&self, incarnation: u64) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
        self.heard.store(true, Ordering::Release);
    }

    /// Takes note of how the link came about.
    pub(crate) fn came(&self, way: Way) {
        self.way.get_or_init(|| way);
    }

    /// Takes note of whether the link goes over a relay now.
    pub(crate) fn goes(&self, relayed: bool) {
        self.relayed.store(relayed, Ordering::Relaxed);
    }

    /// Somebody doubts that the peer is there.
    pub(crate) fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until somebody does.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let us = self.rtt_us.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }

    /// The usual round trip and the longest lately, together.
    pub(crate) fn laps(&self) -> Duration {
        let longest = Duration::from_micros(self.longest_us.load(Ordering::Relaxed));
        self.rtt().unwrap_or_default() + longest
    }

    fn incarnation(&self) -> Option<u64> {
        self.heard
            .load(Ordering::Acquire)
            .then(|| self.incarnation.load(Ordering::Relaxed))
    }
}

impl Table {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            peers: BTreeMap::new(),
            links_made: 0,
        }
    }

    /// Takes note of a member. Returns what its new task waits on, if it was unknown and there is room.
    pub(crate) fn learn(&mut self, member: &Member, met: bool) -> Option<Phase> {
        if member.id == self.me {
            return None;
        }
        if let Some(peer) = self.peers.get_mut(&member.id) {
            // What a member says of itself counts more than what others say of it.
            if met || !peer.met {
                peer.member = member.clone();
                peer.rumour = Places::default();
            } else {
                peer.rumour = member.into();
            }
            peer.met |= met;
            return None;
        }
        if self.peers.len() >= MEMBERS_MAX {
            return None;
        }
        let (phase, seen) = watch::channel(PeerState::Waiting);
        let peer = Peer {
            member: member.clone(),
            rumour: Places::default(),
            met,
            failed_dials: 0,
            phase,
            since: Instant::now(),
            fault: None,
            live: None,
            barred: None,
        };
        self.peers.insert(member.id, peer);
        Some(seen)
    }

    /// Whether a node has ever proven to be a member.
    pub(crate) fn is_met(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.met)
    }

    /// Whether a member is known to be reached through other relays than it is now said to be.
    pub(crate) fn moves(&self, member: &Member) -> bool {
        let known = self.peers.get(&member.id);
        known.is_some_and(|peer| peer.member.relays != member.relays)
    }

    /// The members that are known, except by hearsay.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.peers
            .values()
            .filter(|peer| peer.met)
            .map(|peer| peer.member.clone())
            .collect()
    }

    /// Begins a call: where to call the member, unless there is a link.
    pub(crate) fn begin_dial(&mut self, peer: NodeId) -> Option<Places> {
        let peer = self.peers.get_mut(&peer)?;
        if *peer.phase.borrow() != PeerState::Waiting || peer.is_barred(Instant::now()) {
            return None;
        }
        peer.enter(PeerState::Dialing);
        let said = Places::from(&peer.member).and(&peer.rumour.direct);
        let relays = [said.relays, peer.rumour.relays.clone()].concat();
        Some(Places { relays, ..said })
    }

    /// Ends a call that led to no link. False when the member was hearsay and is now forgotten.
    pub(crate) fn dial_failed(&mut self, id: NodeId, fault: String) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        if *peer.phase.borrow() != PeerState::Dialing {
            return true;
        }
        peer.failed_dials += 1;
        if !peer.met && peer.failed_dials >= HEARSAY_DIALS_MAX {
            self.peers.remove(&id);
            return false;
        }
        peer.fault = Some(fault);
        peer.enter(PeerState::Waiting);
        true
    }

    /// Asks for the place of a link to `peer` on behalf of this node's own call, which has just come through.
    pub(crate) fn claim_for_own_call(&mut self, peer: NodeId) -> Turn {
        match self.peers.get(&peer) {
            Some(_) => self.claim(peer),
            None => Turn::Full,
        }
    }

    /// Asks for the place of a link to `peer`, which is known, on behalf of a call of its that arrived at `arrived`.
    pub(crate) fn claim_for_their_call(&mut self, id: NodeId, arrived: Instant) -> Turn {
        let Some(peer) = self.peers.get(&id) else {
            return Turn::Full;
        };
        let phase = *peer.phase.borrow();
        match phase {
            _ if peer.is_barred(arrived) => Turn::Barred,
            PeerState::Dialing if self.me < id => Turn::Wait(peer.phase.subscribe(), phase),
            PeerState::Up if peer.since > arrived => Turn::Duplicate,
            _ => self.claim(id),
        }
    }

    fn claim(&mut self, id: NodeId) -> Turn {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Turn::Full;
        };
        if let Some(live) = &peer.live {
            live.replaced.cancel();
            return Turn::Wait(peer.phase.subscribe(), PeerState::Up);
        }
        self.links_made += 1;
        let (own, outbox) = mpsc::channel(OUTBOX_MAX);
        let place = Place {
            peer: id,
            vitals: Arc::default(),
            outbox,
            own: own.clone(),
            replaced: CancellationToken::new(),
            serial: self.links_made,
        };
        peer.live = Some(Live {
            serial: place.serial,
            outbox: own,
            vitals: place.vitals.clone(),
            replaced: place.replaced.clone(),
        });
        peer.failed_dials = 0;
        peer.fault = None;
        peer.enter(PeerState::Up);
        Turn::Taken(place)
    }

    /// Refuses links to a peer for a while.
    pub(crate) fn bar(&mut self, peer: NodeId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.barred = Some(until);
        }
    }

    /// Gives a link's place back.
    pub(crate) fn release(&mut self, place: &Place, fault: String) {
        let Some(peer) = self.peers.get_mut(&place.peer) else {
            return;
        };
        if peer
            .live
            .as_ref()
            .is_some_and(|live| live.serial == place.serial)
        {
            peer.live = None;
            peer.fault = Some(fault);
            peer.enter(PeerState::Waiting);
        }
    }

    pub(crate) fn outbox(&self, peer: NodeId) -> Option<mpsc::Sender<Bytes>> {
        self.peers
            .get(&peer)?
            .live
            .as_ref()
            .map(|live| live.outbox.clone())
    }

    pub(crate) fn vitals(&self, peer: NodeId) -> Option<Arc<Vitals>> {
        let live = self.peers.get(&peer)?.live.as_ref()?;
        Some(live.vitals.clone())
    }

    /// What leads to every link but the one to `except`.
    pub(crate) fn outboxes(&self, except: Option<NodeId>) -> Vec<mpsc::Sender<Bytes>> {
        let others = self.peers.iter().filter(|(id, _)| Some(**id) != except);
        let lives = others.filter_map(|(_, peer)| peer.live.as_ref());
        lives.map(|live| live.outbox.clone()).collect()
    }

    pub(crate) fn snapshot(&self) -> Vec<PeerStatus> {
        let status = |peer: &Peer| {
            let vitals = peer.live.as_ref().map(|live| &live.vitals);
            PeerStatus {
                member: peer.member.clone(),
                state: *peer.phase.borrow(),
                since: peer.since.elapsed(),
                rtt: vitals.and_then(|vitals| vitals.rtt()),
                incarnation: vitals.and_then(|vitals| vitals.incarnation()),
                fault: peer.fault.clone(),
                way: vitals.and_then(|vitals| vitals.way.get().copied()),
                relayed: vitals.is_some_and(|vitals| vitals.relayed.load(Ordering::Relaxed)),
            }
        };
        self.peers.values().map(status).collect()
    }
}

impl Peer {
    fn is_barred(&self, now: Instant) -> bool {
        self.barred.is_some_and(|until| now < until)
    }

    fn enter(&mut self, state: PeerState) {
        self.since = Instant::now();
        self.phase.send_replace(state);
    }
}

#[cfg(test)]
mod tests;
