//! Ollama's routes about models: what is here, what is in memory, what can be fetched.

use super::Named;
use crate::answer::{Frames, Framing, streamed_response};
use crate::backend::{Backend, ModelCard, PullEvent};
use crate::clock;
use crate::fault::Fault;
use crate::routes::App;
use crate::wire::json::read;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// `GET /ollama`, by which clients find out whether somebody is there.
pub(crate) async fn running() -> &'static str {
    "Ollama is running"
}

/// `GET /ollama/api/version`: ours.
pub(crate) async fn version() -> Response {
    Json(json!({"version": env!("CARGO_PKG_VERSION")})).into_response()
}

/// `GET /ollama/api/tags`: all models.
pub(crate) async fn tags<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let models: Vec<_> = app.backend.models().iter().map(entry).collect();
    Json(json!({ "models": models })).into_response()
}

/// `GET /ollama/api/ps`: those in memory, which stay there.
pub(crate) async fn ps<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let loaded = app.backend.models().into_iter().filter(|card| card.loaded);
    let models = loaded.map(|card| {
        let mut entry = entry(&card);
        entry["expires_at"] = clock::rfc3339(u64::MAX).into();
        entry["size_vram"] = 0.into();
        entry["context_length"] = card.context_tokens.into();
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()})).into_response()
}

/// `POST /ollama/api/show`: one model.
pub(crate) async fn show<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (_entry, body) = app.admit(request).await?;
    let card = read::<Named>(&body)?.card(&app)?;
    let mut capabilities = vec!["completion", "tools"];
    capabilities.extend(card.embedding_width.map(|_| "embedding"));
    let family = card.architecture.clone().unwrap_or_default();
    let mut info = json!({
        "general.architecture": family,
        "general.parameter_count": card.parameters,
    });
    info[format!("{family}.context_length")] = card.context_tokens.into();
    info[format!("{family}.embedding_length")] = card.embedding_width.into();
    let body = json!({
        "modelfile": "",
        "parameters": "",
        "template": card.template.clone().unwrap_or_default(),
        "modified_at": clock::rfc3339(card.created),
        "details": details(&card),
        "model_info": info,
        "capabilities": capabilities,
    });
    Ok(Json(body).into_response())
}

fn entry(card: &ModelCard) -> Value {
    json!({
        "name": card.id,
        "model": card.id,
        "modified_at": clock::rfc3339(card.created),
        "size": card.file_bytes.unwrap_or(0),
        "digest": card.sha256.clone().unwrap_or_default(),
        "details": details(card),
    })
}

fn details(card: &ModelCard) -> Value {
    let size = card.parameters.map(|count| match count as f64 {
        count if count >= 1e9 => format!("{:.1}B", count / 1e9),
        count => format!("{:.2}M", count / 1e6),
    });
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": card.architecture.clone().unwrap_or_default(),
        "families": card.architecture.as_slice(),
        "parameter_size": size.unwrap_or_default(),
        "quantization_level": card.quantisation.clone().unwrap_or_default(),
    })
}

#[derive(Deserialize)]
struct PullWire {
    #[serde(flatten)]
    named: Named,
    stream: Option<bool>,
}

/// `POST /ollama/api/pull`: fetches a model, with its progress.
pub(crate) async fn pull<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (entry, body) = app.admit(request).await?;
    let wire: PullWire = read(&body)?;
    let name = wire.named.name()?;
    let mut events = app.until_shutdown(app.backend.pull(name)).await?;
    if wire.stream == Some(false) {
        while line(&app.until_shutdown(next(&mut events)).await?)? != success() {}
        return Ok(Json(success()).into_response());
    }
    let state = Some((events, app, entry, true));
    let lines = stream::unfold(state, |state| async move {
        let (mut events, app, entry, first) = state?;
        let mut frames = Frames::default();
        if first {
            frames.line(&json!({"status": "pulling manifest"}));
            let text = frames.take()?;
            return Some((Ok::<_, Infallible>(text), Some((events, app, entry, false))));
        }
        let event = app.until_shutdown(next(&mut events)).await;
        let told = event.and_then(|event| line(&event));
        let line = told.unwrap_or_else(|fault| json!({"error": fault.message}));
        frames.line(&line);
        let over = line == success() || line.get("error").is_some();
        let rest = (!over).then_some((events, app, entry, false));
        Some((Ok(frames.take()?), rest))
    });
    Ok(streamed_response(Body::from_stream(lines), Framing::Lines))
}

async fn next(events: &mut mpsc::Receiver<PullEvent>) -> Result<PullEvent, Fault> {
    events.recv().await.ok_or_else(|| {
        Fault::internal("the download broke off without a reason; the node's log may tell why")
    })
}

fn success() -> Value {
    json!({"status": "success"})
}

fn line(event: &PullEvent) -> Result<Value, Fault> {
    Ok(match event {
        PullEvent::Fetching {
            sha256,
            total,
            completed,
        } => {
            let mut line = json!({"status": "pulling", "total": total, "completed": completed});
            if let Some(hash) = sha256 {
                line["status"] = json!(format!("pulling {}", hash.get(..12).unwrap_or(hash)));
                line["digest"] = json!(format!("sha256:{hash}"));
            }
            line
        }
        PullEvent::Verifying => json!({"status": "verifying sha256 digest"}),
        PullEvent::Done => success(),
        PullEvent::Failed(fault) => return Err(fault.clone()),
    })
}
