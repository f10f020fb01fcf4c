//! The data directory of one node, and the lock that keeps a second node out of it.

use crate::durable::{self, FileError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The longest text of a lock file that is read, in bytes: a process id.
const LOCK_TEXT_BYTES_MAX: u64 = 32;

/// Where the parts of a data directory are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
}

/// Held while a node runs. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file would not do: a child that is just being started holds a copy of it until it is running.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the data directory's lock is not let go of");
        }
    }
}

/// A data directory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be created or written to.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another node runs there.
    #[error(
        "another node{} uses {}; stop it, or give this one its own with --data-dir DIR",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The other node's process, if it could be read.
        pid: Option<u32>,
    },
}

impl DataDir {
    /// Creates the directory if it is not there, private to its owner.
    ///
    /// # Errors
    ///
    /// [`DataDirError::File`] when it cannot be created.
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        durable::create_dir(root)?;
        let root = root.canonicalize().map_err(FileError::of("find", root))?;
        Ok(Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its models, for [`crate::models::Models`].
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Its state, for [`crate::state::State`].
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    /// The journals of its streamed answers, for [`crate::journal::Journals`].
    #[must_use]
    pub fn streams(&self) -> PathBuf {
        self.root.join("streams")
    }

    /// Its node's key, for [`crate::keys`].
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.root.join(crate::keys::NODE_KEY_FILE)
    }

    /// The founding key of its commons, where this node founded one; for [`crate::keys`].
    #[must_use]
    pub fn commons_key(&self) -> PathBuf {
        self.root.join(crate::keys::COMMONS_KEY_FILE)
    }

    /// Takes the directory for a running node.
    ///
    /// # Errors
    ///
    /// [`DataDirError::InUse`] when another node has it.
    pub fn lock(&self) -> Result<DirLock, DataDirError> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = opened.map_err(FileError::of("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&file).take(LOCK_TEXT_BYTES_MAX).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(DataDirError::InUse {
                    dir: self.root.clone(),
                    pid,
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(FileError::of("lock", &path)(error).into());
            }
        }
        let mut note = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note().map_err(FileError::of("write", &path))?;
        durable::sweep_new(&self.root)?;
        Ok(DirLock { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temp.path().join("a/b")).unwrap();
        let held = dir.lock().unwrap();
        let error = dir.lock().unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(
            error.contains("--data-dir") && error.contains("a/b"),
            "{error}"
        );
        drop(held);
        std::fs::write(
            dir.node_key().with_extension("1-0.new"),
            "left by a dead process",
        )
        .unwrap();
        dir.lock().unwrap();
        assert_eq!(
            std::fs::read_dir(dir.root()).unwrap().count(),
            1,
            "only the lock file is left"
        );
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::open(&file.path().join("x"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
