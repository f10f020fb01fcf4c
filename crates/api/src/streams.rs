//! `GET /v1/streams/{id}`: a stream that broke off goes on.
//!
//! The id is that of the header `x-myzel-stream`; what the client has is said by the header `Last-Event-ID`, as every
//! `EventSource` does, or by the query `last_event_id`. Without either, the stream comes from its beginning.

use crate::access;
use crate::answer::{Entry, Marks};
use crate::backend::Backend;
use crate::fault::Fault;
use crate::journal::owner;
use crate::openai::{chat, completions};
use crate::routes::App;
use crate::{anthropic, responses};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use proto::ids::StreamId;
use proto::journal::StreamDialect;
use serde::Deserialize;
use std::sync::Arc;

/// The header that says what a client has.
pub(crate) const LAST_EVENT_ID: &str = "Last-Event-ID";

#[derive(Deserialize)]
pub(crate) struct Place {
    last_event_id: Option<String>,
}

/// Goes on, or says why not.
pub(crate) async fn resume<B: Backend>(
    State(app): State<Arc<App<B>>>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Place>, QueryRejection>,
    request: Request,
) -> Result<Response, Fault> {
    let Query(place) = query.map_err(|why| Fault::invalid("last_event_id", why.body_text()))?;
    let caller = access::caller(request.headers());
    let header = request.headers().get(LAST_EVENT_ID);
    let seen = match header {
        Some(value) => Some(value.to_str().unwrap_or("?").to_owned()),
        None => place.last_event_id,
    };
    let seen = seen
        .filter(|seen| !seen.is_empty())
        .map(|seen| marks(&seen))
        .transpose()?;
    let id = id.ok().and_then(|Path(id)| id.parse::<StreamId>().ok());
    let stream = id.ok_or_else(Fault::stream_not_found)?;
    let journals = app
        .config
        .journals
        .as_ref()
        .ok_or_else(Fault::stream_not_found)?;
    let entry = Entry {
        place: app.place(&caller)?,
        // The request's own room counts.
        room: None,
        caller,
    };
    let kept = app
        .until_shutdown(journals.resume(stream, owner(&entry.caller)))
        .await?;
    let kept = kept.ok_or_else(Fault::stream_not_found)?;
    match kept.start.dialect {
        StreamDialect::Chat => app.go_on(entry, kept, seen, chat::read_question).await,
        StreamDialect::Completions => {
            app.go_on(entry, kept, seen, completions::read_question)
                .await
        }
        StreamDialect::Responses => app.go_on(entry, kept, seen, responses::read_question).await,
        StreamDialect::Messages => app.go_on(entry, kept, seen, anthropic::read_question).await,
    }
}

fn marks(text: &str) -> Result<Marks, Fault> {
    text.parse().map_err(|()| {
        let message = "it is not the id of an event; send that of the last event that came, or none for all of the stream";
        Fault::invalid(LAST_EVENT_ID, message)
    })
}
