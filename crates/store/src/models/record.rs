//! The records beside the models: TOML with a version, and the way up from older versions.

use super::{Listing, Stored, model_path};
use crate::durable::{FileError, PRIVATE, replace};
use crate::reference::check_name;
use proto::disk::{MODEL_RECORD_BYTES_MAX, MODEL_RECORD_VERSION, ModelRecord};
use proto::ids::Hash;
use std::fs;
use std::path::{Path, PathBuf};

/// The end of a record's name.
const RECORD_END: &str = "toml";

/// From one version to the next.
type Step = fn(&mut toml::Table) -> Result<(), String>;

/// `STEPS[n]` lifts version n + 1 to n + 2. Records are lifted when they are read; nothing is rewritten for it.
const STEPS: &[Step] = &[];

const _: () = assert!(STEPS.len() + 1 == MODEL_RECORD_VERSION as usize);

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not a record.
    #[error(
        "{} is not a usable model record ({why}); put a copy back, or remove it and its .gguf and pull the model anew",
        path.display()
    )]
    Malformed {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A newer Myzel wrote it.
    #[error("{} has version {found}, this build knows versions up to {known}; use the newer myzel", path.display())]
    TooNew {
        /// The record.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known version.
        known: u32,
    },
}

/// Where the record of a file is.
pub(super) fn path(dir: &Path, blake3: Hash) -> PathBuf {
    dir.join(format!("{blake3}.{RECORD_END}"))
}

/// Writes a record, replacing an older one of the same file.
pub(super) fn write(dir: &Path, record: &ModelRecord) -> Result<(), FileError> {
    let text = toml::to_string(record).expect("a record holds only text and small numbers");
    replace(&path(dir, record.blake3), text.as_bytes(), PRIVATE)
}

/// The models of a directory by name. A record whose file is not there (yet) is no model.
pub(super) fn list(dir: &Path, shared: bool) -> Listing {
    let mut listing = Listing::default();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default();
        let is_record = path.extension().is_some_and(|end| end == RECORD_END);
        let Some(hash) = stem.parse::<Hash>().ok().filter(|_| is_record) else {
            continue;
        };
        let file = model_path(dir, hash);
        match read(&path, STEPS) {
            Ok(record) if record.blake3 != hash => {
                let why = "it is about another file".to_owned();
                listing.broken.push(RecordError::Malformed { path, why });
            }
            Ok(record) if file.exists() => {
                listing.models.push(Stored {
                    record,
                    path: file,
                    shared,
                });
            }
            Ok(_) => {}
            Err(error) => listing.broken.push(error),
        }
    }
    listing
        .models
        .sort_by(|a, b| a.record.name.cmp(&b.record.name));
    listing
}

fn read(path: &Path, steps: &[Step]) -> Result<ModelRecord, RecordError> {
    let malformed = |why: String| RecordError::Malformed {
        path: path.to_owned(),
        why,
    };
    let bytes = fs::metadata(path)
        .map_err(FileError::of("read", path))?
        .len();
    if bytes > MODEL_RECORD_BYTES_MAX {
        return Err(malformed(format!("it has {bytes} bytes")));
    }
    let text = fs::read_to_string(path).map_err(FileError::of("read", path))?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|e| malformed(e.to_string()))?;
    let version = table.get("version").and_then(toml::Value::as_integer);
    let found = version
        .and_then(|v| u32::try_from(v).ok())
        .filter(|v| *v > 0);
    let found = found.ok_or_else(|| malformed("it does not say its version".to_owned()))?;
    let known = u32::try_from(steps.len()).expect("a chain of steps is written by hand") + 1;
    if found > known {
        return Err(RecordError::TooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for step in &steps[found as usize - 1..] {
        step(&mut table).map_err(malformed)?;
    }
    table.insert("version".to_owned(), toml::Value::Integer(known.into()));
    let record: ModelRecord = table
        .try_into()
        .map_err(|e: toml::de::Error| malformed(e.to_string()))?;
    check_name(&record.name).map_err(malformed)?;
    Ok(record)
}

#[cfg(test)]
mod tests;
