//! An answer as server-sent events.
//!
//! Order: a chunk with the role, chunks with text, a chunk with the reason for the end, a chunk with the counts if they
//! were asked for, `[DONE]`. An error takes the place of all that would follow it, `[DONE]` included.

use crate::reply::{Reply, Step};
use crate::response::Chunks;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// The response that reads `reply` as fast as the client reads the response.
pub(crate) fn response(reply: Reply, chunks: Chunks, keep_alive: Duration) -> Response {
    let keep_alive = KeepAlive::new()
        .interval(keep_alive)
        .text("waiting for the next token");
    // A reverse proxy that collects the response would defeat streaming; this header is nginx's, others know it too.
    let headers = [("x-accel-buffering", "no")];
    (
        headers,
        Sse::new(events(reply, chunks)).keep_alive(keep_alive),
    )
        .into_response()
}

fn events(reply: Reply, chunks: Chunks) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let ready = VecDeque::from([event(&chunks.opening())]);
    let state = State {
        reply: Some(reply),
        chunks,
        ready,
    };
    stream::unfold(state, |mut state| async {
        state.next().await.map(|event| (Ok(event), state))
    })
}

struct State {
    /// `None` when the answer is over.
    reply: Option<Reply>,
    chunks: Chunks,
    /// Events that can be sent.
    ready: VecDeque<Event>,
}

impl State {
    async fn next(&mut self) -> Option<Event> {
        if self.ready.is_empty() {
            self.advance().await;
        }
        self.ready.pop_front()
    }

    /// Reads one step of the answer, if there is one, and makes its events.
    async fn advance(&mut self) {
        let Some(reply) = &mut self.reply else { return };
        let chunks = &self.chunks;
        match reply.next().await {
            Ok(Step::Text(text)) => return self.ready.push_back(event(&chunks.text(text))),
            Ok(Step::End { text, reason }) => {
                let text = Some(text).filter(|text| !text.is_empty());
                self.ready
                    .extend(text.map(|text| event(&chunks.text(text))));
                self.ready.push_back(event(&chunks.finish(reason)));
                self.ready
                    .extend(chunks.usage(reply.usage()).map(|counts| event(&counts)));
                self.ready.push_back(Event::default().data("[DONE]"));
            }
            Err(fault) => {
                tracing::warn!(code = fault.code, "a streamed answer failed: {fault}");
                self.ready.push_back(event(&fault.body()));
            }
        }
        self.reply = None;
    }
}

fn event(data: &impl Serialize) -> Event {
    Event::default()
        .json_data(data)
        .expect("our own objects can be written as one line of JSON")
}
