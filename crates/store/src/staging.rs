//! Where a pull works before its file is verified: one folder per file wanted, held by one process at a time.
//!
//! A folder belongs to whoever holds the lock file beside it; the system lets go of the lock when its process dies.
//! What can be resumed has a name in [`RESUMABLE`]; everything else in a folder is rubbish once its process is gone.

use crate::durable::{FileError, create_dir, remove_file};
use proto::ids::Hash;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The folder of all staging folders, inside a store.
pub(crate) const STAGING_DIR: &str = "staging";
/// A wheel that pip finished.
pub(crate) const WHEEL: &str = "wheel.whl";
/// A download from a hub, up to the byte that came last.
pub(crate) const HUB_PART: &str = "hub.part";
/// Of which version of which file [`HUB_PART`] is a part.
pub(crate) const HUB_TAG: &str = "hub.tag";
/// A file unpacked or copied from this machine: quicker made again than checked.
pub(crate) const MODEL_PART: &str = "model.part";

const RESUMABLE: [&str; 3] = [WHEEL, HUB_PART, HUB_TAG];
/// How long a cut download waits to be resumed.
const RESUMABLE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A staging folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Closing the file would not do: a child that is just being started holds a copy of it until it is running.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.lock_path.display(), %error, "a lock is not let go of");
        }
    }
}

/// A staging folder that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("somebody else is at it")]
    Busy,
    #[error(transparent)]
    File(#[from] FileError),
}

impl Staging {
    /// Takes the folder for the file `key`, without the rubbish that a dead process left in it.
    pub(crate) fn claim(store: &Path, key: Hash) -> Result<Self, ClaimError> {
        let root = store.join(STAGING_DIR);
        create_dir(&root)?;
        let lock_path = root.join(format!("{key}.lock"));
        let lock = lock(&lock_path)?.ok_or(ClaimError::Busy)?;
        let staging = Self {
            dir: root.join(key.to_string()),
            lock_path,
            lock,
        };
        create_dir(&staging.dir)?;
        staging.clear(|name| RESUMABLE.iter().any(|kept| name == OsStr::new(kept)))?;
        Ok(staging)
    }

    /// The path of a file or folder in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes everything: the file arrived, or there is nothing worth resuming.
    pub(crate) fn discard(&self) -> Result<(), FileError> {
        self.clear(|_| false)?;
        fs::remove_dir(&self.dir).map_err(FileError::of("remove", &self.dir))?;
        // Whoever waits with this lock file open sees that it is gone, and takes the next one.
        remove_file(&self.lock_path)
    }

    fn clear(&self, keep: impl Fn(&OsStr) -> bool) -> Result<(), FileError> {
        let entries = fs::read_dir(&self.dir).map_err(FileError::of("list", &self.dir))?;
        for entry in entries.flatten().filter(|entry| !keep(&entry.file_name())) {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_dir_all(&path).map_err(FileError::of("remove", &path))?;
            } else {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        let changed = |name: &str| {
            fs::metadata(self.path(name))
                .and_then(|m| m.modified())
                .ok()
        };
        let newest = RESUMABLE.iter().filter_map(|name| changed(name)).max();
        newest.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < RESUMABLE_LIFE))
    }
}

/// Takes a lock file; `None` when somebody has it.
fn lock(path: &Path) -> Result<Option<File>, FileError> {
    loop {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(FileError::of("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(FileError::of("lock", path)(error)),
        }
        // Its last owner may have removed it between our opening and locking.
        if file.metadata().is_ok_and(|facts| facts.nlink() > 0) {
            return Ok(Some(file));
        }
    }
}

/// Clears the staging folders of dead processes: all but what can be resumed and is younger than a week.
pub(crate) fn sweep(store: &Path, now: SystemTime) -> Result<(), FileError> {
    let root = store.join(STAGING_DIR);
    let Ok(entries) = fs::read_dir(&root) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let key = name
            .to_str()
            .and_then(|name| name.split('.').next()?.parse::<Hash>().ok());
        let Some(key) = key else { continue };
        match Staging::claim(store, key) {
            Ok(staging) if !staging.is_fresh(now) => staging.discard()?,
            Ok(_) | Err(ClaimError::Busy) => {}
            Err(ClaimError::File(error)) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn one_process_at_a_time_and_only_the_resumable_survives_it() {
        let store = tempfile::tempdir().unwrap();
        let staging = Staging::claim(store.path(), Hash([1; 32])).unwrap();
        for name in [WHEEL, HUB_PART, HUB_TAG, MODEL_PART] {
            fs::write(staging.path(name), b"x").unwrap();
        }
        fs::create_dir_all(staging.path("pip/deep")).unwrap();
        assert!(matches!(
            Staging::claim(store.path(), Hash([1; 32])),
            Err(ClaimError::Busy)
        ));
        sweep(store.path(), SystemTime::now()).unwrap();
        assert_eq!(
            names(staging.dir()).len(),
            5,
            "a living process keeps everything"
        );
        let dir = staging.dir().to_owned();
        drop(staging);
        sweep(store.path(), SystemTime::now()).unwrap();
        assert_eq!(names(&dir), [HUB_PART, HUB_TAG, WHEEL]);
        sweep(store.path(), SystemTime::now() + RESUMABLE_LIFE).unwrap();
        assert_eq!(names(&store.path().join(STAGING_DIR)), [""; 0]);
    }

    #[test]
    fn a_discarded_folder_is_gone_and_can_be_claimed_anew() {
        let store = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let staging = Staging::claim(store.path(), Hash([1; 32])).unwrap();
            fs::write(staging.path(WHEEL), b"x").unwrap();
            staging.discard().unwrap();
            assert_eq!(names(&store.path().join(STAGING_DIR)), [""; 0]);
        }
    }
}
