//! `GET /v1/models`, in OpenAI's form, and in Anthropic's for its clients.

use crate::backend::{Backend, ModelCard};
use crate::fault::Fault;
use crate::routes::App;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// All models.
pub(crate) async fn list<B: Backend>(
    State(app): State<Arc<App<B>>>,
    headers: HeaderMap,
) -> Response {
    let cards = app.backend.models();
    if is_anthropic(&headers) {
        let (first, last) = (cards.first(), cards.last());
        let ends = (first.map(|card| &card.id), last.map(|card| &card.id));
        let data: Vec<_> = cards.iter().map(anthropic_entry).collect();
        let page = json!({"data": data, "has_more": false, "first_id": ends.0, "last_id": ends.1});
        return Json(page).into_response();
    }
    let data: Vec<_> = cards.iter().map(entry).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

/// One of them.
pub(crate) async fn one<B: Backend>(
    State(app): State<Arc<App<B>>>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Fault> {
    let Path(id) = id.map_err(|rejection| Fault::invalid("model", rejection.body_text()))?;
    let card = app.card(&id)?;
    let entry = if is_anthropic(&headers) {
        anthropic_entry(&card)
    } else {
        entry(&card)
    };
    Ok(Json(entry).into_response())
}

fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// With what llama-server adds in `meta`, as far as it is known.
fn entry(card: &ModelCard) -> Value {
    let mut entry = json!({
        "id": card.id, "object": "model", "created": card.created, "owned_by": card.owned_by,
    });
    let known = [
        ("n_ctx", card.context_tokens.map(u64::from)),
        ("n_embd", card.embedding_width.map(u64::from)),
        ("n_params", card.parameters),
        ("size", card.file_bytes),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            entry["meta"][name] = value.into();
        }
    }
    entry
}

fn anthropic_entry(card: &ModelCard) -> Value {
    let created = crate::clock::rfc3339(card.created);
    json!({"type": "model", "id": card.id, "display_name": card.id, "created_at": created})
}
