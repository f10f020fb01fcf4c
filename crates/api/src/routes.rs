//! Which path is answered by whom.

use crate::ApiConfig;
use crate::backend::{Backend, HealthState};
use crate::chat;
use crate::fault::Fault;
use crate::places::Places;
use crate::response;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::Arc;

const WELCOME: &str = "\
This is a Myzel node. It speaks the OpenAI API:

  POST /v1/chat/completions   ask (\"stream\": true for server-sent events)
  GET  /v1/models             which models can be asked
  GET  /v1/models/{id}        one of them
  GET  /health                whether the node is ready, and if not, why
";

/// What the handlers share.
pub(crate) struct App<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) config: ApiConfig,
    /// One for each chat request at once.
    pub(crate) places: Arc<Places>,
}

/// The routes. The node merges its own into the result; [`serve`](crate::serve()) guards them all.
pub fn router<B: Backend>(backend: Arc<B>, config: ApiConfig) -> Router {
    let places = Places::new(config.requests_max);
    Router::new()
        .route("/", get(|| async { WELCOME }))
        .route("/health", get(health::<B>))
        .route("/v1/models", get(models::<B>))
        // Names of models may contain slashes.
        .route("/v1/models/{*id}", get(model::<B>))
        .route("/v1/chat/completions", post(chat::completions::<B>))
        .fallback(unknown_url)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(App {
            backend,
            config,
            places,
        }))
}

async fn health<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let health = app.backend.health();
    let status = match health.state {
        HealthState::Ok => StatusCode::OK,
        HealthState::Starting | HealthState::Degraded => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(response::health(health))).into_response()
}

async fn models<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    Json(response::model_list(app.backend.models())).into_response()
}

async fn model<B: Backend>(
    State(app): State<Arc<App<B>>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Fault> {
    let Path(id) = id.map_err(|rejection| Fault::invalid("model", rejection.body_text()))?;
    let cards = app.backend.models();
    let card = cards.into_iter().find(|card| card.id == id);
    Ok(Json(response::model(
        card.ok_or_else(|| Fault::model_not_found(&id))?,
    ))
    .into_response())
}

async fn unknown_url(method: Method, uri: Uri) -> Fault {
    Fault::unknown_url(method, uri.path())
}

async fn method_not_allowed(method: Method, uri: Uri) -> Fault {
    Fault::method_not_allowed(method, uri.path())
}
