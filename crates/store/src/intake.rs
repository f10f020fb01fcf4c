//! Bytes on their way into the store: written, counted and hashed in one pass.

use crate::blocking::Stop;
use crate::durable::{DiskFull, FileError, parent};
use proto::ids::Hash;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// How much is read, hashed and written at a time, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Size and hashes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: Hash,
    /// BLAKE3.
    pub blake3: Hash,
}

/// Bytes that could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room.
    #[error(transparent)]
    Full(#[from] DiskFull),
    /// The system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// More bytes than the file may have.
    #[error("the source sends more than the {bytes_max} bytes that the file has")]
    TooLong {
        /// How many it may have.
        bytes_max: u64,
    },
    /// The caller went away.
    #[error("stopped")]
    Stopped,
}

/// Size and hashes of what came so far.
#[derive(Default)]
struct Tally {
    bytes: u64,
    sha256: Sha256,
    blake3: blake3::Hasher,
}

impl Tally {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.sha256.update(chunk);
        self.blake3.update(chunk);
    }

    fn digests(self) -> Digests {
        Digests {
            bytes: self.bytes,
            sha256: Hash(self.sha256.finalize().into()),
            blake3: Hash(*self.blake3.finalize().as_bytes()),
        }
    }
}

/// A file that is being written, hashed as it grows.
pub(crate) struct Intake {
    file: File,
    path: PathBuf,
    tally: Tally,
    bytes_max: u64,
}

impl Intake {
    /// Starts an empty file, once there is room for all of it.
    pub(crate) fn begin(path: &Path, bytes_max: u64) -> Result<Self, WriteError> {
        DiskFull::check(parent(path), bytes_max)?;
        let file = File::create(path).map_err(FileError::of("create", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            tally: Tally::default(),
            bytes_max,
        })
    }

    /// Goes on with a file that was left half-written, after hashing what is there.
    pub(crate) fn resume(
        path: &Path,
        bytes_max: u64,
        stop: &Stop,
        mut at: impl FnMut(u64),
    ) -> Result<Self, WriteError> {
        let opened = OpenOptions::new().read(true).append(true).open(path);
        let Ok(mut file) = opened else {
            return Self::begin(path, bytes_max);
        };
        let present = file.metadata().map_err(FileError::of("read", path))?.len();
        if present > bytes_max {
            return Self::begin(path, bytes_max);
        }
        DiskFull::check(parent(path), bytes_max - present)?;
        let tally = tally(&mut file, path, stop, &mut at)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            tally,
            bytes_max,
        })
    }

    /// How many bytes came so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.tally.bytes
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), WriteError> {
        if self.tally.bytes + chunk.len() as u64 > self.bytes_max {
            return Err(WriteError::TooLong {
                bytes_max: self.bytes_max,
            });
        }
        self.file
            .write_all(chunk)
            .map_err(|error| self.fault(error))?;
        self.tally.add(chunk);
        Ok(())
    }

    /// Empties the file: its source begins anew.
    pub(crate) fn restart(self) -> Result<Self, WriteError> {
        Self::begin(&self.path, self.bytes_max)
    }

    /// Makes the bytes durable and says what they are.
    pub(crate) fn finish(self) -> Result<Digests, WriteError> {
        self.file.sync_all().map_err(|error| self.fault(error))?;
        Ok(self.tally.digests())
    }

    fn fault(&self, error: std::io::Error) -> WriteError {
        if DiskFull::is(&error) {
            let needed = self.bytes_max - self.tally.bytes;
            return DiskFull::at(parent(&self.path), needed).into();
        }
        FileError::of("write", &self.path)(error).into()
    }
}

fn tally(
    file: &mut File,
    path: &Path,
    stop: &Stop,
    at: &mut impl FnMut(u64),
) -> Result<Tally, WriteError> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if stop.asked() {
            return Err(WriteError::Stopped);
        }
        match file
            .read(&mut buffer)
            .map_err(FileError::of("read", path))?
        {
            0 => return Ok(tally),
            n => tally.add(&buffer[..n]),
        }
        at(tally.bytes);
    }
}

/// Hashes a whole file; `at` hears how many bytes are done.
pub(crate) fn digest_file(
    path: &Path,
    stop: &Stop,
    mut at: impl FnMut(u64),
) -> Result<Digests, WriteError> {
    let mut file = File::open(path).map_err(FileError::of("open", path))?;
    Ok(tally(&mut file, path, stop, &mut at)?.digests())
}

#[cfg(test)]
mod tests;
