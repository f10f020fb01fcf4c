//! Starting an engine-host and asking it.

use engine::{Answers, EngineError, Host, Launch, Patient, Supervisor, Ward};
use proto::host::{AdapterUse, Answer, Draw, Failed, LoadSpec, Output, Part, Role, Run, Tokenize};
use proto::ids::{Hash, SessionId, ShareScope};
use proto::model::{Numerics, Sampling};
use std::path::Path;
use std::sync::Arc;

/// What every test of this binary loads if it needs nothing else.
pub(crate) fn spec(model: &Path, numerics: Numerics, sessions_max: u32) -> LoadSpec {
    LoadSpec {
        positions_max: 1024,
        sessions_max,
        // Beside other work two threads wait for each other; bits do not depend on their number.
        threads: Some(1),
        ..LoadSpec::new(vec![Part::of(Role::Whole, model)], numerics)
    }
}

/// A living engine-host; it ends with the supervisor.
pub(crate) async fn start(spec: LoadSpec) -> (Supervisor, Arc<Host>) {
    let supervisor = supervise(spec);
    let host = supervisor.ready().await.unwrap();
    (supervisor, host)
}

/// The binary under test, as an engine-host.
pub(crate) fn launch() -> Launch {
    Launch {
        program: env!("CARGO_BIN_EXE_myzel").into(),
        args: vec!["engine-host".to_owned()],
    }
}

fn supervise(spec: LoadSpec) -> Supervisor {
    let patient = Patient {
        model: Hash([0; 32]),
        name: "a model under test".to_owned(),
        ward: Arc::new(Ward::new([], Box::new(|_, _| {}))),
    };
    Supervisor::start(launch(), spec, patient)
}

/// Why an engine-host with this specification does not start.
pub(crate) async fn refused(spec: LoadSpec) -> Failed {
    match supervise(spec).ready().await {
        Err(EngineError::Failed(failed)) => failed,
        other => panic!("{other:?}"),
    }
}

/// The starter in exact mode.
pub(crate) async fn starter(sessions_max: u32) -> (Supervisor, Arc<Host>) {
    start(spec(&specimen::starter(), Numerics::Exact, sessions_max)).await
}

/// Text as tokens.
pub(crate) async fn tokens(host: &Host, text: &str) -> Vec<i32> {
    let tokenize = Tokenize {
        text: text.to_owned(),
        add_special: true,
        parse_special: false,
    };
    host.tokenize(tokenize).await.unwrap()
}

/// A question to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) prompt: Vec<i32>,
    pub(crate) scope: Option<ShareScope>,
    pub(crate) adapters: Vec<AdapterUse>,
    pub(crate) temperature: f32,
    /// How many tokens are wanted, and how many of them in one call.
    pub(crate) tokens: u32,
    pub(crate) burst: u32,
}

impl Question {
    pub(crate) fn new(prompt: &[i32]) -> Self {
        Self {
            prompt: prompt.to_vec(),
            scope: None,
            adapters: Vec::new(),
            temperature: 0.0,
            tokens: 24,
            burst: 24,
        }
    }

    fn run(&self, session: SessionId, position: u32, tokens: Vec<i32>, burst: u32) -> Run {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: 0,
            top_p: 0.95,
            seed: 7,
        };
        Run {
            session,
            role: Role::Whole,
            position,
            tokens,
            output: Output::Token(Draw {
                sampling,
                burst,
                then_head: false,
            }),
            scope: self.scope,
            adapters: self.adapters.clone(),
            guesses: Vec::new(),
        }
    }

    /// Asks and returns the tokens; the session is closed then.
    pub(crate) async fn ask(&self, host: &Host) -> Result<Vec<i32>, EngineError> {
        let session = SessionId(rand::random());
        let answer = self.answer(host, session).await;
        host.drop_session(session);
        answer
    }

    async fn answer(&self, host: &Host, session: SessionId) -> Result<Vec<i32>, EngineError> {
        let (mut position, mut next) = (0, self.prompt.clone());
        let mut out = Vec::new();
        while (out.len() as u32) < self.tokens {
            let burst = self.burst.min(self.tokens - out.len() as u32);
            let mut answers = host.run(self.run(session, position, next, burst), &[])?;
            let mut last = None;
            while let Some(answer) = answers.next().await {
                let (Answer::Token(drawn), _) = answer? else {
                    return Err(EngineError::OutOfTurn);
                };
                out.push(drawn.token);
                last = Some(drawn);
            }
            match last {
                Some(drawn) if !drawn.end => {
                    (position, next) = (drawn.position, vec![drawn.token]);
                }
                _ => break,
            }
        }
        Ok(out)
    }

    /// Opens a session with one burst; whoever asked closes it.
    pub(crate) fn open(&self, host: &Host, session: SessionId) -> Answers {
        let run = self.run(session, 0, self.prompt.clone(), self.burst);
        host.run(run, &[]).unwrap()
    }

    /// Opens the session, waits for `tokens` tokens of its burst, and closes it while it computes.
    pub(crate) async fn cancel_after(&self, host: &Host, tokens: usize) {
        let session = SessionId(rand::random());
        let mut answers = self.open(host, session);
        for _ in 0..tokens {
            answers.next().await.unwrap().unwrap();
        }
        host.drop_session(session);
    }
}
