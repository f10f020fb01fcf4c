//! `POST /v1/chat/completions`.

use crate::BODY_WAIT_MAX;
use crate::backend::{Backend, Caller, Generation};
use crate::body;
use crate::fault::Fault;
use crate::places::Place;
use crate::reply::{Reply, Step};
use crate::request::ChatRequest;
use crate::response::{self, Chunks, Heading};
use crate::routes::App;
use crate::stream;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers, or says why not.
pub(crate) async fn completions<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let result = answer(&app, request).await;
    if let Err(fault) = &result {
        tracing::debug!(
            status = fault.status,
            code = fault.code,
            "a chat request was refused"
        );
    }
    result
}

async fn answer<B: Backend>(app: &App<B>, request: Request) -> Result<Response, Fault> {
    let caller = caller(request.headers());
    let place = place(app, caller.clone())?;
    let body = body::read(request.into_body(), BODY_WAIT_MAX).await?;
    let ChatRequest {
        mut generate,
        stops,
        stream,
        include_usage,
    } = ChatRequest::parse(&body)?;
    drop(body);
    generate.caller = caller;
    let generation = tokio::select! {
        biased;
        () = app.config.shutdown.cancelled() => return Err(Fault::shutting_down()),
        generation = app.backend.generate(generate) => generation?,
    };
    let Generation {
        prompt_tokens,
        model,
        fingerprint,
        events,
    } = generation;
    let heading = heading(model, fingerprint);
    let mut reply = Reply::new(
        events,
        prompt_tokens,
        stops,
        app.config.shutdown.clone(),
        place,
    );
    if !stream {
        return whole(reply, &heading).await;
    }
    reply.wait_for_first(app.config.keep_alive).await?;
    Ok(stream::response(
        reply,
        Chunks {
            heading,
            include_usage,
        },
        app.config.keep_alive,
    ))
}

/// The bearer key. What is no such header counts as none: keys are not checked here.
fn caller(headers: &HeaderMap) -> Caller {
    let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let key = value.and_then(|value| value.split_once(' '));
    let bearer = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Caller(bearer.map(|(_, key)| key.trim().to_owned()))
}

/// A place among the requests that are served at once, before anything of the body is kept.
fn place<B>(app: &App<B>, caller: Caller) -> Result<Place, Fault> {
    app.places.take(caller).ok_or_else(|| {
        let most = app.config.requests_max;
        Fault::overloaded(format!(
            "{most} requests are being answered already; ask again in a moment"
        ))
    })
}

fn heading(model: String, fingerprint: Option<String>) -> Heading {
    // A clock before 1970 is no reason to refuse an answer.
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Heading {
        id: format!("chatcmpl-{:032x}", rand::random::<u128>()),
        created,
        model,
        system_fingerprint: fingerprint,
    }
}

/// The whole answer in one response.
async fn whole(mut reply: Reply, heading: &Heading) -> Result<Response, Fault> {
    let mut content = String::new();
    loop {
        match reply.next().await? {
            Step::Text(text) => content += &text,
            Step::End { text, reason } => {
                content += &text;
                let body = response::completion(heading, &content, reason, reply.usage());
                return Ok(Json(body).into_response());
            }
        }
    }
}
