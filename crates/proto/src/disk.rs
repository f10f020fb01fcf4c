//! What the store writes beside the models: records about them, and remembered hashes.

use crate::codec::Wire;
use crate::host::Memory;
use crate::ids::Hash;
use minicbor::{CborLen, Decode, Encode};
use serde::{Deserialize, Serialize};

/// The version of [`ModelRecord`] that this build writes.
pub const MODEL_RECORD_VERSION: u32 = 1;
/// The largest model record that is read, in bytes.
pub const MODEL_RECORD_BYTES_MAX: u64 = 64 << 10;

/// What is known about a model file in the store: a TOML file beside it, named by the same hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// [`MODEL_RECORD_VERSION`] of the build that wrote it.
    pub version: u32,
    /// What people call the model; also its id in the API.
    pub name: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// BLAKE3 of the file: the model's root, and the name of its file.
    pub blake3: Hash,
    /// SPDX licence expression, where the catalogue knows it.
    pub licence: Option<String>,
    /// Where the file came from, for people.
    pub source: String,
    /// When it came, in seconds since 1970 UTC.
    pub added_s: u64,
}

/// The remembered hash of a file outside the store. It holds while size and time of change are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct PathHash {
    /// Size of the file in bytes.
    #[n(0)]
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970 UTC.
    #[n(1)]
    pub modified_ns: u64,
    /// BLAKE3 of the file.
    #[n(2)]
    pub blake3: Hash,
}

impl Wire for PathHash {
    const WHAT: &'static str = "remembered hash";
    const BYTES_MAX: usize = 128;
}

/// What an introducer keeps of a ticket that it issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct TicketRecord {
    /// When it was issued, in seconds since 1970 UTC.
    #[n(0)]
    pub issued_s: u64,
    /// When it ends, in seconds since 1970 UTC.
    #[n(1)]
    pub not_after_s: u64,
    /// How many machines may join with it; `None` is no limit within its life.
    #[n(2)]
    pub uses_max: Option<u32>,
    /// When it was revoked, in seconds since 1970 UTC.
    #[n(3)]
    pub revoked_s: Option<u64>,
}

impl Wire for TicketRecord {
    const WHAT: &'static str = "record of a ticket";
    const BYTES_MAX: usize = 64;
}

/// The most deaths that [`ModelDeaths`] holds.
pub const DEATHS_KEPT_MAX: usize = 16;
/// The longest text in [`ModelDeaths`], in bytes.
pub const DEATH_TEXT_BYTES_MAX: usize = 2048;

/// The newest deaths of engine-hosts that had a model, and whether it is quarantined for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct ModelDeaths {
    /// What people call the model.
    #[n(0)]
    pub name: String,
    /// When they died, in seconds since 1970 UTC; at most [`DEATHS_KEPT_MAX`].
    #[n(1)]
    pub times_s: Vec<u64>,
    /// How the newest died.
    #[n(2)]
    pub newest: String,
    /// Since when the model is quarantined, in seconds since 1970 UTC.
    #[n(3)]
    pub quarantined_s: Option<u64>,
}

impl Wire for ModelDeaths {
    const WHAT: &'static str = "record of a model's deaths";
    const BYTES_MAX: usize = 2 * DEATH_TEXT_BYTES_MAX + 16 * DEATHS_KEPT_MAX;
}

/// The version of [`MemoryRecord`] that this build writes.
pub const MEMORY_RECORD_VERSION: u32 = 1;
/// The most entries of one [`MemoryRecord`].
pub const MEMORY_ENTRIES_MAX: usize = 64;

/// What a model was found to take in memory, in several ways of running it: a file beside its record. It starts with the
/// BLAKE3 of what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct MemoryRecord {
    /// [`MEMORY_RECORD_VERSION`] of the build that wrote it.
    #[n(0)]
    pub version: u32,
    /// At most [`MEMORY_ENTRIES_MAX`], the newest last.
    #[n(1)]
    pub entries: Vec<MemoryEntry>,
}

impl Wire for MemoryRecord {
    const WHAT: &'static str = "record of a model's memory";
    const BYTES_MAX: usize = 128 * MEMORY_ENTRIES_MAX + 16;
}

/// Memory that was counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct MemoryEntry {
    /// The hash of everything that it depends on.
    #[n(0)]
    pub key: Hash,
    /// What the engine said.
    #[n(1)]
    pub memory: Memory,
}

#[cfg(test)]
mod tests;
