//! OpenAI's Responses API, without a memory: `POST /v1/responses`.
//!
//! Nothing is stored, so `store` is reported as false and a `previous_response_id` is refused: the whole conversation
//! comes with every request.

mod events;
mod request;

use crate::answer::{Ask, Dialect};
use crate::backend::Backend;
use crate::fault::Fault;
use crate::routes::App;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::Arc;

/// Answers, or says why not.
pub(crate) async fn create<B: Backend>(
    State(app): State<Arc<App<B>>>,
    request: Request,
) -> Result<Response, Fault> {
    app.answer(request, read_question).await
}

/// A question, and who writes its answer.
pub(crate) fn read_question(body: &[u8]) -> Result<(Ask, impl Dialect + use<>), Fault> {
    let (ask, echo) = request::parse(body)?;
    Ok((ask, events::Events::new(echo)))
}
