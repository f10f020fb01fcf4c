//! Files that are there in full or not at all, and errors that name the file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells apart the new files that threads of this process write at once.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// The end of the name of a file that is being written; such files of dead processes are swept.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// Who may read and write a file that is nobody else's business: its owner.
pub(crate) const PRIVATE: u32 = 0o600;

/// An operation on one file that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names what was tried, on which file.
    pub(crate) fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

/// A file system without enough room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room in {}: {needed} more bytes are needed and {free} are free; free {} bytes there, \
     or use a --data-dir on another disk",
    dir.display(), needed.saturating_sub(*free)
)]
pub struct DiskFull {
    /// The directory that was written to.
    pub dir: PathBuf,
    /// Bytes still to be written.
    pub needed: u64,
    /// Bytes free for us.
    pub free: u64,
}

impl DiskFull {
    /// Measures `dir`; an unreadable measure counts as nothing free.
    pub(crate) fn at(dir: &Path, needed: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            needed,
            free: fs4::available_space(dir).unwrap_or(0),
        }
    }

    /// An error when fewer than `needed` bytes are free in `dir`. A file system that does not say counts as roomy.
    pub(crate) fn check(dir: &Path, needed: u64) -> Result<(), Self> {
        let free = fs4::available_space(dir).unwrap_or(u64::MAX);
        if free < needed {
            Err(Self {
                dir: dir.to_owned(),
                needed,
                free,
            })
        } else {
            Ok(())
        }
    }

    /// Whether an error of the system means that the disk, or our share of it, is full.
    pub(crate) fn is(error: &io::Error) -> bool {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

/// Makes renames and removals in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(FileError::of("sync", dir))
}

/// Creates `dir` and those above it, for the owner only where they are new.
pub(crate) fn create_dir(dir: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    let created = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    created.map_err(FileError::of("create the directory", dir))
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::of("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file so that a crash leaves the old content or the new one, never a mixture.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let new = write_new(path, bytes, mode)?;
    fs::rename(&new, path).map_err(FileError::of("rename to", path))?;
    sync_dir(parent(path))
}

/// Writes a file that must not be there yet; `false` when it was there.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, FileError> {
    let new = write_new(path, bytes, mode)?;
    // Unlike a rename, a hard link never replaces a file that another process made in the meantime.
    publish(&new, path)
}

/// Gives a finished new file its name, unless there is a file of that name already: then `false`.
pub(crate) fn publish(new: &Path, path: &Path) -> Result<bool, FileError> {
    let linked = fs::hard_link(new, path);
    remove_file(new)?;
    match linked {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(FileError::of("create", path)(error)),
    }
}

/// Where the new content of `path` is written first.
pub(crate) fn new_path(path: &Path) -> PathBuf {
    let nth = WRITES.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(path);
    name.push(format!(".{}-{nth}{NEW_SUFFIX}", std::process::id()));
    PathBuf::from(name)
}

/// Removes what a dead process left of files it was writing in `dir`; the caller keeps the living out.
pub(crate) fn sweep_new(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir)
        .map_err(FileError::of("list", dir))?
        .flatten()
    {
        if entry.file_name().to_string_lossy().ends_with(NEW_SUFFIX) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let new = new_path(path);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(FileError::of("write", &new))?;
    Ok(new)
}

/// The directory of a file of ours; they all have one.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_created_file_is_never_replaced_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(create(&path, b"one", 0o600).unwrap());
        assert!(!create(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        replace(&path, b"three", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let error = replace(Path::new("/nowhere/at/all"), b"", 0o600)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
