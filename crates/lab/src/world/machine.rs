//! A machine, as far as its processes can tell: a network namespace, an address, a place for files.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use super::ground::Namespace;
use super::{Disk, Process, Setup, Starved, processes};

/// A machine of a world, which lasts as long as its world does.
#[derive(Debug, Clone)]
pub struct Machine(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    name: String,
    namespace: Namespace,
    addr: Mutex<Ipv4Addr>,
    port: usize,
    dir: PathBuf,
}

impl Machine {
    pub(super) fn new(
        name: &str,
        namespace: Namespace,
        addr: Ipv4Addr,
        port: usize,
        dir: PathBuf,
    ) -> Self {
        let name = name.to_owned();
        Self(Arc::new(Parts {
            name,
            namespace,
            addr: Mutex::new(addr),
            port,
            dir,
        }))
    }

    /// Its name in the world.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address among the other machines.
    pub fn addr(&self) -> Ipv4Addr {
        *self.0.addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_addr(&self, addr: Ipv4Addr) {
        *self.0.addr.lock().unwrap_or_else(PoisonError::into_inner) = addr;
    }

    /// Its network namespace, as `ip netns` knows it.
    pub fn netns(&self) -> &str {
        self.0.namespace.name()
    }

    /// A directory of its own, gone with the world.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The number of its interface.
    pub(super) fn port(&self) -> usize {
        self.0.port
    }

    /// A disk of so many bytes, empty: a directory that is full when they are written.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn disk(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let dir = self.dir().join(name);
        std::fs::create_dir_all(&dir)?;
        let size = format!("size={bytes}");
        mount(
            Some("tmpfs"),
            &dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )
        .with_context(|| format!("mounting {}", dir.display()))?;
        Ok(dir)
    }

    /// A disk of so many bytes that can fail; at least a few MiB, for the file system takes its share.
    ///
    /// # Errors
    ///
    /// When it cannot be made or mounted; the message says what is needed.
    pub fn failing_disk(&self, name: &str, bytes: u64) -> Result<Disk> {
        Disk::make(self.dir().join(name), bytes)
    }

    /// A command that runs on this machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // It replaces itself by the program, so the process that is started is the program's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.netns()]).arg(program);
        command
    }

    /// Starts a command of [`Self::command`]. What it writes is kept under `name`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(self.dir(), name, command)
    }

    /// How a node of ours is started here.
    pub fn myzel(&self, binary: &Path) -> Setup {
        Setup::new(self, binary)
    }

    /// Runs `work` on a thread of its own as if on this machine. Sockets that it opens stay here, whoever uses them.
    ///
    /// # Errors
    ///
    /// When the machine cannot be entered; `work` returns its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.0.namespace.inside(work)
    }

    /// Its living processes.
    pub fn pids(&self) -> Vec<i32> {
        processes::within(&self.0.namespace.path())
    }

    /// Kills all its processes at once, as a power cut would; returns how many there were.
    ///
    /// # Errors
    ///
    /// When one withstands.
    pub fn kill(&self) -> Result<usize> {
        self.strike(Signal::SIGKILL)
    }

    /// Freezes all its processes, as a closed lid would; returns how many there were.
    ///
    /// # Errors
    ///
    /// When one goes on.
    pub fn freeze(&self) -> Result<usize> {
        self.strike(Signal::SIGSTOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// When one does not.
    pub fn thaw(&self) -> Result<usize> {
        self.strike(Signal::SIGCONT)
    }

    /// Gives its processes, and what they start, a share of one core and no more, as long as the result is kept.
    ///
    /// # Errors
    ///
    /// When the system has no groups of the CPU, or the machine is starved already.
    pub fn starve(&self, share: f64) -> Result<Starved> {
        Starved::new(self, share)
    }

    fn strike(&self, signal: Signal) -> Result<usize> {
        processes::strike_all(&self.0.namespace.path(), signal)
    }
}
