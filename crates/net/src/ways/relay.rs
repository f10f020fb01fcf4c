//! A relay for the members of the commons, in this process: iroh's own server, without TLS and without anything else of
//! what it can do.
//!
//! Who wants to use it proves its key and shows the pass of the commons ([`super::relays::pass`]). Members stay for as long as
//! they like. Whoever is not known as a member (a newcomer whose introducer is behind this relay, or a member that has
//! not called yet) is a guest for half a minute; by then it is a member, or it goes.

use super::RelayOffer;
use super::places::is_global;
use super::relays::pass;
use crate::limits::{
    RELAY_BYTES_BURST, RELAY_BYTES_PER_S, RELAY_CLIENTS_MAX, RELAY_GUEST_MS, RELAY_GUESTS_MAX,
    RELAY_SWEEP_MS,
};
use crate::links::Mesh;
use iroh::EndpointId;
use iroh_relay::server::{
    Access, AccessControl, ClientRateLimit, ClientRequest, ConnectionId, Limits, RelayConfig,
    Server, ServerConfig,
};
use proto::ids::{CommonsId, NodeId};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Serves as a relay until the node stops, if it is to.
pub(crate) async fn offer(mesh: Arc<Mesh>) {
    let Some(at) = place(mesh.core.ways.relay(), &mesh.core.addrs()) else {
        return;
    };
    let known = mesh.clone();
    let gate = Gate::new(mesh.standing.commons, move |node| known.is_met(node));
    let server = match start(at, gate.clone()).await {
        Ok(server) => server,
        Err(error) => {
            return tracing::warn!(%at, error, "no relay is offered: its port cannot be opened");
        }
    };
    // With port 0 the system has chosen one.
    let at = server.http_addr().unwrap_or(at);
    tracing::info!(%at, "a relay for other members");
    mesh.core.ways.relays.offer(&mesh.core.endpoint, at).await;
    let mut sweep = tokio::time::interval(Duration::from_millis(RELAY_SWEEP_MS));
    loop {
        tokio::select! {
            () = mesh.core.stop.cancelled() => break,
            _ = sweep.tick() => show_out(&server, &gate),
        }
    }
    if let Err(error) = server.shutdown().await {
        tracing::debug!(%error, "the relay's end");
    }
}

/// Where to listen, if at all.
fn place(offer: RelayOffer, addrs: &[SocketAddr]) -> Option<SocketAddr> {
    match offer {
        RelayOffer::Off => None,
        RelayOffer::At(at) => Some(at),
        RelayOffer::Auto => addrs
            .iter()
            .copied()
            .find(|addr| addr.is_ipv4() && is_global(*addr)),
    }
}

async fn start(at: SocketAddr, gate: Gate) -> Result<Server, String> {
    let rate = NonZeroU32::new(RELAY_BYTES_PER_S).expect("the limit is not zero");
    let mut rate = ClientRateLimit::new(rate);
    rate.max_burst_bytes = NonZeroU32::new(RELAY_BYTES_BURST);
    let mut limits = Limits::default();
    limits.client_rx = Some(rate);
    let mut relay = RelayConfig::new(at);
    relay.limits = limits;
    relay.key_cache_capacity = Some(RELAY_CLIENTS_MAX);
    relay.access = Arc::new(gate);
    let mut config = ServerConfig::default();
    config.relay = Some(relay);
    Server::spawn(config)
        .await
        .map_err(|error| format!("{error:#}"))
}

/// Ends the connections of guests who have stayed too long.
fn show_out(server: &Server, gate: &Gate) {
    let Some(service) = server.relay_service() else {
        return;
    };
    for (endpoint, connection) in gate.overstayed(Instant::now()) {
        service.clients().disconnect(endpoint, Some(connection));
    }
}

/// Who may use the relay. Clones share it.
#[derive(Clone)]
struct Gate {
    commons: CommonsId,
    is_member: Arc<dyn Fn(NodeId) -> bool + Send + Sync>,
    clients: Arc<Mutex<HashMap<ConnectionId, Client>>>,
}

#[derive(Debug)]
struct Client {
    endpoint: EndpointId,
    /// Since when it is a guest, if it is one.
    guest: Option<Instant>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

fn node(endpoint: EndpointId) -> NodeId {
    NodeId(*endpoint.as_bytes())
}

impl Gate {
    fn new(commons: CommonsId, is_member: impl Fn(NodeId) -> bool + Send + Sync + 'static) -> Self {
        Self {
            commons,
            is_member: Arc::new(is_member),
            clients: Arc::default(),
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ConnectionId, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, or says why not.
    fn admit(
        &self,
        endpoint: EndpointId,
        connection: ConnectionId,
        shown: Option<&str>,
        now: Instant,
    ) -> Result<(), &'static str> {
        // Compared by hashes: the time taken tells nothing of the pass.
        let hash = |text: &str| blake3::hash(text.as_bytes());
        let expected = pass(self.commons, node(endpoint));
        if shown.is_none_or(|shown| hash(shown) != hash(&expected)) {
            return Err("this relay is for the members of a commons");
        }
        let guest = (!(self.is_member)(node(endpoint))).then_some(now);
        let mut clients = self.clients();
        let guests = clients.values().filter(|client| client.guest.is_some());
        if guest.is_some() && guests.count() >= RELAY_GUESTS_MAX {
            return Err("too many guests at the moment; try again in a minute");
        }
        if clients.len() >= RELAY_CLIENTS_MAX {
            return Err("the relay has as many clients as it takes");
        }
        clients.insert(connection, Client { endpoint, guest });
        Ok(())
    }

    fn forget(&self, connection: ConnectionId) {
        self.clients().remove(&connection);
    }

    /// Guests whose time is over; those who are members by now are none any more.
    fn overstayed(&self, now: Instant) -> Vec<(EndpointId, ConnectionId)> {
        let mut clients = self.clients();
        let mut out = Vec::new();
        for (connection, client) in clients.iter_mut() {
            let Some(since) = client.guest else { continue };
            if (self.is_member)(node(client.endpoint)) {
                client.guest = None;
            } else if now.saturating_duration_since(since) >= Duration::from_millis(RELAY_GUEST_MS)
            {
                out.push((client.endpoint, *connection));
            }
        }
        out
    }
}

impl AccessControl for Gate {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let (endpoint, connection) = (request.endpoint_id(), request.connection_id());
        let shown = request.auth_token();
        match self.admit(endpoint, connection, shown.as_deref(), Instant::now()) {
            Ok(()) => Access::Allow,
            Err(reason) => Access::Deny {
                reason: Some(reason.to_owned()),
            },
        }
    }

    fn on_disconnect(&self, _: EndpointId, connection: ConnectionId) {
        self.forget(connection);
    }
}

#[cfg(test)]
mod tests;
