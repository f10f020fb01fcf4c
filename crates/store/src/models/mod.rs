//! Model files, kept under their content, each with a record beside it.
//!
//! ```text
//! models/
//!   BLAKE3.gguf    the file, verified in full before it got this name
//!   BLAKE3.toml    proto::disk::ModelRecord
//!   BLAKE3.memory  proto::disk::MemoryRecord, also of models that are elsewhere
//!   lock           held while names change, for a moment
//!   staging/       see crate::staging
//! ```
//!
//! Other stores (`shared`) are read and never written: several nodes of one user then keep one copy of a file.

mod adopt;
mod error;
mod memory;
mod pull;
mod record;

pub use error::{PullError, RemoveError, ResolveError, VerifyError};
pub use pull::Pulled;
pub use record::RecordError;

use crate::blocking::blocking;
use crate::catalogue;
use crate::durable::{self, FileError};
use crate::intake::digest_file;
use crate::progress::{Meter, Progress};
use crate::reference::{Reference, name_of_file};
use crate::sources::{Expected, Hub, Pip, differences};
use crate::staging;
use crate::state::{FileFacts, State};
use proto::disk::ModelRecord;
use proto::gguf::{Fault, GgufError, Header};
use proto::ids::Hash;
use proto::model::{Catalogue, SamplingDefaults};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The end of a model file's name.
const MODEL_END: &str = "gguf";

/// What a store consists of.
#[derive(Clone)]
pub struct ModelsConfig {
    /// The store's own directory.
    pub dir: PathBuf,
    /// Directories of other stores, read only.
    pub shared: Vec<PathBuf>,
    /// The models that have a name.
    pub catalogue: Catalogue,
    /// How pip is called.
    pub pip: Pip,
    /// How the hub is reached.
    pub hub: Hub,
    /// Where hashes of files outside the store are remembered.
    pub state: Option<Arc<State>>,
}

impl std::fmt::Debug for ModelsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dir, shared, .. } = self;
        f.debug_struct("ModelsConfig")
            .field("dir", dir)
            .field("shared", shared)
            .finish_non_exhaustive()
    }
}

/// A store of models. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Models {
    config: Arc<ModelsConfig>,
}

/// A model that can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its file.
    pub path: PathBuf,
    /// BLAKE3 of the file: the model's root.
    pub blake3: Hash,
    /// What people call it.
    pub name: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SPDX licence expression, where it is known.
    pub licence: Option<String>,
    /// Sampling that its makers recommend, where they do.
    pub sampling: Option<SamplingDefaults>,
}

/// A model in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What is known about it.
    pub record: ModelRecord,
    /// Its file.
    pub path: PathBuf,
    /// Whether it is in another store, which this one only reads.
    pub shared: bool,
}

/// The models of a store, and the records that cannot be used.
#[derive(Debug, Default)]
pub struct Listing {
    /// The models, own ones first, each group by name.
    pub models: Vec<Stored>,
    /// Records that cannot be used.
    pub broken: Vec<RecordError>,
}

impl Models {
    /// Opens a store, creating its directory and sweeping what dead processes left.
    ///
    /// # Errors
    ///
    /// [`FileError`] when the directory cannot be created or swept.
    pub fn open(config: ModelsConfig) -> Result<Self, FileError> {
        durable::create_dir(&config.dir)?;
        let models = Self {
            config: Arc::new(config),
        };
        models.sweep()?;
        Ok(models)
    }

    /// The catalogue that the store pulls from.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.config.catalogue
    }

    /// All models here.
    #[must_use]
    pub fn list(&self) -> Listing {
        let mut listing = record::list(&self.config.dir, false);
        for dir in &self.config.shared {
            let others = record::list(dir, true);
            let known = |s: &Stored| {
                listing
                    .models
                    .iter()
                    .any(|m| m.record.blake3 == s.record.blake3)
            };
            let new: Vec<_> = others.models.into_iter().filter(|s| !known(s)).collect();
            listing.models.extend(new);
            listing.broken.extend(others.broken);
        }
        listing
    }

    /// The model of this name, or with the file of this hash, if it is here.
    ///
    /// # Errors
    ///
    /// [`ResolveError::NotPulled`] or [`ResolveError::Unknown`].
    pub fn show(&self, wanted: &Reference) -> Result<Stored, ResolveError> {
        let listing = self.list();
        let is_it = |stored: &&Stored| match wanted {
            Reference::Name(name) => stored.record.name == *name,
            Reference::Hash(hash) => stored.record.blake3 == *hash,
            Reference::Hub(file) => stored.record.source == file.to_string(),
            Reference::Path(path) => stored.path == *path,
        };
        listing
            .models
            .iter()
            .find(is_it)
            .cloned()
            .ok_or_else(|| self.missing(wanted, &listing))
    }

    /// The model whose file has this BLAKE3, if it is here.
    #[must_use]
    pub fn find_by_hash(&self, blake3: Hash) -> Option<Model> {
        let stored = self.show(&Reference::Hash(blake3)).ok()?;
        self.usable(stored).ok()
    }

    /// The model that somebody means, ready to be loaded. A file outside the store is hashed once, and again only
    /// when it has changed.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub async fn resolve(
        &self,
        wanted: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Model, ResolveError> {
        let Reference::Path(path) = wanted else {
            return self.usable(self.show(wanted)?);
        };
        let path = path.canonicalize().map_err(FileError::of("find", path))?;
        if let Ok(stored) = self.show(&Reference::Path(path.clone())) {
            return self.usable(stored);
        }
        let (models, meter) = (self.clone(), Meter::new(progress));
        blocking(move |stop| {
            preflight(&path).map_err(|source| ResolveError::NotAModel {
                path: path.clone(),
                source,
            })?;
            let facts = fs::metadata(&path).map_err(FileError::of("read", &path))?;
            meter.set_total(facts.len());
            let span = meter.span(&format!("hashing {}", path.display()), 0..1000, facts.len());
            let hash = models.hash_of(&path, (&facts).into(), || {
                Ok(digest_file(&path, stop, |at| span.at(at))?.blake3)
            })?;
            Ok(models.outside(path, hash, facts.len()))
        })
        .await
    }

    /// Hashes a stored file again and compares it with its record.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]; the file is left as it is.
    pub async fn verify(
        &self,
        wanted: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Stored, VerifyError> {
        let stored = self.show(wanted)?;
        let meter = Meter::new(progress);
        blocking(move |stop| {
            let record = &stored.record;
            meter.set_total(record.bytes);
            let phase = format!("checking {}", record.name);
            let span = meter.span(&phase, 0..1000, record.bytes);
            let digests = digest_file(&stored.path, stop, |at| span.at(at))?;
            meter.finish(&phase);
            let expected = Expected {
                bytes: Some(record.bytes),
                sha256: Some(record.sha256),
                blake3: Some(record.blake3),
            };
            let differs = differences(&expected, &digests);
            if differs.is_empty() {
                return Ok(stored);
            }
            Err(VerifyError::Damaged {
                name: record.name.clone(),
                path: stored.path,
                differs,
            })
        })
        .await
    }

    /// Removes a model's file and record. A process that has the file open keeps it until it closes it.
    ///
    /// # Errors
    ///
    /// [`RemoveError`].
    pub fn rm(&self, wanted: &Reference) -> Result<Stored, RemoveError> {
        let stored = self.show(wanted)?;
        if stored.shared {
            let dir = durable::parent(&stored.path).to_owned();
            return Err(RemoveError::Shared {
                name: stored.record.name,
                dir,
            });
        }
        let _lock = self.lock()?;
        // The record goes first: a file without one is swept, should we die in between.
        durable::remove_file(&record::path(&self.config.dir, stored.record.blake3))?;
        durable::remove_file(&stored.path)?;
        durable::remove_file(&memory::path(&self.config.dir, stored.record.blake3))?;
        durable::sync_dir(&self.config.dir)?;
        Ok(stored)
    }

    fn usable(&self, stored: Stored) -> Result<Model, ResolveError> {
        let Stored { record, path, .. } = stored;
        let got = fs::metadata(&path)
            .map_err(FileError::of("read", &path))?
            .len();
        if got != record.bytes {
            let (name, expected) = (record.name, record.bytes);
            return Err(ResolveError::WrongSize {
                name,
                path,
                expected,
                got,
            });
        }
        let entry = catalogue::by_hash(&self.config.catalogue, record.blake3);
        Ok(Model {
            path,
            blake3: record.blake3,
            name: record.name,
            bytes: record.bytes,
            licence: record.licence,
            sampling: entry.and_then(|entry| entry.sampling),
        })
    }

    /// A file outside the store, with what the catalogue knows about its content.
    fn outside(&self, path: PathBuf, blake3: Hash, bytes: u64) -> Model {
        let entry = catalogue::by_hash(&self.config.catalogue, blake3);
        Model {
            blake3,
            bytes,
            name: entry.map_or_else(|| name_of_file(&path.to_string_lossy()), |e| e.name.clone()),
            licence: entry.map(|entry| entry.licence.clone()),
            sampling: entry.and_then(|entry| entry.sampling),
            path,
        }
    }

    /// The remembered hash of a file, or a new one, which is then remembered. Trouble with the memory only costs time.
    fn hash_of(
        &self,
        path: &Path,
        facts: FileFacts,
        hash: impl FnOnce() -> Result<Hash, ResolveError>,
    ) -> Result<Hash, ResolveError> {
        let Some(state) = &self.config.state else {
            return hash();
        };
        let warn = |error| tracing::warn!(%error, "hashes of files are not remembered");
        if let Some(known) = state.path_hash(path, facts).unwrap_or_else(|error| {
            warn(error);
            None
        }) {
            return Ok(known);
        }
        let new = hash()?;
        let kept = state.remember_path_hash(path, facts, new, SystemTime::now());
        kept.unwrap_or_else(warn);
        Ok(new)
    }

    fn missing(&self, wanted: &Reference, listing: &Listing) -> ResolveError {
        let catalogue = &self.config.catalogue;
        let wanted_text = match wanted {
            Reference::Name(name) => name.clone(),
            Reference::Hash(hash) => hash.to_string(),
            Reference::Hub(file) => file.to_string(),
            Reference::Path(path) => path.display().to_string(),
        };
        let entry = match wanted {
            Reference::Name(name) => catalogue::by_name(catalogue, name),
            Reference::Hash(hash) => catalogue::by_hash(catalogue, *hash),
            Reference::Hub(_) => {
                return ResolveError::NotPulled {
                    wanted: wanted_text,
                };
            }
            Reference::Path(_) => None,
        };
        if let Some(entry) = entry {
            return ResolveError::NotPulled {
                wanted: entry.name.clone(),
            };
        }
        let stored = listing.models.iter().map(|m| m.record.name.as_str());
        let mut known: Vec<_> = catalogue
            .model
            .iter()
            .map(|e| e.name.as_str())
            .chain(stored)
            .collect();
        known.sort_unstable();
        known.dedup();
        ResolveError::Unknown {
            wanted: wanted_text,
            known: known.join(", "),
        }
    }

    /// Held while names in the directory change: by this process or another, for a moment.
    fn lock(&self) -> Result<File, FileError> {
        let path = self.config.dir.join("lock");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(FileError::of("open", &path))?;
        file.lock().map_err(FileError::of("lock", &path))?;
        Ok(file)
    }

    /// Removes what dead processes left: half-made files, and of file and record the one without the other.
    fn sweep(&self) -> Result<(), FileError> {
        let dir = &self.config.dir;
        staging::sweep(dir, SystemTime::now())?;
        let _lock = self.lock()?;
        durable::sweep_new(dir)?;
        for entry in fs::read_dir(dir)
            .map_err(FileError::of("list", dir))?
            .flatten()
        {
            let path = entry.path();
            let stem = path
                .file_stem()
                .and_then(|s| s.to_str())
                .unwrap_or_default();
            let Ok(hash) = stem.parse::<Hash>() else {
                continue;
            };
            let (file, record) = (model_path(dir, hash), record::path(dir, hash));
            if (path == file && !record.exists()) || (path == record && !file.exists()) {
                tracing::info!(path = %path.display(), "removing what an interrupted pull left");
                durable::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn model_path(dir: &Path, blake3: Hash) -> PathBuf {
    dir.join(format!("{blake3}.{MODEL_END}"))
}

/// Looks at a file before anything else trusts it.
fn preflight(path: &Path) -> Result<(), GgufError> {
    let refuse = |source| GgufError {
        field: "file".to_owned(),
        offset: 0,
        fault: Fault::Io(source),
    };
    let file = File::open(path).map_err(refuse)?;
    let facts = file.metadata().map_err(refuse)?;
    if !facts.is_file() {
        return Err(refuse(std::io::ErrorKind::IsADirectory.into()));
    }
    Header::read(file, facts.len()).map(|_| ())
}
