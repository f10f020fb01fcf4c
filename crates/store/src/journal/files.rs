//! The files of all journals: heads and logs.

use crate::durable::{self, FileError, PRIVATE};
use proto::ids::StreamId;
use proto::journal::MAGIC;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const HEAD: &str = "head";
const LOG: &str = "log";

/// A directory of heads and logs.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// Bytes of the logs that are there.
    logs: BTreeMap<u64, u64>,
    /// The log that is written to.
    active: Option<(u64, File)>,
}

impl Files {
    /// Opens a directory; what a dead process was writing is swept.
    pub(super) fn open(dir: &Path) -> Result<Self, FileError> {
        durable::create_dir(dir)?;
        durable::sweep_new(dir)?;
        let mut files = Self {
            dir: dir.to_owned(),
            logs: BTreeMap::new(),
            active: None,
        };
        for (name, bytes) in files.list(LOG)? {
            if let Ok(number) = u64::from_str_radix(&name, 16) {
                files.logs.insert(number, bytes);
            }
        }
        Ok(files)
    }

    /// Names without their ending, and bytes, of one kind of file.
    fn list(&self, kind: &str) -> Result<Vec<(String, u64)>, FileError> {
        let entries = fs::read_dir(&self.dir).map_err(FileError::of("list", &self.dir))?;
        let of_kind = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(kind)?.strip_suffix('.')?.to_owned();
            Some((name, entry.metadata().ok()?.len()))
        };
        Ok(entries.flatten().filter_map(of_kind).collect())
    }

    /// The streams that have a head.
    pub(super) fn heads(&self) -> Result<Vec<StreamId>, FileError> {
        let heads = self.list(HEAD)?.into_iter();
        Ok(heads.filter_map(|(name, _)| name.parse().ok()).collect())
    }

    fn head(&self, stream: StreamId) -> PathBuf {
        self.dir.join(format!("{stream}.{HEAD}"))
    }

    fn log(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.{LOG}"))
    }

    pub(super) fn read_head(&self, stream: StreamId) -> Result<Vec<u8>, FileError> {
        let path = self.head(stream);
        fs::read(&path).map_err(FileError::of("read", &path))
    }

    /// Writes a head; it is there in full when this returns.
    pub(super) fn write_head(&self, stream: StreamId, frame: &[u8]) -> Result<(), FileError> {
        let bytes = [&MAGIC[..], frame].concat();
        durable::replace(&self.head(stream), &bytes, PRIVATE)
    }

    /// Removes a head, and with it what its records can be read by.
    pub(super) fn remove_head(&self, stream: StreamId) {
        if let Err(error) = durable::remove_file(&self.head(stream)) {
            tracing::warn!(%error, "the journal of an answer that is over stays behind");
        }
    }

    /// The logs that are there, oldest first.
    pub(super) fn logs(&self) -> Vec<u64> {
        self.logs.keys().copied().collect()
    }

    pub(super) fn read_log(&self, number: u64) -> Result<Vec<u8>, FileError> {
        let path = self.log(number);
        fs::read(&path).map_err(FileError::of("read", &path))
    }

    /// How long ago a stream's head and its newest log were written, whichever is later; none by a clock that was set back.
    pub(super) fn age(&self, stream: StreamId, newest: Option<u64>) -> Duration {
        let paths = [Some(self.head(stream)), newest.map(|log| self.log(log))];
        let modified = paths.iter().flatten().filter_map(|path| {
            let facts = fs::metadata(path).ok()?;
            facts.modified().ok()
        });
        let written = modified.max().unwrap_or(SystemTime::UNIX_EPOCH);
        written.elapsed().unwrap_or_default()
    }

    /// Appends to the active log, or to a new one where it has `log_bytes` already, and makes it durable; the log's number. What could not be
    /// written whole is cut off again.
    ///
    /// # Errors
    ///
    /// [`FileError`]; nothing of `bytes` counts then.
    pub(super) fn append(&mut self, bytes: &[u8], log_bytes: u64) -> Result<u64, FileError> {
        if let Some((number, _)) = &self.active
            && self.logs[number] >= log_bytes
        {
            self.active = None;
        }
        if self.active.is_none() {
            self.begin_log()?;
        }
        let (number, file) = self
            .active
            .as_mut()
            .expect("it was begun if it was not there");
        let (number, length) = (*number, self.logs[number]);
        let mut write = || {
            file.write_all(bytes)?;
            file.sync_data()
        };
        if let Err(error) = write() {
            let cut = file.set_len(length).and_then(|()| file.sync_data());
            // A log that cannot be cut is followed by another one: its end is damaged for readers, too.
            if cut.is_err() || file.seek(SeekFrom::Start(length)).is_err() {
                self.active = None;
            }
            return Err(FileError::of("write", &self.log(number))(error));
        }
        self.logs.insert(number, length + bytes.len() as u64);
        Ok(number)
    }

    fn begin_log(&mut self) -> Result<(), FileError> {
        let number = self.logs.keys().next_back().map_or(0, |last| last + 1);
        let path = self.log(number);
        let begin = || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(PRIVATE);
            let mut file = options.open(&path)?;
            file.write_all(&MAGIC)?;
            Ok(file)
        };
        let file = begin().map_err(|error| {
            // The next attempt makes it anew.
            let _ = fs::remove_file(&path);
            FileError::of("create", &path)(error)
        })?;
        durable::sync_dir(&self.dir)?;
        self.logs.insert(number, MAGIC.len() as u64);
        self.active = Some((number, file));
        Ok(())
    }

    /// Removes the logs that hold nothing of living streams, and empties the active one if it is one of them.
    pub(super) fn release(&mut self, in_use: &BTreeSet<u64>) {
        let free: Vec<u64> = self
            .logs
            .keys()
            .filter(|log| !in_use.contains(log))
            .copied()
            .collect();
        let length = MAGIC.len() as u64;
        for number in free {
            match &mut self.active {
                Some((active, _)) if *active == number && self.logs[&number] == length => {}
                Some((active, file)) if *active == number => {
                    let emptied = file
                        .set_len(length)
                        .and_then(|()| file.seek(SeekFrom::Start(length)));
                    match emptied {
                        Ok(_) => {
                            self.logs.insert(number, length);
                        }
                        Err(_) => self.active = None,
                    }
                }
                _ => match durable::remove_file(&self.log(number)) {
                    Ok(()) => {
                        self.logs.remove(&number);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a log of answers that are over stays behind")
                    }
                },
            }
        }
    }

    /// Bytes of all logs.
    pub(super) fn log_bytes(&self) -> u64 {
        self.logs.values().sum()
    }
}
