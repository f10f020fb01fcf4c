//! Stage files: a part of a model's layers as a GGUF file of its own, cut once and kept.
//!
//! The recipe comes from [`proto::gguf::plan`]; here bytes move. A stage is composed into a new file beside its place,
//! synced, and only then gets its name, which says what it is: model, role, layers, format of the cut. Behind the last
//! tensor stands a footer with the BLAKE3 of everything before it; the engine does not read that far. A file that is
//! there is used again after a cheap look (length, header, footer); [`Stages::verify`] reads all of it.
//!
//! One composition runs at a time in a directory, whichever process asks: a lock file sees to that.

use crate::blocking::{Stop, blocking};
use crate::durable::{
    DiskFull, FileError, NEW_SUFFIX, PRIVATE, create_dir, new_path, publish, remove_file,
};
use proto::gguf::{CUT_FORMAT, CutError, GgufError, Header, Piece, StagePlan, plan};
use proto::host::Role;
use proto::ids::Hash;
use proto::model::LayerRange;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the footer begins with; the 32 bytes of the hash follow.
const FOOTER_MAGIC: [u8; 8] = *b"MYZSTAGE";
/// The length of the footer in bytes.
const FOOTER_BYTES: u64 = 8 + 32;
/// How much is copied at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// From this many zeros on a file gets a hole instead, in bytes.
const HOLE_BYTES_MIN: u64 = 64 << 10;
/// How often a caller looks whether another composition is done.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// The name of the lock file.
const LOCK_NAME: &str = "lock";

/// Why there is no stage file.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The model's file is refused.
    #[error("{}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: GgufError,
    },
    /// The model, or this part of it, cannot be cut.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// Not enough room; nothing is left behind.
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model's file ended early: somebody changed it meanwhile.
    #[error("{} became shorter while it was read; check it with `myzel model verify`", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// A stage file does not have the content that its footer names.
    #[error("{} is damaged; remove it and it is cut again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Nobody waits for the result any more.
    #[error("the cut was cancelled")]
    Cancelled,
}

/// A directory of stage files.
#[derive(Debug, Clone)]
pub struct Stages {
    dir: PathBuf,
}

/// Which stage of which model.
#[derive(Debug, Clone)]
pub struct StageRequest {
    /// The model's GGUF file.
    pub source: PathBuf,
    /// BLAKE3 of that file, verified before.
    pub model: Hash,
    /// What the stage is for.
    pub role: Role,
    /// Its layers.
    pub layers: LayerRange,
}

impl StageRequest {
    /// The name of the stage's file.
    #[must_use]
    pub fn file_name(&self) -> String {
        let role = match self.role {
            Role::Whole => "whole",
            Role::Head => "head",
            Role::Middle => "middle",
            Role::Tail => "tail",
        };
        let LayerRange { first, end } = self.layers;
        format!("{}-{role}-{first}-{end}-v{CUT_FORMAT}.gguf", self.model)
    }
}

impl Stages {
    /// The stage files in `dir`, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the directory cannot be created.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        create_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// The path of a stage's file; composes the file if it is not there. Dropping the future stops the work.
    ///
    /// # Errors
    ///
    /// [`StageError`]; no partial file is left behind.
    pub async fn get(&self, request: StageRequest) -> Result<PathBuf, StageError> {
        let stages = self.clone();
        blocking(move |stop| stages.get_blocking(&request, stop)).await
    }

    /// Reads a whole stage file and compares it with the hash in its footer. Blocks.
    ///
    /// # Errors
    ///
    /// [`StageError::Damaged`], or [`StageError::File`] when it cannot be read.
    pub fn verify(path: &Path) -> Result<(), StageError> {
        let damaged = || StageError::Damaged {
            path: path.to_owned(),
        };
        let file = File::open(path).map_err(FileError::of("open", path))?;
        let bytes = length_of(&file, path)?
            .checked_sub(FOOTER_BYTES)
            .ok_or_else(damaged)?;
        let mut hasher = blake3::Hasher::new();
        let body = BufReader::with_capacity(CHUNK_BYTES, &file).take(bytes);
        hasher
            .update_reader(body)
            .map_err(FileError::of("read", path))?;
        let expected = footer(&hasher);
        let mut found = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut found, bytes)
            .map_err(FileError::of("read", path))?;
        if found == expected {
            Ok(())
        } else {
            Err(damaged())
        }
    }

    fn get_blocking(&self, request: &StageRequest, stop: &Stop) -> Result<PathBuf, StageError> {
        let source = open_source(&request.source)?;
        let plan = plan(&source.header, request.role, request.layers)?;
        let path = self.dir.join(request.file_name());
        if is_usable(&path, &plan)? {
            return Ok(path);
        }
        let _alone = self.lock(stop)?;
        // Whoever held the lock may have composed this very stage, or died composing it.
        if !is_usable(&path, &plan)? {
            remove_file(&path)?;
            self.sweep()?;
            self.compose(&source, &plan, &path, stop)?;
        }
        Ok(path)
    }

    fn compose(
        &self,
        source: &Source<'_>,
        plan: &StagePlan,
        path: &Path,
        stop: &Stop,
    ) -> Result<(), StageError> {
        let needed = written_bytes(plan);
        DiskFull::check(&self.dir, needed)?;
        tracing::info!(file = %path.display(), bytes = needed, "cutting a stage");
        let unfinished = Unfinished(new_path(path));
        let writing = FileError::of("create", &unfinished.0);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(&unfinished.0)
            .map_err(writing)?;
        let full_or = |error: io::Error| match DiskFull::is(&error) {
            true => StageError::DiskFull(DiskFull::at(&self.dir, needed)),
            false => FileError::of("write", path)(error).into(),
        };
        let mut composer = Composer {
            file: &file,
            hasher: blake3::Hasher::new(),
            stop,
        };
        composer.run(source, plan, full_or)?;
        file.sync_all().map_err(full_or)?;
        publish(&unfinished.0, path)?;
        Ok(())
    }

    /// Waits until no other composition runs in this directory.
    fn lock(&self, stop: &Stop) -> Result<File, StageError> {
        let path = self.dir.join(LOCK_NAME);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(FileError::of("open", &path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::of("lock", &path)(error).into());
                }
                Err(TryLockError::WouldBlock) if stop.asked() => return Err(StageError::Cancelled),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_POLL),
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!(dir = %self.dir.display(), "waiting for another cut to finish");
            }
        }
    }

    /// Removes what compositions of dead processes left; the lock keeps the living out.
    fn sweep(&self) -> Result<(), FileError> {
        let entries = fs::read_dir(&self.dir).map_err(FileError::of("list", &self.dir))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().ends_with(NEW_SUFFIX) {
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file that is removed again unless it was published.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After publishing there is nothing to remove; else the next composition sweeps what cannot be removed now.
        if let Err(error) = remove_file(&self.0) {
            tracing::warn!(%error, "an unfinished stage file stays behind");
        }
    }
}

struct Source<'a> {
    path: &'a Path,
    file: File,
    header: Header,
}

fn open_source(path: &Path) -> Result<Source<'_>, StageError> {
    let file = File::open(path).map_err(FileError::of("open", path))?;
    let bytes = length_of(&file, path)?;
    let header =
        Header::read(BufReader::new(&file), bytes).map_err(|source| StageError::Model {
            path: path.to_owned(),
            source,
        })?;
    Ok(Source { path, file, header })
}

fn length_of(file: &File, path: &Path) -> Result<u64, FileError> {
    Ok(file
        .metadata()
        .map_err(FileError::of("measure", path))?
        .len())
}

/// Whether there is a file that was finished after this very plan.
fn is_usable(path: &Path, plan: &StagePlan) -> Result<bool, FileError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(FileError::of("open", path))?,
    };
    if length_of(&file, path)? != plan.bytes + FOOTER_BYTES {
        return Ok(false);
    }
    let mut header = vec![0; plan.header.len()];
    let mut magic = [0; FOOTER_MAGIC.len()];
    file.read_exact(&mut header)
        .and_then(|()| file.read_exact_at(&mut magic, plan.bytes))
        .map_err(FileError::of("read", path))?;
    Ok(header == plan.header && magic == FOOTER_MAGIC)
}

fn footer(hasher: &blake3::Hasher) -> [u8; FOOTER_BYTES as usize] {
    let mut footer = [0; FOOTER_BYTES as usize];
    footer[..FOOTER_MAGIC.len()].copy_from_slice(&FOOTER_MAGIC);
    footer[FOOTER_MAGIC.len()..].copy_from_slice(hasher.finalize().as_bytes());
    footer
}

/// Bytes that take room on disk: holes do not.
fn written_bytes(plan: &StagePlan) -> u64 {
    let written = |piece: &Piece| match piece {
        Piece::Zeros(bytes) if *bytes >= HOLE_BYTES_MIN => 0,
        piece => piece.bytes(),
    };
    plan.header.len() as u64 + plan.pieces.iter().map(written).sum::<u64>() + FOOTER_BYTES
}

/// Writes the pieces of a stage one after the other, and hashes them.
struct Composer<'a, W> {
    file: W,
    hasher: blake3::Hasher,
    stop: &'a Stop,
}

impl<W: Write + Seek> Composer<'_, W> {
    fn run(
        &mut self,
        source: &Source<'_>,
        plan: &StagePlan,
        full_or: impl Fn(io::Error) -> StageError,
    ) -> Result<(), StageError> {
        self.literal(&plan.header).map_err(&full_or)?;
        for piece in &plan.pieces {
            match piece {
                Piece::Copy { offset, bytes } => self.copy(source, *offset, *bytes, &full_or)?,
                Piece::Literal(bytes) => self.literal(bytes).map_err(&full_or)?,
                Piece::Zeros(bytes) => self.zeros(*bytes).map_err(&full_or)?,
            }
        }
        self.file.write_all(&footer(&self.hasher)).map_err(&full_or)
    }

    fn literal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn copy(
        &mut self,
        source: &Source<'_>,
        offset: u64,
        bytes: u64,
        full_or: impl Fn(io::Error) -> StageError,
    ) -> Result<(), StageError> {
        let mut buffer = vec![0; chunk(bytes)];
        let mut done = 0;
        while done < bytes {
            if self.stop.asked() {
                return Err(StageError::Cancelled);
            }
            let part = &mut buffer[..chunk(bytes - done)];
            source
                .file
                .read_exact_at(part, offset + done)
                .map_err(|error| match error.kind() {
                    ErrorKind::UnexpectedEof => StageError::SourceChanged {
                        path: source.path.to_owned(),
                    },
                    _ => FileError::of("read", source.path)(error).into(),
                })?;
            done += part.len() as u64;
            self.literal(part).map_err(&full_or)?;
        }
        Ok(())
    }

    fn zeros(&mut self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; chunk(bytes)];
        let hole = bytes >= HOLE_BYTES_MIN;
        let mut done = 0;
        while done < bytes {
            let part = &zeros[..chunk(bytes - done)];
            done += part.len() as u64;
            self.hasher.update(part);
            if !hole {
                self.file.write_all(part)?;
            }
        }
        if hole {
            let ahead = i64::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?;
            self.file.seek(SeekFrom::Current(ahead))?;
        }
        Ok(())
    }
}

fn chunk(left: u64) -> usize {
    usize::try_from(left)
        .unwrap_or(CHUNK_BYTES)
        .min(CHUNK_BYTES)
}

#[cfg(test)]
mod tests;
