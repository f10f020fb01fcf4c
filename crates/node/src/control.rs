//! What `myzel status`, `ticket`, `ask` and `model release` ask of a running node.
//!
//! A running node writes [`CONTROL_FILE`] into its data directory: where its endpoint is, and a token that only the owner can
//! read. Routes under `/myzel/` want that token; they speak JSON over the same listener as the OpenAI dialect.

use crate::daemon::Node;
use crate::standing::now_s;
use crate::status::{NodeStatus, Rates, Status};
use crate::{quarantine, sandbox};
use anyhow::{Context, bail};
use api::Fault;
use axum::extract::{Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use identity::Invitation;
use net::{PeerState, PeerStatus};
use proto::ticket::TICKET_LIFE_S;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        .route("/myzel/release", post(release))
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

/// What a ticket is to be like.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct TicketRequest {
    /// Seconds that it lives; a week without.
    pub life_s: Option<u64>,
    /// How many machines may join with it; any number without.
    pub uses: Option<u32>,
}

/// A new ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Its text.
    pub ticket: String,
    /// When it ends, in seconds since 1970 UTC.
    pub not_after_s: u64,
    /// How many machines may join with it.
    pub uses: Option<u32>,
}

async fn ticket(State(node): State<Arc<Node>>, Query(wanted): Query<TicketRequest>) -> Response {
    match node.ticket(wanted) {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => Fault::internal(format!("{error:#}")).into_response(),
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
    /// A new ticket with this node as introducer.
    ///
    /// # Errors
    ///
    /// When the node has no address that fits into a ticket.
    pub fn ticket(&self, wanted: TicketRequest) -> anyhow::Result<TicketReply> {
        let not_after_s = now_s().saturating_add(wanted.life_s.unwrap_or(TICKET_LIFE_S));
        let invitation = Invitation {
            commons: self.standing.commons,
            addrs: self.net.addrs().iter().map(ToString::to_string).collect(),
            not_after_s,
            nonce: crate::data::random(),
            uses_max: wanted.uses,
        };
        let ticket = identity::issue_ticket(&self.data.key, invitation)?;
        Ok(TicketReply {
            ticket: ticket.to_text(),
            not_after_s,
            uses: wanted.uses,
        })
    }

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
            incarnation: self.standing.incarnation,
            ready_s: self.ready.get().map(|at| at.elapsed().as_secs()),
            model,
            answers: self.requests.answers(),
            ring: self.ring_status(),
            hosting: self.stages.status(),
            sandbox,
            quarantine: quarantine::status(self.ward.quarantined()),
            nodes: self.links.snapshot().into_iter().map(node_status).collect(),
            rates,
        }
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
    }
}
