//! The door: what strangers may do before they have proven anything, counted by the host that they come from.
//!
//! A key costs nothing, so a thousand of them are no thousand callers. An address costs something: places, calls and
//! newcomers are counted for each. An IPv6 host owns at least 2^64 addresses, so there its /64 is the host. Whoever
//! comes over a relay has an address that says nothing; all of those share one host's rights.

use crate::bucket::Bucket;
use crate::limits::{
    CALLS_PER_HOST_BURST, CALLS_PER_HOST_PER_S, HOSTS_MAX, JOINS_PER_HOST_BURST,
    JOINS_PER_HOST_PER_S, STRANGERS_CALM, STRANGERS_MAX, STRANGERS_PER_HOST_MAX,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where a caller comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6([u8; 8]),
    Relayed,
    /// More hosts than are told apart.
    Others,
}

impl Host {
    pub(crate) fn of(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// What becomes of a call before anything is read of it.
#[derive(Debug)]
pub(crate) enum Knock {
    /// It comes in, for as long as this is held.
    In(Guest),
    /// No place is free at the moment, here or for this host.
    Crowded,
    /// The host calls too often.
    TooFast,
    /// It is busy, and the caller has yet to show that it is where it says.
    ShowYourself,
}

/// A stranger's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    door: Door,
    host: Host,
}

/// The door of one endpoint. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door(Arc<Mutex<Crowd>>);

#[derive(Debug, Default)]
struct Crowd {
    hosts: HashMap<Host, Entry>,
    strangers: usize,
}

#[derive(Debug)]
struct Entry {
    strangers: usize,
    calls: Bucket,
    joins: Bucket,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            strangers: 0,
            calls: Bucket::new(CALLS_PER_HOST_BURST, CALLS_PER_HOST_PER_S, now),
            joins: Bucket::new(JOINS_PER_HOST_BURST, JOINS_PER_HOST_PER_S, now),
        }
    }

    /// Whether forgetting it changes nothing.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.strangers == 0 && self.calls.share(now) >= 1.0 && self.joins.share(now) >= 1.0
    }
}

impl Crowd {
    /// The host to count for, which has an entry then.
    fn host(&mut self, host: Host, now: Instant) -> Host {
        if !self.hosts.contains_key(&host) && self.hosts.len() >= HOSTS_MAX {
            self.hosts.retain(|_, entry| !entry.is_idle(now));
        }
        let full = !self.hosts.contains_key(&host) && self.hosts.len() >= HOSTS_MAX;
        let host = if full { Host::Others } else { host };
        self.hosts.entry(host).or_insert_with(|| Entry::new(now));
        host
    }
}

impl Door {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call from `host`; `shown` when the caller has proven to be at its address.
    pub(crate) fn knock(&self, host: Host, shown: bool, now: Instant) -> Knock {
        let mut crowd = self.crowd();
        if crowd.strangers >= STRANGERS_MAX {
            return Knock::Crowded;
        }
        if crowd.strangers >= STRANGERS_CALM && !shown {
            return Knock::ShowYourself;
        }
        let host = crowd.host(host, now);
        let entry = crowd.hosts.get_mut(&host).expect("it was just made");
        if entry.strangers >= STRANGERS_PER_HOST_MAX {
            return Knock::Crowded;
        }
        if !entry.calls.take(now) {
            return Knock::TooFast;
        }
        entry.strangers += 1;
        crowd.strangers += 1;
        let door = self.clone();
        Knock::In(Guest { door, host })
    }
}

impl Guest {
    /// Whether one more newcomer may ask to join from where this one comes.
    pub(crate) fn may_join(&self, now: Instant) -> bool {
        let mut crowd = self.door.crowd();
        let entry = crowd.hosts.get_mut(&self.host);
        entry.is_some_and(|entry| entry.joins.take(now))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut crowd = self.door.crowd();
        crowd.strangers -= 1;
        if let Some(entry) = crowd.hosts.get_mut(&self.host) {
            entry.strangers -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
