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
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn a_remembered_hash_keeps_its_encoding() {
        let value = PathHash {
            bytes: 5,
            modified_ns: 6,
            blake3: Hash([7; 32]),
        };
        let bytes = codec::to_vec(&value);
        let golden = [vec![0xa3, 0, 5, 1, 6, 2, 0x58, 32], vec![7; 32]].concat();
        assert_eq!(bytes, golden);
        assert_eq!(codec::from_slice::<PathHash>(&bytes).unwrap(), value);
    }

    #[test]
    fn a_record_of_a_ticket_keeps_its_encoding() {
        let value = TicketRecord {
            issued_s: 1,
            not_after_s: 2,
            uses_max: None,
            revoked_s: Some(3),
        };
        let bytes = codec::to_vec(&value);
        assert_eq!(bytes, [0xa3, 0, 1, 1, 2, 3, 3]);
        assert_eq!(codec::from_slice::<TicketRecord>(&bytes).unwrap(), value);
    }

    #[test]
    fn a_record_of_deaths_keeps_its_encoding() {
        let value = ModelDeaths {
            name: "a".to_owned(),
            times_s: vec![1, 2],
            newest: "b".to_owned(),
            quarantined_s: Some(3),
        };
        let bytes = codec::to_vec(&value);
        let golden = [0xa4, 0, 0x61, b'a', 1, 0x82, 1, 2, 2, 0x61, b'b', 3, 3];
        assert_eq!(bytes, golden);
        assert_eq!(codec::from_slice::<ModelDeaths>(&bytes).unwrap(), value);
    }

    #[test]
    fn a_record_of_memory_keeps_its_encoding() {
        let memory = Memory {
            weights_bytes: 1,
            cache_bytes: 2,
            compute_bytes: 3,
            process_bytes: 4,
            positions_max: 5,
            sessions_max: 6,
        };
        let key = Hash([7; 32]);
        let value = MemoryRecord {
            version: 8,
            entries: vec![MemoryEntry { key, memory }],
        };
        let bytes = codec::to_vec(&value);
        let golden = [
            &[0xa2, 0, 8, 1, 0x81, 0xa2, 0, 0x58, 32][..],
            &[7; 32],
            &[1, 0xa6, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6],
        ];
        assert_eq!(bytes, golden.concat());
        assert_eq!(codec::from_slice::<MemoryRecord>(&bytes).unwrap(), value);
        let full = MemoryEntry {
            key,
            memory: Memory {
                weights_bytes: u64::MAX,
                cache_bytes: u64::MAX,
                compute_bytes: u64::MAX,
                process_bytes: u64::MAX,
                positions_max: u32::MAX,
                sessions_max: u32::MAX,
            },
        };
        let largest = MemoryRecord {
            version: u32::MAX,
            entries: vec![full; MEMORY_ENTRIES_MAX],
        };
        assert!(codec::to_vec(&largest).len() <= MemoryRecord::BYTES_MAX);
    }
}
