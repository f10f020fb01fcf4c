//! What models take in memory, as engines counted it: kept, so that it is counted once.
//!
//! It is a cache: a record that is torn, damaged or older is as good as none, and what it said is counted again. One that a
//! newer build wrote is left alone.

use super::Models;
use crate::blocking::blocking;
use crate::durable::{FileError, PRIVATE, replace};
use proto::codec::{self, Wire};
use proto::disk::{MEMORY_ENTRIES_MAX, MEMORY_RECORD_VERSION, MemoryEntry, MemoryRecord};
use proto::host::Memory;
use proto::ids::Hash;
use std::fs;
use std::path::{Path, PathBuf};

/// The end of the file's name.
const MEMORY_END: &str = "memory";

impl Models {
    /// The memory that was kept for a model under a key: the hash of everything that it depends on beside the model.
    pub async fn memory(&self, model: Hash, key: Hash) -> Option<Memory> {
        let path = path(&self.config.dir, model);
        let kept = blocking(move |_| read(&path)).await;
        let kept = kept.filter(|kept| kept.version == MEMORY_RECORD_VERSION)?;
        let entry = kept.entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.memory)
    }

    /// Keeps the memory of a model under a key. The model itself need not be here; beyond [`MEMORY_ENTRIES_MAX`] the
    /// oldest entry goes.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be written.
    pub async fn keep_memory(
        &self,
        model: Hash,
        key: Hash,
        memory: Memory,
    ) -> Result<(), FileError> {
        let models = self.clone();
        blocking(move |_| {
            let _lock = models.lock()?;
            let path = path(&models.config.dir, model);
            let mut record = read(&path).unwrap_or_default();
            if record.version > MEMORY_RECORD_VERSION {
                return Ok(());
            }
            record.version = MEMORY_RECORD_VERSION;
            record.entries.retain(|entry| entry.key != key);
            let surplus = (record.entries.len() + 1).saturating_sub(MEMORY_ENTRIES_MAX);
            record.entries.drain(..surplus);
            record.entries.push(MemoryEntry { key, memory });
            let body = codec::to_vec(&record);
            let bytes = [&Hash::of(&body).0[..], &body].concat();
            replace(&path, &bytes, PRIVATE)
        })
        .await
    }
}

/// Where the record of a model is.
pub(super) fn path(dir: &Path, model: Hash) -> PathBuf {
    dir.join(format!("{model}.{MEMORY_END}"))
}

/// The record, if there is one and it is whole.
fn read(path: &Path) -> Option<MemoryRecord> {
    let bytes = fs::metadata(path).ok()?.len();
    if bytes > (Hash::LEN + MemoryRecord::BYTES_MAX) as u64 {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (hash, body) = bytes.split_at_checked(Hash::LEN)?;
    let record = codec::from_slice(body).ok()?;
    (Hash::of(body).0 == *hash).then_some(record)
}

#[cfg(test)]
mod tests;
