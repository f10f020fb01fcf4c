//! The members of a commons as one node knows them.
//!
//! Every member tells all others about itself in signed ads that travel by gossip. The machine here decides which ads
//! count, for how long, and what to make of them:
//!
//! - The greater pair (incarnation, sequence) wins. Two ads with one pair and different contents are a lie to somebody:
//!   their maker is shunned, and both are kept as evidence.
//! - An ad counts for the life that it names, by our own monotonic clock, from the moment it came. Its date only keeps
//!   old ones from being played back: clocks may differ by [`proto::ad::AD_SKEW_S`].
//! - The larger the commons, the more rarely ads are renewed, so that what a node hears a second stays the same.
//!   Losses do not wait for that: who loses a neighbour says so in its next ad, and a member that several branches of the
//!   commons lost is suspect, until a newer ad of it refutes them.
//! - The table is bounded, and so is everybody's share of it, so that a thousand keys of one host, or of one
//!   introducer, push nobody out. See `table`.
//! - What a member says of itself is a hint. What we measured counts before it, then what several others measured. See
//!   `estimate`.

mod estimate;
mod herald;
pub mod limits;
mod message;
mod own;
mod past;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use message::{Ask, Change, Effect, Event, Evidence, Gone, Identity, Now, Offer, Refusal};
pub use view::{Estimate, Reach, Seen, Source, WhyNot};

use herald::{Herald, Urgency};
use identity::CheckedAd;
use limits::{
    CALL_LOOKS_MAX, CALL_PAUSE_MS, CIRCLE_MAX, EXPLORE_PAUSE_MS, FAILED_DOUBLINGS_MAX,
    FAILED_PAUSE_MS, LINKS_EXPLORED, LINKS_KEPT_MAX, LINKS_WANTED, LOST_VOICES,
    REFUSED_DOUBLINGS_MAX, REFUSED_PAUSE_MS,
};
use own::Measurements;
use past::{False, Shunned, Tombs};
use proto::ad::{AD_SKEW_S, Ad, Lost, Standing};
use proto::ids::{Hash, NodeId};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use table::{Entry, Table, branch};

/// The state of a link that was not given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Silent,
}

/// The members machine of one node.
#[derive(Debug)]
pub struct Members {
    herald: Herald,
    table: Table,
    links: BTreeMap<NodeId, Link>,
    circle: BTreeSet<NodeId>,
    own: Measurements,
    tombs: Tombs,
    shunned: Shunned,
    false_bytes: False,
    /// No ad in the table ends before.
    sweep_ms: u64,
    /// When somebody was called for a link, and for a measurement.
    called_ms: [Option<u64>; 2],
    calls: u64,
}

/// How much one node remembers, for those who check that it is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Members that count.
    pub members: usize,
    /// Links.
    pub links: usize,
    /// Members that are gone and remembered.
    pub tombs: usize,
    /// Members that were shunned.
    pub shunned: usize,
    /// Members that sent false bytes.
    pub false_bytes: usize,
    /// Members that were measured.
    pub measured: usize,
}

impl Members {
    /// A node that knows nobody yet. Its first [`Event::Tick`] publishes its first ad.
    #[must_use]
    pub fn new(me: Identity, offer: Offer) -> Self {
        Self {
            herald: Herald::new(me, offer),
            table: Table::default(),
            links: BTreeMap::new(),
            circle: BTreeSet::new(),
            own: Measurements::default(),
            tombs: Tombs::default(),
            shunned: Shunned::default(),
            false_bytes: False::default(),
            sweep_ms: u64::MAX,
            called_ms: [None; 2],
            calls: 0,
        }
    }

    /// Takes what happened, and says what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mono_ms = now.mono_ms;
        match event {
            Event::Tick => self.call(now, &mut effects),
            Event::Heard { ad, from } => self.heard(ad, from, now, &mut effects),
            Event::Offer(offer) => self.change_offer(*offer),
            Event::Circle(circle) => self.change_circle(circle, now, &mut effects),
            Event::LinkUp(node) => self.link_up(node, now, &mut effects),
            Event::LinkSilent(node) => self.link_silent(node, now, &mut effects),
            Event::LinkLost(node) => self.link_lost(node, now, &mut effects),
            Event::CallFailed(node) => self.call_failed(node, now, &mut effects),
            Event::Refused(node) => self.refused(node, now),
            Event::Loaded(node) => self.loaded(node),
            Event::FalseBytes(node) => self.false_bytes.note(node, mono_ms),
            Event::Way { node, relayed } => self.own.way(node, relayed, mono_ms),
            Event::Rtt { node, rtt_us } => self.own.rtt(node, rtt_us, mono_ms),
            Event::Bandwidth { node, bytes_per_s } => {
                self.own.bandwidth(node, bytes_per_s, mono_ms)
            }
            Event::LayerTime { node, speed } => self.own.layer(node, speed, mono_ms),
        }
        self.sweep(now, &mut effects);
        let there = |node| self.table.get(node).is_some();
        let links = || self.own.tell(there);
        if let Some(ad) = self.herald.due(self.table.len(), links, now) {
            effects.push(Effect::Publish(Box::new(ad)));
        }
        effects
    }

    /// This node's key.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.herald.me.node
    }

    /// This node's incarnation. It grows by itself when others know ads of this node that it does not remember.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.herald.me.incarnation
    }

    /// Between two members, there and back, in microseconds: the longer of what both reported, else the way over here.
    #[must_use]
    pub fn rtt_us(&self, a: NodeId, b: NodeId) -> Estimate {
        match (a == self.node(), b == self.node()) {
            (true, _) => estimate::rtt_to(self, b),
            (_, true) => estimate::rtt_to(self, a),
            _ => estimate::rtt_between(self, a, b),
        }
    }

    /// The newest ad of a member.
    #[must_use]
    pub fn ad(&self, node: NodeId) -> Option<&CheckedAd> {
        self.table.get(node).map(|entry| &entry.ad)
    }

    /// The newest ads of all members that count, by key: for a newcomer that wants to know everybody at once.
    pub fn ads(&self) -> impl Iterator<Item = &CheckedAd> {
        self.table.iter().map(|(_, entry)| &entry.ad)
    }

    /// The keys of members that count and are not suspect.
    pub fn trusted(&self) -> impl Iterator<Item = NodeId> {
        let trusted = self.table.iter().filter(|(_, entry)| !entry.suspect);
        trusted.map(|(node, _)| node)
    }

    /// Members that count, this node not among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody else is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Relays that members offer, by the members' keys; through these a node is reached that has no public address.
    pub fn relays(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let usable = self.table.iter().filter(|(_, entry)| !entry.suspect);
        usable.filter_map(|(node, entry)| Some((node, entry.ad.relay.as_deref()?)))
    }

    /// What proves that shunned members lied.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.shunned.iter()
    }

    /// Members of whom no bytes are taken at the moment: they sent false ones.
    #[must_use]
    pub fn doubted(&self, now: Now) -> BTreeSet<NodeId> {
        self.false_bytes.iter(now.mono_ms).collect()
    }

    /// How much is remembered.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            members: self.table.len(),
            links: self.links.len(),
            tombs: self.tombs.len(),
            shunned: self.shunned.iter().count(),
            false_bytes: self.false_bytes.len(),
            measured: self.own.len(),
        }
    }

    fn heard(&mut self, ad: CheckedAd, from: NodeId, now: Now, effects: &mut Vec<Effect>) {
        let node = ad.node;
        if let Err(why) = self.take(ad, now, effects) {
            effects.push(Effect::Refuse { node, from, why });
        }
    }

    fn take(&mut self, ad: CheckedAd, now: Now, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        if ad.commons != self.herald.me.commons {
            return Err(Refusal::OtherCommons);
        }
        if ad.node == self.node() {
            self.herald.outdo(ad.age());
            return Err(Refusal::Own);
        }
        if self.shunned.contains(ad.node) {
            return Err(Refusal::Shunned);
        }
        self.compare(&ad, now, effects)?;
        let until_ms = until_ms(&ad, now)?;
        self.enter(&ad, until_ms, now, effects)?;
        self.hearsay(&ad, now, effects);
        if ad.standing == Some(Standing::Leaving) {
            self.let_go(ad.node, Gone::Left, now, effects);
        }
        Ok(())
    }

    /// Whether an ad is newer than what is known.
    fn compare(
        &mut self,
        ad: &CheckedAd,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Some(known) = self.ad(ad.node).cloned() else {
            let last = self.tombs.age(ad.node);
            let newer = last.is_none_or(|last| ad.age() > last);
            return if newer { Ok(()) } else { Err(Refusal::Older) };
        };
        match ad.age().cmp(&known.age()) {
            Ordering::Greater => Ok(()),
            Ordering::Less => Err(Refusal::Older),
            Ordering::Equal if *ad == known => Err(Refusal::Known),
            Ordering::Equal => {
                self.let_go(ad.node, Gone::Shunned, now, effects);
                self.shunned.shun(Evidence {
                    first: known,
                    second: ad.clone(),
                });
                Err(Refusal::Equivocation)
            }
        }
    }

    fn enter(
        &mut self,
        ad: &CheckedAd,
        until_ms: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let node = ad.node;
        let mut entry = Entry::new(ad.clone(), now.mono_ms, until_ms);
        let change = match self.table.get(node) {
            None => Some(Change::Joined),
            Some(before) => {
                entry.carry(before);
                change(&before.ad, ad)
            }
        };
        let evicted = self.table.put(entry, self.is_kept(node))?;
        self.tombs.forget(node);
        self.herald.found(node);
        self.sweep_ms = self.sweep_ms.min(until_ms);
        let changes = change.map(|change| Effect::Member { node, change });
        effects.extend(changes);
        self.bury(evicted, Gone::Evicted, now, effects);
        self.judge(node, now, effects);
        Ok(())
    }

    /// What an ad says of neighbours that were lost.
    fn hearsay(&mut self, ad: &CheckedAd, now: Now, effects: &mut Vec<Effect>) {
        let voice = branch(ad);
        for lost in &ad.lost {
            let newest = (lost.incarnation, lost.sequence);
            if lost.node == self.node() {
                if newest >= self.herald.age() {
                    self.herald.urge(Urgency::News);
                }
            } else if let Some(entry) = self.table.get_mut(lost.node)
                && newest >= entry.ad.age()
                && entry.lost_by.len() < LOST_VOICES
                && !entry.lost_by.contains(&voice)
            {
                entry.lost_by.push(voice);
                self.judge(lost.node, now, effects);
            }
        }
    }

    fn change_offer(&mut self, offer: Offer) {
        let before = std::mem::replace(&mut self.herald.offer, offer);
        if self.herald.offer.standing != before.standing {
            self.herald.urge(Urgency::Now);
        } else if self.herald.offer != before {
            self.herald.urge(Urgency::News);
        }
    }

    fn change_circle(&mut self, circle: BTreeSet<NodeId>, now: Now, effects: &mut Vec<Effect>) {
        let circle = circle.into_iter().take(CIRCLE_MAX).collect();
        let before = std::mem::replace(&mut self.circle, circle);
        let changed: Vec<_> = before.symmetric_difference(&self.circle).copied().collect();
        for node in changed {
            self.keep(node, now, effects);
        }
    }

    fn link_up(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        if self.links.len() >= LINKS_KEPT_MAX && !self.links.contains_key(&node) {
            return;
        }
        if self.links.is_empty() {
            self.herald.urge(Urgency::Now);
        }
        self.links.insert(node, Link::Up);
        self.herald.found(node);
        if let Some(entry) = self.table.get_mut(node) {
            entry.answered();
        }
        self.keep(node, now, effects);
    }

    fn link_silent(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        if let Some(link) = self.links.get_mut(&node) {
            *link = Link::Silent;
        }
        self.judge(node, now, effects);
    }

    fn link_lost(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        if self.links.remove(&node).is_none() {
            return;
        }
        if let Some(entry) = self.table.get_mut(node) {
            entry.lost = true;
            let (incarnation, sequence) = entry.ad.age();
            let lost = Lost {
                node,
                incarnation,
                sequence,
            };
            self.herald.lose(lost, now);
        }
        self.keep(node, now, effects);
    }

    fn call_failed(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        if self.links.get(&node) == Some(&Link::Up) {
            // It has called us meanwhile.
            return;
        }
        let entry = self.table.get_mut(node);
        if let Some(entry) = entry.filter(|entry| entry.barred_until_ms <= now.mono_ms) {
            let pause_ms = FAILED_PAUSE_MS << entry.failures.min(FAILED_DOUBLINGS_MAX);
            entry.barred_until_ms = now.mono_ms.saturating_add(pause_ms);
            entry.failures = entry.failures.saturating_add(1);
        }
        self.judge(node, now, effects);
    }

    /// Says nothing about whether the member is there: it is left out of plans, longer each time.
    fn refused(&mut self, node: NodeId, now: Now) {
        if let Some(entry) = self.table.get_mut(node) {
            let pause_ms = REFUSED_PAUSE_MS << entry.refusals.min(REFUSED_DOUBLINGS_MAX);
            entry.refused_until_ms = now.mono_ms.saturating_add(pause_ms);
            entry.refusals = entry.refusals.saturating_add(1);
        }
    }

    fn loaded(&mut self, node: NodeId) {
        if let Some(entry) = self.table.get_mut(node) {
            (entry.refusals, entry.refused_until_ms) = (0, 0);
        }
    }

    fn is_kept(&self, node: NodeId) -> bool {
        self.links.contains_key(&node) || self.circle.contains(&node)
    }

    /// Draws the consequence of a link or a circle that changed.
    fn keep(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        let gone = self.table.keep(node, self.is_kept(node));
        self.bury(gone, Gone::Evicted, now, effects);
        self.judge(node, now, effects);
    }

    fn is_suspect(&self, entry: &Entry, now: Now) -> bool {
        match self.links.get(&entry.ad.node) {
            Some(Link::Up) => false,
            Some(Link::Silent) => true,
            None => entry.is_suspect(now),
        }
    }

    /// Tells whether a member became suspect, or is there after all.
    fn judge(&mut self, node: NodeId, now: Now, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get(node) else {
            return;
        };
        let suspect = self.is_suspect(entry, now);
        if suspect != entry.suspect {
            let change = if suspect {
                Change::Suspect
            } else {
                Change::Back
            };
            effects.push(Effect::Member { node, change });
            let entry = self.table.get_mut(node);
            entry.into_iter().for_each(|entry| entry.suspect = suspect);
        }
    }

    fn let_go(&mut self, node: NodeId, why: Gone, now: Now, effects: &mut Vec<Effect>) {
        let entry = self.table.remove(node);
        self.bury(entry, why, now, effects);
    }

    fn bury(&mut self, entry: Option<Entry>, why: Gone, now: Now, effects: &mut Vec<Effect>) {
        if let Some(entry) = entry {
            self.tombs.bury(&entry.ad, now.mono_ms);
            effects.push(Effect::Member {
                node: entry.ad.node,
                change: Change::Gone(why),
            });
        }
    }

    /// Lets go of members whose ads ended.
    fn sweep(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.tombs.sweep(now.mono_ms);
        if now.mono_ms < self.sweep_ms {
            return;
        }
        let ended = self
            .table
            .iter()
            .filter(|(_, entry)| entry.until_ms <= now.mono_ms);
        let ended: Vec<_> = ended.map(|(node, _)| node).collect();
        for node in ended {
            self.let_go(node, Gone::Expired, now, effects);
        }
        let ends = self.table.iter().map(|(_, entry)| entry.until_ms);
        self.sweep_ms = ends.min().unwrap_or(u64::MAX);
    }

    /// Calls somebody while links are missing, and now and then somebody who was never measured.
    fn call(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let due = |last_ms: Option<u64>, pause_ms: u64| {
            last_ms.is_none_or(|last_ms| now.mono_ms >= last_ms.saturating_add(pause_ms))
        };
        let count = self.links.len();
        let links = count < LINKS_WANTED && due(self.called_ms[0], CALL_PAUSE_MS);
        let explore = count < LINKS_EXPLORED && due(self.called_ms[1], EXPLORE_PAUSE_MS);
        if !links && !explore {
            return;
        }
        self.called_ms[0] = Some(now.mono_ms);
        if explore {
            self.called_ms[1] = Some(now.mono_ms);
        }
        if let Some(node) = self.whom(links, now) {
            let entry = self.table.get_mut(node);
            entry
                .into_iter()
                .for_each(|entry| entry.called_ms = Some(now.mono_ms));
            effects.push(Effect::Call(node));
        }
    }

    /// Whom to call: the circle first, then from a place in the order of keys that nobody can foresee.
    fn whom(&mut self, again: bool, now: Now) -> Option<NodeId> {
        self.calls += 1;
        let numbers = [self.herald.me.secret, self.calls];
        let start = NodeId(Hash::of(&numbers.map(u64::to_be_bytes).concat()).0);
        let can = |node: &NodeId| {
            let entry = self.table.get(*node);
            let linked = self.links.contains_key(node);
            !linked
                && entry
                    .is_some_and(|entry| !self.is_suspect(entry, now) && entry.may_be_called(now))
        };
        let friend = self.circle.iter().copied().find(can);
        friend.or_else(|| {
            let looked = self.table.around(start).take(CALL_LOOKS_MAX);
            let fresh = |node: &NodeId| again || self.own.get(*node).is_none();
            looked
                .map(|(node, _)| node)
                .find(|node| fresh(node) && can(node))
        })
    }
}

/// When an ad that comes now ends, by the monotonic clock, in milliseconds.
fn until_ms(ad: &Ad, now: Now) -> Result<u64, Refusal> {
    let ahead_s = ad.issued_s.saturating_sub(now.wall_s);
    if ahead_s > AD_SKEW_S {
        return Err(Refusal::FutureDated { ahead_s });
    }
    let life_s = u64::from(ad.life_s);
    let end_s = ad.issued_s.saturating_add(life_s).saturating_add(AD_SKEW_S);
    if end_s <= now.wall_s {
        let ago_s = now.wall_s - end_s;
        return Err(Refusal::Expired { ago_s });
    }
    let left_s = life_s.min(end_s - now.wall_s);
    Ok(now.mono_ms.saturating_add(left_s * 1_000))
}

/// What is new in a newer ad, besides its date and what it measured.
fn change(before: &Ad, after: &Ad) -> Option<Change> {
    if after.incarnation > before.incarnation {
        return Some(Change::Restarted);
    }
    let renewed = Ad {
        sequence: after.sequence,
        issued_s: after.issued_s,
        life_s: after.life_s,
        links: after.links.clone(),
        lost: after.lost.clone(),
        ..before.clone()
    };
    (renewed != *after).then_some(Change::Changed)
}
