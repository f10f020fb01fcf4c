//! What goes over the wires: gossip, links, and what is handed over on them.

use crate::ads::AdRef;
use crate::node::{LINKS_MAX, Peer, Traffic};
use crate::world::{SECOND_US, What, World, topic};
use iroh_gossip::proto::state::MessageKind;
use iroh_gossip::proto::{Command, Event as Gossiped, InEvent, Message, OutEvent};
use proto::ids::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;
use swarm::members::Event;

/// After how long a lost link is noticed: first a miss, then three, in microseconds.
const SILENT_US: u64 = 2_000_000;
const LOST_US: u64 = 3_500_000;
/// After how long gossip notices that a connection is dead, in microseconds.
pub(crate) const IDLE_US: u64 = 10_000_000;
/// How long a call rings, in microseconds.
const DIAL_US: u64 = 4_000_000;
/// What a link carries, in bytes a second.
const LINK_BYTES_S: u64 = 1_000_000;

impl World {
    /// A node loses its link with another.
    pub(crate) fn part(&mut self, peer: Peer, other: Peer, goodbye: bool) {
        self.node_mut(peer).links.remove(&other);
        let life = self.node(peer).life;
        if goodbye {
            let after_us = self.delay_us(other, peer);
            return self.put(after_us, What::Lost { peer, life, other });
        }
        self.put(SILENT_US, What::Silent { peer, life, other });
        self.put(LOST_US, What::Lost { peer, life, other });
    }

    pub(crate) fn miss(&mut self, peer: Peer, life: u32, other: Peer, event: fn(NodeId) -> Event) {
        if self.lives(peer, life) && !self.node(peer).links.contains(&other) {
            let other = self.node(other).id;
            self.tell(peer, event(other));
        }
    }

    /// A partition begins: links and connections across it break.
    pub(crate) fn cut(&mut self) {
        for peer in self.peers() {
            let node = self.node(peer);
            let across = |others: &BTreeSet<Peer>| -> Vec<Peer> {
                others
                    .iter()
                    .copied()
                    .filter(|other| !self.passes(peer, *other))
                    .collect()
            };
            let (links, conns) = (across(&node.links), across(&node.conns));
            for other in links {
                self.part(peer, other, false);
            }
            for other in conns {
                self.put(IDLE_US, What::Broken { peer, other });
            }
        }
    }

    /// Tells a node's gossip what happened, and does what it says.
    pub(crate) fn gossip(&mut self, peer: Peer, event: InEvent<Peer>) {
        let at = self.epoch() + Duration::from_micros(self.now_us);
        let Some(state) = self.nodes[peer.0 as usize].gossip.as_mut() else {
            return;
        };
        let out: Vec<_> = state.handle(event, at, None).collect();
        let life = self.node(peer).life;
        for event in out {
            match event {
                OutEvent::SendMessage(to, message) => self.send(peer, to, message),
                OutEvent::EmitEvent(_, Gossiped::Received(message)) => {
                    if let Some(ad) = self.ads.read(&message.content) {
                        self.hear(peer, ad, message.delivered_from);
                    }
                }
                OutEvent::EmitEvent(_, Gossiped::NeighborUp(_)) => self.gain(peer),
                OutEvent::EmitEvent(_, Gossiped::NeighborDown(_)) => {
                    let node = self.node_mut(peer);
                    node.neighbours = node.neighbours.saturating_sub(1);
                }
                OutEvent::ScheduleTimer(after, timer) => {
                    let after_us = after.as_micros() as u64;
                    self.put(after_us, What::Timer { peer, life, timer });
                }
                OutEvent::DisconnectPeer(other) if self.node_mut(peer).conns.remove(&other) => {
                    let after_us = self.delay_us(peer, other) + 1;
                    self.put(
                        after_us,
                        What::Broken {
                            peer: other,
                            other: peer,
                        },
                    );
                }
                _ => {}
            }
        }
    }

    /// Gossip has a neighbour more. What was said while there was none, nobody heard.
    fn gain(&mut self, peer: Peer) {
        let node = self.node_mut(peer);
        node.neighbours += 1;
        let own = node.own.filter(|_| node.neighbours == 1);
        own.into_iter().for_each(|own| self.spread(peer, own));
    }

    /// Whether somebody keeps ads from the victim.
    fn is_kept_back(&self, from: Peer, to: Peer, message: &Message<Peer>) -> bool {
        let hunts = self
            .node(from)
            .liar
            .as_ref()
            .is_some_and(|liar| liar.hunts());
        hunts && to == self.victim && matches!(message.kind(), MessageKind::Data)
    }

    fn send(&mut self, from: Peer, to: Peer, message: Message<Peer>) {
        if self.is_kept_back(from, to, &message) {
            return;
        }
        let bytes = message.size().unwrap_or(0) as u64;
        let traffic = &mut self.node_mut(from).traffic;
        traffic.messages += 1;
        traffic.gossip_bytes += bytes;
        self.node_mut(from).conns.insert(to);
        if !self.node(to).up || !self.passes(from, to) {
            return self.put(
                IDLE_US,
                What::Broken {
                    peer: from,
                    other: to,
                },
            );
        }
        let delay_us = self.delay_us(from, to);
        self.put(delay_us, What::Message { to, from, message });
    }

    pub(crate) fn hear(&mut self, peer: Peer, ad: AdRef, from: Peer) {
        let node = &mut self.nodes[peer.0 as usize];
        if let Some(liar) = node.liar.as_mut() {
            liar.hear(ad, &mut self.dice);
        }
        if !node.listens {
            return;
        }
        let (ad, from) = (self.ads.get(ad).clone(), self.node(from).id);
        self.check_heard(peer, &ad);
        self.tell(peer, Event::Heard { ad, from });
    }

    /// A node calls another for a link.
    pub(crate) fn call(&mut self, caller: Peer, callee: Peer) {
        let life = self.node(caller).life;
        let room = self.node(callee).links.len() < LINKS_MAX;
        if caller == callee || self.node(caller).links.contains(&callee) {
            return;
        }
        if self.node(callee).answers() && self.passes(caller, callee) && room {
            let rtt_us = self.delay_us(caller, callee) + self.delay_us(callee, caller);
            self.put(
                rtt_us,
                What::Answer {
                    caller,
                    life,
                    callee,
                },
            );
        } else {
            self.put(
                DIAL_US,
                What::Unanswered {
                    caller,
                    life,
                    callee,
                },
            );
        }
    }

    pub(crate) fn answer(&mut self, caller: Peer, callee: Peer) {
        let there = self.node(callee).up && self.passes(caller, callee);
        if !there || self.node(caller).links.contains(&callee) {
            return;
        }
        let knows = |a: Peer, b: Peer| {
            let members = self.node(a).members.as_ref();
            members.is_some_and(|members| members.ad(self.node(b).id).is_some())
        };
        let listen = self.node(caller).listens && self.node(callee).listens;
        let strangers = listen && !(knows(caller, callee) && knows(callee, caller));
        for (peer, other) in [(caller, callee), (callee, caller)] {
            self.node_mut(peer).links.insert(other);
            self.node_mut(peer).remember(other);
            let (node, rtt_us) = (self.node(other).id, 2 * self.delay_us(peer, other) as u32);
            self.tell(peer, Event::LinkUp(node));
            self.tell(peer, Event::Rtt { node, rtt_us });
            self.hand_over(peer, other, strangers);
        }
        if strangers || self.node(caller).conns.is_empty() {
            let join = Command::Join(vec![callee]);
            self.gossip(caller, InEvent::Command(topic(), join));
        }
    }

    /// Tells a neighbour our own ad, and all others when it is a stranger.
    fn hand_over(&mut self, from: Peer, to: Peer, all: bool) {
        let node = self.node(from);
        let others = node
            .members
            .iter()
            .filter(|_| all)
            .flat_map(|members| members.ads());
        let others: Vec<AdRef> = others.filter_map(|ad| self.ads.find(ad)).collect();
        let others = match &node.liar {
            Some(liar) => liar.introduce(others),
            None => others,
        };
        let ads: Vec<AdRef> = node.own.into_iter().chain(others).collect();
        let bytes: u64 = ads.iter().map(|ad| self.ads.bytes(*ad).len() as u64).sum();
        self.node_mut(from).traffic.bundle_bytes += bytes;
        let after_us = self.delay_us(from, to) + bytes * SECOND_US / LINK_BYTES_S;
        self.put(after_us, What::Bundle { to, from, ads });
    }

    /// What all nodes sent so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.nodes
            .iter()
            .fold(Traffic::default(), |sum, node| Traffic {
                messages: sum.messages + node.traffic.messages,
                gossip_bytes: sum.gossip_bytes + node.traffic.gossip_bytes,
                bundle_bytes: sum.bundle_bytes + node.traffic.bundle_bytes,
            })
    }

    /// Of a node that listens, on average: members that it knows, and the bytes that it keeps for them.
    #[must_use]
    pub fn state(&self) -> (f64, f64) {
        let listeners = || self.nodes.iter().filter(|node| node.listens);
        let tables = || listeners().filter_map(|node| node.members.as_ref());
        let ads = || tables().flat_map(|members| members.ads());
        let bytes: usize = ads().map(|ad| 2 * ad.signed().body.len() + 256).sum();
        let count = tables().count().max(1) as f64;
        (ads().count() as f64 / count, bytes as f64 / count)
    }

    /// Tells all who listen of all who are there, as if they had been there for long.
    pub fn acquaint(&mut self) {
        let own: Vec<(Peer, AdRef)> = self
            .peers()
            .filter_map(|peer| Some((peer, self.node(peer).own?)))
            .collect();
        for peer in self
            .peers()
            .filter(|peer| self.node(*peer).listens)
            .collect::<Vec<_>>()
        {
            own.iter()
                .filter(|(from, _)| *from != peer)
                .for_each(|(from, ad)| self.hear(peer, *ad, *from));
        }
    }
}
