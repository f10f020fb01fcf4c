//! An answer written down: whole, or step by step as the client reads.

use super::tape::{Marks, Track};
use super::{Answer, Ask, Event, Heading, Origin, Usage, Whole};
use crate::backend::Backend;
use crate::fault::Fault;
use crate::routes::App;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream;
use proto::journal::StreamDialect;
use serde::Serialize;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;

/// The header in which a stream's client is told by which name it is resumed.
const STREAM_HEADER: &str = "x-myzel-stream";

/// How one dialect writes answers.
pub(crate) trait Dialect: Send + 'static {
    /// What its streams are made of.
    const FRAMING: Framing;
    /// What its streams are journalled as; `None`: they are not.
    const JOURNALLED: Option<StreamDialect>;

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

/// What is to be sent next, in pieces: events or lines.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<String>);

impl Frames {
    /// `data: {…}`.
    pub(crate) fn data(&mut self, data: &impl Serialize) {
        self.0.push(format!("data: {}\n\n", json(data)));
    }

    /// The end of OpenAI's streams.
    pub(crate) fn done(&mut self) {
        self.0.push("data: [DONE]\n\n".to_owned());
    }

    /// `event: …` and `data: {…}`, named as the data's own `type`.
    pub(crate) fn event(&mut self, data: &Value) {
        let name = data["type"].as_str().expect("our own events have a type");
        let event = format!("event: {name}\ndata: {}\n\n", json(data));
        self.0.push(event);
    }

    /// One line.
    pub(crate) fn line(&mut self, data: &impl Serialize) {
        self.0.push(json(data) + "\n");
    }

    pub(crate) fn take(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.0).concat();
        (!text.is_empty()).then_some(text)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn drain(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn push(&mut self, piece: String) {
        self.0.push(piece);
    }

    /// Puts an `id` in front of the newest event.
    pub(super) fn name_last(&mut self, id: &Marks) {
        if let Some(last) = self.0.last_mut() {
            last.insert_str(0, &format!("id: {id}\n"));
        }
    }
}

fn json(data: &impl Serialize) -> String {
    let text = serde_json::to_string(data);
    text.expect("our own objects can be written as one line of JSON")
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
        let stream = ask.stream;
        let journalled = D::JOURNALLED.filter(|_| stream);
        let origin = journalled.map(|dialect| Origin { dialect, body });
        let answer = self.ask(entry, ask, origin).await?;
        respond(answer, dialect, stream, self.config.keep_alive, None).await
    }
}

/// The response: whole, or a stream that is read as fast as the client reads it, without what it has `seen` already.
///
/// The headers of a stream are held back until its first step, but at most `keep_alive`, so that a failure before it
/// has an HTTP status.
pub(crate) async fn respond<D: Dialect>(
    mut answer: Answer,
    dialect: D,
    streamed: bool,
    keep_alive: Duration,
    seen: Option<Marks>,
) -> Result<Response, Fault> {
    if !streamed {
        let whole = dialect.whole(answer.whole().await?)?;
        return Ok(Json(whole).into_response());
    }
    answer.wait_for_first(keep_alive).await?;
    let tape = answer.tape.clone();
    let stream = tape.as_ref().map(|tape| tape.tell().to_string());
    let choices = answer.heading.choices;
    let mut frames = Frames::default();
    let mut writer = Writer {
        answer: Some(answer),
        dialect,
        keep_alive,
        track: tape.map(|tape| Track::new(tape, choices, seen)),
        whole: false,
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
    let mut response = streamed_response(Body::from_stream(body), D::FRAMING);
    if let Some(Ok(value)) = stream.map(|stream| HeaderValue::from_str(&stream)) {
        response.headers_mut().insert(STREAM_HEADER, value);
    }
    Ok(response)
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
    /// If it is journalled.
    track: Option<Track>,
    /// Whether all of it was written.
    whole: bool,
}

impl<D: Dialect> Writer<D> {
    fn open(&mut self, frames: &mut Frames) {
        if let Some(answer) = &self.answer {
            self.dialect.open(&answer.heading, frames);
        }
        if let Some(track) = &self.track {
            track.open(frames);
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
                Ok(Some(Ok(event))) => {
                    let (choice, unit) = (event.choice, event.unit);
                    self.dialect.step(heading, event, frames);
                    if let Some(track) = &mut self.track {
                        track.step(choice, unit, frames);
                    }
                }
                Ok(Some(Err(fault))) => {
                    self.dialect.fail(heading, &fault, frames);
                    self.answer = None;
                }
                Ok(None) => {
                    self.dialect.close(heading, answer.usage(), frames);
                    self.answer = None;
                    self.whole = true;
                }
            }
            if let Some(text) = frames.take() {
                return Some(text);
            }
        }
        // Whoever asks for what follows the last piece has taken that.
        if let Some(track) = self.track.take().filter(|_| self.whole) {
            track.tape.journal().end();
        }
        None
    }
}
