//! Ways to a member: where it was last, on the local network, in the BitTorrent DHT, over a relay.
//!
//! | file | what it does |
//! | --- | --- |
//! | `places` | where a node may be, and by which way a call went through |
//! | `lan` | mDNS: members on the same network tell each other where they are |
//! | `dht` | BEP 44: a member signs its whereabouts and leaves them with strangers |
//! | `relays` | the relays that are known and used; offering one is `relay` |
//!
//! None of them decides who is who: whatever a way says is only an address to call, and the call succeeds with the one
//! who holds the key. None is needed: each may be off, and the others go on.
//!
//! A commons' id is told to nobody: the LAN and the DHT see a hash of it, different for either.

mod dht;
mod lan;
mod places;
mod relay;
mod relays;

pub(crate) use dht::{Dht, keep_told};
pub(crate) use lan::Lan;
pub use places::Way;
pub(crate) use places::{Places, is_relayed};
pub(crate) use relay::offer;
pub(crate) use relays::Relays;

use crate::endpoint::Core;
use crate::limits::LAN_WAIT_MS;
use proto::ids::{CommonsId, NodeId};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Which ways are open besides tickets and remembered addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaysConfig {
    /// Announce this node on the local network, and listen there for others (mDNS).
    pub lan: bool,
    /// Look members up in the DHT and be found there.
    pub dht: Option<DhtConfig>,
    /// Whether this node is a relay for other members.
    pub relay: RelayOffer,
}

/// How the DHT is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtConfig {
    /// Nodes to begin with: `host:port` texts.
    pub bootstrap: Vec<String>,
    /// Whether the DHT is the public one. There, addresses that mean nothing elsewhere are not told.
    pub public: bool,
}

/// Nodes that BitTorrent clients begin with; whoever runs them learns that this machine takes part in the DHT.
pub const DHT_BOOTSTRAP: [&str; 3] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
];

impl Default for DhtConfig {
    fn default() -> Self {
        Self {
            bootstrap: DHT_BOOTSTRAP.map(str::to_owned).to_vec(),
            public: true,
        }
    }
}

/// Whether a node is a relay for other members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RelayOffer {
    /// It is not.
    #[default]
    Off,
    /// It is when it has a public IPv4 address of its own, at the TCP port of the same number as its UDP port.
    Auto,
    /// It is, at this address, which others can reach.
    At(SocketAddr),
}

/// The ways of one endpoint, besides addresses.
#[derive(Debug)]
pub(crate) struct Ways {
    config: WaysConfig,
    lan: OnceLock<Lan>,
    dht: OnceLock<Dht>,
    pub(crate) relays: Relays,
}

impl Ways {
    pub(crate) fn new(config: WaysConfig) -> Self {
        Self {
            config,
            lan: OnceLock::new(),
            dht: OnceLock::new(),
            relays: Relays::default(),
        }
    }

    pub(crate) fn relay(&self) -> RelayOffer {
        self.config.relay
    }

    /// Opens the ways that are on, for a commons; once.
    pub(crate) fn open(&self, core: &Core, commons: CommonsId) {
        self.relays.enter(core.id, commons);
        if self.config.lan && self.lan.get().is_none() {
            match Lan::start(core.id, commons, &core.addrs()) {
                Ok(lan) => drop(self.lan.set(lan)),
                Err(error) => {
                    tracing::warn!(%error, "members on the local network are not found by mDNS");
                }
            }
        }
        if let Some(config) = &self.config.dht {
            self.dht.get_or_init(|| Dht::new(config.clone(), commons));
        }
    }

    pub(crate) fn lan(&self) -> Option<&Lan> {
        self.lan.get()
    }

    pub(crate) fn dht(&self) -> Option<&Dht> {
        self.dht.get()
    }

    /// Where the local network has seen a node.
    pub(crate) fn on_lan(&self, peer: NodeId) -> Vec<SocketAddr> {
        self.lan.get().map_or_else(Vec::new, |lan| lan.find(peer))
    }

    /// The ways that were opened, for messages.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let lan = self.lan.get().map(|_| "on the local network");
        let dht = self.dht.get().map(|_| "in the DHT");
        lan.into_iter().chain(dht).collect()
    }

    /// Looks for a newcomer's introducer: waits a little for the local network, and longer for the DHT. Calls `meet` with
    /// what is found, until that succeeds.
    pub(crate) async fn search<T>(
        &self,
        peer: NodeId,
        meet: impl AsyncFn(Way, Places) -> Option<T>,
    ) -> Option<T> {
        let lan = self.wait_on_lan(peer);
        let dht = self.in_dht(peer, true);
        tokio::pin!(lan, dht);
        let (mut lan_open, mut dht_open) = (true, true);
        while lan_open || dht_open {
            let (way, found) = tokio::select! {
                biased;
                found = &mut lan, if lan_open => {
                    lan_open = false;
                    (Way::Lan, found)
                }
                found = &mut dht, if dht_open => {
                    dht_open = false;
                    (Way::Dht, found)
                }
            };
            if let Some(places) = found
                && let Some(met) = meet(way, places).await
            {
                return Some(met);
            }
        }
        None
    }

    async fn wait_on_lan(&self, peer: NodeId) -> Option<Places> {
        let lan = self.lan.get()?;
        let wait = Duration::from_millis(LAN_WAIT_MS);
        let direct = tokio::time::timeout(wait, lan.wait(peer)).await.ok()?;
        Some(Places {
            direct,
            relays: Vec::new(),
        })
    }

    /// What the DHT says of a node; `now` even if it was asked a short time ago.
    pub(crate) async fn in_dht(&self, peer: NodeId, now: bool) -> Option<Places> {
        let dht = self.dht.get()?;
        if !now && !dht.is_due(peer) {
            return None;
        }
        dht.find(peer).await
    }
}

/// Tells the local network, the DHT and all links where this node is, whenever that changes. Ends with the node.
pub(crate) async fn keep_present(mesh: Arc<crate::links::Mesh>) {
    let mut told = None;
    let mut look = tokio::time::interval(Duration::from_millis(crate::limits::PRESENCE_MS));
    loop {
        tokio::select! {
            () = mesh.core.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let here = mesh.this_member();
        if told.as_ref() == Some(&here) {
            continue;
        }
        if let Some(lan) = mesh.core.ways.lan() {
            lan.announce(&mesh.core.addrs());
        }
        if told.is_some() {
            mesh.tell_all(&here);
        }
        told = Some(here);
    }
}
