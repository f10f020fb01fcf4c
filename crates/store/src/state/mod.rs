//! What a node must not forget: one redb file, every change durable before the call returns.
//!
//! Calls block for a disk write or less; async callers with a tight loop use a blocking thread. redb keeps its
//! promises over a crash at any moment. A file that is damaged otherwise is reported and left alone. After a write that failed, as on
//! a full disk, redb wants to be opened anew: that happens by itself with the first call that finds room again.

mod deaths;
mod format;
mod tickets;

pub use tickets::{IssuedTicket, TICKETS_KEPT_MAX, TicketUse};

use crate::durable::{self, FileError, parent};
use format::Step;
use proto::codec::{self, DecodeError, Wire};
use proto::disk::PathHash;
use proto::ids::{Hash, NodeId};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use redb::{ReadTransaction, WriteTransaction};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most members that are remembered.
pub const MEMBERS_KEPT_MAX: u64 = 4096;
/// The most files outside the store whose hashes are remembered; beyond it all are forgotten and learnt anew.
pub const PATH_HASHES_MAX: u64 = 4096;
/// A file changed more recently than this may change again within the same tick of its clock: not remembered.
const SETTLED: Duration = Duration::from_secs(2);
/// Memory that redb may use for its pages, in bytes.
const CACHE_BYTES: usize = 4 << 20;
/// Room that must be there before a file whose writes failed is opened anew, in bytes: that writes, too.
const ROOM_BYTES: usize = 256 << 10;

const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const TICKETS: TableDefinition<'_, &[u8; 16], u32> = TableDefinition::new("tickets");
const ISSUED: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("issued");
const OWN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("own");
const MEMBERS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("members");
const DEATHS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("deaths");
const PATHS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("paths");

const INCARNATION: &str = "incarnation";
const MEMBERSHIP: &str = "membership";

/// State that cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be created or found.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has it.
    #[error("{} is in use by another process; stop it, or use another --data-dir", path.display())]
    InUse {
        /// The state file.
        path: PathBuf,
    },
    /// It is not a state file, or a damaged one.
    #[error(
        "{} is not a usable state file ({source}); nothing was changed. Put a copy back, or move the file away: \
         the node then keeps its key but must join again with a ticket", path.display()
    )]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// A newer Myzel wrote it.
    #[error(
        "{} has format {found}, this build knows formats up to {known}; use the newer myzel, or another --data-dir",
        path.display()
    )]
    TooNew {
        /// The state file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// A record in it does not decode.
    #[error(
        "{}: {source}. Put a copy of the file back, or move it away: the node then keeps its key but must join \
         again with a ticket", path.display()
    )]
    Undecodable {
        /// The state file.
        path: PathBuf,
        /// What is wrong.
        source: DecodeError,
    },
    /// A limit is reached.
    #[error("{} remembers {max} {what} already, the most it keeps", path.display())]
    Full {
        /// The state file.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// A read or write failed.
    #[error("cannot use {}: {source}; see whether its disk is full or failing", path.display())]
    Failed {
        /// The state file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
}

/// A node's durable state. Shared by reference; redb serialises the writers.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    /// None after a failure that opening anew has not mended.
    db: RwLock<Option<Database>>,
    /// The disk has failed under it.
    has_failed: AtomicBool,
}

impl State {
    /// Opens the state file, creating it if it is not there and lifting an older format to this build's.
    ///
    /// # Errors
    ///
    /// [`StateError`]; a file that is there and cannot be used is left as it is.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::open_with(path, format::STEPS)
    }

    fn open_with(path: &Path, steps: &[Step]) -> Result<Self, StateError> {
        if !path.try_exists().map_err(FileError::of("read", path))? {
            create(path, steps)?;
        }
        let db = builder().open(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StateError::InUse {
                path: path.to_owned(),
            },
            other => StateError::Damaged {
                path: path.to_owned(),
                source: Box::new(other.into()),
            },
        })?;
        let state = Self::of(path, db);
        format::lift(&state, steps)?;
        Ok(state)
    }

    fn of(path: &Path, db: Database) -> Self {
        Self {
            path: path.to_owned(),
            db: RwLock::new(Some(db)),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Counts one more life of this node; the first is 1.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`] when it cannot be made durable.
    pub fn next_incarnation(&self) -> Result<u64, StateError> {
        self.write(|tx| {
            let mut counters = tx.open_table(COUNTERS)?;
            let next = counters.get(INCARNATION)?.map_or(0, |v| v.value()) + 1;
            counters.insert(INCARNATION, next)?;
            Ok(next)
        })
    }

    /// This node's own proof of membership, if it has one.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when the record is not a `T`, [`StateError::Failed`].
    pub fn membership<T: Wire>(&self) -> Result<Option<T>, StateError> {
        let bytes = self.read(|tx| {
            let own = tx.open_table(OWN)?;
            Ok(own.get(MEMBERSHIP)?.map(|v| v.value().to_vec()))
        })?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }

    /// Keeps this node's own proof of membership.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`] when it cannot be made durable.
    pub fn set_membership<T: Wire>(&self, proof: &T) -> Result<(), StateError> {
        let bytes = codec::to_vec(proof);
        self.write(|tx| {
            tx.open_table(OWN)?.insert(MEMBERSHIP, bytes.as_slice())?;
            Ok(())
        })
    }

    /// The members that were remembered, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when a record is not a `T`, [`StateError::Failed`].
    pub fn members<T: Wire>(&self) -> Result<Vec<(NodeId, T)>, StateError> {
        let rows = self.read(|tx| {
            let members = tx.open_table(MEMBERS)?;
            let rows = members.iter()?.map(|row| {
                let (id, bytes) = row?;
                Ok((NodeId(*id.value()), bytes.value().to_vec()))
            });
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.into_iter()
            .map(|(id, bytes)| Ok((id, self.decode(&bytes)?)))
            .collect()
    }

    /// Remembers a member, or what is new about it.
    ///
    /// # Errors
    ///
    /// [`StateError::Full`] beyond [`MEMBERS_KEPT_MAX`], [`StateError::Failed`].
    pub fn remember_member<T: Wire>(&self, id: NodeId, member: &T) -> Result<(), StateError> {
        let bytes = codec::to_vec(member);
        let kept = self.write(|tx| {
            let mut members = tx.open_table(MEMBERS)?;
            let full = members.len()? >= MEMBERS_KEPT_MAX && members.get(&id.0)?.is_none();
            if !full {
                members.insert(&id.0, bytes.as_slice())?;
            }
            Ok(!full)
        })?;
        let full = || StateError::Full {
            path: self.path.clone(),
            what: "members",
            max: MEMBERS_KEPT_MAX,
        };
        if kept { Ok(()) } else { Err(full()) }
    }

    /// Forgets a member.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`] when it cannot be made durable.
    pub fn forget_member(&self, id: NodeId) -> Result<(), StateError> {
        self.write(|tx| {
            tx.open_table(MEMBERS)?.remove(&id.0)?;
            Ok(())
        })
    }

    /// The hash of a file outside the store, if it was hashed before and has not changed since.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`]. A record that does not decode counts as absent: the file is simply hashed again.
    pub fn path_hash(&self, path: &Path, facts: FileFacts) -> Result<Option<Hash>, StateError> {
        let found = self.read(|tx| {
            let paths = tx.open_table(PATHS)?;
            let found = paths.get(path.as_os_str().as_bytes())?;
            Ok(found.and_then(|v| codec::from_slice::<PathHash>(v.value()).ok()))
        })?;
        let same = |kept: &PathHash| {
            (kept.bytes, Some(kept.modified_ns)) == (facts.bytes, facts.modified_ns)
        };
        Ok(found.filter(same).map(|kept| kept.blake3))
    }

    /// Remembers the hash of a file outside the store. `now` guards against files that may still be changing.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`] when it cannot be made durable.
    pub fn remember_path_hash(
        &self,
        path: &Path,
        facts: FileFacts,
        blake3: Hash,
        now: SystemTime,
    ) -> Result<(), StateError> {
        let Some(modified_ns) = facts.modified_ns else {
            return Ok(());
        };
        let modified = UNIX_EPOCH + Duration::from_nanos(modified_ns);
        if !now.duration_since(modified).is_ok_and(|age| age >= SETTLED) {
            return Ok(());
        }
        let bytes = codec::to_vec(&PathHash {
            bytes: facts.bytes,
            modified_ns,
            blake3,
        });
        self.write(|tx| {
            let mut paths = tx.open_table(PATHS)?;
            if paths.len()? >= PATH_HASHES_MAX {
                paths.retain(|_, _| false)?;
            }
            paths.insert(path.as_os_str().as_bytes(), bytes.as_slice())?;
            Ok(())
        })
    }

    fn decode<T: Wire>(&self, bytes: &[u8]) -> Result<T, StateError> {
        codec::from_slice(bytes).map_err(|source| self.undecodable(source))
    }

    fn undecodable(&self, source: DecodeError) -> StateError {
        StateError::Undecodable {
            path: self.path.clone(),
            source,
        }
    }

    fn failed(&self, source: redb::Error) -> StateError {
        StateError::Failed {
            path: self.path.clone(),
            source: Box::new(source),
        }
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        self.with(|db| work(&db.begin_read()?))
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        self.with(|db| {
            let tx = db.begin_write()?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })
    }

    /// Works with the database, opened anew if the disk has failed under it before.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        if self.has_failed.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        let done = db.as_ref().ok_or(redb::Error::PreviousIo).and_then(work);
        if matches!(done, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            self.has_failed.store(true, Ordering::Release);
        }
        done.map_err(|error| self.failed(error))
    }

    /// Opens the file anew, once there is room. Without, what is open stays so: it may still be read.
    fn reopen(&self) -> Result<(), StateError> {
        let room = durable::new_path(&self.path);
        let is_room = std::fs::write(&room, vec![0; ROOM_BYTES]).is_ok();
        // It may not have been written at all.
        let _ = std::fs::remove_file(&room);
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if !is_room || !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        // The file is locked until the former one is closed.
        *db = None;
        let opened = builder().open(&self.path);
        *db = Some(opened.map_err(|error| self.failed(error.into()))?);
        self.has_failed.store(false, Ordering::Release);
        tracing::info!(path = %self.path.display(), "the disk is written again");
        Ok(())
    }
}

/// What tells whether a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970 UTC; `None` where the file system does not say.
    pub modified_ns: Option<u64>,
}

impl From<&std::fs::Metadata> for FileFacts {
    fn from(metadata: &std::fs::Metadata) -> Self {
        let since = metadata
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified_ns = since.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self {
            bytes: metadata.len(),
            modified_ns,
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Costs a pass over a small file; without it redb trusts the file and may panic over a damaged one.
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Writes an empty state file beside its place and moves it there whole.
fn create(path: &Path, steps: &[Step]) -> Result<(), StateError> {
    let new = durable::new_path(path);
    let failed = |source: redb::Error| StateError::Failed {
        path: path.to_owned(),
        source: Box::new(source),
    };
    durable::create_dir(parent(path))?;
    let db = builder().create(&new).map_err(|e| failed(e.into()))?;
    let state = State::of(path, db);
    let made = state.write(|tx| {
        format::set_version(tx, format::newest(steps))?;
        tx.open_table(COUNTERS)?;
        tx.open_table(TICKETS)?;
        tx.open_table(OWN)?;
        tx.open_table(MEMBERS)?;
        tx.open_table(PATHS)?;
        tx.open_table(DEATHS)?;
        tx.open_table(ISSUED)?;
        Ok(())
    });
    drop(state);
    if let Err(error) = made {
        durable::remove_file(&new)?;
        return Err(error);
    }
    durable::publish(&new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
