//! Who may ask, and in which words a refusal is told.

use crate::backend::{Caller, Room};
use crate::fault::Fault;
use crate::{anthropic, ollama};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Paths that everybody may read.
const OPEN: [&str; 2] = ["/", "/health"];

/// The keys that a node accepts. None at all: everybody may ask.
#[derive(Clone, Default)]
pub struct Keys(Arc<[String]>);

impl Keys {
    /// These keys; empty ones are left out.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self(keys.into_iter().filter(|key| !key.is_empty()).collect())
    }

    /// Compares with all of them, in a time that says nothing about their letters.
    fn accept(&self, caller: &Caller) -> bool {
        let shown = caller.0.as_deref().unwrap_or_default().as_bytes();
        let same = |key: &String| bool::from(key.as_bytes().ct_eq(shown));
        self.0.is_empty() || self.0.iter().fold(false, |any, key| any | same(key))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// The middleware that asks for a key.
pub(crate) async fn guard(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) || keys.accept(&caller(request.headers())) {
        return next.run(request).await;
    }
    Fault::unauthorized().into_response()
}

/// The middleware that tells errors in the words of the dialect that was spoken.
pub(crate) async fn translate(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let anthropic = path == "/v1/messages" || path.starts_with("/v1/messages/");
    let ollama = path.starts_with("/ollama/");
    let response = next.run(request).await;
    match response.extensions().get::<Fault>().cloned() {
        Some(fault) if anthropic => anthropic::error_response(&fault, response),
        Some(fault) if ollama => ollama::error_response(&fault, response),
        _ => response,
    }
}

/// The header by which a request says who may see it.
const ROOM_HEADER: &str = "x-myzel-room";

/// Who may see a request, where it says so.
pub(crate) fn room(headers: &HeaderMap) -> Result<Option<Room>, Fault> {
    let Some(value) = headers.get(ROOM_HEADER) else {
        return Ok(None);
    };
    match value.as_bytes() {
        b"alone" => Ok(Some(Room::Alone)),
        b"circle" => Ok(Some(Room::Circle)),
        b"square" => Ok(Some(Room::Square)),
        // Whoever asks for a room must not get a wider one by a slip of the pen.
        _ => Err(Fault::invalid(
            ROOM_HEADER,
            format!("the header '{ROOM_HEADER}' is neither alone, circle nor square"),
        )),
    }
}

/// The bearer key, or Anthropic's `x-api-key`.
pub(crate) fn caller(headers: &HeaderMap) -> Caller {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let authorization = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let bearer = authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    Caller(bearer.or(text("x-api-key")).map(ToOwned::to_owned))
}
