//! The table of members: newest ads, quotas, and who gives way when it is full.
//!
//! Nobody gets into the table by numbers. Members without a link to us are counted by the host that they name, and by
//! everybody on the chain that let them in. Members that are linked, or of the circle, are *kept*: they neither count nor
//! give way.

use super::limits::{
    FAILED_PAUSE_MS, HOST_UNLINKED_MAX, HOST_V6_BITS, INTRODUCED_UNLINKED_MAX, LOST_VOICES,
    MEMBERS_MAX, RELAYED_UNLINKED_MAX,
};
use super::message::{Now, Refusal};
use identity::CheckedAd;
use proto::ad::{Ad, Standing};
use proto::ids::{Hash, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What is known of one member.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its newest ad.
    pub(super) ad: CheckedAd,
    /// When that came.
    pub(super) arrived_ms: u64,
    /// When it ends.
    pub(super) until_ms: u64,
    /// Linked or of the circle; changed by [`Table::keep`] alone.
    kept: bool,
    /// Whether our node was told that it is suspect.
    pub(super) suspect: bool,
    /// How often it could not be reached.
    pub(super) failures: u32,
    /// Until when it is left alone for that.
    pub(super) barred_until_ms: u64,
    /// How many stages in a row it refused.
    pub(super) refusals: u32,
    /// Until when it is not planned with for that.
    pub(super) refused_until_ms: u64,
    /// When it was last called, if ever.
    pub(super) called_ms: Option<u64>,
    /// Whether our link to it broke, and nothing newer came since.
    pub(super) lost: bool,
    /// Branches that lost it since its newest ad, at most [`super::limits::LOST_VOICES`].
    pub(super) lost_by: Vec<NodeId>,
}

impl Entry {
    /// A member of which nothing but this ad is known.
    pub(super) fn new(ad: CheckedAd, arrived_ms: u64, until_ms: u64) -> Self {
        Self {
            ad,
            arrived_ms,
            until_ms,
            kept: false,
            suspect: false,
            failures: 0,
            barred_until_ms: 0,
            refusals: 0,
            refused_until_ms: 0,
            called_ms: None,
            lost: false,
            lost_by: Vec::new(),
        }
    }

    /// Takes over what a newer ad does not change. That it is newer shows that the member is alive, and not that it can
    /// be reached from here.
    pub(super) fn carry(&mut self, before: &Self) {
        self.suspect = before.suspect;
        self.called_ms = before.called_ms;
        if self.ad.incarnation == before.ad.incarnation {
            self.failures = before.failures;
            self.barred_until_ms = before.barred_until_ms;
            self.refusals = before.refusals;
            self.refused_until_ms = before.refused_until_ms;
        }
    }

    /// The member proved that it is there.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.barred_until_ms = 0;
        self.lost = false;
        self.lost_by.clear();
    }

    /// Whether a member without a link may be gone.
    pub(super) fn is_suspect(&self, now: Now) -> bool {
        self.lost || self.barred_until_ms > now.mono_ms || self.lost_by.len() >= LOST_VOICES
    }

    /// Whether it was left alone for long enough.
    pub(super) fn may_be_called(&self, now: Now) -> bool {
        let rested_ms = self
            .called_ms
            .map_or(0, |last_ms| last_ms.saturating_add(FAILED_PAUSE_MS));
        now.mono_ms >= rested_ms && self.ad.standing == Some(Standing::Serving)
    }
}

/// What members are counted by, where they say that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    /// An IPv4 address.
    V4(u32),
    /// The first [`HOST_V6_BITS`] bits of an IPv6 address.
    V6(u64),
    /// A relay, by the first bytes of its hash.
    Relay(u64),
    /// It does not say.
    Nowhere,
}

impl Host {
    fn of(addr: &SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> (128 - HOST_V6_BITS)) as u64),
        }
    }

    fn relay(text: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Hash::of(text.as_bytes()).0;
        Self::Relay(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    fn quota(self) -> u32 {
        match self {
            Self::Relay(_) => RELAYED_UNLINKED_MAX,
            _ => HOST_UNLINKED_MAX,
        }
    }
}

/// The hosts that an ad counts against: its public addresses, else all of them, else its relays.
fn hosts(ad: &Ad) -> BTreeSet<Host> {
    let addrs = ad.socket_addrs().unwrap_or_default();
    let public = addrs
        .iter()
        .filter(|addr| is_public_ip(addr.ip().to_canonical()));
    let mut hosts: BTreeSet<Host> = public.map(Host::of).collect();
    if hosts.is_empty() {
        hosts = addrs.iter().map(Host::of).collect();
    }
    if hosts.is_empty() {
        hosts = ad.relays.iter().map(|relay| Host::relay(relay)).collect();
    }
    if hosts.is_empty() {
        hosts.insert(Host::Nowhere);
    }
    hosts
}

/// Whether one of a member's addresses means the same host to everybody.
pub(super) fn is_public(ad: &Ad) -> bool {
    let addrs = ad.socket_addrs().unwrap_or_default();
    addrs
        .iter()
        .any(|addr| is_public_ip(addr.ip().to_canonical()))
}

/// Whether an address means the same host to everybody. Homes share private ones by the thousand.
fn is_public_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || shared)
        }
        IpAddr::V6(ip) => {
            let local = ip.is_unique_local() || ip.is_unicast_link_local();
            !(local || ip.is_loopback() || ip.is_unspecified())
        }
    }
}

/// The members that answer for this one: all on its chain whom the founder let in, and who let others in.
fn introducers(ad: &Ad) -> impl Iterator<Item = NodeId> + '_ {
    let vouches = ad.membership.chain.iter().skip(2);
    vouches.map(|vouch| NodeId(vouch.issuer))
}

/// The branch of the commons that a member belongs to: whom the founder let in, and all who came through him.
pub(super) fn branch(ad: &Ad) -> NodeId {
    let second = ad.membership.chain.get(1);
    second.map_or(ad.node, |vouch| vouch.subject)
}

/// All members that count.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<NodeId, Entry>,
    /// How many entries that are not kept name a host.
    hosts: BTreeMap<Host, u32>,
    /// For how many entries that are not kept a member answers.
    introduced: BTreeMap<NodeId, u32>,
    /// How many entries that are not kept a branch has.
    branches: BTreeMap<NodeId, u32>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.entries.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.entries.iter().map(|(node, entry)| (*node, entry))
    }

    /// The members behind `from` in the order of their keys, once around.
    pub(super) fn around(&self, from: NodeId) -> impl Iterator<Item = (NodeId, &Entry)> {
        let behind = self.entries.range(from..);
        let before = self.entries.range(..from);
        behind.chain(before).map(|(node, entry)| (*node, entry))
    }

    /// Puts a member's newer ad in place of what was known of it; answers with who had to give way.
    pub(super) fn put(&mut self, mut entry: Entry, kept: bool) -> Result<Option<Entry>, Refusal> {
        let node = entry.ad.node;
        entry.kept = kept;
        if let Some(known) = self.entries.get_mut(&node)
            && known.kept == kept
            && same_place(&known.ad, &entry.ad)
        {
            *known = entry;
            return Ok(None);
        }
        let before = self.remove(node);
        match (self.place(&entry, before.is_some()), before) {
            (Ok(gives_way), _) => {
                let gone = gives_way.and_then(|node| self.remove(node));
                self.insert(entry);
                Ok(gone)
            }
            (Err(refusal), before) => {
                before.into_iter().for_each(|before| self.insert(before));
                Err(refusal)
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.count(&entry, 1);
        self.entries.insert(entry.ad.node, entry);
    }

    /// Whether there is a place for an entry, and who must give way for it.
    fn place(&self, entry: &Entry, known: bool) -> Result<Option<NodeId>, Refusal> {
        if !entry.kept {
            self.quotas(&entry.ad)?;
        }
        if known || self.len() < MEMBERS_MAX {
            return Ok(None);
        }
        self.gives_way(entry).map(Some)
    }

    fn quotas(&self, ad: &Ad) -> Result<(), Refusal> {
        let full = |host: &Host| {
            self.hosts
                .get(host)
                .is_some_and(|count| *count >= host.quota())
        };
        if hosts(ad).iter().any(full) {
            return Err(Refusal::HostQuota);
        }
        let many = |node: NodeId| {
            self.introduced
                .get(&node)
                .is_some_and(|count| *count >= INTRODUCED_UNLINKED_MAX)
        };
        if introducers(ad).any(many) {
            return Err(Refusal::IntroducerQuota);
        }
        Ok(())
    }

    /// The largest branch gives way, and in it the member that was silent for longest.
    fn gives_way(&self, newcomer: &Entry) -> Result<NodeId, Refusal> {
        let largest = self.branches.iter().max_by_key(|(_, count)| **count);
        let (largest, count) = largest.ok_or(Refusal::Full)?;
        let own = self
            .branches
            .get(&branch(&newcomer.ad))
            .map_or(1, |own| own + 1);
        if own >= *count && !newcomer.kept {
            return Err(Refusal::Full);
        }
        let unkept = self
            .iter()
            .filter(|(_, entry)| !entry.kept && branch(&entry.ad) == *largest);
        let silent = unkept.min_by_key(|(_, entry)| entry.arrived_ms);
        silent.map(|(node, _)| node).ok_or(Refusal::Full)
    }

    pub(super) fn remove(&mut self, node: NodeId) -> Option<Entry> {
        let entry = self.entries.remove(&node)?;
        self.count(&entry, -1);
        Some(entry)
    }

    /// Says whether a member is kept from now on. Who is no longer kept and finds no place is returned, and is gone.
    pub(super) fn keep(&mut self, node: NodeId, kept: bool) -> Option<Entry> {
        if self.get(node)?.kept == kept {
            return None;
        }
        let mut entry = self.remove(node)?;
        entry.kept = kept;
        if !kept && self.quotas(&entry.ad).is_err() {
            return Some(entry);
        }
        self.insert(entry);
        None
    }

    fn count(&mut self, entry: &Entry, by: i32) {
        if entry.kept {
            return;
        }
        for host in hosts(&entry.ad) {
            add(&mut self.hosts, host, by);
        }
        for node in introducers(&entry.ad).collect::<BTreeSet<_>>() {
            add(&mut self.introduced, node, by);
        }
        add(&mut self.branches, branch(&entry.ad), by);
    }
}

/// Whether two ads of one member count alike.
fn same_place(a: &Ad, b: &Ad) -> bool {
    a.addrs == b.addrs && a.relays == b.relays && a.membership == b.membership
}

/// Counts, and forgets what comes to nothing.
fn add<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, by: i32) {
    let count = counts.get(&key).copied().unwrap_or(0);
    match count.saturating_add_signed(by) {
        0 => counts.remove(&key),
        count => counts.insert(key, count),
    };
}
