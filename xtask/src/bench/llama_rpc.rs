//! The peer with workers: llama-server over RPC, llama.cpp's own way to spread a model over machines.
//!
//! Its default build has no RPC. Only ggml, which lists the backends, and the worker are built again, with
//! [`OPTION`]; llama-server itself and every other library are the very files of the default build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::llama_server::{VERSION, compile};
use crate::rig::product::cache_dir;
use crate::rig::say;
use crate::rig::started::Started;

/// The option that puts RPC in.
pub(super) const OPTION: &str = "-DGGML_RPC=ON";
/// What this version calls the worker; earlier ones called it `rpc-server`.
pub(super) const WORKER: &str = "ggml-rpc-server";

/// llama-server and its worker.
#[derive(Debug)]
pub(crate) struct Rpc {
    /// llama-server, which takes `--rpc`.
    pub(crate) program: PathBuf,
    /// The worker.
    pub(crate) worker: PathBuf,
}

/// From the cache, or built; `plain` is where the default build is.
///
/// # Errors
///
/// When the package cannot be fetched or built.
pub(super) fn get(started: &Started, plain: &Path) -> Result<Rpc> {
    let home = cache_dir()?.join(format!("llama-rpc-{VERSION}"));
    if !home.join(WORKER).exists() {
        build(started, plain, &home)?;
    }
    Ok(Rpc {
        program: home.join("llama-server"),
        worker: home.join(WORKER),
    })
}

fn build(started: &Started, plain: &Path, home: &Path) -> Result<()> {
    let part = cache_dir()?.join(format!("llama-rpc-{VERSION}.part"));
    say("building llama.cpp's RPC worker, once: a few minutes");
    let built = compile(started, &part, Some(OPTION), WORKER)?;
    let whole = part.join("whole");
    std::fs::create_dir_all(&whole).with_context(|| format!("cannot make {}", whole.display()))?;
    for from in [plain, &built] {
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(from.join(".")).arg(&whole);
        started.run(&mut copy)?;
    }
    std::fs::rename(&whole, home)
        .with_context(|| format!("cannot move what was built to {}", home.display()))?;
    std::fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))
}
