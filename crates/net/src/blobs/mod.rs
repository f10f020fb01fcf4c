//! Blocks of models between members: asked for by content, verified while they stream.
//!
//! | file | what it does |
//! | --- | --- |
//! | `ask` | what do you hold of this model? One question and its answer, under `ALPN_MODEL` |
//! | `serve` | answers requests for blocks: of members, for what is offered, as fast as the limits allow |
//! | `throttle` | those limits: one bucket of bytes for all, one for each member |
//! | `schedule` | who is asked for which part; a pure machine |
//! | `fetch` | runs the schedule: calls providers, asks, verifies, hands verified parts to a [`Sink`] |
//! | `get` | one part from one provider |
//!
//! Bytes travel by the protocol of iroh-blobs (`/iroh-bytes/4`): a request names a BLAKE3 hash and a range, the answer
//! interleaves the range with the hashes that prove it. That protocol serves any hash to anybody; here a connection of
//! somebody who is no member, or a request for something that is not offered, ends the connection with a reason.
//!
//! Nothing is fetched twice as long as nobody is slow: near the end, who is idle asks again for what a slower one still
//! owes, and the first to deliver wins. A provider whose bytes do not verify is named and never asked again; its
//! bytes have not left the memory of the task that read them.

mod ask;
mod fetch;
mod get;
mod schedule;
mod serve;
mod throttle;

pub use ask::{AskError, Survey};
pub use fetch::{FetchError, Kept, Provider, Sink, SinkError, Wanted};
pub use schedule::{FetchReport, ProviderReport, ProviderState};
pub use serve::Uploads;
pub use throttle::{Clock, UploadLimits, WallClock};

pub(crate) use ask::answer as answer_question;
pub(crate) use serve::{Refusal, Serving, answer};

use proto::ids::Hash;
use proto::manifest::ModelAnswer;
use std::io;

/// The ALPN of requests for blocks: that of iroh-blobs.
pub const ALPN_BLOBS: &[u8] = iroh_blobs::ALPN;

/// A block that is offered: its bytes, and the tree that proves them. All calls come from threads that may block.
pub trait Blob: Send + Sync + 'static {
    /// How many bytes it has.
    fn bytes(&self) -> u64;

    /// Reads from it, like `pread`: 0 bytes at its end.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads from its tree: pairs of hashes in post-order, leaves of [`proto::manifest::LEAF_CHUNKS_LOG2`].
    ///
    /// # Errors
    ///
    /// What the system says.
    fn tree_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What this node offers to members. Called on threads that may block.
pub trait Offers: Send + Sync + 'static {
    /// The block of this hash, if it is offered.
    fn blob(&self, hash: Hash) -> Option<Box<dyn Blob>>;

    /// What is held of a model; `None` is nothing.
    fn model(&self, root: Hash) -> Option<ModelAnswer>;
}
