//! The node's key and the commons' founding key: 32 secret bytes each, in files that only their owner can read.

use crate::durable::{self, FileError, PRIVATE};
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The file of the node's key in a data directory.
pub const NODE_KEY_FILE: &str = "node.key";
/// The file of the commons' founding key in a data directory.
pub const COMMONS_KEY_FILE: &str = "commons.key";
/// The largest key file that is read, in bytes: 64 digits and white space.
const KEY_FILE_BYTES_MAX: u64 = 128;

/// 32 secret bytes. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error(
        "{} does not hold a key (64 hexadecimal digits); put the right file back, \
         or move it away to begin anew with another identity", path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a key, if its file is there. A file that others can read is made private, with a warning.
///
/// # Errors
///
/// [`KeyError`] when the file is unreadable or holds no key.
pub fn load(path: &Path) -> Result<Option<Secret>, KeyError> {
    let facts = match fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("read", path)(error).into()),
    };
    let not_a_key = || KeyError::NotAKey {
        path: path.to_owned(),
    };
    if !facts.is_file() || facts.len() > KEY_FILE_BYTES_MAX {
        return Err(not_a_key());
    }
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .map_err(FileError::of("make private", path))?;
        tracing::warn!(path = %path.display(), was = format!("{mode:o}"), now = "600",
            "a key file was readable by others; if they are not to be trusted, make a new key");
    }
    let bytes = fs::read(path).map_err(FileError::of("read", path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_key())?;
    let key: proto::ids::Hash = text.trim().parse().map_err(|_| not_a_key())?;
    Ok(Some(Secret(key.0)))
}

/// Reads a key, or makes one from `fresh` random bytes. Two processes that do so at once end up with the same key.
///
/// # Errors
///
/// [`KeyError`] when the file is unreadable, holds no key, or cannot be written.
pub fn load_or_create(path: &Path, fresh: impl FnOnce() -> [u8; 32]) -> Result<Secret, KeyError> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let text = format!("{}\n", proto::ids::Hash(fresh()));
    durable::create(path, text.as_bytes(), PRIVATE)?;
    load(path)?.ok_or_else(|| KeyError::NotAKey {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NODE_KEY_FILE);
        assert_eq!(load(&path).unwrap(), None);
        assert_eq!(load_or_create(&path, || [7; 32]).unwrap(), Secret([7; 32]));
        assert_eq!(load_or_create(&path, || [8; 32]).unwrap(), Secret([7; 32]));
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn loose_permissions_are_tightened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NODE_KEY_FILE);
        load_or_create(&path, || [7; 32]).unwrap();
        for loose in [0o644, 0o660, 0o606] {
            fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
            assert_eq!(mode(&path), loose);
            load(&path).unwrap();
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn a_file_without_a_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NODE_KEY_FILE);
        for content in [
            b"".to_vec(),
            b"xyz".to_vec(),
            vec![0xff; 64],
            vec![b'0'; 63],
            vec![b'0'; 5000],
        ] {
            fs::write(&path, &content).unwrap();
            let error = load_or_create(&path, || [7; 32]).unwrap_err().to_string();
            assert!(error.contains(NODE_KEY_FILE) && error.contains("put the right file back"));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(…)");
    }
}
