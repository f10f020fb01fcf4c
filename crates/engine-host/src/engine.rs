//! What exists once a model is loaded: its parts, the sampler, and what is measured.

mod checks;

use crate::figures::Figures;
use crate::llama::{Input, Reading, StepError, Wanted};
use crate::parts::{Parts, SessionSlice};
use crate::sandbox::{self, Sealed};
use crate::schedule::{Pending, StepSize};
use crate::steer::{Settled, Steers};
use crate::threads::{Threads, Usage};
use proto::host::{
    Answer, Draw, Drawn, EmbedRows, FailCode, Failed, LoadSpec, Loaded, Logprobs, Memory, Output,
    Probable, Role, Run, Steer,
};
use proto::host::{GUESSES_MAX, Stats, Task};
use proto::ids::SessionId;
use proto::packet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarm::draft::{Costs, Drafting, look_up};
use swarm::sampler::Sampler;

/// How long chunks may keep decoding sessions waiting, in seconds. Sessions that decode together are computed at a higher
/// rate, so prompts are to be out of the way soon.
const CHUNK_BESIDE_S: f64 = 0.5;
/// The shortest chunk: smaller ones are computed at a much lower rate.
const CHUNK_BESIDE_ROWS_MIN: usize = 32;
/// By how much one chunk changes the measured rate.
const WEIGHT: f64 = 0.3;

/// A loaded model.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) parts: Parts,
    sampler: Sampler,
    threads: Threads,
    pub(crate) figures: Arc<Figures>,
    stats: Stats,
    lanes: u32,
    /// Rows a second of chunks, as measured.
    chunk_rate: Option<f64>,
    guesses_max: usize,
    drafting: HashMap<SessionId, Drafting>,
    draft_costs: Costs,
    steers: Steers,
    /// Rows of texts to be embedded of which more will come.
    rows: HashMap<SessionId, Vec<f32>>,
}

/// A text to be embedded.
#[derive(Debug)]
pub(crate) enum Text {
    /// As a whole model takes it.
    Tokens(Vec<i32>),
    /// As it enters a model's tail.
    Rows(Vec<f32>),
}

/// What a run's step brought.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) pending: Pending,
    /// The tokens drawn: one, and those guessed right behind it.
    pub(crate) drawn: Result<Vec<Drawn>, Failed>,
    /// The head's activations of the last token, for [`Draw::then_head`].
    pub(crate) head: Vec<f32>,
}

impl Engine {
    /// Locks the process up and loads what a specification names.
    pub(crate) fn load(spec: &LoadSpec) -> Result<(Self, Loaded), Failed> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let Sealed { sandbox, figures } = sandbox::seal(spec)?;
        let figures = Arc::new(figures);
        let threads = Threads::new(spec.threads, cores, figures.clone());
        let parts = Parts::load(spec, threads.most(), Reading::Mapped)?;
        let loaded = Loaded {
            sandbox,
            ..parts.loaded(spec)
        };
        let engine = Self {
            parts,
            sampler: Sampler::default(),
            threads,
            figures,
            stats: Stats::default(),
            lanes: spec.lanes.max(1),
            chunk_rate: None,
            guesses_max: GUESSES_MAX.min(spec.guesses_max as usize),
            drafting: HashMap::new(),
            draft_costs: Costs::default(),
            steers: Steers::default(),
            rows: HashMap::new(),
        };
        Ok((engine, loaded))
    }

    /// Locks the process up and finds out what loading a specification would take.
    pub(crate) fn estimate(spec: &LoadSpec) -> Result<Memory, Failed> {
        // Models are counted, not mapped: a limit of address space has nothing to say about them.
        let free = LoadSpec {
            memory_bytes_max: None,
            ..spec.clone()
        };
        let Sealed { figures, .. } = sandbox::seal(&free)?;
        let parts = Parts::load(&free, 1, Reading::Counted)?;
        Ok(Memory {
            process_bytes: figures.resident_bytes(),
            ..parts.memory()
        })
    }

    /// How large the next step may be.
    pub(crate) fn step_size(&self) -> StepSize {
        let alone = self.parts.step_rows_max() as usize;
        let rows = self.chunk_rate.unwrap_or(0.0) * CHUNK_BESIDE_S;
        let chunks = rows as usize / CHUNK_BESIDE_ROWS_MIN;
        StepSize {
            alone,
            beside: (chunks.max(1) * CHUNK_BESIDE_ROWS_MIN).min(alone),
            sessions: (self.parts.sessions() as u32).div_ceil(self.lanes).max(1) as usize,
        }
    }

    /// Answers what needs no step; `waiting` sessions wait for one.
    pub(crate) fn answer(&mut self, task: Task, waiting: usize) -> Result<Answer, Failed> {
        match task {
            Task::Trim(trim) => {
                self.parts
                    .trim(trim.session, trim.length)
                    .map_err(Failed::from)?;
                Ok(Answer::Done)
            }
            Task::LoadAdapter(what) => {
                self.parts.load_adapter(what)?;
                Ok(Answer::Done)
            }
            Task::UnloadAdapter(name) => {
                self.parts.unload_adapter(&name)?;
                Ok(Answer::Done)
            }
            Task::Stats => Ok(Answer::Stats(Stats {
                sessions: self.parts.sessions() as u32,
                resident_bytes: self.figures.resident_bytes(),
                waiting: waiting as u32,
                ..self.stats
            })),
            _ => Err(bad_call("handled elsewhere")),
        }
    }

    /// Steers a session; `settled` learns when it may run.
    pub(crate) fn steer(&mut self, steer: Steer, settled: Settled) {
        let begun = self.parts.has(steer.session);
        let model = self.parts.shared_model();
        self.steers.set(steer, begun, &model, settled);
    }

    /// Checks rows of a text to be embedded, and keeps them; all of its rows with the last of them.
    pub(crate) fn gather(
        &mut self,
        rows: EmbedRows,
        payload: &[u8],
    ) -> Result<Option<Vec<f32>>, Failed> {
        let width = self.parts.model().embedding_length() as usize;
        let most = self.parts.embedder(Role::Tail)?.tokens_max() as usize;
        let values = packet::f32_from_bytes(payload).unwrap_or_default();
        let mut text = self.rows.remove(&rows.session).unwrap_or_default();
        text.extend_from_slice(&values);
        if values.is_empty() || !values.len().is_multiple_of(width) || text.len() > most * width {
            return Err(bad_call(&format!(
                "a text to be embedded has 1 to {most} rows of {width} numbers"
            )));
        }
        if rows.last {
            return Ok(Some(text));
        }
        self.rows.insert(rows.session, text);
        Ok(None)
    }

    /// The embedding of a text that was checked.
    pub(crate) fn embed(&mut self, text: &Text) -> Result<Vec<f32>, Failed> {
        let threads = self.threads.choose();
        let (role, input) = match text {
            Text::Tokens(tokens) => (Role::Whole, Input::Tokens(tokens)),
            Text::Rows(values) => (Role::Tail, Input::Rows(values)),
        };
        let row = self.parts.embedder(role)?.embed(input, threads);
        row.map_err(|detail| Failed {
            code: FailCode::Compute,
            detail,
        })
    }

    /// Makes room for a run's rows; a new session may begin with rows that are there already.
    pub(crate) fn admit(&mut self, pending: &mut Pending) -> Result<(), Failed> {
        if pending.done > 0 {
            return Ok(());
        }
        let run = &pending.run;
        let set = self.parts.adapters(run.session, &run.adapters)?;
        // Every row of the others is an answer, so none can be left out.
        let skips = matches!(run.output, Output::Nothing | Output::Token(_));
        if run.role == Role::Whole && run.position == 0 && skips {
            let scope = run.scope.map(|scope| set.fold(scope));
            let new = self.parts.begin(run.session, scope, &run.tokens)?;
            self.stats.reused_rows += u64::from(new);
            pending.reused = new;
            pending.done = new as usize;
            pending.next = pending.next.min(pending.rows - pending.done);
        }
        let left = (pending.rows - pending.done + run.guesses.len()) as u32;
        let position = run.position + pending.done as u32;
        self.parts.admit(run.session, run.role, position, left)?;
        self.parts.wear(run.session, set);
        Ok(())
    }

    /// Adds guesses to a step that computes one row of one session.
    pub(crate) fn guess(&mut self, step: &mut [Pending]) {
        let [pending] = step else { return };
        let Output::Token(draw) = pending.run.output else {
            return;
        };
        let single = pending.rows == 1 && pending.run.role == Role::Whole && draw.burst > 1;
        if !single || !self.parts.model().trims() {
            return;
        }
        let session = pending.run.session;
        let positions = self.parts.positions_max() - pending.run.position;
        // The row itself is one of a step's and of the cache's.
        let room = positions.min(self.parts.step_rows_max()).saturating_sub(1);
        let most = self
            .guesses_max
            .min(draw.burst as usize - 1)
            .min(room as usize);
        let mut text = self.parts.tokens(session).to_vec();
        text.extend(&pending.run.tokens);
        let guess = look_up(&text, most);
        let drafting = self.drafting.entry(session).or_default();
        let worth = drafting.worth(&guess, &mut self.draft_costs);
        pending.run.tokens.extend(&guess.tokens[..worth]);
    }

    /// Computes the next rows of every run of a step.
    pub(crate) fn compute(&mut self, step: &mut [Pending]) -> Result<(), StepError> {
        let Some(role) = step.first().map(|pending| pending.run.role) else {
            return Ok(());
        };
        let width = self.parts.model().embedding_length() as usize;
        let slices: Vec<SessionSlice<'_>> = step.iter().map(|p| p.slice(width)).collect();
        let threads = self.threads.choose();
        if threads != self.stats.threads {
            self.parts.set_threads(threads);
            self.stats.threads = threads;
        }
        let (begun, before) = (Instant::now(), Usage::now());
        let outs = self.parts.step(role, &slices)?;
        let took = begun.elapsed();
        self.threads.learn(took, (before, Usage::now()));
        self.count(step, took);
        if let [pending] = &*step
            && pending.rows == 1
            && pending.run.role == Role::Whole
        {
            self.draft_costs.learn(pending.guesses().len(), took);
        }
        for (pending, out) in step.iter_mut().zip(outs) {
            pending.done += pending.next;
            match pending.run.output {
                Output::Nothing => {}
                _ if pending.out.is_empty() => pending.out = out,
                _ => pending.out.extend(out),
            }
        }
        Ok(())
    }

    fn count(&mut self, step: &[Pending], took: Duration) {
        let us = took.as_micros() as u64;
        let rows: usize = step.iter().map(|pending| pending.next).sum();
        if rows > step.len() {
            self.stats.prefill_rows += rows as u64;
            self.stats.prefill_us += us;
            if rows >= CHUNK_BESIDE_ROWS_MIN {
                let rate = rows as f64 / took.as_secs_f64();
                let old = self.chunk_rate.unwrap_or(rate);
                self.chunk_rate = Some(old + WEIGHT * (rate - old));
            }
        } else {
            self.stats.decode_rows += rows as u64;
            self.stats.decode_us += us;
            if rows == 1 {
                self.stats.alone_rows += 1;
                self.stats.alone_us += us;
            }
        }
    }

    /// Takes back what a failed run had computed, and the session if it was its first.
    pub(crate) fn undo(&mut self, pending: &Pending) {
        let Run {
            session, position, ..
        } = pending.run;
        if position == 0 || self.parts.trim(session, position).is_err() {
            self.leave(session);
        }
    }

    /// Forgets a session.
    pub(crate) fn close(&mut self, session: SessionId) {
        self.leave(session);
        self.steers.forget(session);
        self.rows.remove(&session);
    }

    /// Frees a session's caches. What steers it stays: it must not begin again without.
    fn leave(&mut self, session: SessionId) {
        self.drafting.remove(&session);
        self.parts.close(session);
    }

    /// Draws the tokens behind the last rows of runs, and runs the head on them where that is wanted.
    pub(crate) fn draw(&mut self, drawing: Vec<(Pending, Draw)>) -> Vec<Outcome> {
        let mut outcomes: Vec<(Outcome, Draw)> = drawing
            .into_iter()
            .map(|(mut pending, draw)| {
                let mut logits = std::mem::take(&mut pending.out);
                let drawn = self.drawn(&pending, &draw, &mut logits);
                let head = Vec::new();
                (
                    Outcome {
                        pending,
                        drawn,
                        head,
                    },
                    draw,
                )
            })
            .collect();
        self.heads(&mut outcomes);
        outcomes.into_iter().map(|(outcome, _)| outcome).collect()
    }

    /// The token behind a run's last row, and those behind the guesses that were right.
    fn drawn(
        &mut self,
        pending: &Pending,
        draw: &Draw,
        logits: &mut [f32],
    ) -> Result<Vec<Drawn>, Failed> {
        let guesses = pending.guesses();
        let mut drawn = Vec::with_capacity(guesses.len() + 1);
        let first = pending.run.position + pending.rows as u32;
        let length = logits.len() / (guesses.len() + 1);
        for (at, row) in logits.chunks_mut(length.max(1)).enumerate() {
            let token = match self.token(pending.run.session, row, draw, first + at as u32) {
                Ok(token) => token,
                // It fails again, and says so, when its turn comes without guesses before it.
                Err(_) if at > 0 => break,
                Err(failed) => {
                    self.settle(pending, 1)?;
                    return Err(failed);
                }
            };
            let right = !token.end && guesses.get(at) == Some(&token.token);
            drawn.push(token);
            if !right {
                break;
            }
        }
        if let Some(first) = drawn.first_mut() {
            first.reused = pending.reused;
        }
        let tokens: Vec<i32> = drawn.iter().map(|drawn| drawn.token).collect();
        if let Some(drafting) = self.drafting.get_mut(&pending.run.session) {
            drafting.learn(guesses, &tokens);
        }
        self.settle(pending, drawn.len())?;
        Ok(drawn)
    }

    /// Forgets the rows of wrong guesses.
    fn settle(&mut self, pending: &Pending, drawn: usize) -> Result<(), Failed> {
        let Run {
            session, position, ..
        } = pending.run;
        let guesses = pending.guesses().len();
        if guesses > 0 {
            self.stats.drafted += guesses as u64;
            self.stats.accepted += drawn as u64 - 1;
            self.parts.trim(session, position + drawn as u32)?;
        }
        Ok(())
    }

    fn token(
        &mut self,
        session: SessionId,
        logits: &mut [f32],
        draw: &Draw,
        position: u32,
    ) -> Result<Drawn, Failed> {
        let choice =
            self.steers
                .choose(session, &mut self.sampler, logits, &draw.sampling, position)?;
        let model = self.parts.model();
        let token = choice.token;
        let probable = |(token, logprob)| Probable {
            token,
            piece: model.name(token),
            logprob,
        };
        Ok(Drawn {
            token,
            position,
            piece: if choice.show_control {
                model.name(token)
            } else {
                model.piece(token)
            },
            end: model.ends(token),
            logprobs: choice.logprobs.map(|(drawn, top)| {
                let top = top.into_iter().map(probable).collect();
                Box::new(Logprobs { drawn, top })
            }),
            reused: 0,
        })
    }

    /// Runs the head, in one step, on the tokens of those runs that want it.
    fn heads(&mut self, outcomes: &mut [(Outcome, Draw)]) {
        let mut runs = Vec::new();
        for (at, (outcome, draw)) in outcomes.iter().enumerate() {
            let session = outcome.pending.run.session;
            let Some(last) = outcome.drawn.as_ref().ok().and_then(|drawn| drawn.last()) else {
                continue;
            };
            // A head that cannot take the token has a full cache: the node sees that by the position.
            let wanted = draw.then_head && !last.end;
            if wanted
                && self
                    .parts
                    .admit(session, Role::Head, last.position, 1)
                    .is_ok()
            {
                runs.push((at, session, last.position, [last.token]));
            }
        }
        if runs.is_empty() {
            return;
        }
        let slices: Vec<SessionSlice<'_>> = runs
            .iter()
            .map(|(_, session, position, token)| SessionSlice {
                session: *session,
                position: *position,
                input: Input::Tokens(token),
                wanted: Wanted::All,
            })
            .collect();
        let begun = Instant::now();
        if let Ok(rows) = self.parts.step(Role::Head, &slices) {
            for ((at, ..), values) in runs.iter().zip(rows) {
                outcomes[*at].0.head = values;
            }
        }
        let us = begun.elapsed().as_micros() as u64;
        self.stats.decode_us += us;
        if let [_] = outcomes {
            self.stats.alone_us += us;
        }
    }
}

pub(crate) fn bad_call(detail: &str) -> Failed {
    Failed {
        code: FailCode::BadCall,
        detail: detail.to_owned(),
    }
}

impl Pending {
    /// The guessed tokens behind the run's own.
    /// The tokens of rows behind its own, which are computed with the last of these.
    pub(crate) fn guesses(&self) -> &[i32] {
        match self.run.role {
            Role::Whole => self.run.tokens.get(self.rows..).unwrap_or(&[]),
            _ => &self.run.guesses,
        }
    }

    fn slice(&self, width: usize) -> SessionSlice<'_> {
        let rows = self.done..self.done + self.next;
        let end = rows.end + self.guesses().len();
        let input = if self.run.tokens.is_empty() {
            Input::Rows(&self.values[rows.start * width..end * width])
        } else {
            Input::Tokens(&self.run.tokens[rows.start..end])
        };
        let wanted = match self.run.output {
            Output::Nothing => Wanted::Nothing,
            Output::Rows | Output::Logits => Wanted::All,
            Output::Token(_) if !self.guesses().is_empty() => Wanted::All,
            Output::Token(_) if rows.end == self.rows => Wanted::Last,
            Output::Token(_) => Wanted::Nothing,
        };
        let position = self.run.position + self.done as u32;
        SessionSlice {
            session: self.run.session,
            position,
            input,
            wanted,
        }
    }
}
