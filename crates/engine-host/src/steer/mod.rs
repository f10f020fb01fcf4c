//! How the tokens of a session are chosen beyond temperature, `top_k`, `top_p` and seed: grammars, bias, penalties; and how
//! probable they were.
//!
//! # Story
//!
//! [`Steers`] keeps what [`Steer`] asked for, a session each ([`session`]). A JSON schema or a grammar in Lark notation is
//! compiled with `llguidance` by a thread of its own ([`workshop`]), which also answers the call, so that steps of other
//! sessions go on; schemas that would be too much for it are refused before ([`schema`]). Every token that a steered session
//! draws passes [`Steers::choose`], in the order of the reply: a guess that was drawn ahead counts only once it was found
//! right, so guessing needs no other rules.
//!
//! *A draw with a grammar.* The token is drawn from all logits first. If the grammar does not allow it, all tokens that it
//! does not allow are set to −∞ and another one is drawn with the second random number of the position. A token of
//! probability p, where those allowed have A together, is drawn with p + (1 − A) · p / A = p / A: what drawing from the
//! allowed ones alone would give, and most rows need no mask. That is exact where all tokens are candidates. With `top_k` or
//! `top_p` the first draw cuts before the grammar has its say and the second one after, so tokens that a cut of the allowed
//! ones alone would lose can remain: the result is the mixture of both, never a token that the grammar forbids.
//! At temperature 0 both ways give the best allowed token.
//!
//! *End.* A token that ends a generation is allowed only where the grammar may be complete, and is all that is allowed
//! where nothing else may follow.

mod grammar;
mod logprobs;
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod workshop;

use crate::llama::Model;
use grammar::{Beginning, Compiler, GrammarError, Vocabulary};
use proto::host::{FailCode, Failed, Grammar, SESSIONS_MAX, Steer};
use proto::ids::SessionId;
use proto::model::Sampling;
pub(crate) use session::Choice;
use session::Steering;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use swarm::sampler::{SampleError, Sampler};
use workshop::{COMPILE_MAX, Workshop};

/// Called once, from whichever thread knows it, when a [`Steer`] is ready or refused.
pub(crate) type Settled = Box<dyn FnOnce(Result<(), Failed>) + Send>;

/// Why a session is not steered, or no token could be chosen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SteerError {
    /// A value is outside its limits.
    #[error("{0}")]
    Value(String),
    /// The session has rows already.
    #[error("the session has begun; it can be steered before its first run only")]
    Late,
    /// Too many sessions are steered.
    #[error("{SESSIONS_MAX} sessions are steered already; drop one that is over, or wait")]
    Full,
    /// The grammar is refused.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// A run came before the answer to its steering.
    #[error("the session's grammar is still being compiled; wait for the answer to that call")]
    Compiling,
    /// Nothing may be drawn.
    #[error(
        "none of the model's tokens may stand at position {position}: what the grammar still allows, the logit bias forbids \
         or the model's vocabulary cannot write; loosen the grammar or the bias"
    )]
    DeadEnd {
        /// The position.
        position: u32,
    },
    /// The grammar became too large on the way.
    #[error("the grammar gave up at position {position}: {why}; use a simpler one")]
    GaveUp {
        /// The position.
        position: u32,
        /// The compiler's words.
        why: String,
    },
    /// The logits or settings are unusable.
    #[error(transparent)]
    Sample(#[from] SampleError),
}

impl From<SteerError> for Failed {
    fn from(error: SteerError) -> Self {
        let code = match error {
            SteerError::Full => FailCode::NoRoom,
            SteerError::Grammar(GrammarError::Busy) => FailCode::NoRoom,
            SteerError::Grammar(GrammarError::NoVocabulary | GrammarError::NoEnd) => {
                FailCode::Unsupported
            }
            SteerError::Sample(_) => FailCode::Compute,
            _ => FailCode::BadCall,
        };
        Self {
            code,
            detail: error.to_string(),
        }
    }
}

/// What compiles every kind of grammar for a model. Its vocabulary is sorted when that is first needed.
fn compiler(
    model: Arc<Model>,
) -> impl Fn(&Grammar) -> Result<Beginning, GrammarError> + Send + Sync + 'static {
    let sorted = OnceLock::new();
    move |grammar| match grammar {
        Grammar::Gbnf(gbnf) => Beginning::gbnf(&model, gbnf),
        grammar => {
            let sort = || Compiler::new(&Vocabulary::of(&model)?);
            let compiler: &Result<Compiler, GrammarError> = sorted.get_or_init(sort);
            compiler.as_ref().map_err(Clone::clone)?.compile(grammar)
        }
    }
}

/// The steered sessions of a process.
#[derive(Debug, Default)]
pub(crate) struct Steers {
    sessions: HashMap<SessionId, Steering>,
    /// Made when the first grammar comes.
    workshop: Option<Workshop>,
}

impl Steers {
    /// Steers a session that is not open yet, instead of what was said before; `settled` learns when it may run.
    pub(crate) fn set(&mut self, steer: Steer, begun: bool, model: &Arc<Model>, settled: Settled) {
        match self.begin(&steer, begun, model) {
            Err(error) => settled(Err(error.into())),
            Ok(steering) => {
                let compiled = steering.compiled();
                self.sessions.insert(steer.session, steering);
                match (steer.grammar, &self.workshop) {
                    (Some(grammar), Some(workshop)) => workshop.order(grammar, compiled, settled),
                    _ => settled(Ok(())),
                }
            }
        }
    }

    fn begin(
        &mut self,
        steer: &Steer,
        begun: bool,
        model: &Arc<Model>,
    ) -> Result<Steering, SteerError> {
        if begun {
            return Err(SteerError::Late);
        }
        let steering = Steering::new(steer, model)?;
        let known = self.sessions.contains_key(&steer.session);
        if !known && self.sessions.len() >= SESSIONS_MAX as usize {
            return Err(SteerError::Full);
        }
        if steer.grammar.is_some() && self.workshop.is_none() {
            self.workshop = Some(Workshop::new(compiler(model.clone()), COMPILE_MAX)?);
        }
        Ok(steering)
    }

    /// Whether a session may run: it is not steered, or what steers it is ready.
    ///
    /// # Errors
    ///
    /// [`SteerError::Compiling`], or why its grammar was refused: it never runs without.
    pub(crate) fn check(&self, session: SessionId) -> Result<(), SteerError> {
        self.sessions.get(&session).map_or(Ok(()), Steering::check)
    }

    /// Forgets a session.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Chooses the token at a position of a session from the logits of the row before it, which are changed.
    ///
    /// # Errors
    ///
    /// [`SteerError`]; the session may draw at this position again.
    pub(crate) fn choose(
        &mut self,
        session: SessionId,
        sampler: &mut Sampler,
        logits: &mut [f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<Choice, SteerError> {
        match self.sessions.get_mut(&session) {
            Some(steering) => steering.choose(sampler, logits, sampling, position),
            None => Ok(Choice::plain(sampler.sample(logits, sampling, position)?)),
        }
    }
}
