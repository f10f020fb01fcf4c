//! The main loop of an engine-host: take calls, compute steps, reply.

use crate::adapters::AdapterError;
use crate::chat::Desk;
use crate::engine::{Engine, Outcome, Text, bad_call};
use crate::extent::ExtentError;
use crate::inbox::Inbox;
use crate::llama::StepError;
use crate::parts::{PartsError, SessionError};
use crate::pipe::{self, Calls, ReadError, Received, Replies};
use crate::sandbox::SealError;
use crate::schedule::{Pending, Schedule};
use proto::host::{
    Answer, Call, Draw, Drawn, EmbedRows, FailCode, Failed, LoadSpec, Output, Role, Run, Steer,
    Task,
};
use proto::ids::SessionId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// Runs this process as an engine-host: the pipe is standard input, `parent` the process to die with.
///
/// # Errors
///
/// When the pipe breaks while a reply is written. The end of the pipe is the normal end.
pub fn run(parent: u32) -> io::Result<()> {
    die_with(parent)?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let inbox = Inbox::new(Calls::new(stream.try_clone()?));
    let replies = Replies::new(stream);
    Host {
        inbox: Rc::new(RefCell::new(inbox)),
        replies,
        engine: None,
        schedule: Schedule::default(),
        embedding: VecDeque::new(),
    }
    .serve()
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

struct Host {
    inbox: Rc<RefCell<Inbox>>,
    replies: Replies,
    engine: Option<Engine>,
    schedule: Schedule,
    embedding: VecDeque<Embedding>,
}

/// Texts whose embeddings are being computed, one between two steps.
struct Embedding {
    id: u64,
    left: VecDeque<Text>,
    rows: Vec<f32>,
    done: u32,
}

impl From<PartsError> for Failed {
    fn from(error: PartsError) -> Self {
        let code = match error {
            PartsError::Load(_) => FailCode::Unloadable,
            PartsError::Context { .. } => FailCode::NoRoom,
            PartsError::Spec(_) => FailCode::BadCall,
            PartsError::Extent(ExtentError::Memory { .. }) => FailCode::NoRoom,
            PartsError::Extent(_) => FailCode::Unsupported,
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
            SessionError::Untrimmable(_) | SessionError::NoEmbeddings(_) => FailCode::Unsupported,
            SessionError::Adapter(AdapterError::Full) => FailCode::NoRoom,
            SessionError::Adapter(AdapterError::File { .. }) => FailCode::Unloadable,
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

impl Host {
    fn serve(&mut self) -> io::Result<()> {
        loop {
            // With nothing to compute there is nothing to do but wait for a call.
            let mut wait = self.schedule.is_empty() && self.embedding.is_empty();
            loop {
                let next = self.inbox.borrow_mut().next(wait);
                match next {
                    Ok(Some(received)) => self.take(received)?,
                    Ok(None) => break,
                    // The normal end: the node has closed the pipe.
                    Err(ReadError::Io(_)) => return Ok(()),
                    Err(ReadError::Decode(error)) => return Err(io::Error::other(error)),
                }
                wait = false;
            }
            self.step()?;
            self.embed()?;
        }
    }

    /// Embeds one text, if one waits.
    fn embed(&mut self) -> io::Result<()> {
        let (Some(engine), Some(mut first)) = (&mut self.engine, self.embedding.pop_front()) else {
            return Ok(());
        };
        if let Some(text) = first.left.pop_front() {
            match engine.embed(&text) {
                Ok(row) => first.rows.extend(row),
                Err(failed) => return self.reply(first.id, Answer::Failed(failed)),
            }
            first.done += 1;
        }
        if first.left.is_empty() {
            let rows = Answer::Rows(first.done);
            return self.replies.send(first.id, false, rows, &first.rows);
        }
        // Whoever has more texts lets the others go first.
        self.embedding.push_back(first);
        Ok(())
    }

    fn queue_embedding(&mut self, id: u64, texts: Vec<Vec<i32>>) -> io::Result<()> {
        let checked = match &mut self.engine {
            Some(engine) => engine.check_embed(&texts),
            None => Err(bad_call("nothing is loaded")),
        };
        if let Err(failed) = checked {
            return self.reply(id, Answer::Failed(failed));
        }
        self.wait_for_embedding(id, texts.into_iter().map(Text::Tokens).collect());
        Ok(())
    }

    fn queue_rows(&mut self, id: u64, rows: EmbedRows, payload: &[u8]) -> io::Result<()> {
        let gathered = match &mut self.engine {
            Some(engine) => engine.gather(rows, payload),
            None => Err(bad_call("nothing is loaded")),
        };
        match gathered {
            Ok(Some(text)) => {
                self.wait_for_embedding(id, VecDeque::from([Text::Rows(text)]));
                Ok(())
            }
            Ok(None) => self.reply(id, Answer::Done),
            Err(failed) => self.reply(id, Answer::Failed(failed)),
        }
    }

    fn wait_for_embedding(&mut self, id: u64, left: VecDeque<Text>) {
        self.embedding.push_back(Embedding {
            id,
            left,
            rows: Vec::new(),
            done: 0,
        });
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
            Task::Estimate(spec) => self.estimate(&spec),
            Task::Run(run) => return self.queue(id, run, &payload),
            Task::Embed(texts) => return self.queue_embedding(id, texts),
            Task::EmbedRows(rows) => return self.queue_rows(id, rows, &payload),
            Task::Drop(session) => return self.close(id, session),
            Task::Steer(steer) => return self.steer(id, steer),
            task => match &mut self.engine {
                Some(engine) => engine.answer(task, self.schedule.len()),
                None => Err(bad_call("nothing is loaded")),
            },
        };
        self.reply(id, answer.unwrap_or_else(Answer::Failed))
    }

    /// Steers a session; the answer may come later, from another thread.
    fn steer(&mut self, id: u64, steer: Steer) -> io::Result<()> {
        let Some(engine) = &mut self.engine else {
            return self.reply(id, Answer::Failed(bad_call("nothing is loaded")));
        };
        let replies = self.replies.clone();
        let settled = move |settled: Result<(), Failed>| {
            let answer = settled.map_or_else(Answer::Failed, |()| Answer::Done);
            // That the pipe is broken, the main loop finds out by itself.
            let _ = replies.send(id, false, answer, &[]);
        };
        engine.steer(steer, Box::new(settled));
        Ok(())
    }

    fn load(&mut self, spec: &LoadSpec) -> Result<Answer, Failed> {
        if self.engine.is_some() {
            return Err(bad_call("a model is loaded already; start another process"));
        }
        let (engine, loaded) = Engine::load(spec)?;
        let (model, figures) = (engine.parts.shared_model(), engine.figures.clone());
        let desk = Desk::start(model, figures, self.replies.clone());
        let desk = desk.map_err(|error| Failed {
            code: FailCode::NoRoom,
            detail: format!("no thread could be started ({error})"),
        })?;
        Inbox::open(&self.inbox, desk);
        self.engine = Some(engine);
        Ok(Answer::Loaded(Box::new(loaded)))
    }

    fn estimate(&self, spec: &LoadSpec) -> Result<Answer, Failed> {
        if self.engine.is_some() {
            return Err(bad_call("a model is loaded; estimate in another process"));
        }
        Engine::estimate(spec).map(Answer::Memory)
    }

    fn queue(&mut self, id: u64, mut run: Run, payload: &[u8]) -> io::Result<()> {
        let Some(engine) = &self.engine else {
            return self.reply(id, Answer::Failed(bad_call("nothing is loaded")));
        };
        // The order says nothing, and runs with the same adapters are computed together.
        run.adapters.sort_by(|a, b| a.name.cmp(&b.name));
        match engine.check(&run, payload) {
            Ok((rows, values)) => {
                self.schedule.push(Pending {
                    values,
                    ..Pending::new(id, run, rows)
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
            engine.close(session);
        }
        self.reply(id, Answer::Done)
    }

    /// Computes one step, if something waits.
    fn step(&mut self) -> io::Result<()> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        let mut step = Vec::new();
        for mut pending in self.schedule.next(engine.step_size()) {
            match engine.admit(&mut pending) {
                Ok(()) => step.push(pending),
                Err(failed) => {
                    self.replies
                        .send(pending.id, false, Answer::Failed(failed), &[])?;
                }
            }
        }
        engine.guess(&mut step);
        match engine.compute(&mut step) {
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
        for pending in step {
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
                Output::Token(draw) => drawing.push((pending, draw)),
            }
        }
        let Some(engine) = self.engine.as_mut().filter(|_| !drawing.is_empty()) else {
            return Ok(());
        };
        let positions_max = engine.parts.positions_max();
        let outcomes = engine.draw(drawing).into_iter();
        let replies: Vec<u8> = outcomes
            .flat_map(|outcome| self.answer_drawn(outcome, positions_max))
            .collect();
        self.replies.write(&replies)
    }

    /// The replies with drawn tokens, one by one; goes on with a burst.
    fn answer_drawn(&mut self, outcome: Outcome, positions_max: u32) -> Vec<u8> {
        let Outcome {
            mut pending,
            drawn,
            head,
        } = outcome;
        let id = pending.id;
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(failed) => return pipe::reply(id, false, Answer::Failed(failed), &[]),
        };
        let mut replies = Vec::new();
        let mut more = true;
        let (role, mut left) = (pending.run.role, drawn.len());
        for drawn in drawn {
            let Output::Token(draw) = pending.run.output else {
                break;
            };
            left -= 1;
            let fits = drawn.position < positions_max;
            let head = match left {
                0 => &head[..],
                _ => &[],
            };
            more = match role {
                Role::Whole => draw.burst > 1 && !drawn.end && fits,
                _ => left > 0,
            };
            pending = pending.after(&drawn, draw);
            replies.extend(pipe::reply(id, more, Answer::Token(drawn), head));
        }
        if more {
            self.schedule.put_back(pending);
        }
        replies
    }
}

impl Pending {
    /// The run that feeds a drawn token back.
    fn after(self, drawn: &Drawn, draw: Draw) -> Self {
        let run = Run {
            position: drawn.position,
            tokens: vec![drawn.token],
            output: Output::Token(Draw {
                burst: draw.burst.saturating_sub(1),
                ..draw
            }),
            ..self.run
        };
        Self::new(self.id, run, 1)
    }
}
