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
mod tests {
    use super::*;
    use std::time::Duration;

    fn host(n: u16) -> Host {
        let [a, b] = n.to_be_bytes();
        Host::V4(Ipv4Addr::new(10, 0, a, b))
    }

    fn enter(door: &Door, host: Host, now: Instant) -> Option<Guest> {
        match door.knock(host, true, now) {
            Knock::In(guest) => Some(guest),
            _ => None,
        }
    }

    #[test]
    fn one_host_takes_its_places_and_leaves_the_others_theirs() {
        let (door, now) = (Door::default(), Instant::now());
        let crowd: Vec<_> = (0..100)
            .filter_map(|_| enter(&door, host(1), now))
            .collect();
        assert_eq!(crowd.len(), STRANGERS_PER_HOST_MAX);
        assert!(matches!(door.knock(host(1), true, now), Knock::Crowded));
        assert!(enter(&door, host(2), now).is_some());
        drop(crowd);
        assert!(enter(&door, host(1), now).is_some());
    }

    #[test]
    fn there_is_room_for_so_many_strangers_and_whoever_is_late_shows_its_address() {
        let (door, now) = (Door::default(), Instant::now());
        let mut crowd = Vec::new();
        for n in 0..STRANGERS_MAX {
            let from = host(n as u16);
            if n < STRANGERS_CALM {
                assert!(matches!(door.knock(from, false, now), Knock::In(_)));
            } else {
                assert!(matches!(door.knock(from, false, now), Knock::ShowYourself));
            }
            crowd.push(enter(&door, from, now).unwrap());
        }
        assert!(matches!(door.knock(host(999), true, now), Knock::Crowded));
        crowd.pop();
        assert!(enter(&door, host(999), now).is_some());
    }

    #[test]
    fn calls_and_newcomers_of_one_host_come_at_a_rate() {
        let (door, now) = (Door::default(), Instant::now());
        let calls = |host, at| (0..2000).filter_map(|_| enter(&door, host, at)).count();
        assert_eq!(calls(host(1), now), CALLS_PER_HOST_BURST as usize);
        assert!(matches!(door.knock(host(1), true, now), Knock::TooFast));
        assert_eq!(calls(host(2), now), CALLS_PER_HOST_BURST as usize);

        let joins = |host, at| {
            let guest = enter(&door, host, at).unwrap();
            (0..2000).filter(|_| guest.may_join(at)).count()
        };
        assert_eq!(joins(host(3), now), JOINS_PER_HOST_BURST as usize);
        let later = now + Duration::from_secs(60);
        let a_minute = (60.0 * JOINS_PER_HOST_PER_S) as usize;
        assert_eq!(joins(host(3), later), a_minute);
        assert_eq!(joins(host(4), later), JOINS_PER_HOST_BURST as usize);
    }

    #[test]
    fn an_ipv6_host_is_its_network_and_a_mapped_address_is_ipv4() {
        let of = |text: &str| Host::of(text.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }

    #[test]
    fn so_many_hosts_are_told_apart_and_idle_ones_are_forgotten() {
        let (door, now) = (Door::default(), Instant::now());
        for n in 0..HOSTS_MAX {
            drop(enter(&door, host(n as u16), now).unwrap());
        }
        let guest = enter(&door, Host::V6([1; 8]), now).unwrap();
        assert_eq!(guest.host, Host::Others);
        let later = now + Duration::from_secs(3600);
        let guest = enter(&door, Host::V6([1; 8]), later).unwrap();
        assert_eq!(guest.host, Host::V6([1; 8]));
        assert!(door.crowd().hosts.len() <= 3);
    }
}
