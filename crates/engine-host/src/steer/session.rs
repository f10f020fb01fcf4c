//! One session's steering: its values, what its reply has so far, and where its grammar stands.

use super::SteerError;
use super::grammar::{Compiled, Guide, GuideError};
use super::logprobs::{Scale, best};
use crate::llama::Model;
use proto::host::{LOGIT_BIAS_MAX, Steer, TOP_LOGPROBS_MAX};
use proto::model::Sampling;
use std::collections::HashMap;
use std::sync::Arc;
use swarm::sampler::Sampler;

/// The strongest penalty, either way; OpenAI's limit.
const PENALTY_MAX: f32 = 2.0;

/// A token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: i32,
    /// The natural logarithm of its probability, and those of the best, where they were asked for.
    pub(crate) logprobs: Option<(f32, Vec<(i32, f32)>)>,
    /// Whether its name is shown should it be a control token.
    pub(crate) show_control: bool,
}

impl Choice {
    /// A token of a session that is not steered.
    pub(crate) fn plain(token: i32) -> Self {
        Self {
            token,
            logprobs: None,
            show_control: false,
        }
    }
}

/// How one session is steered.
#[derive(Debug)]
pub(super) struct Steering {
    bias: Vec<(i32, f32)>,
    presence: f32,
    frequency: f32,
    logprobs: Option<u32>,
    show_control: bool,
    /// The grammar from its beginning, filled once it is compiled; `None` binds nothing.
    grammar: Option<Arc<Compiled>>,
    /// Where it stands behind the tokens of `reply`.
    guide: Option<Guide>,
    /// What was drawn, each with its position.
    reply: Vec<(u32, i32)>,
    /// How often each token is in it.
    counts: HashMap<i32, u32>,
}

impl Steering {
    /// Checks the values that a model's session is to be steered by.
    pub(super) fn new(steer: &Steer, model: &Model) -> Result<Self, SteerError> {
        let refuse = |why: String| Err(SteerError::Value(why));
        if steer.logit_bias.len() > LOGIT_BIAS_MAX {
            let count = steer.logit_bias.len();
            return refuse(format!(
                "logit_bias names {count} tokens; {LOGIT_BIAS_MAX} at most can be biased"
            ));
        }
        for &(token, bias) in &steer.logit_bias {
            if !model.knows(token) {
                return refuse(format!(
                    "logit_bias names token {token}, which is not in the vocabulary of {} tokens",
                    model.vocabulary()
                ));
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return refuse(format!(
                    "the logit_bias of token {token} is {bias}; it must be a number, or −∞ to forbid the token"
                ));
            }
        }
        for (name, penalty) in [
            ("presence_penalty", steer.presence_penalty),
            ("frequency_penalty", steer.frequency_penalty),
        ] {
            if !(-PENALTY_MAX..=PENALTY_MAX).contains(&penalty) {
                return refuse(format!(
                    "{name} is {penalty}; it must be between -{PENALTY_MAX} and {PENALTY_MAX}"
                ));
            }
        }
        if let Some(top) = steer.logprobs.filter(|top| *top > TOP_LOGPROBS_MAX) {
            return refuse(format!(
                "the {top} most probable tokens are asked for; {TOP_LOGPROBS_MAX} at most can be named"
            ));
        }
        if let Some(token) = steer.drawn.iter().find(|token| !model.knows(**token)) {
            return refuse(format!(
                "the reply has token {token} already, which is not in the vocabulary of {} tokens",
                model.vocabulary()
            ));
        }
        Ok(Self {
            bias: steer.logit_bias.clone(),
            presence: steer.presence_penalty,
            frequency: steer.frequency_penalty,
            logprobs: steer.logprobs,
            show_control: steer.show_control,
            grammar: steer.grammar.is_some().then(Arc::default),
            guide: None,
            // Their positions matter for what is drawn again only, and that comes behind them all.
            reply: (0..).zip(steer.drawn.iter().copied()).collect(),
            counts: counts(&steer.drawn),
        })
    }

    /// Where the compiled grammar is to be put.
    pub(super) fn compiled(&self) -> Arc<Compiled> {
        self.grammar.clone().unwrap_or_default()
    }

    /// Whether the session may run.
    pub(super) fn check(&self) -> Result<(), SteerError> {
        match self.grammar.as_ref().map(|compiled| compiled.get()) {
            None | Some(Some(Ok(_))) => Ok(()),
            Some(Some(Err(error))) => Err(error.clone().into()),
            Some(None) => Err(SteerError::Compiling),
        }
    }

    /// See [`super::Steers::choose`].
    pub(super) fn choose(
        &mut self,
        sampler: &mut Sampler,
        logits: &mut [f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<Choice, SteerError> {
        self.go_to(position)?;
        let raw = self.logprobs.map(|_| logits.to_vec());
        self.weigh(logits);
        let token = self.draw(sampler, logits, sampling, position)?;
        self.reply.push((position, token));
        *self.counts.entry(token).or_default() += 1;
        Ok(Choice {
            token,
            logprobs: raw.map(|raw| self.probabilities(&raw, token)),
            show_control: self.show_control,
        })
    }

    /// Forgets what was drawn at the position and behind it, when a row is computed again.
    fn go_to(&mut self, position: u32) -> Result<(), SteerError> {
        let keep = self.reply.partition_point(|(at, _)| *at < position);
        if keep < self.reply.len() {
            self.reply.truncate(keep);
            self.guide = None;
            self.counts.clear();
            for (_, token) in &self.reply {
                *self.counts.entry(*token).or_default() += 1;
            }
        }
        let (None, Some(compiled)) = (&self.guide, &self.grammar) else {
            return Ok(());
        };
        let beginning = compiled.get().ok_or(SteerError::Compiling)?;
        let beginning = beginning.as_ref().map_err(Clone::clone)?;
        let failed = |error| at_position(error, position);
        let mut guide = beginning.begin().map_err(failed)?;
        for (_, token) in &self.reply {
            guide.accept(*token).map_err(failed)?;
        }
        self.guide = Some(guide);
        Ok(())
    }

    /// Adds the bias and takes off the penalties: for each token that the reply has already, the presence penalty, and
    /// the frequency penalty as many times as it is there (OpenAI's formula; the prompt does not count).
    fn weigh(&self, logits: &mut [f32]) {
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if self.presence == 0.0 && self.frequency == 0.0 {
            return;
        }
        for (&token, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= self.presence + self.frequency * count as f32;
            }
        }
    }

    fn draw(
        &mut self,
        sampler: &mut Sampler,
        logits: &mut [f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<i32, SteerError> {
        // A guide that failed is worth nothing from there on: the next draw begins a new one.
        let Some(mut guide) = self.guide.take() else {
            return Ok(sampler.sample(logits, sampling, position)?);
        };
        let failed = |error| at_position(error, position);
        let token = match sampler.sample(logits, sampling, position) {
            Ok(token) if guide.allows(token).map_err(failed)? => token,
            _ => {
                guide.mask(logits).map_err(failed)?;
                if logits.iter().all(|l| l.is_nan() || *l == f32::NEG_INFINITY) {
                    return Err(SteerError::DeadEnd { position });
                }
                sampler.sample_again(logits, sampling, position)?
            }
        };
        guide.accept(token).map_err(failed)?;
        self.guide = Some(guide);
        Ok(token)
    }

    fn probabilities(&self, raw: &[f32], token: i32) -> (f32, Vec<(i32, f32)>) {
        let scale = Scale::of(raw);
        let logprob = |token: i32| scale.logprob(raw[token as usize]);
        let best = best(raw, self.logprobs.unwrap_or(0) as usize);
        let top = best.into_iter().map(|token| (token, logprob(token)));
        (logprob(token), top.collect())
    }
}

fn counts(tokens: &[i32]) -> HashMap<i32, u32> {
    let mut counts = HashMap::new();
    for token in tokens {
        *counts.entry(*token).or_default() += 1;
    }
    counts
}

fn at_position(error: GuideError, position: u32) -> SteerError {
    match error {
        GuideError::Nothing => SteerError::DeadEnd { position },
        GuideError::GaveUp(why) => SteerError::GaveUp { position, why },
    }
}
