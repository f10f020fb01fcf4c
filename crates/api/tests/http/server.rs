//! A server in this process, with a backend that plays a script.

use api::*;
use proto::ids::Hash;
use proto::journal::AnswerPlan;
use proto::model::{Numerics, Sampling};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Longer than anything takes; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the model `m` does.
#[derive(Clone)]
pub(crate) enum Act {
    Say(&'static [u8]),
    /// The same, with the logarithm of its probability, and one other token.
    Score(&'static [u8], f32),
    Finish(Finish),
    Fail(Fault),
    /// Goes on saying the same until nobody listens.
    Babble,
    /// Says nothing more until nobody listens; an answer that goes on later does not stop here.
    Hang,
}

pub(crate) struct Script {
    acts: Vec<Act>,
    refuse: Option<Fault>,
    /// Whether the answer's text is to be taken apart by [`read`].
    syntax: bool,
    health: Mutex<Health>,
    pub(crate) asked: Mutex<Vec<GenerateRequest>>,
    /// Generations that ended because nobody listened any more.
    cancelled: watch::Sender<usize>,
    /// Tokens that went into the channel.
    pub(crate) said: watch::Sender<usize>,
}

impl Script {
    pub(crate) fn new(acts: Vec<Act>) -> Self {
        let health = Mutex::new(Health {
            state: HealthState::Ok,
            reasons: Vec::new(),
        });
        let (cancelled, said) = (watch::Sender::new(0), watch::Sender::new(0));
        Self {
            acts,
            refuse: None,
            syntax: false,
            health,
            asked: Mutex::default(),
            cancelled,
            said,
        }
    }

    pub(crate) fn refusing(fault: Fault) -> Self {
        Self {
            refuse: Some(fault),
            ..Self::new(Vec::new())
        }
    }

    /// A model that thinks and calls, in the syntax of [`read`].
    pub(crate) fn calling(acts: Vec<Act>) -> Self {
        Self {
            syntax: true,
            ..Self::new(acts)
        }
    }

    pub(crate) fn set_health(&self, state: HealthState, reasons: &[&str]) {
        let reasons = reasons.iter().map(ToString::to_string).collect();
        *self.health.lock().unwrap() = Health { state, reasons };
    }

    /// Waits until so many generations were cancelled.
    pub(crate) async fn cancelled(&self, count: usize) {
        let mut cancelled = self.cancelled.subscribe();
        let wait = cancelled.wait_for(|n| *n == count);
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the receiver is dropped")
            .unwrap();
    }
}

impl Backend for Script {
    fn models(&self) -> Vec<ModelCard> {
        let card = |id: &str| ModelCard {
            id: id.into(),
            created: 1000,
            owned_by: "test".into(),
            ..ModelCard::default()
        };
        let known = ModelCard {
            context_tokens: Some(2048),
            parameters: Some(1_500_000_000),
            file_bytes: Some(99),
            sha256: Some("ab".repeat(32)),
            architecture: Some("llama".into()),
            quantisation: Some("Q4_K_M".into()),
            embedding_width: Some(2),
            template: Some("{{ messages }}".into()),
            loaded: true,
            ..card("m")
        };
        vec![known, card("owner/other model")]
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    async fn generate(&self, request: GenerateRequest) -> Result<Generation, Fault> {
        if request.model != "m" {
            return Err(Fault::model_not_found(&request.model));
        }
        let drawn = request.resume.as_ref().map(|resume| resume.drawn.len());
        self.asked.lock().unwrap().push(request);
        if let Some(fault) = &self.refuse {
            return Err(fault.clone());
        }
        let (events, receiver) = mpsc::channel(4);
        let acts = match drawn {
            Some(drawn) => behind(&self.acts, drawn),
            None => self.acts.clone(),
        };
        let stage = (acts, self.cancelled.clone(), self.said.clone());
        tokio::spawn(async move {
            let (acts, cancelled, said) = stage;
            if play(acts, &events, &said).await.is_none() {
                cancelled.send_modify(|n| *n += 1);
            }
        });
        let fingerprint = Some("fp".into());
        Ok(Generation {
            prompt_tokens: 7,
            plan: Some(Box::new(plan(self.syntax))),
            model: "m".into(),
            fingerprint,
            syntax: self.syntax.then(|| "tags".into()),
            stops: vec!["<end>".into()],
            events: receiver,
        })
    }

    async fn read(&self, syntax: &str, text: &str, partial: bool) -> Result<Message, Fault> {
        assert_eq!(syntax, "tags");
        read(text, partial).ok_or_else(|| Fault::internal("an unfinished call"))
    }

    fn metrics(&self) -> Vec<Family> {
        vec![Family::plain(
            "test_gauge",
            "For the test.",
            FamilyKind::Gauge,
            3.0,
        )]
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Fault> {
        let vector = |input: &Input| match input {
            Input::Text(text) => vec![text.len() as f32, 0.5],
            Input::Tokens(tokens) => vec![tokens.len() as f32, -0.5],
        };
        Ok(Embeddings {
            model: request.model,
            vectors: request.inputs.iter().map(vector).collect(),
            prompt_tokens: 5,
        })
    }

    async fn tokenize(&self, request: TokenizeRequest) -> Result<Vec<Piece>, Fault> {
        let begin = Piece {
            id: 1000,
            bytes: b"<s>".to_vec(),
        };
        let begin = request.add_special.then_some(begin);
        let bytes = request.text.bytes().map(|byte| Piece {
            id: byte.into(),
            bytes: vec![byte],
        });
        Ok(begin.into_iter().chain(bytes).collect())
    }

    async fn detokenize(&self, _model: String, tokens: Vec<i32>) -> Result<Vec<u8>, Fault> {
        let bytes: Option<_> = tokens.into_iter().map(|id| id.try_into().ok()).collect();
        bytes.ok_or_else(|| Fault::invalid("tokens", "no such token"))
    }

    async fn render(&self, request: RenderRequest) -> Result<Rendered, Fault> {
        let text = serde_json::to_string(&request.conversation).unwrap();
        Ok(Rendered { text, tokens: 42 })
    }

    async fn pull(&self, name: String) -> Result<mpsc::Receiver<PullEvent>, Fault> {
        let (sender, receiver) = mpsc::channel(4);
        let fetching = PullEvent::Fetching {
            sha256: Some("ab".repeat(32)),
            total: 10,
            completed: 4,
        };
        let full = PullEvent::Failed(Fault::internal("the disk is full"));
        let events = match name.as_str() {
            "good" => vec![fetching, PullEvent::Verifying, PullEvent::Done],
            "bad" => vec![fetching, full],
            "broken" => vec![fetching],
            _ => return Err(Fault::model_not_found(&name)),
        };
        for event in events {
            sender.try_send(event).unwrap();
        }
        Ok(receiver)
    }
}

/// Takes `<think>a</think>b<call f>{}</call>` apart; `None` if a call is cut off and must not be.
fn read(text: &str, partial: bool) -> Option<Message> {
    let mut message = Message::default();
    let mut rest = text;
    if let Some(thoughts) = rest.strip_prefix("<think>") {
        let (reasoning, after) = thoughts.split_once("</think>").unwrap_or((thoughts, ""));
        message.reasoning = reasoning.into();
        rest = after;
    }
    let mut calls = rest.split("<call ");
    message.content = calls.next().unwrap_or_default().into();
    for call in calls {
        let (name, arguments) = call.split_once('>').unwrap_or((call, ""));
        let whole = arguments.strip_suffix("</call>");
        if whole.is_none() && !partial {
            return None;
        }
        message.tool_calls.push(ToolCall {
            id: String::new(),
            name: name.into(),
            arguments: whole.unwrap_or(arguments).split("</").next()?.into(),
        });
    }
    Some(message)
}

/// `None` when nobody listened to the end.
async fn play(
    acts: Vec<Act>,
    events: &mpsc::Sender<GenerateEvent>,
    said: &watch::Sender<usize>,
) -> Option<()> {
    for act in acts {
        match act {
            Act::Say(piece) => {
                events.send(token(piece.to_vec(), None)).await.ok()?;
                said.send_modify(|n| *n += 1);
            }
            Act::Score(piece, logprob) => {
                let top = vec![(1, piece.to_vec(), logprob), (2, b"\xFF".to_vec(), -3.5)];
                let logprobs = Some(TokenLogprobs { logprob, top });
                events.send(token(piece.to_vec(), logprobs)).await.ok()?;
            }
            Act::Finish(reason) => events.send(GenerateEvent::Finished { reason }).await.ok()?,
            Act::Fail(fault) => events.send(GenerateEvent::Failed(fault)).await.ok()?,
            Act::Babble => loop {
                let piece = vec![b'x'; 1 << 16];
                events.send(token(piece, None)).await.ok()?;
                said.send_modify(|n| *n += 1);
            },
            Act::Hang => {
                events.closed().await;
                return None;
            }
        }
    }
    Some(())
}

/// What is left when so many tokens were said.
fn behind(acts: &[Act], drawn: usize) -> Vec<Act> {
    let acts = acts.iter().filter(|act| !matches!(act, Act::Hang));
    acts.skip(drawn).cloned().collect()
}

fn plan(syntax: bool) -> AnswerPlan {
    AnswerPlan {
        model: Hash([0; 32]),
        fingerprint: "fp".into(),
        numerics: Numerics::Exact,
        grid_rows: 256,
        prompt: vec![0; 7],
        grammar: None,
        syntax: syntax.then(|| "tags".into()),
        stops: vec!["<end>".into()],
        sampling: Sampling::GREEDY,
        tokens_max: 100,
    }
}

/// How many tokens of every prompt were not computed anew.
const REUSED: u32 = 2;

fn token(piece: Vec<u8>, logprobs: Option<TokenLogprobs>) -> GenerateEvent {
    let (id, reused) = (1, REUSED);
    GenerateEvent::Token {
        id,
        piece,
        logprobs,
        reused,
    }
}

/// A server for one test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Script>,
    pub(crate) config: ApiConfig,
    pub(crate) client: reqwest::Client,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(script: Script) -> Self {
        Self::configured(script, ApiConfig::default()).await
    }

    pub(crate) async fn configured(script: Script, config: ApiConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(script);
        let extra = axum::Router::new().route("/myzel/x", axum::routing::get(|| async { "extra" }));
        let router = router(Arc::clone(&script), config.clone()).merge(extra);
        let task = tokio::spawn(serve(listener, router, config.clone()));
        // The workspace builds reqwest without a provider of its own, and it wants one even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            address,
            script,
            config,
            client,
            task,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// A request with a JSON body to any route.
    pub(crate) async fn send(&self, path: &str, body: Value) -> reqwest::Response {
        let request = self.client.post(self.url(path)).body(body.to_string());
        request.send().await.unwrap()
    }

    /// The same; the body of an answer that is fine.
    pub(crate) async fn json(&self, path: &str, body: Value) -> Value {
        let response = self.send(path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The conversation of the last question.
    pub(crate) fn conversation(&self) -> Value {
        let asked = self.script.asked.lock().unwrap();
        match &asked.last().unwrap().prompt {
            Prompt::Chat(conversation) => serde_json::to_value(conversation).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// `POST /v1/chat/completions` without a content type.
    pub(crate) fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.client
            .post(self.url("/v1/chat/completions"))
            .body(body)
    }

    /// A valid request with `fields` added or replaced.
    pub(crate) async fn ask(&self, fields: Value) -> reqwest::Response {
        self.post(question(fields)).send().await.unwrap()
    }

    /// The events of a streamed answer.
    pub(crate) async fn stream(&self, mut fields: Value) -> Vec<String> {
        fields["stream"] = true.into();
        let response = self.ask(fields).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        events(&response.text().await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.config.shutdown.cancel();
    }
}

/// The body of a valid request with `fields` added or replaced.
pub(crate) fn question(fields: Value) -> String {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    replaced(body, &fields).to_string()
}

/// An object with `fields` added or replaced.
pub(crate) fn replaced(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Fails unless `response` is a 400 for `CODE PARAM`, where the code may be cut short.
pub(crate) async fn refused(response: reqwest::Response, expected: &str) {
    assert_eq!(response.status(), 400, "{expected}");
    let body: Value = response.json().await.unwrap();
    let (code, param) = expected.split_once(' ').unwrap();
    let found = body["error"]["code"].as_str().unwrap();
    assert!(found.starts_with(code), "{expected}: {body}");
    assert_eq!(body["error"]["param"], param, "{body}");
}

/// The `data` of each event; fails if there is anything else but comments.
pub(crate) fn events(text: &str) -> Vec<String> {
    let blocks = text
        .split_terminator("\n\n")
        .filter(|block| !block.starts_with(':'));
    blocks
        .map(|block| block.strip_prefix("data: ").expect(block).to_owned())
        .collect()
}

/// The `data` of each named event, which must be of the type that it is named; without what is random.
pub(crate) fn named_events(text: &str) -> Vec<Value> {
    let one = |block: &str| {
        let (name, data) = block.split_once("\ndata: ").expect(block);
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    text.split_terminator("\n\n").map(one).collect()
}

/// Fails unless `response` is OpenAI's error with this status and code; returns the error.
pub(crate) async fn error(response: reqwest::Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    let error = body["error"].clone();
    assert_eq!(error["code"], code, "{body}");
    assert!(
        error["message"].is_string() && error["type"].is_string(),
        "{body}"
    );
    let fields = if error.get("n_ctx").is_some() { 6 } else { 4 };
    assert_eq!(error.as_object().unwrap().len(), fields, "{body}");
    error
}
