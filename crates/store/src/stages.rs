//! Stage files: a part of a model's layers as a GGUF file of its own, cut once and kept.
//!
//! The recipe comes from [`proto::gguf::plan`]; here bytes move, from the model's whole file or from blocks of it
//! ([`crate::blocks`]), to the same end. A stage is composed into a new file beside its place,
//! synced, and only then gets its name, which says what it is: model, role, layers, format of the cut. Behind the last
//! tensor stands a footer with the BLAKE3 of everything before it; the engine does not read that far. A file that is
//! there is used again after a cheap look (length, header, footer); [`Stages::verify`] reads all of it.
//!
//! One composition runs at a time in a directory, whichever process asks: a lock file sees to that.

use crate::blocking::{Stop, blocking};
use crate::blocks::{BlocksError, ModelBlocks};
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
use std::sync::atomic::{AtomicU64, Ordering};
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
/// The end of the names of hollow files.
const HOLLOW_SUFFIX: &str = ".hollow";
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
    /// A block that the stage is composed from cannot be had.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
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

/// The header of a stage's or a model's file, with a hole where its tensors would be; removed when dropped.
#[derive(Debug)]
pub struct Hollow(Unfinished);

impl Hollow {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

impl AsRef<Path> for Hollow {
    fn as_ref(&self) -> &Path {
        self.path()
    }
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
        file_name(self.model, self.role, self.layers)
    }
}

fn file_name(model: Hash, role: Role, layers: LayerRange) -> String {
    let role = match role {
        Role::Whole => "whole",
        Role::Head => "head",
        Role::Middle => "middle",
        Role::Tail => "tail",
    };
    let LayerRange { first, end } = layers;
    format!("{model}-{role}-{first}-{end}-v{CUT_FORMAT}.gguf")
}

impl Stages {
    /// The stage files in `dir`, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the directory cannot be created.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        create_dir(dir)?;
        remove_ending(dir, HOLLOW_SUFFIX)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// A stage as far as an engine must know it to say how much memory it takes. Hardly any of the disk is used.
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub async fn hollow(&self, request: StageRequest) -> Result<Hollow, StageError> {
        let stages = self.clone();
        blocking(move |_| stages.hollow_blocking(&request)).await
    }

    fn hollow_blocking(&self, request: &StageRequest) -> Result<Hollow, StageError> {
        let (_, header) = open_source(&request.source)?;
        let plan = plan(&header, request.role, request.layers)?;
        self.hollow_file(&request.file_name(), &plan.header, plan.bytes)
    }

    /// A whole model's file of which only the header is there: enough to plan and to weigh with, and nothing to compute
    /// with. Hardly any of the disk is used.
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub async fn hollow_model(&self, model: ModelBlocks) -> Result<Hollow, StageError> {
        let stages = self.clone();
        blocking(move |_| {
            let contents = model.contents();
            let head = usize::try_from(model.header().data_offset().min(contents.bytes));
            let mut head = vec![0; head.expect("a header that was read fits into memory")];
            let name = format!("{}-model", contents.root);
            let read = model.read_exact_at(&mut head, 0)?;
            read.map_err(FileError::of("read the header of", &stages.dir.join(&name)))?;
            stages.hollow_file(&name, &head, contents.bytes)
        })
        .await
    }

    /// A file that begins with these bytes, and is a hole from there to its end.
    fn hollow_file(&self, name: &str, head: &[u8], bytes: u64) -> Result<Hollow, StageError> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}.{number}{HOLLOW_SUFFIX}");
        let hollow = Hollow(Unfinished(self.dir.join(name)));
        let path = hollow.path();
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(path);
        let mut file = file.map_err(FileError::of("create", path))?;
        file.write_all(head)
            .and_then(|()| file.set_len(bytes))
            .map_err(FileError::of("write", path))?;
        Ok(hollow)
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

    /// The path of a stage's file, composed from a model's blocks if it is not there. The same file as [`Self::get`]
    /// makes of the whole model. Dropping the future stops the work.
    ///
    /// # Errors
    ///
    /// [`StageError`], [`BlocksError::Missing`] among them; no partial file is left behind.
    pub async fn get_from_blocks(
        &self,
        model: ModelBlocks,
        role: Role,
        layers: LayerRange,
    ) -> Result<PathBuf, StageError> {
        let stages = self.clone();
        blocking(move |stop| {
            let plan = plan(model.header(), role, layers)?;
            let name = file_name(model.contents().root, role, layers);
            stages.ensure(&Source::Blocks(Box::new(model)), &plan, &name, stop)
        })
        .await
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
        let (source, header) = open_source(&request.source)?;
        let plan = plan(&header, request.role, request.layers)?;
        self.ensure(&source, &plan, &request.file_name(), stop)
    }

    fn ensure(
        &self,
        source: &Source,
        plan: &StagePlan,
        name: &str,
        stop: &Stop,
    ) -> Result<PathBuf, StageError> {
        let path = self.dir.join(name);
        if is_usable(&path, plan)? {
            return Ok(path);
        }
        let _alone = self.lock(stop)?;
        // Whoever held the lock may have composed this very stage, or died composing it.
        if !is_usable(&path, plan)? {
            remove_file(&path)?;
            self.sweep()?;
            self.compose(source, plan, &path, stop)?;
        }
        Ok(path)
    }

    fn compose(
        &self,
        source: &Source,
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
        remove_ending(&self.dir, NEW_SUFFIX)
    }
}

/// Removes the files whose names end so.
fn remove_ending(dir: &Path, suffix: &str) -> Result<(), FileError> {
    let entries = fs::read_dir(dir).map_err(FileError::of("list", dir))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().ends_with(suffix) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// A file that is removed again unless it was published.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After publishing there is nothing to remove; else the next composition sweeps what cannot be removed now.
        if let Err(error) = remove_file(&self.0) {
            tracing::warn!(%error, "an unfinished stage file stays behind");
        }
    }
}

/// What a stage is composed from.
enum Source {
    /// A model's whole file.
    File(PathBuf, File),
    /// Its blocks, as far as they are here.
    Blocks(Box<ModelBlocks>),
}

impl Source {
    fn read_exact_at(&self, part: &mut [u8], at: u64) -> Result<(), StageError> {
        let (read, path) = match self {
            Self::File(path, file) => (file.read_exact_at(part, at), path.clone()),
            Self::Blocks(model) => {
                let name = format!("a block of the model {}", model.contents().root);
                (model.read_exact_at(part, at)?, PathBuf::from(name))
            }
        };
        read.map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => StageError::SourceChanged { path },
            _ => FileError::of("read", &path)(error).into(),
        })
    }
}

fn open_source(path: &Path) -> Result<(Source, Header), StageError> {
    let file = File::open(path).map_err(FileError::of("open", path))?;
    let bytes = length_of(&file, path)?;
    let header =
        Header::read(BufReader::new(&file), bytes).map_err(|source| StageError::Model {
            path: path.to_owned(),
            source,
        })?;
    Ok((Source::File(path.to_owned(), file), header))
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
        source: &Source,
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
        source: &Source,
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
            source.read_exact_at(part, offset + done)?;
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
