//! An answer that has been admitted: waits for its place, computes, replies.

use super::places::Places;
use crate::home::{Home, HomeSession};
use crate::ring::Ring;
use crate::ring::session::{self, Course, Taker};
use crate::status::Rates;
use api::{Fault, Finish, GenerateEvent};
use engine::Host;
use proto::host::{Drawn, Steer};
use proto::ids::{SessionId, ShareScope};
use proto::model::Sampling;
use proto::ring::RETAINED_BYTES_MAX;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use swarm::session::{FinishReason, PlanError, Session, SessionFault, SessionPlan};
use tokio::sync::mpsc;

/// How often an answer goes on over another ring when it has lost one.
const MOVES_MAX: u32 = 8;

/// Where an answer is computed.
#[derive(Debug, Clone)]
pub(super) enum Path {
    Home(Arc<Home>),
    Ring(Course),
}

/// An answer to compute.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) path: Path,
    pub(super) host: Arc<Host>,
    pub(super) prompt: Vec<i32>,
    /// What an answer that goes on has already.
    pub(super) drawn: Vec<i32>,
    pub(super) sampling: Sampling,
    /// What else is asked of the tokens; its session is this answer's.
    pub(super) steer: Option<Steer>,
    /// The most tokens of the whole answer.
    pub(super) tokens_max: u32,
    /// Requests that are computed at once.
    pub(super) sharers: u32,
    /// Who asks: shares places fairly with others, and computed prefixes with nobody else.
    pub(super) caller: ShareScope,
}

/// A session of the engine, which is forgotten with this, whatever ends the answer.
struct EngineSession {
    host: Arc<Host>,
    id: SessionId,
}

impl Drop for EngineSession {
    fn drop(&mut self) {
        self.host.drop_session(self.id);
    }
}

/// Where tokens go, and what is counted on the way.
#[derive(Debug)]
pub(crate) struct Reply {
    events: mpsc::Sender<GenerateEvent>,
    rates: Arc<Mutex<Rates>>,
    begun: Instant,
    /// Microseconds after `begun` of the first and the newest token.
    first_us: AtomicU64,
    newest_us: AtomicU64,
    tokens: AtomicU64,
}

impl Reply {
    pub(super) fn new(events: mpsc::Sender<GenerateEvent>, rates: Arc<Mutex<Rates>>) -> Self {
        let (first_us, newest_us) = Default::default();
        let begun = Instant::now();
        Self {
            events,
            rates,
            begun,
            first_us,
            newest_us,
            tokens: AtomicU64::new(0),
        }
    }

    /// Passes a token on; waits for a slow client.
    pub(crate) async fn token(&self, drawn: Drawn) {
        let us = self.begun.elapsed().as_micros() as u64;
        if self.tokens.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_us.store(us, Ordering::Relaxed);
        }
        self.newest_us.store(us, Ordering::Relaxed);
        // A client that is gone is noticed by `closed`.
        let _ = self
            .events
            .send(GenerateEvent::Token {
                id: drawn.token,
                piece: drawn.piece,
                reused: drawn.reused,
                logprobs: drawn.logprobs.map(|given| api::TokenLogprobs {
                    logprob: given.drawn,
                    top: given
                        .top
                        .into_iter()
                        .map(|one| (one.token, one.piece, one.logprob))
                        .collect(),
                }),
            })
            .await;
    }

    /// Waits until nobody listens any more.
    pub(crate) async fn closed(&self) {
        self.events.closed().await;
    }

    async fn end(self, end: Result<FinishReason, Fault>, prompt_tokens: u64) {
        self.count(end.is_err(), prompt_tokens);
        let event = match end {
            Ok(FinishReason::End) => GenerateEvent::Finished {
                reason: Finish::Stop,
            },
            Ok(FinishReason::Length | FinishReason::Context) => GenerateEvent::Finished {
                reason: Finish::Length,
            },
            Ok(FinishReason::Cancelled) => return,
            Err(fault) => GenerateEvent::Failed(fault),
        };
        // A client that is gone needs no end.
        let _ = self.events.send(event).await;
    }

    fn count(&self, failed: bool, prompt_tokens: u64) {
        let tokens = self.tokens.load(Ordering::Relaxed);
        let first_us = self.first_us.load(Ordering::Relaxed);
        let newest_us = self.newest_us.load(Ordering::Relaxed);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.requests += 1;
        rates.failed += u64::from(failed);
        rates.tokens += tokens;
        rates.prompt_tokens += prompt_tokens;
        if tokens > 1 && newest_us > first_us {
            rates.decode_tokens_per_s = (tokens - 1) as f64 * 1e6 / (newest_us - first_us) as f64;
            rates.first_token_ms = first_us / 1000;
        }
    }
}

impl Job {
    pub(super) async fn run(self, places: Arc<Places>, reply: Reply) {
        let prompt_tokens = self.prompt.len() as u64;
        let place = tokio::select! {
            place = places.take(self.caller) => place,
            () = reply.closed() => return,
        };
        let end = self.compute(&reply).await;
        drop(place);
        reply.end(end, prompt_tokens).await;
    }

    async fn compute(mut self, reply: &Reply) -> Result<FinishReason, Fault> {
        // A token is drawn by seed and position alone, so what was drawn before is as good as prompt.
        self.tokens_max = self.tokens_max.saturating_sub(self.drawn.len() as u32);
        self.prompt.append(&mut self.drawn);
        if self.tokens_max == 0 {
            return Ok(FinishReason::Length);
        }
        let steer = self.steer.take();
        let id = steer
            .as_ref()
            .map_or_else(|| SessionId(rand::random()), |s| s.session);
        let session = EngineSession {
            host: self.host.clone(),
            id,
        };
        if let Some(steer) = steer {
            let param = match (&steer.grammar, steer.show_control) {
                (None, _) => "logit_bias",
                (Some(_), true) => "tools",
                (Some(_), false) => "response_format",
            };
            let steered = session.host.steer(steer).await;
            steered.map_err(|error| super::refused(error, param))?;
        }
        match self.path.clone() {
            Path::Home(_home) => tokio::select! {
                end = self.at_home(id, reply) => end,
                () = reply.closed() => Ok(FinishReason::Cancelled),
            },
            Path::Ring(course) => self.over(course, id, reply).await,
        }
    }

    async fn at_home(self, id: SessionId, reply: &Reply) -> Result<FinishReason, Fault> {
        let Self {
            host,
            prompt,
            sampling,
            tokens_max,
            caller,
            ..
        } = self;
        let mut session = HomeSession::new(host, id, (prompt, sampling), tokens_max, caller);
        loop {
            match session.next().await.map_err(|error| super::down(&error))? {
                Ok(drawn) => reply.token(drawn).await,
                Err(reason) => return Ok(reason),
            }
        }
    }

    async fn over(
        self,
        course: Course,
        id: SessionId,
        reply: &Reply,
    ) -> Result<FinishReason, Fault> {
        let machine = machine(
            &course.ring,
            &self.host,
            id,
            (self.prompt, self.tokens_max, self.sampling),
            self.sharers,
        )?;
        session::run(course, id, machine, Taker::Tokens(reply))
            .await
            .map_err(|(ring, fault)| explain(&ring, &fault))
    }
}

/// The vector of a text whose layers are spread over a ring: what enters the tail is pooled behind it.
pub(super) async fn embedding(
    course: &Course,
    host: Arc<Host>,
    text: Vec<i32>,
    sharers: u32,
) -> Result<Vec<f32>, Fault> {
    let engine = EngineSession {
        host: host.clone(),
        id: SessionId(rand::random()),
    };
    let all = text.len() * host.loaded().embedding_length as usize * size_of::<f32>();
    let machine = machine(
        &course.ring,
        &host,
        engine.id,
        (text, 1, Sampling::GREEDY),
        sharers,
    )?;
    let mut rows = Vec::new();
    session::run(course.clone(), engine.id, machine, Taker::Rows(&mut rows))
        .await
        .map_err(|(ring, fault)| explain(&ring, &fault))?;
    if rows.len() != all {
        return Err(Fault::internal("the ring did not compute all of the text"));
    }
    let vector = host.embed_rows(engine.id, &rows).await;
    vector.map_err(|error| super::refused(error, "input"))
}

/// The machine of one request over a ring, which is a prompt, the most tokens to draw, and how.
fn machine(
    ring: &Ring,
    host: &Host,
    session: SessionId,
    (prompt, tokens_max, sampling): (Vec<i32>, u32, Sampling),
    sharers: u32,
) -> Result<Session, Fault> {
    let loaded = host.loaded();
    let plan = SessionPlan {
        ring: ring.id,
        session,
        epoch: 1,
        stages: ring.remote_stages(),
        moves_max: MOVES_MAX,
        embedding_length: loaded.embedding_length,
        positions_max: loaded.positions_max,
        prompt,
        tokens_max,
        sampling,
        retained_bytes_max: RETAINED_BYTES_MAX,
        stage_retained_bytes_max: RETAINED_BYTES_MAX,
        sharers,
        guesses_max: ring.guessing.most,
        costs: ring.guessing.costs(),
    };
    Session::new(plan).map_err(|error| match error {
        PlanError::PromptTooLong {
            prompt,
            positions_max,
        } => Fault::context_exceeded(prompt as u32, positions_max),
        error => Fault::internal(error.to_string()),
    })
}

/// A session's fault for the client, with the names that people gave their nodes.
fn explain(ring: &Ring, fault: &SessionFault) -> Fault {
    if let SessionFault::Engine { .. } = fault {
        return Fault::internal(fault.to_string());
    }
    let named = fault.stage().and_then(|stage| {
        let host = ring.stages.get(stage.stage as usize - 1)?;
        Some((&host.member.name, ring.beside(host.stage)))
    });
    Fault::peer_lost(match named {
        Some((name, others)) if others.is_empty() => {
            format!("{fault} (the node is called {name:?})")
        }
        Some((name, others)) => {
            format!("{fault} (the node is called {name:?}, and had {others}, too)")
        }
        None => fault.to_string(),
    })
}
