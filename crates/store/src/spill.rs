//! Files for what memory has no room for, while a process lives: without a name, and sealed under keys that are nowhere but in memory. Nothing
//! of them outlives the process, and nobody else can read them.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A file for the outputs of one session. Its room is given back with it.
#[derive(Debug)]
pub struct SpillFile(Arc<Inner>);

struct Inner {
    file: File,
    key: LessSafeKey,
    /// Of records so far, each of which has a nonce of its own: the key seals nothing else, and is gone with the process.
    sealed: AtomicU64,
    /// Where the next record is written.
    end: Mutex<u64>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillFile")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A record of such a file, which stays as long as this.
#[derive(Debug)]
pub struct SpillRecord {
    file: Arc<Inner>,
    at: u64,
    bytes: usize,
    number: u64,
}

impl SpillFile {
    /// An empty file on the disk that `dir` is on.
    ///
    /// # Errors
    ///
    /// When the directory takes no file.
    pub fn create(dir: &Path) -> std::io::Result<Self> {
        let mut random = [0; 32];
        let filled = SystemRandom::new().fill(&mut random);
        filled.expect("the system has random bytes");
        let key = UnboundKey::new(&CHACHA20_POLY1305, &random);
        let key = LessSafeKey::new(key.expect("the key has the cipher's length"));
        Ok(Self(Arc::new(Inner {
            file: tempfile::tempfile_in(dir)?,
            key,
            sealed: AtomicU64::new(0),
            end: Mutex::new(0),
        })))
    }

    /// Puts bytes away; `None` when the disk has no room for them, or the file has grown to its limit.
    #[must_use]
    pub fn put(&self, bytes: &[u8]) -> Option<SpillRecord> {
        let inner = &self.0;
        let number = inner.sealed.fetch_add(1, Ordering::Relaxed);
        let mut sealed = bytes.to_vec();
        let key = &inner.key;
        let tag = key.seal_in_place_append_tag(nonce(number), Aad::empty(), &mut sealed);
        tag.ok()?;
        let mut end = inner.end.lock().unwrap_or_else(PoisonError::into_inner);
        let after = *end + sealed.len() as u64;
        if after > FILE_BYTES_MAX {
            return None;
        }
        inner.file.write_all_at(&sealed, *end).ok()?;
        let at = std::mem::replace(&mut *end, after);
        Some(SpillRecord {
            file: inner.clone(),
            at,
            bytes: sealed.len(),
            number,
        })
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl SpillRecord {
    /// The bytes as they were put away; `None` when the disk does not give them back so.
    #[must_use]
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut sealed = vec![0; self.bytes];
        self.file.file.read_exact_at(&mut sealed, self.at).ok()?;
        let key = &self.file.key;
        let plain = key.open_in_place(nonce(self.number), Aad::empty(), &mut sealed);
        let length = plain.ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests;
