//! Ollama's dialect, under `/ollama`: lines of JSON, streamed unless `"stream": false` says otherwise.
//!
//! Nothing is cut off: a prompt that is longer than the context is an error, whatever `truncate` and `num_ctx` say.

mod lines;
mod models;
mod request;

pub(crate) use models::{ps, pull, running, show, tags, version};

use crate::answer::respond;
use crate::backend::{Backend, EmbedRequest, Embeddings};
use crate::fault::Fault;
use crate::openai::embeddings::made;
use crate::routes::App;
use crate::wire::json::read;
use crate::wire::lenient::Inputs;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use lines::{Form, Lines};
use serde::Deserialize;
use serde_json::{Number, json};
use std::sync::Arc;
use std::time::Instant;

/// `POST /ollama/api/chat`.
pub(crate) async fn chat<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    answer(&app, request, Form::Chat).await
}

/// `POST /ollama/api/generate`.
pub(crate) async fn generate<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    answer(&app, request, Form::Generate).await
}

async fn answer<B: Backend>(app: &App<B>, request: Request, form: Form) -> Result<Response, Fault> {
    let (entry, body) = app.admit(request).await?;
    let named: Named = read(&body)?;
    let card = named.card(app)?;
    let asked = match form {
        Form::Chat => request::chat(&body, &card)?,
        Form::Generate => request::generate(&body, &card)?,
    };
    drop(body);
    let Some(ask) = asked else {
        return Ok(Json(lines::loaded(&card.id, form)).into_response());
    };
    let stream = ask.stream;
    let answer = app.ask(entry, ask, None).await?;
    respond(
        answer,
        Lines::new(form),
        stream,
        app.config.keep_alive,
        None,
    )
    .await
}

/// The name of a model, which Ollama's clients lengthen by a tag.
#[derive(Deserialize)]
struct Named {
    model: Option<String>,
    /// The older field.
    name: Option<String>,
}

impl Named {
    fn name(self) -> Result<String, Fault> {
        crate::wire::required_model(self.model.or(self.name))
    }

    fn card<B: Backend>(self, app: &App<B>) -> Result<crate::ModelCard, Fault> {
        let name = self.name()?;
        let known = app.card(&name);
        known.or_else(|fault| {
            let bare = name.strip_suffix(":latest").ok_or(fault)?;
            app.card(bare)
        })
    }
}

#[derive(Deserialize)]
struct EmbedWire {
    #[serde(flatten)]
    named: Named,
    #[serde(default)]
    input: Inputs,
    /// The older route's field.
    #[serde(default)]
    prompt: Inputs,
    dimensions: Option<Number>,
}

/// `POST /ollama/api/embed`.
pub(crate) async fn embed<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let asked = Instant::now();
    let made = vectors(&app, request, "input").await?;
    let body = json!({
        "model": made.model,
        "embeddings": made.vectors,
        "total_duration": lines::nanoseconds(asked.elapsed()),
        "load_duration": 0,
        "prompt_eval_count": made.prompt_tokens,
    });
    Ok(Json(body).into_response())
}

/// `POST /ollama/api/embeddings`, the older one: a single text.
pub(crate) async fn embeddings<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let made = vectors(&app, request, "prompt").await?;
    Ok(Json(json!({"embedding": made.vectors.first()})).into_response())
}

async fn vectors<B: Backend>(
    app: &App<B>,
    request: Request,
    field: &str,
) -> Result<Embeddings, Fault> {
    let (entry, body) = app.admit(request).await?;
    let wire: EmbedWire = read(&body)?;
    drop(body);
    let card = wire.named.card(app)?;
    let inputs = if field == "input" {
        wire.input
    } else {
        wire.prompt
    };
    let request = EmbedRequest {
        model: card.id,
        caller: entry.caller.clone(),
        room: entry.room,
        inputs: inputs.check(field)?,
    };
    made(app, request, wire.dimensions.as_ref()).await
}

/// An error in Ollama's shape, with the status and the other headers of `response`.
pub(crate) fn error_response(fault: &Fault, response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    (
        parts.status,
        parts.headers,
        Json(json!({"error": fault.message})),
    )
        .into_response()
}
