//! What `myzel status`, `ticket`, `ask` and `model release` ask of a running node.
//!
//! A running node writes [`CONTROL_FILE`] into its data directory: where its endpoint is, and a token that only the owner can
//! read. Routes under `/myzel/` want that token; they speak JSON over the same listener as the OpenAI dialect.

use crate::daemon::Node;
use crate::plan::{PlanRequest, known};
use crate::status::{NodeStatus, OfferStatus, Rates, Status};
use crate::streams::Streams;
use crate::tickets::TicketRequest;
use crate::{quarantine, sandbox};
use anyhow::{Context, bail};
use api::Fault;
use axum::extract::{Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use net::{PeerState, PeerStatus, Way};
use proto::ids::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarm::members::{Ask, Seen};

/// The file in the data directory by which commands find a running node.
pub const CONTROL_FILE: &str = "running.json";

/// How to reach a running node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Where its endpoint listens.
    pub api: SocketAddr,
    /// Its process id.
    pub pid: u32,
    /// What `/myzel/` routes want to see.
    pub token: String,
}

/// The file of a running node; removed when dropped.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        // A file that stays behind leads to a clear error: nobody answers there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Control {
    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<ControlFile> {
        let path = data_dir.join(CONTROL_FILE);
        let fresh = data_dir.join(format!("{CONTROL_FILE}.{}", self.pid));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let write = || -> anyhow::Result<()> {
            options
                .open(&fresh)?
                .write_all(&serde_json::to_vec_pretty(self)?)?;
            Ok(std::fs::rename(&fresh, &path)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(ControlFile { path })
    }

    /// Reads the file of the node that runs in `data_dir`.
    ///
    /// # Errors
    ///
    /// When no node runs there.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(CONTROL_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "no node runs with the data directory {}; start one with: myzel --data-dir {0} up",
                data_dir.display()
            ),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; start the node again", path.display()))
    }
}

/// A new random token.
#[must_use]
pub fn fresh_token() -> String {
    proto::ids::Hash(crate::data::random()).to_string()
}

/// The routes, which want `token` as a bearer token.
pub fn router(node: Arc<Node>, token: &str) -> Router {
    let expected = Arc::new(format!("Bearer {token}"));
    Router::new()
        .route("/myzel/status", get(status))
        .route("/myzel/ticket", post(ticket))
        .route("/myzel/tickets", get(tickets))
        .route("/myzel/ticket/revoke", post(revoke))
        .route("/myzel/release", post(release))
        .route("/myzel/plan", get(plan))
        .with_state(node)
        .route_layer(middleware::from_fn(move |request: Request, next: Next| {
            let expected = expected.clone();
            async move {
                let shown = request
                    .headers()
                    .get(AUTHORIZATION)
                    .map(|value| value.as_bytes());
                // Compared by their hashes, so that the time taken tells nothing.
                let hash = |bytes: &[u8]| blake3::hash(bytes);
                if shown.is_some_and(|shown| hash(shown) == hash(expected.as_bytes())) {
                    next.run(request).await
                } else {
                    let message = "this route is for the owner of the node; use the myzel command";
                    Fault::forbidden("owner_only", message).into_response()
                }
            }
        }))
}

async fn status(State(node): State<Arc<Node>>) -> Json<Status> {
    Json(node.status().await)
}

async fn plan(State(node): State<Arc<Node>>, Query(wanted): Query<PlanRequest>) -> Response {
    match node.plan(&wanted).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => Fault::bad_request("no_plan", format!("{error:#}")).into_response(),
    }
}

async fn ticket(State(node): State<Arc<Node>>, Query(wanted): Query<TicketRequest>) -> Response {
    match node.ticket(wanted) {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => Fault::internal(format!("{error:#}")).into_response(),
    }
}

async fn tickets(State(node): State<Arc<Node>>) -> Response {
    match node.tickets() {
        Ok(tickets) => Json(tickets).into_response(),
        Err(error) => Fault::internal(format!("{error:#}")).into_response(),
    }
}

/// Which ticket is to be taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeRequest {
    /// Its text or its name.
    pub which: String,
}

async fn revoke(State(node): State<Arc<Node>>, Query(wanted): Query<RevokeRequest>) -> Response {
    match node.revoke(&wanted.which) {
        Ok(ticket) => Json(ticket).into_response(),
        Err(error) => Fault::bad_request("no_such_ticket", format!("{error:#}")).into_response(),
    }
}

/// Which quarantined model is to be tried again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// Its name, or the BLAKE3 of its file.
    pub model: String,
}

async fn release(State(node): State<Arc<Node>>, Query(wanted): Query<ReleaseRequest>) -> Response {
    let held = quarantine::status(node.ward.quarantined());
    match quarantine::find(&held, &wanted.model) {
        Ok(model) => {
            node.ward.release(model);
            Json(model).into_response()
        }
        Err(error) => Fault::bad_request("not_quarantined", format!("{error:#}")).into_response(),
    }
}

impl Node {
    /// Everything that `myzel status` shows.
    pub async fn status(&self) -> Status {
        let host = self.requests.host().ok();
        let stats = match &host {
            Some(host) => host.stats().await.unwrap_or_default(),
            None => proto::host::Stats::default(),
        };
        let loaded = host.as_ref().map(|host| host.loaded());
        let context = loaded.map(|loaded| loaded.positions_max);
        let sandbox = loaded.map(|loaded| &loaded.sandbox);
        let sandbox = sandbox::status(sandbox, self.allow_unsandboxed);
        let rates = Rates {
            threads: stats.threads,
            engine_bytes: stats.resident_bytes,
            ..self.requests.rates()
        };
        let mut model = self.model.clone();
        model.context = context;
        model.sessions_max = loaded.map_or(model.sessions_max, |loaded| loaded.sessions_max);
        model.sessions = self.requests.sessions();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.net.id(),
            name: self.standing.name.clone(),
            commons: self.standing.commons,
            api: self.url(),
            relays: self.links.this_member().relays.unwrap_or_default(),
            incarnation: self.standing.incarnation,
            ready_s: self.ready.get().map(|at| at.elapsed().as_secs()),
            model,
            answers: self.requests.answers(),
            ring: self.ring_status(),
            recoveries: self
                .requests
                .ring()
                .map(|ring| ring.recoveries.newest())
                .unwrap_or_default(),
            hosting: self.stages.status(),
            standing_by: self.stages.standing_by(),
            sandbox,
            journal: self.streams.as_ref().map(Streams::status),
            quarantine: quarantine::status(self.ward.quarantined()),
            handed_on: self.content.handed_on(),
            fetches: self.content.fetches(),
            nodes: self.nodes(),
            rates,
        }
    }
}

impl Node {
    /// The other members: their links, and what they offer.
    fn nodes(&self) -> Vec<NodeStatus> {
        let build = self.roster.offered().build;
        let ask = Ask {
            room: self.rooms.room,
            model: self.model.blake3,
            layer_bytes: 0,
            build: Some(&build),
        };
        let mut offers: BTreeMap<NodeId, Seen> = self
            .roster
            .view(&ask)
            .into_iter()
            .map(|seen| (seen.node, seen))
            .collect();
        let mut nodes: Vec<NodeStatus> = self
            .links
            .snapshot()
            .into_iter()
            .map(|peer| {
                let offer = offers.remove(&peer.member.id);
                NodeStatus {
                    offer: offer.as_ref().map(offer_status),
                    ..node_status(peer)
                }
            })
            .collect();
        nodes.extend(offers.values().map(unlinked));
        nodes
    }
}

/// A member that is known by its ad alone.
fn unlinked(seen: &Seen) -> NodeStatus {
    NodeStatus {
        node: seen.node,
        name: seen.name.clone(),
        state: "heard of".to_owned(),
        since_s: seen.age_ms / 1_000,
        rtt_ms: None,
        addrs: seen.addrs.clone(),
        why: None,
        way: None,
        offer: Some(offer_status(seen)),
    }
}

fn offer_status(seen: &Seen) -> OfferStatus {
    OfferStatus {
        memory_bytes: seen.memory_bytes,
        layer_ms: seen.layer_us.value as f64 / 1_000.0,
        layer_known: known(seen.layer_us.source).to_owned(),
        whole: seen.whole,
        why_not: seen.why_not.map(|why| why.to_string()),
    }
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Known => "known",
        Way::Lan => "lan",
        Way::Dht => "dht",
        Way::Relay => "relay",
        Way::Theirs => "called",
    }
}

fn node_status(peer: PeerStatus) -> NodeStatus {
    let state = match peer.state {
        PeerState::Up => "up",
        PeerState::Dialing => "dialing",
        PeerState::Waiting => "waiting",
    };
    NodeStatus {
        node: peer.member.id,
        name: peer.member.name,
        state: state.to_owned(),
        since_s: peer.since.as_secs(),
        rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        addrs: peer.member.addrs,
        why: peer.fault,
        offer: None,
        way: peer.way.map(|way| way_name(way).to_owned()),
    }
}
