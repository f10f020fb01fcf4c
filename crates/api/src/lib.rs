//! The OpenAI-compatible HTTP face of a node.
//!
//! # Story
//!
//! This crate turns HTTP requests in OpenAI's dialect into [`GenerateRequest`]s for a [`Backend`], which the node
//! implements, and the tokens that come back into JSON or server-sent events. It knows no model and no swarm.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`backend`] | the trait that the node implements, and what passes through it |
//! | [`fault`] | errors in OpenAI's shape; the `code` is stable, the message is for people |
//! | [`request`] | lenient reading: what is unknown and harmless is ignored, what would change the answer is refused |
//! | `response`, `stream` | exact writing: OpenAI's objects field by field |
//! | [`text`] | token bytes to text: split characters, stop strings |
//! | [`router`], [`serve`] | routes, and the server with its limits |
//!
//! **One request.** `serve` accepts a connection, checks `Host` and `Origin` (a page on the web must not reach a node
//! on loopback by DNS rebinding), and hands the request to the router. The chat handler takes a place (or answers
//! 503), reads the body within its limits, parses it, and asks the backend. The answer is pulled, not pushed: the
//! response body itself holds the [`Generation`]'s receiver and reads one event whenever the connection can take more.
//! So a slow client slows the engine down through the bounded channel, and nothing piles up between.
//!
//! **Who owns which task, and how it ends.** There is one task a connection, owned by `serve`. No request spawns a
//! task. When a client goes away, hyper drops the handler or the body, with it the receiver, and the backend sees its
//! sender closed, even while no token comes. A client that stays but does not read is cut off after
//! [`WRITE_STALL_MAX`]. A stop string drops the receiver in the same way. When [`ApiConfig::shutdown`] fires, answers
//! end with the error `shutting_down`, idle connections close, and whatever is left after [`SHUTDOWN_GRACE`] is cut.
//!
//! **Errors in a stream.** Before the first event an error has its HTTP status; the headers are held back for at most
//! one keep-alive interval for that. Later it comes as `data: {"error": {…}}` and the stream ends *without*
//! `data: [DONE]`: the official clients raise an error at that event.
//!
//! *Invariants:* no CORS header is ever sent; nothing in a request that would change the answer is dropped silently; no
//! text of a request or an answer is logged.

pub mod backend;
mod body;
mod chat;
pub mod fault;
mod host_check;
mod places;
mod reply;
pub mod request;
mod response;
mod routes;
mod server;
mod stall;
mod stream;
pub mod text;

pub use backend::{
    Backend, Caller, ChatMessage, Finish, GenerateEvent, GenerateRequest, Generation, Health,
    HealthState, ModelCard, Role,
};
pub use fault::Fault;
pub use routes::router;
pub use server::serve;

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 20 << 20;
/// How long a client may take to send its body.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to send a request's head; also how long an idle connection stays open.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// The most connections that are served at once.
pub const CONNECTIONS_MAX: usize = 512;
/// The most connections beyond [`CONNECTIONS_MAX`] that still hear why they are refused; further ones are closed.
pub const REFUSALS_MAX: usize = 64;
/// The most chat requests at once, unless [`ApiConfig::requests_max`] says otherwise.
pub const REQUESTS_MAX: usize = 64;
/// How long a client may leave its receive buffer full before its connection is cut.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// The silence after which a stream sends a comment line, unless [`ApiConfig::keep_alive`] says otherwise.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long open connections have to end after the shutdown token fired.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// How the face behaves.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Host names, besides those of loopback, under which a node that listens on loopback may be called, and
    /// whose pages may call it. Without ports. A node that listens on another address answers to every name.
    pub allowed_hosts: Vec<String>,
    /// The silence after which a stream sends a comment line. An answer that fails within this time has an HTTP status.
    pub keep_alive: Duration,
    /// Chat requests at once; a further one is answered with 503.
    pub requests_max: usize,
    /// Connections at once; a further one is answered with 503.
    pub connections_max: usize,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            keep_alive: KEEP_ALIVE,
            requests_max: REQUESTS_MAX,
            connections_max: CONNECTIONS_MAX,
            shutdown: CancellationToken::new(),
        }
    }
}
