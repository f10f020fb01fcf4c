//! How people point at a model: by name, by hub address, by path, by hash.

use proto::ids::Hash;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest name of a model, in characters.
pub const NAME_CHARS_MAX: usize = 96;
/// What the address of a file on a hub begins with.
pub const HUB_PREFIX: &str = "hf:";

/// Which model somebody means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A name of the catalogue or the store.
    Name(String),
    /// The BLAKE3 of its file.
    Hash(Hash),
    /// A file on a hub: `hf:owner/repo/file.gguf[@revision]`.
    Hub(HubFile),
    /// A file on this machine.
    Path(PathBuf),
}

/// A file of a repository on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The file's path in the repository.
    pub path: String,
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{HUB_PREFIX}{}/{}@{}",
            self.repo, self.path, self.revision
        )
    }
}

/// Text that points at nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} does not point at a model: {why}; give a name of the catalogue, \
     hf:owner/repo/file.gguf[@revision], or the path of a GGUF file"
)]
pub struct ParseReferenceError {
    text: String,
    why: String,
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    /// Text with a `/`, or with the end `.gguf`, is a path; a bare word is a name.
    fn from_str(text: &str) -> Result<Self, ParseReferenceError> {
        let fault = |why| ParseReferenceError {
            text: text.chars().take(200).collect(),
            why,
        };
        if let Some(rest) = text.strip_prefix(HUB_PREFIX) {
            return parse_hub(rest).map(Self::Hub).map_err(fault);
        }
        if let Ok(hash) = text.parse() {
            return Ok(Self::Hash(hash));
        }
        if text.contains('/') || has_gguf_end(text) {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        check_name(text).map_err(fault)?;
        Ok(Self::Name(text.to_owned()))
    }
}

fn has_gguf_end(text: &str) -> bool {
    Path::new(text)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
}

fn parse_hub(rest: &str) -> Result<HubFile, String> {
    let (address, revision) = rest.rsplit_once('@').unwrap_or((rest, "main"));
    let mut parts = address.splitn(3, '/');
    let (Some(owner), Some(name), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("owner, repository and file are needed".to_owned());
    };
    let repo = format!("{owner}/{name}");
    check_repo(&repo, revision)?;
    check_repo_path(path)?;
    if !has_gguf_end(path) {
        return Err("the file does not end in .gguf".to_owned());
    }
    Ok(HubFile {
        repo,
        revision: revision.to_owned(),
        path: path.to_owned(),
    })
}

/// Refuses what is not a model's name: lower-case letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = name.starts_with(plain) && name.chars().all(|c| plain(c) || "._-".contains(c));
    if good && name.len() <= NAME_CHARS_MAX {
        return Ok(());
    }
    Err(format!(
        "a name has at most {NAME_CHARS_MAX} lower-case letters, digits, dots, underscores and hyphens"
    ))
}

pub(crate) fn check_repo(repo: &str, revision: &str) -> Result<(), String> {
    let segment = |s: &str| {
        !s.is_empty()
            && !s.starts_with('.')
            && s.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    if !matches!(repo.split_once('/'), Some((owner, name)) if segment(owner) && segment(name)) {
        return Err(format!("{repo:?} is not owner/name"));
    }
    if !revision.split('/').all(segment) {
        return Err(format!("{revision:?} is not a branch, tag or commit"));
    }
    Ok(())
}

/// The path becomes part of an address: nothing in it may leave the repository or end the address early.
pub(crate) fn check_repo_path(path: &str) -> Result<(), String> {
    let segment = |s: &str| {
        !matches!(s, "" | "." | "..") && s.chars().all(|c| !c.is_control() && !"?#%\\".contains(c))
    };
    if path.split('/').all(segment) {
        Ok(())
    } else {
        Err(format!("{path:?} is not a file's path"))
    }
}

/// The name that a file gets when nobody gave it one: its stem, made plain.
pub(crate) fn name_of_file(path: &str) -> String {
    let stem = Path::new(path)
        .file_stem()
        .map(|s| s.to_string_lossy().to_lowercase());
    let plain: String = stem
        .unwrap_or_default()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(NAME_CHARS_MAX)
        .collect();
    let name = plain.trim_start_matches(['.', '_', '-']);
    if name.is_empty() {
        "model".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        let hub = |path: &str, revision: &str| {
            Reference::Hub(HubFile {
                repo: "own/re-po".into(),
                revision: revision.into(),
                path: path.into(),
            })
        };
        for (text, means) in [
            (
                "smollm2-135m-instruct",
                Reference::Name("smollm2-135m-instruct".into()),
            ),
            ("./m", Reference::Path("./m".into())),
            ("m.GGUF", Reference::Path("m.GGUF".into())),
            ("/a/b c.gguf", Reference::Path("/a/b c.gguf".into())),
            ("hf:own/re-po/m.gguf", hub("m.gguf", "main")),
            ("hf:own/re-po/sub/m.gguf@v1", hub("sub/m.gguf", "v1")),
            (&"0".repeat(64), Reference::Hash(Hash([0; 32]))),
        ] {
            assert_eq!(text.parse::<Reference>(), Ok(means), "{text}");
        }
    }

    #[test]
    fn what_points_at_nothing_is_refused_with_the_next_step() {
        for text in [
            "",
            "Not A Name",
            "-x",
            "hf:",
            "hf:a/b",
            "hf:a/b/m.bin",
            "hf:a/b/../m.gguf",
            "hf:../b/m.gguf",
            "hf:a/b/m.gguf@",
            "hf:a/b/m.gguf@..",
            "hf:a/b/m?.gguf",
            "hf:a//m.gguf",
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains("hf:owner/repo/file.gguf"), "{text}: {error}");
        }
    }

    #[test]
    fn names_made_from_files_are_names() {
        for (file, name) in [
            ("/x/SmolLM2-135M.Q4_1.gguf", "smollm2-135m.q4_1"),
            ("sub/Ä b.gguf", "b"),
            ("...gguf", "model"),
            (&"x".repeat(300), &"x".repeat(NAME_CHARS_MAX)),
        ] {
            assert_eq!(name_of_file(file), name);
            check_name(name).unwrap();
        }
    }
}
