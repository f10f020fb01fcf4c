//! A process on a machine: started, frozen, thawed, killed, and asked what it said.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes;
use crate::wait;

/// A process that is killed when this is dropped. What it writes is kept in files, also of those started before it under
/// the same name.
#[derive(Debug)]
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    /// Bytes of `out` that earlier ones wrote.
    begins: u64,
}

impl Process {
    /// Starts a command of [`Machine::command`](super::Machine::command); its output goes to files in `dir`.
    pub(crate) fn start(dir: &Path, name: &str, command: &mut Command) -> Result<Self> {
        let (out, err) = (
            dir.join(format!("{name}.out")),
            dir.join(format!("{name}.err")),
        );
        let file = append(&out)?;
        let begins = file.metadata()?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(append(&err)?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self {
            child,
            out,
            err,
            begins,
        })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        processes::lives(self.pid())
    }

    /// Kills it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Freezes it (SIGSTOP), not what it started; see [`Machine::freeze`](super::Machine::freeze).
    ///
    /// # Errors
    ///
    /// When it does not stop.
    pub fn freeze(&self) -> Result<()> {
        processes::strike(self.pid(), Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn thaw(&self) -> Result<()> {
        processes::strike(self.pid(), Signal::SIGCONT)
    }

    /// Sends a signal that asks it to end, and waits for that at most so long.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn end_by(&mut self, signal: Signal, max: Duration) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.pid()), signal)?;
        let what = format!("process {} ends by {signal}", self.pid());
        wait::until(max, &what, || Ok(self.child.try_wait()?))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// What it has written to standard output.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub fn printed(&self) -> Result<String> {
        let bytes = fs::read(&self.out)?;
        let own = bytes.get(self.begins as usize..).unwrap_or_default();
        Ok(String::from_utf8_lossy(own).into_owned())
    }

    /// What it, and those before it under its name, have written to standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.kill();
    }
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| path.display().to_string())
}
