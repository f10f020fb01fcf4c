//! Where a node may be.

use super::relays::url;
use iroh::TransportAddr;
use iroh::endpoint::Connection;
use proto::member::{Member, Whereabouts};
use proto::ticket::{Ticket, parse_addrs, parse_relays};
use std::fmt;
use std::net::SocketAddr;

/// By which way a link came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// At an address that was known before: from a ticket, from other members, or remembered.
    Known,
    /// At an address that it announced on the local network.
    Lan,
    /// At an address that it left in the DHT.
    Dht,
    /// Over a relay.
    Relay,
    /// It called us.
    Theirs,
}

/// Where a node may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// UDP addresses.
    pub(crate) direct: Vec<SocketAddr>,
    /// Relays that it may be connected to: TCP addresses.
    pub(crate) relays: Vec<SocketAddr>,
}

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relays.is_empty()
    }

    /// As iroh calls them.
    pub(crate) fn targets(&self) -> impl Iterator<Item = TransportAddr> {
        let direct = self.direct.iter().copied().map(TransportAddr::Ip);
        let relays = self.relays.iter().map(|at| TransportAddr::Relay(url(*at)));
        direct.chain(relays)
    }

    /// These, and further UDP addresses.
    pub(crate) fn and(&self, more: &[SocketAddr]) -> Self {
        let mut both = self.clone();
        let new = more.iter().filter(|addr| !self.direct.contains(addr));
        both.direct.extend(new);
        both
    }

    /// By which way the connection that was just made goes; `found` is the way by which places beyond `self` came.
    pub(crate) fn way(&self, connection: &Connection, found: Way) -> Way {
        match selected(connection) {
            Some(TransportAddr::Relay(_)) => Way::Relay,
            Some(TransportAddr::Ip(addr)) if !self.direct.contains(&addr) => found,
            _ => Way::Known,
        }
    }
}

/// The way that a connection goes at the moment.
fn selected(connection: &Connection) -> Option<TransportAddr> {
    let paths = connection.paths();
    let path = paths
        .iter()
        .find(|path| path.is_selected())
        .or_else(|| paths.iter().next());
    path.map(|path| path.remote_addr().clone())
}

/// Whether a connection goes over a relay at the moment; it may find a direct way later.
pub(crate) fn is_relayed(connection: &Connection) -> bool {
    matches!(selected(connection), Some(TransportAddr::Relay(_)))
}

/// For messages.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direct = self.direct.iter().map(ToString::to_string);
        let relays = self.relays.iter().map(|at| format!("the relay {at}"));
        let all: Vec<String> = direct.chain(relays).collect();
        f.write_str(if all.is_empty() { "none" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}

/// What cannot be read was vetted before, or is left out.
impl From<&Member> for Places {
    fn from(member: &Member) -> Self {
        Self {
            direct: member.socket_addrs().unwrap_or_default(),
            relays: member.relay_addrs().unwrap_or_default(),
        }
    }
}

impl From<&Ticket> for Places {
    fn from(ticket: &Ticket) -> Self {
        Self {
            direct: ticket.socket_addrs().unwrap_or_default(),
            relays: ticket.relay_addrs().unwrap_or_default(),
        }
    }
}

impl From<&Whereabouts> for Places {
    fn from(at: &Whereabouts) -> Self {
        let what = "whereabouts";
        Self {
            direct: parse_addrs(what, &at.addrs).unwrap_or_default(),
            relays: parse_relays(what, at.relays.as_deref()).unwrap_or_default(),
        }
    }
}

/// Whether an address means the same machine everywhere (the IANA special-purpose registries, RFC 6890).
pub(crate) fn is_global(addr: SocketAddr) -> bool {
    match addr.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmarks = a == 198 && (18..20).contains(&b);
            let protocols = (a, b, c) == (192, 0, 0);
            !(ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || shared
                || benchmarks
                || protocols
                || a == 0
                || a >= 224)
        }
        // Global unicast is 2000::/3; documentation is 2001:db8::/32.
        std::net::IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            a & 0xe000 == 0x2000 && !(a == 0x2001 && b == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_addresses_are_told_from_others() {
        for (addr, expected) in [
            ("8.8.8.8:1", true),
            ("[2a00:1450::1]:1", true),
            ("[::ffff:8.8.8.8]:1", true),
            ("10.0.0.1:1", false),
            ("172.16.0.1:1", false),
            ("172.32.0.1:1", true),
            ("192.168.1.1:1", false),
            ("100.64.0.1:1", false),
            ("100.128.0.1:1", true),
            ("127.0.0.1:1", false),
            ("169.254.0.1:1", false),
            ("192.0.2.1:1", false),
            ("192.0.0.8:1", false),
            ("198.18.0.1:1", false),
            ("0.0.0.0:1", false),
            ("224.0.0.251:1", false),
            ("255.255.255.255:1", false),
            ("[::1]:1", false),
            ("[fe80::1]:1", false),
            ("[fd00::1]:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(is_global(addr.parse().unwrap()), expected, "{addr}");
        }
    }

    #[test]
    fn what_is_found_adds_to_what_is_known() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let known = Places {
            direct: vec![addr("192.0.2.1:1")],
            relays: vec![addr("192.0.2.9:9")],
        };
        let both = known.and(&[addr("192.0.2.1:1"), addr("192.0.2.2:2")]);
        assert_eq!(both.direct, [addr("192.0.2.1:1"), addr("192.0.2.2:2")]);
        assert_eq!(both.relays, known.relays);
        assert!(!known.is_empty() && Places::default().is_empty());
        assert_eq!(known.to_string(), "192.0.2.1:1, the relay 192.0.2.9:9");
        assert_eq!(Places::default().to_string(), "none");
    }
}
