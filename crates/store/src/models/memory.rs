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
mod tests {
    use super::*;
    use crate::models::ModelsConfig;
    use crate::sources::{Hub, Pip};
    use proto::model::Catalogue;

    const MODEL: Hash = Hash([1; 32]);

    fn models(dir: &Path) -> Models {
        Models::open(ModelsConfig {
            dir: dir.to_owned(),
            shared: Vec::new(),
            catalogue: Catalogue { model: Vec::new() },
            pip: Pip::default(),
            hub: Hub::from_env(),
            state: None,
        })
        .unwrap()
    }

    fn key(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn memory(weights_bytes: u64) -> Memory {
        Memory {
            weights_bytes,
            ..Memory::default()
        }
    }

    #[tokio::test]
    async fn memory_is_kept_by_model_and_key_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let before = models(dir.path());
        for n in 0..=MEMORY_ENTRIES_MAX as u8 {
            let counted = memory(u64::from(n));
            before.keep_memory(MODEL, key(n), counted).await.unwrap();
        }
        before.keep_memory(MODEL, key(9), memory(99)).await.unwrap();
        let after = models(dir.path());
        assert_eq!(after.memory(MODEL, key(0)).await, None, "the oldest");
        assert_eq!(after.memory(MODEL, key(1)).await, Some(memory(1)));
        assert_eq!(after.memory(MODEL, key(9)).await, Some(memory(99)));
        assert_eq!(after.memory(Hash([2; 32]), key(1)).await, None);
    }

    #[tokio::test]
    async fn a_torn_or_damaged_record_is_as_good_as_none_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let models = models(dir.path());
        models.keep_memory(MODEL, key(1), memory(5)).await.unwrap();
        let path = path(dir.path(), MODEL);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            for bytes in [&whole[..at], &damaged] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(models.memory(MODEL, key(1)).await, None, "{at}");
            }
        }
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert_eq!(models.memory(MODEL, key(1)).await, None);
        models.keep_memory(MODEL, key(2), memory(6)).await.unwrap();
        assert_eq!(models.memory(MODEL, key(2)).await, Some(memory(6)));
    }

    #[tokio::test]
    async fn a_newer_record_says_nothing_here_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let models = models(dir.path());
        let newer = MemoryRecord {
            version: MEMORY_RECORD_VERSION + 1,
            entries: vec![MemoryEntry {
                key: key(1),
                memory: memory(5),
            }],
        };
        let body = codec::to_vec(&newer);
        let bytes = [&Hash::of(&body).0[..], &body].concat();
        let path = path(dir.path(), MODEL);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(models.memory(MODEL, key(1)).await, None);
        models.keep_memory(MODEL, key(1), memory(6)).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
