//! The HTTP face of a node: the dialects of OpenAI, Anthropic and Ollama.
//!
//! # Story
//!
//! This crate turns HTTP requests into questions to a [`Backend`], which the node implements, and what comes back into
//! JSON, server-sent events or lines. It knows no model and no swarm.
//!
//! ```text
//! POST /v1/chat/completions  openai ─┐                      ┌─ Reply: text, reading, schema
//! POST /v1/messages       anthropic ─┼─> Ask ─> Backend ─> Answer ─> Steps ─> Dialect ─> the client
//! POST /v1/responses      responses ─┤           (choices)                (whole or stream)
//! POST /ollama/api/chat      ollama ─┘
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`backend`] | the trait that the node implements, and what passes through it |
//! | [`fault`] | errors; the `code` is stable, the message is for people |
//! | `wire` | lenient reading: what is unknown and harmless is ignored, what would change the answer is refused |
//! | `answer` | the one path of all dialects: an `Ask` becomes an `Answer`, a stream of steps, which a `Dialect` writes |
//! | `openai`, `responses`, `anthropic`, `ollama` | the dialects: a reader into `Ask`, and an exact writer of steps |
//! | [`text`] | token bytes to text: split characters, stop strings |
//! | [`metrics`], `openapi` | `GET /metrics`, `GET /openapi.json` |
//! | `journal`, `streams` | streams that can be resumed: what the node keeps of them, and `GET /v1/streams/{id}` |
//! | `access`, `host_check`, `places` | keys; pages of other sites; how many may ask at once |
//! | [`router`], [`serve`] | routes, and the server with its limits |
//!
//! **One request.** `serve` accepts a connection, checks `Host` and `Origin` (a page on the web must not reach a node
//! on loopback by DNS rebinding) and the key, and hands the request to the router. The handler takes a place (or
//! answers 503), reads the body within its limits, parses it, and asks the backend, once for every choice. The answer
//! is pulled, not pushed: the response body itself holds the [`Generation`]s' receivers and reads one event whenever
//! the connection can take more. So a slow client slows the engine down through the bounded channel, and nothing piles
//! up between.
//!
//! **Thoughts and calls.** Where a [`Generation`] has a syntax, its text is gathered and [`Backend::read`] takes it
//! apart, again and again while it grows; `answer::reading` says what is new. Steps only ever append. An answer that
//! had to fit a schema is checked in the end, and what does not fit is an error.
//!
//! **Who owns which task, and how it ends.** There is one task a connection, owned by `serve`. No request spawns a
//! task. When a client goes away, hyper drops the handler or the body, with it the receivers, and the backend sees its
//! senders closed, even while no token comes. A client that stays but does not read is cut off after
//! [`WRITE_STALL_MAX`]. A stop string drops the receiver in the same way. When [`ApiConfig::shutdown`] fires, answers
//! end with the error `shutting_down`, idle connections close, and whatever is left after [`SHUTDOWN_GRACE`] is cut.
//!
//! **Streams that outlive their clients.** What happens in a streamed answer is in its journal before any of it is sent, and what is sent
//! follows from the journal alone. So a client that comes back, to this process or a later one, gets what it has not had and no
//! byte twice: the journal is replayed through the same code, and the backend goes on behind it (`answer::tape`).
//!
//! **Errors in a stream.** Before the first event an error has its HTTP status; the headers are held back for at most
//! one keep-alive interval for that. Later it comes as the dialect's own event or line, and nothing follows it; in
//! OpenAI's as `data: {"error": {…}}` *without* `data: [DONE]`: the official clients raise an error at that event.
//!
//! *Invariants:* no CORS header is ever sent; nothing in a request that would change the answer is dropped silently; no
//! text of a request or an answer is logged.

mod access;
mod answer;
mod anthropic;
pub mod backend;
mod body;
mod clock;
mod crowd;
pub mod fault;
mod host_check;
mod journal;
pub mod metrics;
mod ollama;
mod openai;
mod openapi;
mod places;
mod responses;
mod routes;
mod server;
mod stall;
mod streams;
pub mod text;
mod wire;

pub use access::Keys;
pub use backend::*;
pub use fault::Fault;
pub use journal::{Journal, Journals, KeptStream, Lost};
pub use metrics::{Family, FamilyKind};
pub use routes::router;
pub use server::serve;
pub use wire::json::{DEPTH_MAX, VALUES_MAX};
pub use wire::sampling::{
    CHOICES_MAX, LOGIT_BIAS_MAX, STOP_BYTES_MAX, STOPS_MAX, TOP_LOGPROBS_MAX,
};

use std::sync::Arc;
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
/// The most connections that are served at once; a further one takes the place of the one that has been idle for
/// longest.
pub const CONNECTIONS_MAX: usize = 512;
/// The most connections beyond [`CONNECTIONS_MAX`], all of them busy, that still hear why they are refused; further ones
/// are closed.
pub const REFUSALS_MAX: usize = 64;
/// The most answers at once, unless [`ApiConfig::requests_max`] says otherwise.
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
    /// Keys, one of which every request but those for `/` and `/health` must show; none: everybody may ask.
    pub keys: Keys,
    /// The silence after which a stream sends a comment line. An answer that fails within this time has an HTTP status.
    pub keep_alive: Duration,
    /// Answers at once, each choice counted; a further one is answered with 503.
    pub requests_max: usize,
    /// Connections at once; a further one is answered with 503.
    pub connections_max: usize,
    /// What keeps streams so that they can be resumed; `None` keeps none.
    pub journals: Option<Arc<dyn Journals>>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            keys: Keys::default(),
            keep_alive: KEEP_ALIVE,
            requests_max: REQUESTS_MAX,
            connections_max: CONNECTIONS_MAX,
            journals: None,
            shutdown: CancellationToken::new(),
        }
    }
}
