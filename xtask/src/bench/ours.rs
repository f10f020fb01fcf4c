//! The product under test and the model that both run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use proto::host::Loaded;
use serde_json::Value;

use super::started::Started;
use super::{engine, say};

/// The model that is measured, as the catalogue names it.
const MODEL: &str = "smollm2-135m-instruct";

/// Our binary and the model's file.
#[derive(Debug)]
pub(super) struct Ours {
    /// The binary.
    pub(super) myzel: PathBuf,
    /// The GGUF file.
    pub(super) model: PathBuf,
    /// What `--version` says.
    pub(super) version: String,
    /// What our engine says of itself.
    pub(super) loaded: Loaded,
}

/// Builds the binary unless one is named, and fetches the model unless it is here.
///
/// # Errors
///
/// When either fails.
pub(super) fn get(started: &Started, root: &Path, myzel: Option<&Path>) -> Result<Ours> {
    let myzel = match myzel {
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("--myzel {}", path.display()))?,
        None => build(started, root)?,
    };
    let version = started
        .output(Command::new(&myzel).arg("--version"))?
        .trim()
        .to_owned();
    let model = model(started, &myzel)?;
    let loaded = engine::about(started, &myzel, &model)?;
    if loaded.cpu_class.trim().is_empty() {
        bail!("our engine does not say which CPU features it uses");
    }
    Ok(Ours {
        myzel,
        model,
        version,
        loaded,
    })
}

fn build(started: &Started, root: &Path) -> Result<PathBuf> {
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

/// The model in the same place where the tests keep it.
fn model(started: &Started, myzel: &Path) -> Result<PathBuf> {
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
pub(super) fn cache_dir() -> Result<PathBuf> {
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
