//! Which path is answered by whom.

use crate::answer::Entry;
use crate::backend::{Backend, Caller, HealthState, ModelCard};
use crate::fault::Fault;
use crate::metrics::{self, Tally};
use crate::openai::{chat, completions, embeddings, models, tokens};
use crate::places::{Place, Places};
use crate::wire::required_model;
use crate::{
    ApiConfig, BODY_WAIT_MAX, access, anthropic, body, ollama, openapi, responses, streams,
};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;

/// What the handlers share.
pub(crate) struct App<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) config: ApiConfig,
    /// One for each answer at once.
    pub(crate) places: Arc<Places>,
    pub(crate) tally: Arc<Tally>,
}

type Route<B> = (&'static str, &'static str, MethodRouter<Arc<App<B>>>);

/// Every route: method, path as `GET /openapi.json` writes it, and who answers.
fn routes<B: Backend>() -> Vec<Route<B>> {
    vec![
        ("GET", "/", get(welcome::<B>)),
        ("GET", "/health", get(health::<B>)),
        ("GET", "/metrics", get(metrics::metrics::<B>)),
        ("GET", "/openapi.json", get(openapi::document)),
        ("GET", "/v1/models", get(models::list::<B>)),
        ("GET", "/v1/models/{model}", get(models::one::<B>)),
        ("POST", "/v1/chat/completions", post(chat::completions::<B>)),
        (
            "POST",
            "/v1/completions",
            post(completions::completions::<B>),
        ),
        ("POST", "/v1/embeddings", post(embeddings::embeddings::<B>)),
        ("POST", "/v1/responses", post(responses::create::<B>)),
        ("POST", "/v1/messages", post(anthropic::messages::<B>)),
        ("GET", "/v1/streams/{id}", get(streams::resume::<B>)),
        (
            "POST",
            "/v1/messages/count_tokens",
            post(anthropic::count_tokens::<B>),
        ),
        ("POST", "/tokenize", post(tokens::tokenize::<B>)),
        ("POST", "/detokenize", post(tokens::detokenize::<B>)),
        ("POST", "/apply-template", post(chat::apply_template::<B>)),
        ("GET", "/ollama", get(ollama::running)),
        ("POST", "/ollama/api/chat", post(ollama::chat::<B>)),
        ("POST", "/ollama/api/generate", post(ollama::generate::<B>)),
        ("POST", "/ollama/api/embed", post(ollama::embed::<B>)),
        (
            "POST",
            "/ollama/api/embeddings",
            post(ollama::embeddings::<B>),
        ),
        ("GET", "/ollama/api/tags", get(ollama::tags::<B>)),
        ("POST", "/ollama/api/show", post(ollama::show::<B>)),
        ("GET", "/ollama/api/ps", get(ollama::ps::<B>)),
        ("GET", "/ollama/api/version", get(ollama::version)),
        ("POST", "/ollama/api/pull", post(ollama::pull::<B>)),
    ]
}

/// The routes. The node merges its own into the result; [`serve`](crate::serve()) guards them all.
pub fn router<B: Backend>(backend: Arc<B>, config: ApiConfig) -> Router {
    let places = Places::new(config.requests_max);
    let mut router = Router::new().route("/ollama/", get(ollama::running));
    for (_, path, answer) in routes() {
        // Names of models may contain slashes.
        router = router.route(&path.replace("{model}", "{*model}"), answer);
    }
    router
        .fallback(unknown_url)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::new(App {
            backend,
            config,
            places,
            tally: Arc::default(),
        }))
}

impl<B: Backend> App<B> {
    /// Gives a request its place, before anything of its body is kept, and reads the body.
    pub(crate) async fn admit(&self, request: Request) -> Result<(Entry, Vec<u8>), Fault> {
        let caller = access::caller(request.headers());
        let room = access::room(request.headers())?;
        let place = self.place(&caller)?;
        let body = body::read(request.into_body(), BODY_WAIT_MAX).await?;
        let entry = Entry {
            caller,
            room,
            place,
        };
        Ok((entry, body))
    }

    /// A place among the requests that are answered at once.
    pub(crate) fn place(&self, caller: &Caller) -> Result<Place, Fault> {
        self.places.take(caller.clone()).ok_or_else(|| {
            let most = self.config.requests_max;
            Fault::overloaded(format!(
                "{most} requests are being answered already; ask again in a moment"
            ))
        })
    }

    /// A question to the backend, given up when the node ends.
    pub(crate) async fn until_shutdown<T>(
        &self,
        question: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        tokio::select! {
            biased;
            () = self.config.shutdown.cancelled() => Err(Fault::shutting_down()),
            answer = question => answer,
        }
    }

    /// The card of a model.
    pub(crate) fn card(&self, id: &str) -> Result<ModelCard, Fault> {
        let mut cards = self.backend.models().into_iter();
        cards
            .find(|card| card.id == id)
            .ok_or_else(|| Fault::model_not_found(id))
    }

    /// The model that was named; the node's only one if none was.
    pub(crate) fn model_or_only(&self, named: Option<String>) -> Result<String, Fault> {
        match (named, self.backend.models().as_slice()) {
            (None, [only]) => Ok(only.id.clone()),
            (named, _) => required_model(named),
        }
    }
}

async fn welcome<B: Backend>() -> String {
    let lines = routes::<B>()
        .into_iter()
        .map(|(method, path, _)| format!("  {method:4} {path}\n"));
    let lines: String = lines.collect();
    format!(
        "This is a Myzel node. It speaks the dialects of OpenAI, Anthropic and Ollama;\n\
         GET /openapi.json says which fields it knows.\n\n{lines}"
    )
}

async fn health<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let health = app.backend.health();
    let (status, word) = match health.state {
        HealthState::Ok => (StatusCode::OK, "ok"),
        HealthState::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        HealthState::Degraded => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let body = json!({"status": word, "reasons": health.reasons});
    (status, Json(body)).into_response()
}

async fn unknown_url(method: Method, uri: Uri) -> Fault {
    Fault::unknown_url(method, uri.path())
}

async fn method_not_allowed(method: Method, uri: Uri) -> Fault {
    Fault::method_not_allowed(method, uri.path())
}
