//! The main loop of an engine-host: take calls, compute steps, reply.

use crate::figures::Figures;
use crate::llama::{Input, StepError, Wanted};
use crate::parts::{Parts, PartsError, SessionError, SessionSlice};
use crate::pipe::{Calls, ReadError, Received, Replies};
use crate::sandbox::{self, SealError, Sealed};
use crate::schedule::{Pending, Schedule};
use crate::threads::Threads;
use proto::host::{
    Answer, Call, Draw, Drawn, FailCode, Failed, LoadSpec, Loaded, Output, Role, Run, Stats, Task,
};
use proto::ids::SessionId;
use proto::packet::{self, PAYLOAD_BYTES_MAX};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Instant;
use swarm::sampler::Sampler;

/// Runs this process as an engine-host: the pipe is standard input, `parent` the process to die with.
///
/// # Errors
///
/// When the pipe breaks while a reply is written. The end of the pipe is the normal end.
pub fn run(parent: u32) -> io::Result<()> {
    die_with(parent)?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut calls = Calls::new(stream.try_clone()?);
    let replies = Replies::new(stream);
    Host {
        replies,
        engine: None,
        schedule: Schedule::default(),
    }
    .serve(&mut calls)
}

#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // The parent may have died before the line above.
    if nix::unistd::getppid().as_raw() as u32 == parent {
        Ok(())
    } else {
        Err(io::Error::other(
            "the node that started this engine-host is gone",
        ))
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> io::Result<()> {
    // The closing pipe alone ends the process here.
    Ok(())
}

/// What exists once a model is loaded.
#[derive(Debug)]
struct Engine {
    parts: Parts,
    sampler: Sampler,
    threads: Threads,
    figures: Rc<Figures>,
    stats: Stats,
}

struct Host {
    replies: Replies,
    engine: Option<Engine>,
    schedule: Schedule,
}

impl From<PartsError> for Failed {
    fn from(error: PartsError) -> Self {
        let code = match error {
            PartsError::Load(_) => FailCode::Unloadable,
            PartsError::Context { .. } => FailCode::NoRoom,
            PartsError::Spec(_) => FailCode::BadCall,
        };
        Self {
            code,
            detail: error.to_string(),
        }
    }
}

impl From<SealError> for Failed {
    fn from(error: SealError) -> Self {
        Self {
            code: FailCode::NoRoom,
            detail: error.to_string(),
        }
    }
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        let code = match error {
            SessionError::Full(_) | SessionError::TooLong { .. } => FailCode::NoRoom,
            SessionError::Untrimmable(_) => FailCode::Unsupported,
            _ => FailCode::BadCall,
        };
        Self {
            code,
            detail: error.to_string(),
        }
    }
}

impl From<&StepError> for Failed {
    fn from(error: &StepError) -> Self {
        let code = match error {
            StepError::NoRoom => FailCode::NoRoom,
            StepError::Failed { .. } => FailCode::Compute,
            StepError::Untapped { .. } => FailCode::Unsupported,
        };
        Self {
            code,
            detail: error.to_string(),
        }
    }
}

fn bad_call(detail: &str) -> Failed {
    Failed {
        code: FailCode::BadCall,
        detail: detail.to_owned(),
    }
}

impl Host {
    fn serve(&mut self, calls: &mut Calls) -> io::Result<()> {
        loop {
            // With nothing to compute there is nothing to do but wait for a call.
            let mut wait = self.schedule.is_empty();
            loop {
                match calls.next(wait) {
                    Ok(Some(received)) => self.take(received)?,
                    Ok(None) => break,
                    // The normal end: the node has closed the pipe.
                    Err(ReadError::Io(_)) => return Ok(()),
                    Err(ReadError::Decode(error)) => return Err(io::Error::other(error)),
                }
                wait = false;
            }
            self.step()?;
        }
    }

    fn reply(&mut self, id: u64, answer: Answer) -> io::Result<()> {
        self.replies.send(id, false, answer, &[])
    }

    fn take(
        &mut self,
        Received {
            call: Call { id, task },
            payload,
        }: Received,
    ) -> io::Result<()> {
        let answer = match task {
            Task::Load(spec) => self.load(&spec),
            Task::Run(run) => return self.queue(id, run, &payload),
            Task::Drop(session) => return self.close(id, session),
            task => match &mut self.engine {
                Some(engine) => engine.answer(task),
                None => Err(bad_call("nothing is loaded")),
            },
        };
        self.reply(id, answer.unwrap_or_else(Answer::Failed))
    }

    fn load(&mut self, spec: &LoadSpec) -> Result<Answer, Failed> {
        if self.engine.is_some() {
            return Err(bad_call("a model is loaded already; start another process"));
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let Sealed { sandbox, figures } = sandbox::seal(spec)?;
        let figures = Rc::new(figures);
        let threads = Threads::new(spec.threads, cores, figures.clone());
        let parts = Parts::load(spec, threads.most())?;
        let loaded = Loaded {
            sandbox,
            ..parts.loaded(spec)
        };
        let stats = Stats::default();
        self.engine = Some(Engine {
            parts,
            sampler: Sampler::default(),
            threads,
            figures,
            stats,
        });
        Ok(Answer::Loaded(Box::new(loaded)))
    }

    fn queue(&mut self, id: u64, run: Run, payload: &[u8]) -> io::Result<()> {
        let Some(engine) = &self.engine else {
            return self.reply(id, Answer::Failed(bad_call("nothing is loaded")));
        };
        match engine.check(&run, payload) {
            Ok((rows, values)) => {
                let out = Vec::new();
                self.schedule.push(Pending {
                    id,
                    run,
                    values,
                    rows,
                    done: 0,
                    out,
                });
                Ok(())
            }
            Err(failed) => self.reply(id, Answer::Failed(failed)),
        }
    }

    fn close(&mut self, id: u64, session: SessionId) -> io::Result<()> {
        for pending in self.schedule.remove(session) {
            self.reply(
                pending.id,
                Answer::Failed(bad_call("the session was dropped")),
            )?;
        }
        if let Some(engine) = &mut self.engine {
            engine.parts.close(session);
        }
        self.reply(id, Answer::Done)
    }

    /// Computes one step, if something waits.
    fn step(&mut self) -> io::Result<()> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        let mut step = Vec::new();
        for pending in self.schedule.next(engine.parts.step_rows_max()) {
            let Run {
                session,
                role,
                position,
                ..
            } = pending.run;
            let admitted = match pending.done {
                0 => engine
                    .parts
                    .admit(session, role, position, pending.rows as u32),
                _ => Ok(()),
            };
            match admitted {
                Ok(()) => step.push(pending),
                Err(error) => {
                    let failed = Answer::Failed(error.into());
                    self.replies.send(pending.id, false, failed, &[])?;
                }
            }
        }
        let Some(first) = step.first() else {
            return Ok(());
        };
        let role = first.run.role;
        match engine.compute(role, &mut step) {
            Ok(()) => self.finish(step),
            Err(error) => {
                for pending in step {
                    engine.undo(&pending);
                    let failed = Answer::Failed(Failed::from(&error));
                    self.replies.send(pending.id, false, failed, &[])?;
                }
                Ok(())
            }
        }
    }

    /// Answers the runs of a step, or puts them back when rows are left.
    fn finish(&mut self, step: Vec<Pending>) -> io::Result<()> {
        let mut drawing = Vec::new();
        for mut pending in step {
            if pending.done < pending.rows {
                self.schedule.put_back(pending);
                continue;
            }
            match pending.run.output {
                Output::Nothing => self.reply(pending.id, Answer::Done)?,
                Output::Rows | Output::Logits => {
                    let rows = Answer::Rows(pending.rows as u32);
                    self.replies.send(pending.id, false, rows, &pending.out)?;
                }
                Output::Token(draw) => {
                    let out = std::mem::take(&mut pending.out);
                    drawing.push((pending, draw, out));
                }
            }
        }
        if drawing.is_empty() {
            Ok(())
        } else {
            self.draw(drawing)
        }
    }

    /// Draws tokens, runs the head on them where that is wanted, answers, and goes on with bursts.
    fn draw(&mut self, drawing: Vec<(Pending, Draw, Vec<f32>)>) -> io::Result<()> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        let drawn: Vec<Result<Drawn, Failed>> = drawing
            .iter()
            .map(|(pending, draw, logits)| engine.drawn(pending, draw, logits))
            .collect();
        let mut heads = engine.heads(&drawing, &drawn);
        for (((pending, draw, _), drawn), head) in drawing.into_iter().zip(drawn).zip(&mut heads) {
            let drawn = match drawn {
                Ok(drawn) => drawn,
                Err(failed) => {
                    self.replies
                        .send(pending.id, false, Answer::Failed(failed), &[])?;
                    continue;
                }
            };
            let fits = drawn.position < engine.parts.positions_max();
            let more = draw.burst > 1 && !drawn.end && fits && pending.run.role == Role::Whole;
            let id = pending.id;
            if more {
                self.schedule.put_back(pending.next_of_burst(&drawn, draw));
            }
            self.replies
                .send(id, more, Answer::Token(drawn), &std::mem::take(head))?;
        }
        Ok(())
    }
}

impl Pending {
    /// The run that feeds a drawn token back.
    fn next_of_burst(self, drawn: &Drawn, draw: Draw) -> Self {
        let run = Run {
            position: drawn.position,
            tokens: vec![drawn.token],
            output: Output::Token(Draw {
                burst: draw.burst - 1,
                ..draw
            }),
            ..self.run
        };
        Self {
            id: self.id,
            run,
            values: Vec::new(),
            rows: 1,
            done: 0,
            out: Vec::new(),
        }
    }
}

impl Engine {
    /// Answers what needs no step.
    fn answer(&mut self, task: Task) -> Result<Answer, Failed> {
        let text = |e: crate::llama::TextError| Failed {
            code: FailCode::Unsupported,
            detail: e.to_string(),
        };
        match task {
            Task::Tokenize(t) => self
                .parts
                .model()
                .tokenize(&t.text, t.add_special, t.parse_special)
                .map(Answer::Tokens)
                .map_err(text),
            Task::Render(messages) => self
                .parts
                .model()
                .render(&messages)
                .map(Answer::Text)
                .map_err(text),
            Task::Trim(trim) => {
                self.parts
                    .trim(trim.session, trim.length)
                    .map_err(Failed::from)?;
                Ok(Answer::Done)
            }
            Task::Stats => Ok(Answer::Stats(Stats {
                sessions: self.parts.sessions() as u32,
                resident_bytes: self.figures.resident_bytes(),
                ..self.stats
            })),
            Task::Load(_) | Task::Run(_) | Task::Drop(_) => Err(bad_call("handled elsewhere")),
        }
    }

    /// Checks a run's shape; returns its number of rows and its activations.
    fn check(&self, run: &Run, payload: &[u8]) -> Result<(usize, Vec<f32>), Failed> {
        let values = packet::f32_from_bytes(payload)
            .ok_or_else(|| bad_call("the payload is not a number of f32 values"))?;
        let takes_tokens = matches!(run.role, Role::Whole | Role::Head);
        let width = self.parts.model().embedding_length() as usize;
        let rows = if takes_tokens {
            run.tokens.len()
        } else {
            values.len() / width
        };
        if rows == 0 || takes_tokens != values.is_empty() || takes_tokens == run.tokens.is_empty() {
            return Err(bad_call(
                "a part takes either tokens or activations, and at least one row",
            ));
        }
        if !takes_tokens && values.len() % width != 0 {
            return Err(bad_call("the payload is not a number of whole rows"));
        }
        if let Some(token) = run
            .tokens
            .iter()
            .find(|token| !self.parts.model().knows(**token))
        {
            return Err(bad_call(&format!("token {token} is not in the vocabulary")));
        }
        let gives_rows = matches!(run.role, Role::Head | Role::Middle);
        let row_bytes = self.parts.row_length(run.role)? * size_of::<f32>();
        let fits = match run.output {
            Output::Nothing => true,
            Output::Rows => gives_rows && rows * row_bytes <= PAYLOAD_BYTES_MAX,
            Output::Logits => !gives_rows && rows * row_bytes <= PAYLOAD_BYTES_MAX,
            Output::Token(draw) => !gives_rows && draw.burst > 0,
        };
        if fits {
            Ok((rows, values))
        } else {
            Err(bad_call("the output does not fit the part"))
        }
    }

    /// Computes the next rows of every run of a step.
    fn compute(&mut self, role: Role, step: &mut [Pending]) -> Result<(), StepError> {
        let step_rows_max = self.parts.step_rows_max();
        let width = self.parts.model().embedding_length() as usize;
        let counts: Vec<usize> = step.iter().map(|p| p.next_rows(step_rows_max)).collect();
        let slices: Vec<SessionSlice<'_>> = step
            .iter()
            .zip(&counts)
            .map(|(p, count)| p.slice(*count, width))
            .collect();
        let threads = self.threads.choose();
        if threads != self.stats.threads {
            self.parts.set_threads(threads);
            self.stats.threads = threads;
        }
        let begun = Instant::now();
        let outs = self.parts.step(role, &slices)?;
        self.count(counts.iter().sum(), counts.len(), begun);
        for ((pending, count), out) in step.iter_mut().zip(counts).zip(outs) {
            pending.done += count;
            if pending.run.output != Output::Nothing {
                pending.out.extend(out);
            }
        }
        Ok(())
    }

    fn count(&mut self, rows: usize, slices: usize, begun: Instant) {
        let us = begun.elapsed().as_micros() as u64;
        if rows > slices {
            self.stats.prefill_rows += rows as u64;
            self.stats.prefill_us += us;
        } else {
            self.stats.decode_rows += rows as u64;
            self.stats.decode_us += us;
        }
    }

    /// Takes back what a failed run had computed, and the session if it was its first.
    fn undo(&mut self, pending: &Pending) {
        let Run {
            session, position, ..
        } = pending.run;
        if position == 0 || self.parts.trim(session, position).is_err() {
            self.parts.close(session);
        }
    }

    /// Draws the token behind a run's last row.
    fn drawn(&mut self, pending: &Pending, draw: &Draw, logits: &[f32]) -> Result<Drawn, Failed> {
        let position = pending.run.position + pending.rows as u32;
        let token = self
            .sampler
            .sample(logits, &draw.sampling, position)
            .map_err(|error| Failed {
                code: FailCode::Compute,
                detail: error.to_string(),
            })?;
        let model = self.parts.model();
        Ok(Drawn {
            token,
            position,
            piece: model.piece(token),
            end: model.ends(token),
        })
    }

    /// Runs the head, in one step, on the tokens of those runs that want it; empty for the others.
    fn heads(
        &mut self,
        drawing: &[(Pending, Draw, Vec<f32>)],
        drawn: &[Result<Drawn, Failed>],
    ) -> Vec<Vec<f32>> {
        let mut heads = vec![Vec::new(); drawing.len()];
        let mut order = Vec::new();
        let mut runs = Vec::new();
        for (i, ((pending, draw, _), drawn)) in drawing.iter().zip(drawn).enumerate() {
            let Ok(drawn) = drawn else { continue };
            let session = pending.run.session;
            // A head that cannot take the token has a full cache: the node sees that by the position.
            if draw.then_head
                && !drawn.end
                && self
                    .parts
                    .admit(session, Role::Head, drawn.position, 1)
                    .is_ok()
            {
                order.push(i);
                runs.push((session, drawn.position, [drawn.token]));
            }
        }
        if runs.is_empty() {
            return heads;
        }
        let slices: Vec<SessionSlice<'_>> = runs
            .iter()
            .map(|(session, position, token)| SessionSlice {
                session: *session,
                position: *position,
                input: Input::Tokens(token),
                wanted: Wanted::All,
            })
            .collect();
        let begun = Instant::now();
        if let Ok(rows) = self.parts.step(Role::Head, &slices) {
            for (i, values) in order.into_iter().zip(rows) {
                heads[i] = values;
            }
        }
        self.stats.decode_us += begun.elapsed().as_micros() as u64;
        heads
    }
}

impl Pending {
    fn slice(&self, count: usize, width: usize) -> SessionSlice<'_> {
        let rows = self.done..self.done + count;
        let input = if self.run.tokens.is_empty() {
            Input::Rows(&self.values[rows.start * width..rows.end * width])
        } else {
            Input::Tokens(&self.run.tokens[rows.clone()])
        };
        let wanted = match self.run.output {
            Output::Nothing => Wanted::Nothing,
            Output::Rows | Output::Logits => Wanted::All,
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
