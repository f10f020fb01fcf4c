//! The path of one answer: prompt, limits, place, and then home or ring.

mod places;
mod run;

pub(crate) use run::Reply;

use crate::home::Home;
use crate::ring::{Coordinator, Ring, State};
use crate::status::{Answers, Rates};
use api::{Backend, Caller, Fault, GenerateRequest, Generation, Health, HealthState, ModelCard};
use engine::{EngineError, Host};
use places::Places;
use proto::host::Loaded;
use proto::ids::{Hash, ShareScope};
use proto::model::Sampling;
use run::{Job, Path};
use std::sync::{Arc, Mutex, PoisonError};
use store::models::Model;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// How far an answer may run ahead of its client, in tokens.
const AHEAD_TOKENS: usize = 64;
/// Temperature where neither request nor model's makers say one.
const TEMPERATURE: f32 = 0.8;
/// `top_p` where neither request nor model's makers say one.
const TOP_P: f32 = 0.95;

/// Answers requests; what `api` calls.
#[derive(Debug)]
pub struct Requests {
    model: Model,
    created_s: u64,
    /// The whole model here; `None` once a ring took its place.
    home: Mutex<Option<Arc<Home>>>,
    ring: Option<Arc<Coordinator>>,
    /// Requests that are computed at once.
    places: Arc<Places>,
    rates: Arc<Mutex<Rates>>,
    tasks: TaskTracker,
    salt: [u8; 32],
}

impl Requests {
    /// Answers with `home`, or over `ring` as soon as it is up.
    #[must_use]
    pub fn new(
        model: Model,
        home: Option<Home>,
        ring: Option<Arc<Coordinator>>,
        sessions_max: u32,
        created_s: u64,
    ) -> Self {
        Self {
            model,
            created_s,
            home: Mutex::new(home.map(Arc::new)),
            ring,
            places: Places::new(sessions_max),
            rates: Arc::default(),
            tasks: TaskTracker::new(),
            salt: rand::random(),
        }
    }

    /// Counters and rates.
    #[must_use]
    pub fn rates(&self) -> Rates {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.places.taken()
    }

    /// The ring, where one was asked for.
    #[must_use]
    pub fn ring(&self) -> Option<&Arc<Coordinator>> {
        self.ring.as_ref()
    }

    /// Where the next request will be answered.
    #[must_use]
    pub fn answers(&self) -> Answers {
        match self.path() {
            Ok(Path::Home(_)) => Answers::Home,
            Ok(Path::Ring(_)) => Answers::Ring,
            Err(_) => Answers::Nowhere,
        }
    }

    /// The engine-host that the next request will use.
    ///
    /// # Errors
    ///
    /// A [`Fault`] that says why there is none.
    pub fn host(&self) -> Result<Arc<Host>, Fault> {
        self.engine(&self.path()?)
    }

    /// The engine-host on a path, and no more places than it has sessions: memory may have room for fewer than were asked for.
    fn engine(&self, path: &Path) -> Result<Arc<Host>, Fault> {
        let host = host_of(path).map_err(|error| down(&error))?;
        self.places.set_total(host.loaded().sessions_max);
        Ok(host)
    }

    /// Waits until every answer has ended.
    pub async fn shut_down(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Home until the first ring is up; from then on the ring alone, since its layers were asked to be elsewhere.
    fn path(&self) -> Result<Path, Fault> {
        let state = self.ring.as_ref().map(|ring| ring.watch().borrow().clone());
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(State::Up(ring)) = state {
            // Whoever still computes at home holds it until done.
            home.take();
            return Ok(Path::Ring(ring));
        }
        if let Some(home) = &*home {
            return Ok(Path::Home(home.clone()));
        }
        Err(match state {
            Some(State::Waiting { why: Some(why), .. }) => Fault::peer_lost(why),
            Some(State::Forming(_)) => Fault::not_ready("the ring is being formed; try again soon"),
            _ => Fault::not_ready("too few nodes are there for the ring; see: myzel status"),
        })
    }

    /// The conversation as tokens.
    async fn prompt(&self, host: &Host, request: &GenerateRequest) -> Result<Vec<i32>, Fault> {
        let messages = request.messages.iter().map(|message| {
            let role = message.role.as_str();
            serde_json::json!({ "role": role, "content": message.content })
        });
        let conversation = serde_json::json!({ "messages": messages.collect::<Vec<_>>() });
        let prompt = host
            .render(conversation.to_string())
            .await
            .map_err(|error| match error {
                EngineError::Failed(failed) => Fault::bad_request("chat_template", failed.detail),
                error => down(&error),
            })?;
        Ok(prompt.tokens)
    }

    /// A caller as the engine knows it. Hashed with a number of this process, so that no key leaves it.
    fn scope(&self, caller: &Caller) -> ShareScope {
        let key = caller.0.as_deref().unwrap_or_default();
        let text = [&self.salt, key.as_bytes()].concat();
        let mut scope = [0; ShareScope::LEN];
        scope.copy_from_slice(&Hash::of(&text).0[..ShareScope::LEN]);
        ShareScope(scope)
    }

    fn sampling(&self, request: &GenerateRequest) -> Sampling {
        let makers = self.model.sampling;
        Sampling {
            temperature: request
                .temperature
                .or(makers.map(|m| m.temperature))
                .unwrap_or(TEMPERATURE),
            top_k: request.top_k.unwrap_or(0),
            top_p: request.top_p.or(makers.map(|m| m.top_p)).unwrap_or(TOP_P),
            seed: request.seed.unwrap_or_else(rand::random),
        }
    }
}

/// What fixes the bits of an answer, in few characters: the model's root, and a hash of engine, CPU class and attention.
fn fingerprint(model: &Model, loaded: &Loaded) -> String {
    let Loaded {
        build,
        cpu_class,
        kv_type,
        flash_attention,
        ..
    } = loaded;
    let engine = format!("{build}/{cpu_class}/{kv_type}/{flash_attention}");
    format!(
        "{}-{}",
        model.blake3.short(),
        Hash::of(engine.as_bytes()).short()
    )
}

fn host_of(path: &Path) -> Result<Arc<Host>, EngineError> {
    match path {
        Path::Home(home) => home.host(),
        Path::Ring(ring) => ring_host(ring),
    }
}

fn ring_host(ring: &Ring) -> Result<Arc<Host>, EngineError> {
    ring.engine.host()
}

/// The engine here is not there, or was lost in the middle of an answer.
pub(crate) fn down(error: &EngineError) -> Fault {
    match error {
        EngineError::Down(why) => Fault::not_ready(format!(
            "the engine is not running: {why}; it is started again"
        )),
        EngineError::Quarantined(why) => Fault::quarantined(why),
        EngineError::Died(why) => Fault::internal(format!(
            "the engine process ended in the middle of this request: {why}; it is started again, ask again"
        )),
        error => Fault::internal(error.to_string()),
    }
}

impl Backend for Requests {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard {
            id: self.model.name.clone(),
            created: self.created_s,
            owned_by: "myzel".to_owned(),
        }]
    }

    fn health(&self) -> Health {
        match self.host() {
            Ok(_) => Health {
                state: HealthState::Ok,
                reasons: Vec::new(),
            },
            Err(fault) => Health {
                state: HealthState::Degraded,
                reasons: vec![fault.message],
            },
        }
    }

    async fn generate(&self, request: GenerateRequest) -> Result<Generation, Fault> {
        if request.model != self.model.name {
            return Err(Fault::model_not_found(&request.model));
        }
        let path = self.path()?;
        let host = self.engine(&path)?;
        let prompt = self.prompt(&host, &request).await?;
        let context = host.loaded().positions_max;
        let prompt_tokens = prompt.len() as u32;
        // The last position is for the first token of the answer.
        if prompt_tokens >= context {
            return Err(Fault::context_exceeded(prompt_tokens, context));
        }
        let bits = fingerprint(&self.model, host.loaded());
        let (events, receiver) = mpsc::channel(AHEAD_TOKENS);
        let job = Job {
            path,
            host,
            prompt,
            sampling: self.sampling(&request),
            sharers: self.places.total(),
            caller: self.scope(&request.caller),
            tokens_max: request
                .max_tokens
                .unwrap_or(u32::MAX)
                .min(context - prompt_tokens),
        };
        let reply = Reply::new(events, self.rates.clone());
        self.tasks.spawn(job.run(self.places.clone(), reply));
        Ok(Generation {
            prompt_tokens,
            model: self.model.name.clone(),
            fingerprint: Some(bits),
            events: receiver,
        })
    }
}
