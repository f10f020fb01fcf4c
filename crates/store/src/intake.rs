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
mod tests {
    use super::*;

    /// From the SHA-256 and BLAKE3 specifications' own test vectors: the empty input.
    #[test]
    fn the_empty_file_has_the_published_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let digests = Intake::begin(&dir.path().join("f"), 0)
            .unwrap()
            .finish()
            .unwrap();
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let blake3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(digests.sha256.to_string(), sha256);
        assert_eq!(digests.blake3.to_string(), blake3);
    }

    #[test]
    fn a_resumed_file_has_the_digests_of_an_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, stop) = (dir.path().join("f"), Stop::default());
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            bytes.len(),
        ] {
            let mut first = Intake::begin(&path, bytes.len() as u64).unwrap();
            first.write(&bytes[..cut]).unwrap();
            drop(first);
            let mut second = Intake::resume(&path, bytes.len() as u64, &stop, |_| ()).unwrap();
            assert_eq!(second.bytes(), cut as u64);
            second.write(&bytes[cut..]).unwrap();
            let digests = second.finish().unwrap();
            assert_eq!(digests.blake3, Hash::of(&bytes), "cut at {cut}");
            assert_eq!(digests, digest_file(&path, &stop, |_| ()).unwrap());
        }
    }

    #[test]
    fn more_bytes_than_expected_are_refused_before_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut intake = Intake::begin(&path, 3).unwrap();
        intake.write(b"abc").unwrap();
        assert!(matches!(
            intake.write(b"d"),
            Err(WriteError::TooLong { bytes_max: 3 })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        // A leftover that is longer than the file is worthless: it begins anew.
        assert_eq!(
            Intake::resume(&path, 2, &Stop::default(), |_| ())
                .unwrap()
                .bytes(),
            0
        );
    }

    #[test]
    fn a_file_that_can_never_fit_is_refused_before_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let Err(WriteError::Full(full)) = Intake::begin(&path, u64::MAX / 2) else {
            panic!("an impossible size was accepted");
        };
        assert_eq!(
            (full.dir.as_path(), full.needed),
            (dir.path(), u64::MAX / 2)
        );
        assert!(full.free > 0 && !path.exists());
    }
}
