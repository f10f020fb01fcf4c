//! Texts are worked on beside the engine's steps, by a thread of their own, and another one watches over it.
//!
//! A template is a program of a stranger's, and what it does with a conversation can take for ever or need all memory. Native
//! code cannot be stopped within a process; so when a piece of work exceeds its limits, its caller is told so and the process
//! ends. The node starts another one. It does not hold this against the model: otherwise three such texts of one caller would
//! put it into quarantine for all.

use super::{Chat, ChatError};
use crate::figures::Figures;
use crate::llama::Model;
use crate::pipe::Replies;
use nix::sys::signal::{Signal, raise};
use proto::host::{Answer, FailCode, Failed, Task};
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long one piece of work may take.
const WORK_MAX: Duration = Duration::from_secs(10);
/// By how much the process may grow meanwhile, in bytes.
const GROWTH_BYTES_MAX: u64 = 1 << 30;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pieces of work that may wait.
const WAITING_MAX: usize = 256;
/// Templates and what they make are worked through recursively, in bytes.
const STACK_BYTES: usize = 64 << 20;

/// Where texts are handed in.
#[derive(Debug, Clone)]
pub struct Desk {
    jobs: SyncSender<(u64, Task)>,
    replies: Replies,
}

/// What is being worked on.
#[derive(Debug)]
struct Work {
    id: u64,
    begun: Instant,
    bytes: u64,
}

type Now = Arc<(Mutex<Option<Work>>, Condvar)>;

impl Desk {
    /// Starts both threads; to be called in a process that is sealed, so that they are as well.
    ///
    /// # Errors
    ///
    /// When the system has no room for threads.
    pub(crate) fn start(
        model: Arc<Model>,
        figures: Arc<Figures>,
        replies: Replies,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let now: Now = Arc::default();
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let (watched, said) = (now.clone(), replies.clone());
        named("watch").spawn({
            let figures = figures.clone();
            move || watch(&watched, &figures, &said)
        })?;
        let answers = replies.clone();
        named("texts")
            .stack_size(STACK_BYTES)
            .spawn(move || work(model, &queue, &now, &figures, &answers))?;
        Ok(Self { jobs, replies })
    }

    /// Whether this is work for the desk.
    #[must_use]
    pub fn takes(task: &Task) -> bool {
        matches!(
            task,
            Task::Render(_) | Task::Read(_) | Task::Tokenize(_) | Task::Detokenize(_)
        )
    }

    /// Hands a task in; its answer is sent when it is done, behind or before those of other calls.
    ///
    /// # Errors
    ///
    /// When the pipe breaks.
    pub(crate) fn take(&self, id: u64, task: Task) -> std::io::Result<()> {
        if self.jobs.try_send((id, task)).is_ok() {
            return Ok(());
        }
        let full = Answer::Failed(Failed {
            code: FailCode::NoRoom,
            detail: format!("{WAITING_MAX} texts wait for the engine already; ask again later"),
        });
        self.replies.send(id, false, full, &[])
    }
}

fn work(
    model: Arc<Model>,
    queue: &Receiver<(u64, Task)>,
    now: &Now,
    figures: &Figures,
    replies: &Replies,
) {
    let mut texts = Texts { model, chat: None };
    while let Ok((id, task)) = queue.recv() {
        set(
            now,
            Some(Work {
                id,
                begun: Instant::now(),
                bytes: figures.own_bytes(),
            }),
        );
        let answer = texts.answer(task).unwrap_or_else(Answer::Failed);
        set(now, None);
        if replies.send(id, false, answer, &[]).is_err() {
            // The node is gone, and the process ends.
            return;
        }
    }
}

fn set(now: &Now, work: Option<Work>) {
    if let Ok(mut at) = now.0.lock() {
        *at = work;
        now.1.notify_one();
    }
}

/// Ends the process when a piece of work takes too much.
fn watch(now: &Now, figures: &Figures, replies: &Replies) {
    let Ok(mut at) = now.0.lock() else { return };
    loop {
        let woken = match &*at {
            None => now.1.wait(at),
            Some(work) => {
                if let Some(what) = excess(work, figures) {
                    end(work.id, what, replies);
                }
                now.1
                    .wait_timeout(at, LOOK_EVERY)
                    .map(|(at, _)| at)
                    .map_err(|error| {
                        // The same kind of error for both.
                        std::sync::PoisonError::new(error.into_inner().0)
                    })
            }
        };
        let Ok(woken) = woken else { return };
        at = woken;
    }
}

fn excess(work: &Work, figures: &Figures) -> Option<&'static str> {
    if work.begun.elapsed() > WORK_MAX {
        return Some("takes longer than 10 s");
    }
    let grown = figures.own_bytes().saturating_sub(work.bytes);
    (grown > GROWTH_BYTES_MAX).then_some("needs more than 1 GiB of memory")
}

fn end(id: u64, what: &str, replies: &Replies) {
    let detail = format!(
        "what the model's chat template or tokenizer does with this text {what}; the engine is started again"
    );
    let failed = Answer::Failed(Failed {
        code: FailCode::Compute,
        detail: detail.clone(),
    });
    // The node keeps these as the process's last words.
    let _ = writeln!(std::io::stderr(), "{detail}");
    let _ = replies.send(id, false, failed, &[]);
    // Not an exit: that would wait for what the other threads hold. By this signal the node knows that it was the text.
    let _ = raise(Signal::SIGXCPU);
}

/// What knows a model's texts.
#[derive(Debug)]
struct Texts {
    model: Arc<Model>,
    /// Made when it is first asked for.
    chat: Option<Result<Chat, ChatError>>,
}

impl Texts {
    fn chat(&mut self) -> Result<&mut Chat, ChatError> {
        let model = &self.model;
        let chat = self
            .chat
            .get_or_insert_with(|| Chat::new(model.clone(), None));
        chat.as_mut().map_err(|error| error.clone())
    }

    fn answer(&mut self, task: Task) -> Result<Answer, Failed> {
        match task {
            Task::Render(conversation) => {
                let prompt = self.chat()?.render(&conversation)?;
                Ok(Answer::Prompt(Box::new(prompt)))
            }
            Task::Read(reply) => Ok(Answer::Text(self.chat()?.read(&reply)?)),
            Task::Tokenize(t) => {
                let tokens = self.model.tokenize(&t.text, t.add_special, t.parse_special);
                Ok(Answer::Tokens(tokens.map_err(ChatError::from)?))
            }
            Task::Detokenize(tokens) => self.pieces(&tokens),
            _ => Err(crate::engine::bad_call("no work with texts")),
        }
    }

    fn pieces(&self, tokens: &[i32]) -> Result<Answer, Failed> {
        let piece = |token: &i32| {
            if !self.model.knows(*token) {
                let what = format!("token {token} is not in the vocabulary");
                return Err(crate::engine::bad_call(&what));
            }
            Ok(self.model.name(*token).into())
        };
        let pieces = tokens.iter().map(piece).collect::<Result<_, _>>()?;
        Ok(Answer::Pieces(pieces))
    }
}
