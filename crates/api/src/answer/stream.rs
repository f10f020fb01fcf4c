//! An answer written down: whole, or step by step as the client reads.

use super::{Answer, Ask, Event, Heading, Usage, Whole};
use crate::backend::Backend;
use crate::fault::Fault;
use crate::routes::App;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;

/// How one dialect writes answers.
pub(crate) trait Dialect: Send + 'static {
    /// What its streams are made of.
    const FRAMING: Framing;

    /// A whole answer.
    ///
    /// # Errors
    ///
    /// When the dialect cannot say what the model said.
    fn whole(self, whole: Whole) -> Result<Value, Fault>;

    /// What stands before the first step of a stream.
    fn open(&mut self, heading: &Heading, out: &mut Frames);

    /// A step.
    fn step(&mut self, heading: &Heading, event: Event, out: &mut Frames);

    /// What stands behind the last step.
    fn close(&mut self, heading: &Heading, usage: Usage, out: &mut Frames);

    /// What takes the place of all that would follow.
    fn fail(&mut self, heading: &Heading, fault: &Fault, out: &mut Frames);
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events; comments between them keep the connection alive.
    Events,
    /// One JSON document a line.
    Lines,
}

/// What is to be sent next.
#[derive(Debug, Default)]
pub(crate) struct Frames(String);

impl Frames {
    /// `data: {…}`.
    pub(crate) fn data(&mut self, data: &impl Serialize) {
        self.0.push_str("data: ");
        self.json(data);
        self.0.push_str("\n\n");
    }

    /// The end of OpenAI's streams.
    pub(crate) fn done(&mut self) {
        self.0.push_str("data: [DONE]\n\n");
    }

    /// `event: …` and `data: {…}`, named as the data's own `type`.
    pub(crate) fn event(&mut self, data: &Value) {
        let name = data["type"].as_str().expect("our own events have a type");
        self.0.push_str("event: ");
        self.0.push_str(name);
        self.0.push('\n');
        self.data(data);
    }

    /// One line.
    pub(crate) fn line(&mut self, data: &impl Serialize) {
        self.json(data);
        self.0.push('\n');
    }

    fn json(&mut self, data: &impl Serialize) {
        let text = serde_json::to_string(data);
        self.0
            .push_str(&text.expect("our own objects can be written as one line of JSON"));
    }

    pub(crate) fn take(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }
}

/// A body that was read: the question, and the writer of its answer.
pub(crate) type Understood<D> = Result<(Ask, D), Fault>;

impl<B: Backend> App<B> {
    /// The whole way of a request: admitted, read into a question and the writer of its answer, asked, answered.
    pub(crate) async fn answer<D: Dialect>(
        &self,
        request: Request,
        read: fn(&[u8]) -> Understood<D>,
    ) -> Result<Response, Fault> {
        let (entry, body) = self.admit(request).await?;
        let (ask, dialect) = read(&body)?;
        drop(body);
        let stream = ask.stream;
        let answer = self.ask(entry, ask).await?;
        respond(answer, dialect, stream, self.config.keep_alive).await
    }
}

/// The response: whole, or a stream that is read as fast as the client reads it.
///
/// The headers of a stream are held back until its first step, but at most `keep_alive`, so that a failure before it
/// has an HTTP status.
pub(crate) async fn respond<D: Dialect>(
    mut answer: Answer,
    dialect: D,
    streamed: bool,
    keep_alive: Duration,
) -> Result<Response, Fault> {
    if !streamed {
        let whole = dialect.whole(answer.whole().await?)?;
        return Ok(Json(whole).into_response());
    }
    answer.wait_for_first(keep_alive).await?;
    let mut frames = Frames::default();
    let mut writer = Writer {
        answer: Some(answer),
        dialect,
        keep_alive,
    };
    writer.open(&mut frames);
    let state = (writer, frames);
    let body = stream::unfold(state, |(mut writer, mut frames)| async move {
        let text = match frames.take() {
            Some(text) => Some(text),
            None => writer.next(&mut frames).await,
        }?;
        Some((Ok::<_, Infallible>(text), (writer, frames)))
    });
    Ok(streamed_response(Body::from_stream(body), D::FRAMING))
}

/// A response whose body comes in pieces.
pub(crate) fn streamed_response(body: Body, framing: Framing) -> Response {
    let kind = match framing {
        Framing::Events => "text/event-stream",
        Framing::Lines => "application/x-ndjson",
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-cache"),
        // A reverse proxy that collects the response would defeat streaming; this header is nginx's, others know it too.
        (
            axum::http::HeaderName::from_static("x-accel-buffering"),
            "no",
        ),
    ];
    (headers, body).into_response()
}

struct Writer<D> {
    /// `None` when the answer is over.
    answer: Option<Answer>,
    dialect: D,
    keep_alive: Duration,
}

impl<D: Dialect> Writer<D> {
    fn open(&mut self, frames: &mut Frames) {
        if let Some(answer) = &self.answer {
            self.dialect.open(&answer.heading, frames);
        }
    }

    /// Goes on until there is something to send, or the answer is over.
    async fn next(&mut self, frames: &mut Frames) -> Option<String> {
        while let Some(answer) = &mut self.answer {
            let next = tokio::time::timeout(self.keep_alive, answer.next()).await;
            let heading = &answer.heading;
            match next {
                Err(_silence) if D::FRAMING == Framing::Events => {
                    return Some(": waiting for the next token\n\n".to_owned());
                }
                Err(_silence) => {}
                Ok(Some(Ok(event))) => self.dialect.step(heading, event, frames),
                Ok(Some(Err(fault))) => {
                    self.dialect.fail(heading, &fault, frames);
                    self.answer = None;
                }
                Ok(None) => {
                    self.dialect.close(heading, answer.usage(), frames);
                    self.answer = None;
                }
            }
            if let Some(text) = frames.take() {
                return Some(text);
            }
        }
        None
    }
}
