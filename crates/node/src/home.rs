//! The whole model on this machine.

use crate::memory::Reserved;
use engine::{Answers, EngineError, Host, Launch, Patient, Supervisor, Ward};
use proto::host::{Answer, Draw, Drawn, KvType, LoadSpec, Output, Part, Role, Run};
use proto::ids::{SessionId, ShareScope};
use proto::model::{Numerics, Sampling};
use std::sync::Arc;
use store::models::Model;
use swarm::session::FinishReason;

/// Tokens that the engine draws before it asks us again: enough to hide the question, few enough that a
/// client that went away costs little.
const BURST: u32 = 32;
/// Rows of one step at most: the size at which prefill is fastest on CPUs.
pub const STEP_ROWS: u32 = 512;

/// How engine-hosts of this node are set up.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// How to start one.
    pub launch: Launch,
    /// The numerics mode.
    pub numerics: Numerics,
    /// Positions of each session; 0 leaves it to the model.
    pub positions_max: u32,
    /// Sessions at once.
    pub sessions_max: u32,
    /// How cache entries are kept.
    pub kv: KvType,
    /// How far positions are stretched.
    pub rope_scale: Option<f32>,
    /// The most bytes of one engine-host's caches.
    pub kv_bytes_max: Option<u64>,
    /// The most threads, or `None` for as many as there are cores.
    pub threads: Option<u32>,
    /// Tokens that are guessed at once, at most; 0 guesses none.
    pub guesses_max: u32,
    /// Whether others are served though the engine is not fully locked up.
    pub allow_unsandboxed: bool,
    /// The record of models that engine-hosts died with.
    pub ward: Arc<Ward>,
}

impl EngineSettings {
    /// What an engine-host with these parts is told to load; `lanes` hosts take turns in a lap of the ring.
    #[must_use]
    pub fn load(&self, parts: Vec<Part>, lanes: u32) -> LoadSpec {
        LoadSpec {
            positions_max: self.positions_max,
            sessions_max: self.sessions_max,
            step_rows_max: STEP_ROWS,
            threads: self.threads,
            lanes,
            kv: self.kv,
            rope_scale: self.rope_scale,
            kv_bytes_max: self.kv_bytes_max,
            guesses_max: self.guesses_max,
            ..LoadSpec::new(parts, self.numerics)
        }
    }

    /// Starts an engine-host with these parts of a model, and keeps it alive.
    #[must_use]
    pub fn start(&self, model: &Model, parts: Vec<Part>, lanes: u32) -> Supervisor {
        let patient = Patient {
            model: model.blake3,
            name: model.name.clone(),
            ward: self.ward.clone(),
        };
        Supervisor::start(self.launch.clone(), self.load(parts, lanes), patient)
    }
}

/// An engine-host with the whole model.
#[derive(Debug)]
pub struct Home {
    supervisor: Supervisor,
    /// The memory that it takes.
    _reserved: Option<Reserved>,
}

impl Home {
    /// Starts the engine-host and waits until it has loaded.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when it cannot load or dies.
    pub async fn start(
        settings: &EngineSettings,
        model: &Model,
        reserved: Option<Reserved>,
    ) -> Result<Self, EngineError> {
        let supervisor = settings.start(model, vec![Part::of(Role::Whole, &model.path)], 1);
        supervisor.ready().await?;
        Ok(Self {
            supervisor,
            _reserved: reserved,
        })
    }

    /// The living engine-host.
    ///
    /// # Errors
    ///
    /// [`EngineError::Down`] while it starts again.
    pub fn host(&self) -> Result<Arc<Host>, EngineError> {
        self.supervisor.host()
    }
}

/// One answer at home.
#[derive(Debug)]
pub struct HomeSession {
    host: Arc<Host>,
    session: SessionId,
    sampling: Sampling,
    /// What the next run computes, and where.
    next: (u32, Vec<i32>),
    tokens_left: u32,
    scope: ShareScope,
    answers: Option<Answers>,
}

impl HomeSession {
    /// Will answer `prompt` with at most `tokens_max` tokens in `session`, which the caller forgets in the end; shares
    /// prefixes with others of its scope.
    #[must_use]
    pub fn new(
        host: Arc<Host>,
        session: SessionId,
        (prompt, sampling): (Vec<i32>, Sampling),
        tokens_max: u32,
        scope: ShareScope,
    ) -> Self {
        Self {
            host,
            session,
            sampling,
            next: (0, prompt),
            tokens_left: tokens_max,
            scope,
            answers: None,
        }
    }

    /// The next token, or why there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`]; the session is over then.
    pub async fn next(&mut self) -> Result<Result<Drawn, FinishReason>, EngineError> {
        if self.tokens_left == 0 {
            return Ok(Err(FinishReason::Length));
        }
        loop {
            let answers = match &mut self.answers {
                Some(answers) => answers,
                None => {
                    if self.next.0 >= self.host.loaded().positions_max {
                        return Ok(Err(FinishReason::Context));
                    }
                    let run = self.next_run();
                    self.answers.insert(self.host.run(run, &[])?)
                }
            };
            match answers.next().await {
                Some(Ok((Answer::Token(drawn), _))) => {
                    self.tokens_left -= 1;
                    self.next = (drawn.position, vec![drawn.token]);
                    if drawn.end {
                        return Ok(Err(FinishReason::End));
                    }
                    return Ok(Ok(drawn));
                }
                Some(Ok(_)) => return Err(EngineError::OutOfTurn),
                Some(Err(error)) => return Err(error),
                // The burst is over; the next run goes on behind it.
                None => self.answers = None,
            }
        }
    }

    fn next_run(&mut self) -> Run {
        let (position, tokens) = std::mem::take(&mut self.next);
        let burst = self.tokens_left.min(BURST);
        let draw = Draw {
            sampling: self.sampling,
            burst,
            then_head: false,
        };
        Run {
            session: self.session,
            role: Role::Whole,
            position,
            tokens,
            output: Output::Token(draw),
            scope: Some(self.scope),
            adapters: Vec::new(),
            guesses: Vec::new(),
        }
    }
}
