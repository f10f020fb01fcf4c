//! The relays that members offer: which are known, and which one this node is reached through.
//!
//! A relay passes datagrams on between two nodes that cannot reach each other. Those are QUIC packets, encrypted from end to
//! end, so a relay speaks plain HTTP: it reads nothing and can change nothing; it sees who talks to whom and how much.
//! iroh chooses the nearest of the known relays and stays connected to it, so that others reach this node there.

use crate::limits::RELAYS_KNOWN_MAX;
use iroh::{Endpoint, RelayConfig, RelayUrl};
use proto::ids::{CommonsId, NodeId};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a node shows a relay: that it knows the commons. Bound to the node's key, which the relay has it prove, so it is of
/// no use to who overhears it.
#[must_use]
pub(crate) fn pass(commons: CommonsId, node: NodeId) -> String {
    let key = blake3::derive_key("myzel relay pass v1", &commons.0);
    blake3::keyed_hash(&key, &node.0).to_hex().to_string()
}

/// The relays that one endpoint knows.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    pass: OnceLock<String>,
    known: Mutex<BTreeSet<SocketAddr>>,
    /// The relay that this node offers.
    own: OnceLock<SocketAddr>,
}

impl Relays {
    /// From now on relays of this commons may be used.
    pub(crate) fn enter(&self, node: NodeId, commons: CommonsId) {
        self.pass.get_or_init(|| pass(commons, node));
    }

    /// Takes note of relays. There is room for so many; later ones are not used.
    pub(crate) async fn learn(&self, endpoint: &Endpoint, relays: &[SocketAddr]) {
        let Some(pass) = self.pass.get() else { return };
        for relay in relays {
            if self.is_new(*relay) {
                let url = url(*relay);
                // No QUIC: asking a relay for one's own address would need a certificate.
                let config = RelayConfig::new(url.clone(), None).with_auth_token(pass.clone());
                endpoint.insert_relay(url, Arc::new(config)).await;
            }
        }
    }

    fn is_new(&self, relay: SocketAddr) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.len() < RELAYS_KNOWN_MAX && known.insert(relay)
    }

    /// Those of `relays` that are known.
    pub(crate) fn usable(&self, relays: &[SocketAddr]) -> Vec<SocketAddr> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let usable = relays.iter().filter(|relay| known.contains(*relay));
        usable.copied().collect()
    }

    /// This node offers a relay.
    pub(crate) async fn offer(&self, endpoint: &Endpoint, at: SocketAddr) {
        self.own.get_or_init(|| at);
        self.learn(endpoint, &[at]).await;
    }

    /// The relay that this node offers.
    pub(crate) fn own(&self) -> Option<SocketAddr> {
        self.own.get().copied()
    }

    /// Where this node is reached over a relay: its own, or the one that it is connected to.
    pub(crate) fn home(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        let chosen = || endpoint.addr().relay_urls().find_map(addr);
        self.own().or_else(chosen)
    }
}

/// How iroh calls the relay at an address.
pub(crate) fn url(relay: SocketAddr) -> RelayUrl {
    format!("http://{relay}")
        .parse()
        .expect("an address makes a URL")
}

fn addr(url: &RelayUrl) -> Option<SocketAddr> {
    let port = url.port_or_known_default()?;
    format!("{}:{port}", url.host_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_as_a_url() {
        for text in ["192.0.2.1:7717", "192.0.2.1:80", "[2001:db8::1]:7717"] {
            let at: SocketAddr = text.parse().unwrap();
            assert_eq!(addr(&url(at)), Some(at), "{text}");
        }
        assert_eq!(addr(&"https://relay.example.com/".parse().unwrap()), None);
    }

    #[test]
    fn a_pass_is_for_one_node_in_one_commons() {
        let (commons, node) = (CommonsId([1; 32]), NodeId([2; 32]));
        let mine = pass(commons, node);
        assert_eq!(mine, pass(commons, node));
        assert_ne!(mine, pass(CommonsId([3; 32]), node));
        assert_ne!(mine, pass(commons, NodeId([3; 32])));
    }

    #[test]
    fn only_so_many_relays_are_used() {
        let relays = Relays::default();
        let at = |n: usize| SocketAddr::from(([10, 0, 0, 1], n as u16 + 1));
        let new = (0..100).filter(|n| relays.is_new(at(*n))).count();
        assert_eq!(new, RELAYS_KNOWN_MAX);
        assert!(!relays.is_new(at(0)), "known already");
        assert_eq!(relays.usable(&[at(0), at(99)]), [at(0)]);
    }
}
