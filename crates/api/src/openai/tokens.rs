//! llama-server's `POST /tokenize` and `POST /detokenize`.

use crate::backend::{Backend, TokenizeRequest};
use crate::fault::Fault;
use crate::routes::App;
use crate::wire::json::read;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Deserialize)]
struct Text {
    model: Option<String>,
    content: Option<String>,
    add_special: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

#[derive(Deserialize)]
struct Tokens {
    model: Option<String>,
    tokens: Option<Vec<i32>>,
}

/// `{"content": …}` to `{"tokens": […]}`.
pub(crate) async fn tokenize<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (_entry, body) = app.admit(request).await?;
    let wire: Text = read(&body)?;
    let missing = || Fault::missing("content", "'content' is the text to tokenise");
    let request = TokenizeRequest {
        model: app.model_or_only(wire.model)?,
        text: wire.content.ok_or_else(missing)?,
        add_special: wire.add_special.unwrap_or(false),
        parse_special: wire.parse_special.unwrap_or(true),
    };
    let pieces = app.until_shutdown(app.backend.tokenize(request)).await?;
    let with_pieces = wire.with_pieces.unwrap_or(false);
    let tokens = pieces
        .iter()
        .map(|piece| match std::str::from_utf8(&piece.bytes) {
            _ if !with_pieces => json!(piece.id),
            Ok(text) => json!({"id": piece.id, "piece": text}),
            Err(_) => json!({"id": piece.id, "piece": piece.bytes}),
        });
    Ok(Json(json!({"tokens": tokens.collect::<Vec<_>>()})).into_response())
}

/// `{"tokens": […]}` to `{"content": …}`.
pub(crate) async fn detokenize<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (_entry, body) = app.admit(request).await?;
    let wire: Tokens = read(&body)?;
    let model = app.model_or_only(wire.model)?;
    let missing = || Fault::missing("tokens", "'tokens' lists the numbers of tokens");
    let tokens = wire.tokens.ok_or_else(missing)?;
    let bytes = app
        .until_shutdown(app.backend.detokenize(model, tokens))
        .await?;
    let content = String::from_utf8_lossy(&bytes);
    Ok(Json(json!({ "content": content })).into_response())
}
