//! Journals of streams: what lets an answer outlive its client, and the node. The node implements the traits.

use crate::backend::Caller;
use crate::fault::Fault;
use futures::future::BoxFuture;
use proto::ids::{Hash, StreamId};
use proto::journal::{StreamBatch, StreamStart};
use std::fmt::Debug;
use std::sync::Arc;

/// Keeps streams.
pub trait Journals: Debug + Send + Sync + 'static {
    /// Begins a journal; its start is durable then. `None` when there is none to be had: the answer goes on without.
    fn begin(&self, start: StreamStart) -> BoxFuture<'_, Option<Arc<dyn Journal>>>;

    /// Takes a stream over from whoever has it; `None` when there is none of that id and owner.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be read.
    fn resume(
        &self,
        stream: StreamId,
        owner: Hash,
    ) -> BoxFuture<'_, Result<Option<KeptStream>, Fault>>;
}

/// The journal of one stream. Once the last handle is dropped, it lives for a while, to be resumed.
pub trait Journal: Debug + Send + Sync + 'static {
    /// The stream's name for its client.
    fn stream(&self) -> StreamId;

    /// Makes what happened durable; none of it may be sent before.
    ///
    /// # Errors
    ///
    /// [`Lost`].
    fn append<'a>(&'a self, batch: &'a StreamBatch) -> BoxFuture<'a, Result<(), Lost>>;

    /// Waits until somebody else has the stream.
    fn taken(&self) -> BoxFuture<'static, ()>;

    /// The client's connection has taken everything, or nobody will ask for the rest.
    fn end(&self);
}

/// Why nothing more is journalled here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Somebody else has resumed the stream; here it ends.
    Taken,
    /// There is no journal any more; the answer goes on without.
    Gone,
}

/// A stream to go on with.
#[derive(Debug)]
pub struct KeptStream {
    /// What fixes it.
    pub start: StreamStart,
    /// All that happened, in order.
    pub batches: Vec<StreamBatch>,
    /// For what happens next.
    pub journal: Arc<dyn Journal>,
}

/// Whose a stream is: who shows the same key, or none again, has it.
pub(crate) fn owner(caller: &Caller) -> Hash {
    let key = caller.0.as_deref();
    let shown = [u8::from(key.is_some())];
    Hash::of(
        &[
            b"owner of a stream",
            &shown[..],
            key.unwrap_or_default().as_bytes(),
        ]
        .concat(),
    )
}
