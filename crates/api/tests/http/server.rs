//! A server in this process, with a backend that plays a script.

use api::*;
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
    Finish(Finish),
    Fail(Fault),
    /// Goes on saying the same until nobody listens.
    Babble,
    /// Says nothing more until nobody listens.
    Hang,
}

pub(crate) struct Script {
    acts: Vec<Act>,
    refuse: Option<Fault>,
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
        };
        vec![card("m"), card("owner/other model")]
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    async fn generate(&self, request: GenerateRequest) -> Result<Generation, Fault> {
        if request.model != "m" {
            return Err(Fault::model_not_found(&request.model));
        }
        self.asked.lock().unwrap().push(request);
        if let Some(fault) = &self.refuse {
            return Err(fault.clone());
        }
        let (events, receiver) = mpsc::channel(4);
        let stage = (self.acts.clone(), self.cancelled.clone(), self.said.clone());
        tokio::spawn(async move {
            let (acts, cancelled, said) = stage;
            if play(acts, &events, &said).await.is_none() {
                cancelled.send_modify(|n| *n += 1);
            }
        });
        let fingerprint = Some("fp".into());
        Ok(Generation {
            prompt_tokens: 7,
            model: "m".into(),
            fingerprint,
            events: receiver,
        })
    }
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
                events
                    .send(GenerateEvent::Token {
                        id: 1,
                        piece: piece.to_vec(),
                    })
                    .await
                    .ok()?;
                said.send_modify(|n| *n += 1);
            }
            Act::Finish(reason) => events.send(GenerateEvent::Finished { reason }).await.ok()?,
            Act::Fail(fault) => events.send(GenerateEvent::Failed(fault)).await.ok()?,
            Act::Babble => loop {
                let piece = vec![b'x'; 1 << 16];
                events
                    .send(GenerateEvent::Token { id: 1, piece })
                    .await
                    .ok()?;
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
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
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
    assert_eq!(error.as_object().unwrap().len(), 4, "{body}");
    error
}
