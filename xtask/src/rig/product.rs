//! The binary under test, the model, and where the workshop keeps what is expensive to make.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use serde_json::Value;

use super::say;
use super::started::Started;

/// The model that is used, as the catalogue names it.
const MODEL: &str = "smollm2-135m-instruct";

/// The binary that was named, or the release build of the repository, built first.
///
/// # Errors
///
/// When the named one is not there, or the build fails.
pub(crate) fn binary(started: &Started, root: &Path, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return path
            .canonicalize()
            .with_context(|| format!("--myzel {}", path.display()));
    }
    say("building myzel");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--package", "node"])
        .current_dir(root);
    started.run(&mut command)?;
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec()?;
    Ok(metadata
        .target_directory
        .join("release/myzel")
        .into_std_path_buf())
}

/// The model's file, in the same place where the tests keep it; fetched unless it is there.
///
/// # Errors
///
/// When it cannot be fetched or kept.
pub(crate) fn model(started: &Started, myzel: &Path) -> Result<PathBuf> {
    say(&format!(
        "looking for the model {MODEL}; it is fetched if it is not here"
    ));
    let home = match std::env::var_os("MYZEL_TEST_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => cache_dir()?.join("test-home"),
    };
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let mut command = Command::new(myzel);
    command.args(["model", "pull", MODEL, "--json"]);
    command
        .env("XDG_DATA_HOME", &home)
        .env_remove("MYZEL_DATA_DIR");
    let line = started.output(&mut command)?;
    let pulled: Value = serde_json::from_str(&line).context("what `model pull --json` printed")?;
    let path = pulled["path"]
        .as_str()
        .context("`model pull --json` named no path")?;
    Ok(PathBuf::from(path))
}

/// Where Myzel's workshop keeps what is expensive to make.
///
/// # Errors
///
/// When neither `XDG_CACHE_HOME` nor `HOME` says where.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let base = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("myzel"))
}
