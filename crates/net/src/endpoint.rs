//! The endpoint: binding, its addresses, calls to others, and its end.

use crate::blobs::ALPN_BLOBS;
use crate::end::EndReason;
use crate::limits::{ADDRS_MS, CLOSE_MS, DIAL_MS};
use crate::open::Open;
use crate::transport::{self, Congestion};
use crate::ways::{Places, Ways, WaysConfig};
use crate::{dial, end};
use identity::NodeKey;
use iroh::endpoint::{BindOpts, Connection, WeakConnectionHandle, presets};
use iroh::{Endpoint, EndpointAddr, NetReportConfig, PublicKey, RelayMap, RelayMode, SecretKey};
use proto::ids::NodeId;
use proto::manifest::ALPN_MODEL;
use proto::member::{ALPN_HOP, ALPN_LINK};
use proto::ticket::TICKET_ADDRS_MAX;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How the endpoint is opened.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// The node's key: the identity of the endpoint.
    pub key: NodeKey,
    /// The UDP address to listen on. `None` is every address of the machine at a free port. An unspecified IPv4
    /// address with a port takes the same port for IPv6 too, if it is free.
    pub bind: Option<SocketAddr>,
    /// What decides how fast to send.
    pub congestion: Congestion,
    /// Which ways to other members are open besides tickets and remembered addresses.
    pub ways: WaysConfig,
}

impl NetConfig {
    /// Every address of the machine, a free port, the default congestion control, and no further way.
    #[must_use]
    pub fn new(key: NodeKey) -> Self {
        Self {
            key,
            bind: None,
            congestion: Congestion::default(),
            ways: WaysConfig::default(),
        }
    }
}

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error(
        "UDP port {} of {} is taken by another program; stop it, or choose another port \
         (port 0 takes any free one)",
        addr.port(), addr.ip()
    )]
    PortTaken {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The machine does not have the address.
    #[error("this machine has no address {}; listen on one that it has, or on 0.0.0.0", addr.ip())]
    NoSuchAddress {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// Something else went wrong.
    #[error("cannot open a UDP socket{}: {source}", at.map_or_else(String::new, |a| format!(" at {a}")))]
    Other {
        /// The address that was asked for.
        at: Option<SocketAddr>,
        /// What the system said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A node's endpoint. Clones share it; when the last one is dropped its tasks end.
#[derive(Debug, Clone)]
pub struct Net {
    pub(crate) core: Arc<Core>,
    _stop_when_dropped: Arc<DropGuard>,
}

/// What every task of the endpoint needs.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: NodeId,
    pub(crate) key: NodeKey,
    pub(crate) ways: Ways,
    pub(crate) open: Open,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) started: AtomicBool,
    /// Hops in both directions, to end those of a peer whose link is lost.
    hops: Mutex<Vec<OpenHop>>,
}

/// A hop that is open as far as anybody knows.
#[derive(Debug)]
struct OpenHop {
    peer: NodeId,
    connection: WeakConnectionHandle,
    verdict: Arc<OnceLock<EndReason>>,
}

impl Net {
    /// Opens the endpoint. It takes calls from [`Net::start`] on.
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the address.
    pub async fn bind(config: NetConfig) -> Result<Self, BindError> {
        let open = Open::default();
        let builder = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&config.key.to_bytes()))
            .alpns(
                [ALPN_LINK, ALPN_HOP, ALPN_MODEL, ALPN_BLOBS]
                    .map(<[u8]>::to_vec)
                    .into(),
            )
            // Relays come from members; none is known before.
            .relay_mode(RelayMode::Custom(RelayMap::empty()))
            .net_report_config(relay_probes())
            .clear_address_lookup()
            .hooks(open.clone())
            .transport_config(transport::config(config.congestion));
        let endpoint = listen(builder, config.bind)
            .map_err(|source| BindError::Other {
                at: config.bind,
                source,
            })?
            .bind()
            .await
            .map_err(|source| bind_error(config.bind, source))?;
        let stop = CancellationToken::new();
        let core = Core {
            endpoint,
            id: config.key.id(),
            key: config.key,
            ways: Ways::new(config.ways),
            open,
            stop: stop.clone(),
            tasks: TaskTracker::new(),
            started: AtomicBool::new(false),
            hops: Mutex::default(),
        };
        core.learn_addrs().await;
        Ok(Self {
            core: Arc::new(core),
            _stop_when_dropped: Arc::new(stop.drop_guard()),
        })
    }

    /// The node's key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.core.id
    }

    /// Where this node may be reached, for tickets and hellos: addresses of its interfaces first, loopback last.
    #[must_use]
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.core.addrs()
    }

    /// Tells the peers and ends every task, within a second. The sockets go with the last [`Net`] and [`crate::Links`].
    pub async fn close(&self) {
        self.core.stop.cancel();
        self.core.end_hops(None, &EndReason::Here);
        self.core.tasks.close();
        let goodbye = async {
            self.core.tasks.wait().await;
            self.core.endpoint.close().await;
        };
        if tokio::time::timeout(Duration::from_millis(CLOSE_MS), goodbye)
            .await
            .is_err()
        {
            tracing::debug!("a peer did not confirm the end of its connection in time");
        }
    }
}

impl Core {
    /// Waits until the endpoint has looked at the machine's interfaces.
    async fn learn_addrs(&self) {
        let wait = async {
            while self.endpoint.addr().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(ADDRS_MS), wait)
            .await
            .is_err()
        {
            tracing::warn!("no network address was found; only this machine can reach the node");
        }
    }

    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        let mut addrs: Vec<SocketAddr> = self.endpoint.addr().ip_addrs().copied().collect();
        // iroh leaves loopback out as soon as there is anything else; nodes on one machine may need it.
        let open = self
            .endpoint
            .bound_sockets()
            .into_iter()
            .filter(|at| at.ip().is_unspecified());
        addrs.extend(open.map(|at| match at.ip() {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, at.port())),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, at.port())),
        }));
        rank(addrs)
    }

    /// Calls a node at the first of `places` that answers.
    pub(crate) async fn connect(
        &self,
        peer: NodeId,
        places: &Places,
        alpn: &[u8],
    ) -> Result<Connection, dial::DialError> {
        let relays = &self.ways.relays;
        relays.learn(&self.endpoint, &places.relays).await;
        let tried = Places {
            direct: reachable(&places.direct, &self.addrs()),
            relays: relays.usable(&places.relays),
        };
        let key = PublicKey::from_bytes(&peer.0).map_err(|source| dial::DialError::NotAKey {
            peer,
            source: Box::new(source),
        })?;
        if tried.is_empty() {
            return Err(dial::DialError::NoAddress {
                peer,
                addrs: places.to_string(),
            });
        }
        let target = EndpointAddr::from_parts(key, tried.targets());
        let call = Box::pin(self.endpoint.connect(target, alpn));
        match tokio::time::timeout(Duration::from_millis(DIAL_MS), call).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => Err(dial::DialError::Unreachable {
                peer,
                addrs: tried.to_string(),
                source: source.into(),
            }),
            Err(_) => Err(dial::DialError::TimedOut {
                peer,
                addrs: tried.to_string(),
            }),
        }
    }

    /// Remembers a hop until it ends. Why this node ends it, should it do so, will be in what is returned.
    pub(crate) fn remember_hop(
        &self,
        peer: NodeId,
        connection: &Connection,
    ) -> Arc<OnceLock<EndReason>> {
        let verdict = Arc::new(OnceLock::new());
        let connection = connection.weak_handle();
        let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        hops.retain(|hop| {
            hop.connection
                .upgrade()
                .is_some_and(|c| c.close_reason().is_none())
        });
        hops.push(OpenHop {
            peer,
            connection,
            verdict: verdict.clone(),
        });
        verdict
    }

    /// Ends the hops from and to `peer`, or all.
    pub(crate) fn end_hops(&self, peer: Option<NodeId>, reason: &EndReason) {
        let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        hops.retain(|hop| {
            let ends = peer.is_none_or(|peer| peer == hop.peer);
            if ends && let Some(connection) = hop.connection.upgrade() {
                // The first reason stays: the hop may have ended by itself.
                let _ = hop.verdict.set(reason.clone());
                end::close(&connection, reason.code(), "");
            }
            !ends
        });
    }
}

/// How iroh finds out which relay is nearest: by a plain question to each. Whether something between asks people to log in
/// is not its business.
fn relay_probes() -> NetReportConfig {
    let mut config = NetReportConfig::default();
    config.captive_portal_check = false;
    config
}

/// The wall clock, in seconds since 1970 UTC.
pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn listen(
    builder: iroh::endpoint::Builder,
    at: Option<SocketAddr>,
) -> Result<iroh::endpoint::Builder, Box<dyn Error + Send + Sync>> {
    let Some(addr) = at else { return Ok(builder) };
    let builder = builder.clear_ip_transports().bind_addr(addr)?;
    if addr.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return Ok(builder);
    }
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()));
    Ok(builder.bind_addr_with_opts(v6, BindOpts::default().set_is_required(false))?)
}

fn bind_error(at: Option<SocketAddr>, error: iroh::endpoint::BindError) -> BindError {
    let kind = match &error {
        iroh::endpoint::BindError::Sockets { source, .. } => Some(source.kind()),
        _ => None,
    };
    match (kind, at) {
        (Some(io::ErrorKind::AddrInUse), Some(addr)) => BindError::PortTaken { addr },
        (Some(io::ErrorKind::AddrNotAvailable), Some(addr)) => BindError::NoSuchAddress { addr },
        _ => BindError::Other {
            at,
            source: error.into(),
        },
    }
}

/// Puts the addresses that reach furthest first, loopback last, and keeps at most [`TICKET_ADDRS_MAX`].
///
/// Link-local IPv6 addresses mean nothing without the name of an interface of the caller's machine.
fn rank(mut addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    addrs.retain(|addr| match addr.ip() {
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        IpAddr::V4(_) => true,
    });
    addrs.sort_by_key(|addr| (addr.ip().is_loopback(), addr.is_ipv6(), *addr));
    addrs.dedup();
    let loopback = addrs.iter().filter(|addr| addr.ip().is_loopback()).count();
    let others = addrs.len() - loopback;
    let others_max = TICKET_ADDRS_MAX.saturating_sub(loopback);
    addrs.drain(others.min(others_max)..others);
    addrs.truncate(TICKET_ADDRS_MAX);
    addrs
}

/// Those of a peer's `theirs` that are worth a try from a machine that listens at `ours`.
///
/// Loopback means "the same machine", so it is tried only when the peer shares an address with us or has no other.
/// Our own sockets would answer with the wrong key, and that would end the call.
fn reachable(theirs: &[SocketAddr], ours: &[SocketAddr]) -> Vec<SocketAddr> {
    let far = |addr: &&SocketAddr| !addr.ip().is_loopback();
    let same_machine = theirs.iter().all(|addr| addr.ip().is_loopback())
        || theirs
            .iter()
            .filter(far)
            .any(|their| ours.iter().any(|our| our.ip() == their.ip()));
    theirs
        .iter()
        .filter(|addr| !ours.contains(addr) && (same_machine || !addr.ip().is_loopback()))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests;
