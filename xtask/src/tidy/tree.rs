//! The files of the repository, as git sees them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use walkdir::{DirEntry, WalkDir};

/// Above this many bytes a file's text is not kept; such files have a finding of their own.
pub(crate) const TEXT_BYTES_MAX: u64 = 5 * 1024 * 1024;

/// Directories that hold products, not sources. Only looked at where there is no git to ask.
const PRODUCT_DIRS: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// One file of the repository.
#[derive(Debug)]
pub(crate) struct TreeFile {
    /// Path below the root, with forward slashes.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// The text, unless the file is binary or larger than [`TEXT_BYTES_MAX`].
    pub(crate) text: Option<String>,
}

/// All files of the repository, sorted by path.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) files: Vec<TreeFile>,
}

impl Tree {
    /// Lists and reads the files below `root`: in a git checkout what git tracks or would track, else
    /// everything but products.
    ///
    /// # Errors
    ///
    /// When git fails or a file cannot be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut paths = if root.join(".git").exists() {
            listed(root)?
        } else {
            walked(root)?
        };
        paths.sort();
        paths.dedup();
        let mut files = Vec::new();
        for path in paths {
            files.extend(read_file(root, path)?);
        }
        Ok(Self { files })
    }

    /// The text of one file, if it is there and is text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)?
            .text
            .as_deref()
    }

    /// A tree made of texts, for tests of the rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| TreeFile {
            path: path.to_owned(),
            bytes: text.len() as u64,
            text: Some(text.to_owned()),
        };
        Self {
            files: files.iter().map(file).collect(),
        }
    }
}

fn listed(root: &Path) -> io::Result<Vec<String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "git ls-files failed: {}",
            message.trim()
        )));
    }
    let text = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    Ok(text
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect())
}

fn walked(root: &Path) -> io::Result<Vec<String>> {
    let is_source = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        !(entry.file_type().is_dir() && PRODUCT_DIRS.contains(&&*name))
    };
    let mut paths = Vec::new();
    for entry in WalkDir::new(root).into_iter().filter_entry(is_source) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let path = entry.path().strip_prefix(root).map_err(io::Error::other)?;
            paths.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(paths)
}

/// `None` for what git lists but is no file here: a deletion not yet committed, a link, a submodule.
fn read_file(root: &Path, path: String) -> io::Result<Option<TreeFile>> {
    let place: PathBuf = root.join(&path);
    let Ok(facts) = fs::symlink_metadata(&place) else {
        return Ok(None);
    };
    if !facts.is_file() {
        return Ok(None);
    }
    let bytes = facts.len();
    let text = if bytes <= TEXT_BYTES_MAX {
        as_text(fs::read(&place)?)
    } else {
        None
    };
    Ok(Some(TreeFile { path, bytes, text }))
}

fn as_text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.files.iter().map(|file| file.path.as_str()).collect()
    }

    fn write(root: &Path, path: &str, bytes: &[u8]) {
        let place = root.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }

    #[test]
    fn without_git_the_walk_leaves_products_out() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "src/lib.rs", b"//! x");
        write(dir.path(), "target/debug/out.rs", b"x");
        write(dir.path(), "data.bin", b"a\0b");
        let tree = Tree::read(dir.path()).unwrap();
        assert_eq!(paths(&tree), ["data.bin", "src/lib.rs"]);
        assert_eq!(tree.text("data.bin"), None);
        assert_eq!(tree.text("src/lib.rs"), Some("//! x"));
    }

    #[test]
    fn with_git_the_ignore_file_counts_and_a_deleted_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let status = Command::new("git")
                .args(args)
                .current_dir(dir.path())
                .status()
                .unwrap();
            assert!(status.success(), "git {args:?}");
        };
        git(&["init", "-q"]);
        write(dir.path(), ".gitignore", b"secret\n");
        write(dir.path(), "secret", b"x");
        write(dir.path(), "kept.rs", b"x");
        write(dir.path(), "deleted.rs", b"x");
        git(&["add", "."]);
        fs::remove_file(dir.path().join("deleted.rs")).unwrap();
        write(dir.path(), "new.rs", b"x");
        let tree = Tree::read(dir.path()).unwrap();
        assert_eq!(paths(&tree), [".gitignore", "kept.rs", "new.rs"]);
    }
}
