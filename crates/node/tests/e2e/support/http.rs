//! Questions to a node as an OpenAI client asks them.

use futures::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;

/// An answer in full.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// `stop` or `length`.
    pub(crate) finish: String,
    /// Null in a stream that did not ask for it.
    pub(crate) usage: Value,
}

/// A refusal before an answer began, or the error event inside a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// 0 inside a stream.
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) param: Value,
}

impl Refusal {
    fn of(status: u16, body: &Value) -> Self {
        let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        let (code, message) = (text("code"), text("message"));
        assert!(
            !code.is_empty() && !message.is_empty(),
            "not an OpenAI error: {body}"
        );
        Self {
            status,
            code,
            message,
            param: body["error"]["param"].clone(),
        }
    }

    /// Asserts that the message has each of these parts.
    pub(crate) fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(
                self.message.contains(part),
                "{part:?} is not in: {}",
                self.message
            );
        }
    }
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Text(String),
    Finish(String),
    Usage(Value),
    Error(Refusal),
    Done,
}

/// A question; more fields are set by the caller.
pub(crate) fn question(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// A question for the most probable tokens, at most `max_tokens` of them.
pub(crate) fn greedy(text: &str, max_tokens: u32) -> Value {
    with(
        question(text),
        json!({"temperature": 0, "max_tokens": max_tokens}),
    )
}

/// A question for tokens drawn with `seed`.
pub(crate) fn seeded(text: &str, seed: u64, max_tokens: u32) -> Value {
    let sampling =
        json!({"temperature": 1.0, "top_p": 0.95, "seed": seed, "max_tokens": max_tokens});
    with(question(text), sampling)
}

/// `body` with more fields.
pub(crate) fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else {
        panic!("fields are an object: {more}")
    };
    body.as_object_mut()
        .expect("a body is an object")
        .extend(more);
    body
}

/// A client of one node's endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    model: String,
    key: Option<String>,
}

impl Client {
    /// For the endpoint at `url`, such as `http://127.0.0.1:7717/v1`.
    pub(crate) fn new(url: &str, model: &str) -> Self {
        // A second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(120));
        let http = http.build().expect("a client can be made");
        Self {
            http,
            url: url.to_owned(),
            model: model.to_owned(),
            key: None,
        }
    }

    /// The same with this key, or none.
    pub(crate) fn key(self, key: Option<&str>) -> Self {
        let key = key.map(ToOwned::to_owned);
        Self { key, ..self }
    }

    /// Asks for an answer that only those in a room may see.
    pub(crate) async fn ask_in(&self, room: &str, body: Value) -> Result<(), Refusal> {
        let post = self.http.post(format!("{}/chat/completions", self.url));
        let post = post.header("content-type", "application/json");
        let post = post.header("x-myzel-room", room).body(self.named(body));
        let reply = post.send().await.expect("the node answers");
        refused(reply).await.map(drop)
    }

    /// The JSON of a route, with its status.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let base = self.url.trim_end_matches("/v1");
        self.json(self.http.get(format!("{base}{path}"))).await
    }

    /// The JSON that a route answers a body with, and its status; the model is named if the body does not.
    pub(crate) async fn send(&self, path: &str, body: Value) -> (u16, Value) {
        let base = self.url.trim_end_matches("/v1");
        let post = self.http.post(format!("{base}{path}"));
        let post = post.header("content-type", "application/json");
        self.json(post.body(self.named(body))).await
    }

    async fn json(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let reply = request.send().await.expect("the node answers");
        (reply.status().as_u16(), reply.json().await.expect("JSON"))
    }

    /// Sends a body as it is.
    pub(crate) async fn post(
        &self,
        body: impl Into<reqwest::Body>,
    ) -> Result<Response, reqwest::Error> {
        let post = self.http.post(format!("{}/chat/completions", self.url));
        post.header("content-type", "application/json")
            .body(body)
            .send()
            .await
    }

    async fn chat(&self, body: Value) -> Result<Response, Refusal> {
        let reply = self.post(self.named(body)).await.expect("the node answers");
        refused(reply).await
    }

    fn named(&self, body: Value) -> String {
        if body["model"].is_null() {
            with(body, json!({"model": self.model})).to_string()
        } else {
            body.to_string()
        }
    }

    /// Asks where the connection itself may be refused; says whether an answer came.
    pub(crate) async fn try_ask(&self, body: Value) -> Result<Result<(), Refusal>, reqwest::Error> {
        let reply = self.post(self.named(body)).await?;
        Ok(refused(reply).await.map(drop))
    }

    /// Asks without streaming.
    pub(crate) async fn ask(&self, body: Value) -> Result<Answer, Refusal> {
        let reply: Value = self.chat(body).await?.json().await.expect("JSON");
        let choice = &reply["choices"][0];
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Ok(Answer {
            text: text(&choice["message"]["content"]),
            finish: text(&choice["finish_reason"]),
            usage: reply["usage"].clone(),
        })
    }

    /// Asks for a stream.
    pub(crate) async fn open(&self, body: Value) -> Result<Stream, Refusal> {
        let reply = self.chat(with(body, json!({"stream": true}))).await?;
        Ok(Stream::of(reply))
    }

    /// Asks for what comes in a stream behind the event with this id.
    pub(crate) async fn resume(&self, name: &str, seen: Option<&str>) -> Result<Stream, Refusal> {
        let mut get = self.http.get(format!("{}/streams/{name}", self.url));
        if let Some(seen) = seen {
            get = get.header("Last-Event-ID", seen);
        }
        if let Some(key) = &self.key {
            get = get.bearer_auth(key);
        }
        let reply = get.send().await.expect("the node answers");
        Ok(Stream::of(refused(reply).await?))
    }

    /// Asks for a stream with counts, and reads all of it.
    pub(crate) async fn stream(&self, body: Value) -> Result<Answer, Refusal> {
        let body = with(body, json!({"stream_options": {"include_usage": true}}));
        self.open(body).await?.answer().await
    }

    /// Host and port of the endpoint.
    pub(crate) fn address(&self) -> String {
        let url = reqwest::Url::parse(&self.url).expect("a URL");
        url.authority().to_owned()
    }
}

/// The reply, or the error in it.
pub(crate) async fn refused(reply: Response) -> Result<Response, Refusal> {
    let status = reply.status().as_u16();
    if status == 200 {
        return Ok(reply);
    }
    let body = reply.text().await.expect("a body");
    let json =
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} is not JSON: {body}"));
    Err(Refusal::of(status, &json))
}

/// An answer that is being streamed. Dropping it hangs up.
pub(crate) struct Stream {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
    ready: VecDeque<(Option<String>, Event)>,
    /// The id of the event that is being read.
    id: Option<String>,
    /// By which it is resumed, if it can be.
    pub(crate) name: Option<String>,
    /// The id of the last event that was given out.
    pub(crate) seen: Option<String>,
}

impl Stream {
    fn of(reply: Response) -> Self {
        let name = reply.headers().get("x-myzel-stream");
        let name = name.map(|name| name.to_str().expect("a name").to_owned());
        Self {
            bytes: reply.bytes_stream().boxed(),
            buffer: Vec::new(),
            ready: VecDeque::new(),
            id: None,
            name,
            seen: None,
        }
    }

    /// The next event; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((id, event)) = self.ready.pop_front() {
                self.seen = id.or(self.seen.take());
                return Some(event);
            }
            let bytes = self.bytes.next().await?.expect("the connection holds");
            self.buffer.extend_from_slice(&bytes);
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8(line).expect("events are text");
                if let Some(id) = line.trim_end().strip_prefix("id: ") {
                    self.id = Some(id.to_owned());
                }
                if let Some(data) = line.trim_end().strip_prefix("data: ") {
                    let id = self.id.take();
                    self.ready.extend(event(data).map(|event| (id, event)));
                }
            }
        }
    }

    /// Reads to the end what has not been read.
    pub(crate) async fn answer(&mut self) -> Result<Answer, Refusal> {
        let mut answer = Answer {
            text: String::new(),
            finish: String::new(),
            usage: Value::Null,
        };
        loop {
            let event = self.next().await;
            match event.expect("a stream ends with [DONE] or an error") {
                Event::Text(text) => answer.text += &text,
                Event::Finish(finish) => answer.finish = finish,
                Event::Usage(usage) => answer.usage = usage,
                Event::Error(refusal) => return Err(refusal),
                Event::Done => return Ok(answer),
            }
        }
    }

    /// Reads until `n` pieces of text have come, and returns them as one.
    pub(crate) async fn texts(&mut self, n: usize) -> String {
        let mut all = String::new();
        for seen in 0..n {
            match self.next().await {
                Some(Event::Text(text)) => all += &text,
                other => panic!("after {seen} pieces of text came {other:?}"),
            }
        }
        all
    }

    /// Reads to the error event; nothing may follow it. Asserts that the answer did not end in any other way.
    pub(crate) async fn error(&mut self) -> Refusal {
        loop {
            match self.next().await {
                Some(Event::Text(_)) => {}
                Some(Event::Error(refusal)) => {
                    assert_eq!(self.next().await, None, "something came after the error");
                    return refusal;
                }
                other => panic!("an error was expected in the stream, and {other:?} came"),
            }
        }
    }
}

fn event(data: &str) -> Option<Event> {
    if data == "[DONE]" {
        return Some(Event::Done);
    }
    let json: Value = serde_json::from_str(data).expect("events are JSON");
    if json.get("error").is_some() {
        return Some(Event::Error(Refusal::of(0, &json)));
    }
    let choice = &json["choices"][0];
    if let Some(finish) = choice["finish_reason"].as_str() {
        return Some(Event::Finish(finish.to_owned()));
    }
    if choice.is_null() {
        return Some(Event::Usage(json["usage"].clone()));
    }
    // The first chunk only says who speaks.
    let text = choice["delta"]["content"]
        .as_str()
        .filter(|text| !text.is_empty())?;
    Some(Event::Text(text.to_owned()))
}
