//! The local network: multicast DNS (RFC 6762), by which members on one network tell each other where they are.
//!
//! The service is called `_mz…`, a hash of the commons' id; the instance is the node's id. So a stranger who listens learns
//! that some node is there, and not which commons it belongs to. An announcement proves nothing: it is an address to
//! call.

use crate::limits::LAN_MEMBERS_MAX;
use data_encoding::BASE32_NOPAD;
use proto::ids::{CommonsId, NodeId};
use proto::ticket::TICKET_ADDRS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use swarm_discovery::{Discoverer, DropGuard, IpClass, Peer};
use tokio::sync::Notify;

/// The service cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("no multicast socket can be opened: {0}")]
pub(crate) struct LanError(Box<dyn std::error::Error + Send + Sync>);

/// This node on the local network.
pub(crate) struct Lan {
    /// Ends the service when dropped.
    service: DropGuard,
    seen: Arc<Seen>,
    announced: Mutex<BTreeSet<SocketAddr>>,
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan").finish_non_exhaustive()
    }
}

/// Who was seen where.
#[derive(Debug, Default)]
struct Seen {
    members: Mutex<BTreeMap<NodeId, Vec<SocketAddr>>>,
    changed: Notify,
}

impl Seen {
    fn members(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<SocketAddr>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an announcement; one without addresses is a farewell.
    fn take(&self, name: &str, addrs: Vec<SocketAddr>) {
        let Some(id) = parse_name(name) else { return };
        let mut members = self.members();
        if addrs.is_empty() {
            members.remove(&id);
        } else if members.contains_key(&id) || members.len() < LAN_MEMBERS_MAX {
            members.insert(id, addrs);
        }
        drop(members);
        self.changed.notify_waiters();
    }
}

/// The instance's name of a node: its id in base32, since a label has at most 63 characters.
fn name(id: NodeId) -> String {
    BASE32_NOPAD.encode(&id.0).to_ascii_lowercase()
}

fn parse_name(name: &str) -> Option<NodeId> {
    let bytes = BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes());
    Some(NodeId(bytes.ok()?.try_into().ok()?))
}

/// The service's name of a commons: at most 15 characters (RFC 6335, section 5.1), 60 bits of them a hash.
fn service(commons: CommonsId) -> String {
    let hash = blake3::derive_key("myzel lan service v1", &commons.0);
    let text = BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    format!("mz-{}", &text[..12])
}

impl Lan {
    /// Begins to announce `addrs` and to listen. Needs a tokio runtime.
    pub(crate) fn start(
        id: NodeId,
        commons: CommonsId,
        addrs: &[SocketAddr],
    ) -> Result<Self, LanError> {
        let seen = Arc::new(Seen::default());
        let told = seen.clone();
        let hear = move |name: &str, peer: &Peer| {
            let addrs = peer.addrs().iter().take(TICKET_ADDRS_MAX);
            let addrs = addrs
                .map(|(ip, port)| SocketAddr::new(*ip, *port))
                .collect();
            told.take(name, addrs);
        };
        let outer: Vec<SocketAddr> = outer(addrs).collect();
        // Each interface by its address: without a default route the system would not know where to send.
        let service = Discoverer::new_interactive(service(commons), name(id))
            .with_ip_class(class(addrs))
            .with_multicast_interfaces_v4(v4(&outer).into_iter().collect())
            .with_callback(hear)
            .spawn(&tokio::runtime::Handle::current())
            .map_err(|error| LanError(error.into()))?;
        let lan = Self {
            service,
            seen,
            announced: Mutex::default(),
        };
        lan.announce(addrs);
        Ok(lan)
    }

    /// Announces these addresses from now on, instead of those before.
    pub(crate) fn announce(&self, addrs: &[SocketAddr]) {
        let new: BTreeSet<SocketAddr> = outer(addrs).collect();
        let mut announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *announced == new {
            return;
        }
        let (before, after) = (v4(announced.iter()), v4(&new));
        before
            .difference(&after)
            .for_each(|ip| self.service.remove_interface_v4(*ip));
        after
            .difference(&before)
            .for_each(|ip| self.service.add_interface_v4(*ip));
        self.service.remove_all();
        let mut ports: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
        for addr in &new {
            ports.entry(addr.port()).or_default().push(addr.ip());
        }
        for (port, ips) in ports {
            self.service.add(port, ips);
        }
        *announced = new;
    }

    /// Where a node was seen.
    pub(crate) fn find(&self, peer: NodeId) -> Vec<SocketAddr> {
        self.seen.members().get(&peer).cloned().unwrap_or_default()
    }

    /// Waits until a node is seen.
    pub(crate) async fn wait(&self, peer: NodeId) -> Vec<SocketAddr> {
        loop {
            let changed = self.seen.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.find(peer);
            if !found.is_empty() {
                return found;
            }
            changed.await;
        }
    }
}

/// The addresses that another machine can call; those of loopback if there are no others.
fn outer(addrs: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    let any = addrs.iter().any(|addr| !addr.ip().is_loopback());
    addrs
        .iter()
        .copied()
        .filter(move |addr| !any || !addr.ip().is_loopback())
}

fn v4<'a>(addrs: impl IntoIterator<Item = &'a SocketAddr>) -> BTreeSet<Ipv4Addr> {
    let v4 = |addr: &SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    addrs.into_iter().filter_map(v4).collect()
}

/// IPv6 only where the node has an address of it: its multicast goes out of an interface of the system's choice.
fn class(addrs: &[SocketAddr]) -> IpClass {
    if outer(addrs).any(|addr| addr.is_ipv6()) {
        IpClass::Auto
    } else {
        IpClass::V4Only
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_nobody_the_commons() {
        let id = NodeId([0xab; 32]);
        assert!(name(id).len() <= 63);
        assert_eq!(parse_name(&name(id)), Some(id));
        assert_eq!(parse_name(&name(id).to_uppercase()), Some(id));
        for odd in ["", "printer", "aaaa", &"a".repeat(60)] {
            assert_eq!(parse_name(odd), None, "{odd}");
        }
        let commons = CommonsId([7; 32]);
        let service = service(commons);
        assert!(service.len() <= 15, "{service}");
        assert_ne!(service, super::service(CommonsId([8; 32])));
        let plain = BASE32_NOPAD.encode(&commons.0).to_ascii_lowercase();
        assert!(!plain.contains(&service[3..]));
    }

    #[test]
    fn only_so_many_are_remembered_and_a_farewell_makes_room() {
        let seen = Seen::default();
        let node = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            NodeId(id)
        };
        let here: Vec<SocketAddr> = vec!["10.0.0.1:7".parse().unwrap()];
        for n in 0..LAN_MEMBERS_MAX + 5 {
            seen.take(&name(node(n)), here.clone());
        }
        assert_eq!(seen.members().len(), LAN_MEMBERS_MAX);
        let late = node(LAN_MEMBERS_MAX);
        assert_eq!(seen.members().get(&late), None);
        seen.take(&name(node(0)), Vec::new());
        seen.take(&name(late), here.clone());
        assert_eq!(seen.members().get(&late), Some(&here));
    }

    #[test]
    fn loopback_is_announced_only_by_who_has_nothing_else() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let both = parse(&["10.0.0.1:7", "127.0.0.1:7"]);
        assert_eq!(outer(&both).collect::<Vec<_>>(), both[..1]);
        assert_eq!(outer(&both[1..]).collect::<Vec<_>>(), both[1..]);
        assert!(matches!(class(&both), IpClass::V4Only));
        assert!(matches!(class(&parse(&["[fd00::1]:7"])), IpClass::Auto));
        // IPv6's loopback is among the addresses of every node that listens everywhere.
        assert!(matches!(
            class(&parse(&["10.0.0.1:7", "[::1]:7"])),
            IpClass::V4Only
        ));
    }
}
