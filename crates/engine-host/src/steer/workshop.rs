//! The thread that compiles grammars.
//!
//! A grammar is compiled in a thread made for it, with a stack for the deepest schema that is taken, and is given up when it takes too
//! long: a thread cannot be stopped, so it runs on, and while a few of them do, no other grammar is begun.

use super::Settled;
use super::grammar::{Beginning, Compiled, GrammarError};
use super::schema::LEVELS_MAX;
use crate::steer::SteerError;
use proto::host::{Failed, Grammar, SESSIONS_MAX};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long compiling may take; schemas of this size take milliseconds.
pub(super) const COMPILE_MAX: Duration = Duration::from_secs(10);
/// Threads that may run on behind that time.
const STUCK_MAX: usize = 2;
/// Stack for one level of a schema, in bytes; the compiler was seen to use a quarter of it.
const LEVEL_BYTES: usize = 16 << 10;
/// The stack of a compiling thread, in bytes. Only what is used of it takes memory.
const STACK_BYTES: usize = LEVELS_MAX * LEVEL_BYTES;

type Compile = dyn Fn(&Grammar) -> Result<Beginning, GrammarError> + Send + Sync;

struct Order {
    grammar: Grammar,
    compiled: Arc<Compiled>,
    settled: Settled,
}

/// What compiles grammars for a model; ends with this value.
#[derive(Debug)]
pub(super) struct Workshop {
    orders: SyncSender<Order>,
}

impl Workshop {
    /// Opens one that compiles as `compile` does, and gives up on what takes longer than its patience.
    pub(super) fn new(
        compile: impl Fn(&Grammar) -> Result<Beginning, GrammarError> + Send + Sync + 'static,
        patience: Duration,
    ) -> Result<Self, GrammarError> {
        let compile: Arc<Compile> = Arc::new(compile);
        let (orders, ordered) = sync_channel(SESSIONS_MAX as usize);
        let work = move || work(&ordered, &compile, patience);
        let thread = Builder::new().name("grammars".to_owned()).spawn(work);
        thread.map_err(|_| GrammarError::Broken)?;
        Ok(Self { orders })
    }

    /// Compiles a grammar into its place, unless its turn is too far off.
    pub(super) fn order(&self, grammar: Grammar, compiled: Arc<Compiled>, settled: Settled) {
        let order = Order {
            grammar,
            compiled,
            settled,
        };
        if let Err(error) = self.orders.try_send(order) {
            let (std::sync::mpsc::TrySendError::Full(order)
            | std::sync::mpsc::TrySendError::Disconnected(order)) = error;
            order.settle(Err(GrammarError::Busy));
        }
    }
}

impl Order {
    fn settle(self, result: Result<Beginning, GrammarError>) {
        let answer = result.as_ref().map(|_| ()).map_err(Clone::clone);
        // Filled once: every order has a place of its own.
        let _ = self.compiled.set(result);
        (self.settled)(answer.map_err(|error| Failed::from(SteerError::from(error))));
    }
}

fn work(ordered: &Receiver<Order>, compile: &Arc<Compile>, patience: Duration) {
    let mut stuck: Vec<JoinHandle<()>> = Vec::new();
    while let Ok(order) = ordered.recv() {
        stuck.retain(|thread| !thread.is_finished());
        if stuck.len() >= STUCK_MAX {
            order.settle(Err(GrammarError::Busy));
            continue;
        }
        let (done, result) = sync_channel(1);
        let (grammar, compile) = (order.grammar.clone(), compile.clone());
        let compile = move || {
            // Nobody waits any more when it took too long.
            let _ = done.send(compile(&grammar));
        };
        let thread = Builder::new()
            .name("grammar".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(compile);
        let result = match result.recv_timeout(patience) {
            Ok(result) => result,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                stuck.extend(thread);
                Err(GrammarError::Slow(patience.as_secs()))
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(GrammarError::Broken),
        };
        order.settle(result);
    }
}
