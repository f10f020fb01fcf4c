//! What a world stands on: its name, its directory, its namespaces; and how all of it goes away again.
//!
//! Everything bears the number of the process that made it, so the next world finds what a killed process has left
//! behind, and removes it: processes, namespaces, mounts, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use super::{cpu, processes};

/// What names of ours begin with.
const PREFIX: &str = "myzel-lab-";
/// The folder where iproute2 keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// The number of the next world of this process.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A world's name and directory.
#[derive(Debug)]
pub(crate) struct Ground {
    name: String,
    dir: PathBuf,
}

impl Ground {
    /// New ground, after what dead processes left was removed.
    ///
    /// # Errors
    ///
    /// When this is not root, a program is missing, or the directory cannot be made. The message says what is needed.
    pub(crate) fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(
                "a lab makes network namespaces, TUN devices and mounts, and needs root for that; run it as root: sudo -E"
            );
        }
        if !Path::new("/dev/net/tun").exists() {
            bail!(
                "there is no /dev/net/tun, which links are made of; load the kernel's module: modprobe tun"
            );
        }
        run(
            Command::new("ip").arg("-V"),
            "install iproute2 (Debian: apt-get install iproute2)",
        )?;
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { name, dir })
    }

    /// The name of what belongs to this world.
    pub(crate) fn named(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Where the files of a machine are.
    pub(crate) fn dir(&self, machine: &str) -> PathBuf {
        self.dir.join(machine)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

/// A network namespace by its name.
#[derive(Debug, Clone)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// The namespace of this name, which need not be there yet.
    pub(crate) fn named(name: String) -> Self {
        Self(name)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.0)
    }

    /// Makes it, with a loopback.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub(crate) fn make(&self) -> Result<()> {
        ip(&format!("netns add {}", self.0))?;
        ip(&format!("-n {} link set lo up", self.0))?;
        Ok(())
    }

    /// Runs `work` on a thread of its own inside. What it opens stays inside, whoever uses it later.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let enter = || -> Result<T> {
            let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering {}", self.0))?;
            Ok(work())
        };
        let joined = std::thread::scope(|scope| scope.spawn(enter).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Ends every process in it and removes it. One that was never made need not be removed.
    pub(crate) fn remove(&self) {
        let _ = processes::strike_all(&self.path(), Signal::SIGKILL);
        let _ = ip(&format!("netns del {}", self.0));
    }
}

/// Runs `ip` with these words; returns what it printed.
///
/// # Errors
///
/// When it fails, with what it said.
pub(crate) fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split(' ')), "see its message")
}

/// Runs a command; `out` is the way out when it is not there or fails.
///
/// # Errors
///
/// Exactly then, with what it said.
pub(crate) fn run(command: &mut Command, out: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {command:?}; {out}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}; {out}", said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes what processes left behind that did not end in order.
fn sweep() {
    for name in names(Path::new(NAMESPACES)) {
        Namespace(name).remove();
    }
    for groups in cpu::BASES.map(Path::new) {
        for name in names(groups) {
            // Nothing runs in it any more.
            let _ = fs::remove_dir(groups.join(name));
        }
    }
    let temp = std::env::temp_dir();
    for name in names(&temp) {
        clear(&temp.join(name));
    }
}

/// The entries of a folder that bear the number of a process that is no more.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| {
            let rest = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next());
            let pid = rest.and_then(|pid| pid.parse().ok());
            pid.is_some_and(|pid| !processes::lives(pid))
        })
        .collect()
}

/// Unmounts what is mounted below a directory and removes it. What is not there need not be removed.
fn clear(dir: &Path) {
    for mounted in mounts(dir) {
        // Files of a process that is just ending may be open.
        let _ = umount2(&mounted, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(dir);
}

/// What is mounted below a directory (proc(5), `/proc/self/mounts`). Names of ours have no blanks, which are escaped there.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = text.lines().filter_map(|line| line.split(' ').nth(1));
    targets
        .map(PathBuf::from)
        .filter(|target| target.starts_with(dir))
        .collect()
}
