//! Starts engine-hosts, speaks to them, and starts them again when they die.
//!
//! # Story
//!
//! A [`Supervisor`] owns one engine-host: a child process of the same binary ([`process`]) that has one model or stage loaded. One
//! task a supervisor starts the child, loads, waits for its end, and starts it again with growing pauses. What is current is
//! published in a watch channel; [`Supervisor::host`] hands out the living [`Host`] or says why there is none.
//!
//! A [`Host`] is the node's end of the pipe. Calls are written by whoever makes them, answers are read
//! by the supervisor's task; an answer finds its caller by the call's number. Every caller has a bounded mailbox that is as large as the answers it asked for, so a
//! caller that never reads stops nobody. When the child dies, every waiting caller learns it at once, with the last
//! words of the child's standard error. Sessions die with their host: whoever had one opens it again.
//!
//! A model that engine-hosts die with again and again is quarantined ([`Ward`]): no other is started until it is released.
//!
//! All ends with the [`Supervisor`]: dropping it kills the child and ends both tasks. Should the node itself be killed,
//! the kernel kills the child (see `engine_host::run`).
//!
//! *Invariant:* no foreign function and no model file is touched in this process.

mod host;
mod outbox;
mod process;
mod supervise;
mod ward;

pub use host::{Answers, Host};
pub use process::Launch;
pub use supervise::{State, Supervisor, estimate};
pub use ward::{DEATHS_MAX, DEATHS_WINDOW_S, Keep, Patient, Ward, why};

use proto::host::Failed;

/// Why an engine did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The engine-host refused or failed; its process lives.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The engine-host's process ended while it worked.
    #[error("the engine process ended: {0}")]
    Died(String),
    /// No engine-host runs at the moment.
    #[error("the engine is not running: {0}")]
    Down(String),
    /// Too many engine-hosts died with the model; none is started until it is released.
    #[error("{0}")]
    Quarantined(String),
    /// The engine-host said something that is not an answer to what it was asked.
    #[error("the engine answered out of turn")]
    OutOfTurn,
}
