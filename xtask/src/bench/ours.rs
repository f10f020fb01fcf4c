//! The product under test and the model that both run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use proto::host::Loaded;
use proto::model::Numerics;

use super::engine::{self, Engine};
use crate::rig::product;
use crate::rig::started::Started;

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
    let myzel = product::binary(started, root, myzel)?;
    let version = started
        .output(Command::new(&myzel).arg("--version"))?
        .trim()
        .to_owned();
    let model = product::model(started, &myzel)?;
    let spec = engine::spec(&model, Numerics::Throughput, 64);
    let loaded = Engine::start(started, &myzel, spec)?.loaded;
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
