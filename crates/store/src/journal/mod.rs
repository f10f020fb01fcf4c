//! Journals of streamed answers: what is needed to go on with them when their client or this node has gone.
//!
//! # Story
//!
//! The node begins a journal when it begins an answer ([`Journals::begin`]) and appends what happened before it tells the
//! client ([`Journal::append`]). Whoever comes back with the stream's id gets all of it, and goes on ([`Journals::resume`]): the
//! newest comer has the stream, the one before is told so ([`Journal::taken`]) and can append nothing more.
//!
//! ```text
//! begin ──> STREAM.head, a file for each answer: salt, StreamStart
//! append ─> NUMBER.log, shared by all: the batches of one round, then one fdatasync for all of them
//! ```
//!
//! One thread, the *keeper*, owns the files. It takes all orders that wait, writes what they append in one piece, makes it durable,
//! and answers all at once. So a token waits for one fdatasync, of which there are the fewer a token the slower the disk is.
//!
//! **How a journal ends.** While somebody has the [`Journal`], it lives. Dropped, it lives [`Limits::life`] longer. Ended, the client's
//! connection has taken everything, but nobody knows whether the last bytes arrived: it lives [`Limits::linger`] longer.
//! Then its head is removed, and with it the salt without which its records can be read by nobody. A log is removed, or cut to nothing,
//! as soon as no living stream has records in it. A record that cannot be written ends the journal at once: what was sent and what was kept
//! must never differ.
//!
//! **At the start** all heads are read and all logs, each up to its first damaged byte; what is too old, unreadable or of another
//! version is removed.
//!
//! *Invariants:* nothing is told to be durable before fdatasync said so. No key, text or token is in a message or a `Debug`.

mod files;
mod keeper;
mod seal;
#[cfg(test)]
mod tests;

use crate::durable::FileError;
use crate::keys::Secret;
use proto::codec;
use proto::ids::{Hash, StreamId};
use proto::journal::{BATCH_BYTES_MAX, STREAM_BYTES_MAX, StreamBatch, StreamStart};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Orders that wait for the keeper. An answer waits for each of its own, so no node has as many.
const ORDERS_WAITING_MAX: usize = 1024;
/// When an order that finds the queue full is given once more.
const ORDER_AGAIN: Duration = Duration::from_millis(5);

/// Bounds on the journals of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Answers that have one at once. The oldest that nobody listens to give way.
    pub streams_max: usize,
    /// Bytes of all files.
    pub bytes_max: u64,
    /// Bytes of one answer.
    pub stream_bytes_max: u64,
    /// Bytes from which on a log is followed by another one.
    pub log_bytes: u64,
    /// How long a journal lives when its client has gone.
    pub life: Duration,
    /// How long it lives when its client's connection has taken everything.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 256,
            bytes_max: 256 << 20,
            stream_bytes_max: STREAM_BYTES_MAX as u64,
            log_bytes: 4 << 20,
            life: Duration::from_secs(600),
            linger: Duration::from_secs(10),
        }
    }
}

/// Why there is no journal, or no more of one.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No stream of that id and owner: there never was one, or it has ended, or its time is over.
    #[error("there is no such stream")]
    Unknown,
    /// Somebody else has resumed the stream.
    #[error("the stream was resumed by another client")]
    Taken,
    /// A limit is reached.
    #[error("{0}")]
    Full(&'static str),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is on disk is not what was written.
    #[error("the journal is damaged; ask again from the beginning")]
    Damaged,
    /// The keeper has ended.
    #[error("the node is shutting down")]
    Closed,
}

/// How the journals stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Answers that have one.
    pub streams: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Answers since the start that go on without one.
    pub without: u64,
    /// Why the newest of those does.
    pub why: Option<String>,
}

/// All journals of a node.
#[derive(Debug, Clone)]
pub struct Journals {
    orders: mpsc::SyncSender<Order>,
    figures: Arc<Mutex<Figures>>,
}

/// The journal of one answer, in the hands of who streams it. Dropping it begins its [`Limits::life`].
#[derive(Debug)]
pub struct Journal {
    seat: Seat,
    orders: mpsc::SyncSender<Order>,
}

/// The right to go on with a stream.
#[derive(Debug)]
struct Seat {
    stream: StreamId,
    nth: u64,
    /// Becomes true when somebody else has the stream. The keeper sees in it, too, whether the seat is still held.
    taken: watch::Receiver<bool>,
}

/// A journal to go on with.
#[derive(Debug)]
pub struct Resumed {
    /// What fixes the answer.
    pub start: StreamStart,
    /// All that happened, in order.
    pub batches: Vec<StreamBatch>,
    /// For what happens next.
    pub journal: Journal,
}

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the keeper is asked.
#[derive(Debug)]
enum Order {
    Begin(Box<StreamStart>, Answer<Seat>),
    Append {
        stream: StreamId,
        nth: u64,
        plain: Vec<u8>,
        done: Answer<()>,
    },
    Resume(
        StreamId,
        Hash,
        Answer<(StreamStart, Vec<StreamBatch>, Seat)>,
    ),
    End(StreamId, u64),
}

impl Journals {
    /// Opens the journals in `dir`, which is made if need be, and starts their keeper. It ends with the last handle.
    ///
    /// # Errors
    ///
    /// [`JournalError::File`] when the directory cannot be used.
    pub fn open(dir: &Path, secret: &Secret, limits: Limits) -> Result<Self, JournalError> {
        let (orders, ordered) = mpsc::sync_channel(ORDERS_WAITING_MAX);
        let figures = Arc::<Mutex<Figures>>::default();
        let keeper = keeper::Keeper::open(dir, secret, limits, figures.clone())?;
        std::thread::Builder::new()
            .name("journals".to_owned())
            .spawn(move || keeper.run(&ordered))
            .map_err(FileError::of("start the thread for", dir))?;
        Ok(Self { orders, figures })
    }

    /// How they stand.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let figures = self.figures.lock();
        figures.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a journal; returns when its start is durable.
    ///
    /// # Errors
    ///
    /// [`JournalError`]; the answer has none then, which [`Figures`] count.
    pub async fn begin(&self, start: StreamStart) -> Result<Journal, JournalError> {
        let (done, seat) = oneshot::channel();
        give(&self.orders, Order::Begin(Box::new(start), done)).await?;
        let seat = seat.await.map_err(|_| JournalError::Closed)??;
        Ok(self.journal(seat))
    }

    /// Takes a stream over from whoever has it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unknown`], also for a stream of another owner; others when the disk fails.
    pub async fn resume(&self, stream: StreamId, owner: Hash) -> Result<Resumed, JournalError> {
        let (done, kept) = oneshot::channel();
        give(&self.orders, Order::Resume(stream, owner, done)).await?;
        let (start, batches, seat) = kept.await.map_err(|_| JournalError::Closed)??;
        Ok(Resumed {
            start,
            batches,
            journal: self.journal(seat),
        })
    }

    fn journal(&self, seat: Seat) -> Journal {
        let orders = self.orders.clone();
        Journal { seat, orders }
    }
}

/// Gives the keeper an order without blocking the thread.
async fn give(orders: &mpsc::SyncSender<Order>, mut order: Order) -> Result<(), JournalError> {
    loop {
        order = match orders.try_send(order) {
            Ok(()) => return Ok(()),
            Err(mpsc::TrySendError::Full(order)) => order,
            Err(mpsc::TrySendError::Disconnected(_)) => return Err(JournalError::Closed),
        };
        tokio::time::sleep(ORDER_AGAIN).await;
    }
}

impl Journal {
    /// The name by which the stream is resumed.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.seat.stream
    }

    /// Makes a batch durable; until then nothing of it may be sent.
    ///
    /// # Errors
    ///
    /// [`JournalError::Taken`] when somebody else has the stream: the answer ends here. After any other, the journal is gone and the answer
    /// goes on without.
    pub async fn append(&self, batch: &StreamBatch) -> Result<(), JournalError> {
        let plain = codec::to_vec(batch);
        if plain.len() > BATCH_BYTES_MAX {
            self.end();
            return Err(JournalError::Full(
                "more tokens at once than a record holds",
            ));
        }
        let (done, durable) = oneshot::channel();
        let order = Order::Append {
            stream: self.seat.stream,
            nth: self.seat.nth,
            plain,
            done,
        };
        give(&self.orders, order).await?;
        durable.await.map_err(|_| JournalError::Closed)?
    }

    /// Waits until somebody else has the stream.
    pub fn taken(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut taken = self.seat.taken.clone();
        async move {
            if taken.wait_for(|taken| *taken).await.is_err() {
                // The journal is gone, which is no reason to end the answer.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The client's connection has taken everything, or nobody will ever ask for it.
    pub fn end(&self) {
        // A keeper that has ended needs no word: what is left on disk is removed when its time is over.
        let _ = self
            .orders
            .send(Order::End(self.seat.stream, self.seat.nth));
    }
}
