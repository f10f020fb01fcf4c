//! OpenAI's Responses API, without a memory: `POST /v1/responses`.
//!
//! Nothing is stored, so `store` is reported as false and a `previous_response_id` is refused: the whole conversation
//! comes with every request.

mod events;
mod request;

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
    let read = |body: &[u8]| {
        let (ask, echo) = request::parse(body)?;
        Ok((ask, events::Events::new(echo)))
    };
    app.answer(request, read).await
}
