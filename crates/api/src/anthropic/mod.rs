//! Anthropic's dialect: `POST /v1/messages` and its `count_tokens`.
//!
//! Fields follow Anthropic's API description. Thoughts of the model come as `thinking` blocks with an empty signature;
//! a `budget_tokens` is not enforced.

mod blocks;
mod request;

use crate::answer::{Ask, Dialect};
use crate::backend::{Backend, RenderRequest};
use crate::fault::Fault;
use crate::routes::App;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers, or says why not.
pub(crate) async fn messages<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    app.answer(request, read_question).await
}

/// A question, and who writes its answer.
pub(crate) fn read_question(body: &[u8]) -> Result<(Ask, impl Dialect + use<>), Fault> {
    Ok((request::parse(body)?, blocks::Blocks::default()))
}

/// How many tokens a conversation has.
pub(crate) async fn count_tokens<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    let (_entry, body) = app.admit(request).await?;
    let (model, conversation) = request::conversation(&body)?;
    let request = RenderRequest {
        model,
        conversation,
    };
    let rendered = app.until_shutdown(app.backend.render(request)).await?;
    Ok(Json(json!({"input_tokens": rendered.tokens})).into_response())
}

/// An error in Anthropic's shape, with the status and the other headers of `response`.
pub(crate) fn error_response(fault: &Fault, response: Response) -> Response {
    let id = format!("req_{:032x}", rand::random::<u128>());
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    if let Ok(value) = HeaderValue::from_str(&id) {
        parts.headers.insert("request-id", value);
    }
    (parts.status, parts.headers, Json(error(fault, Some(&id)))).into_response()
}

fn error(fault: &Fault, request_id: Option<&str>) -> Value {
    let kind = match fault.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 => "timeout_error",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let message = match &fault.param {
        Some(param) => format!("{param}: {}", fault.message),
        None => fault.message.clone(),
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})
}
