//! The processes of a run, and their end.
//!
//! Each is the leader of a process group of its own, so that a Ctrl-C at the terminal reaches this program
//! alone and what a child started can be ended with it. SIGINT and SIGTERM end every group; whoever waits for an
//! answer then gets an error, and the guards ([`Running`]) do the rest on the way out.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// How long a process may take to end by itself before it is killed.
const END_MAX: Duration = Duration::from_secs(4);
/// How often we look whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Everything that this run started and that has not been reaped.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pids: Arc<Mutex<Pids>>,
    /// Waits for signals; ends with the last clone.
    _signals: Arc<Runtime>,
}

#[derive(Debug, Default)]
struct Pids {
    alive: BTreeSet<i32>,
    interrupted: bool,
}

impl Started {
    /// Nothing yet; from now on signals end what will be started instead of this program.
    ///
    /// # Errors
    ///
    /// When the signals cannot be watched.
    pub(crate) fn new() -> Result<Self> {
        let pids = Arc::<Mutex<Pids>>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let watched = pids.clone();
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            // Ends with the runtime: its only work is to wait for a signal.
            let _watch = tokio::spawn(async move {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                let mut pids = lock(&watched);
                pids.interrupted = true;
                for pid in &pids.alive {
                    // One that has just ended needs no signal.
                    let _ = killpg(Pid::from_raw(*pid), Signal::SIGTERM);
                }
            });
            anyhow::Ok(())
        })?;
        Ok(Self {
            pids,
            _signals: Arc::new(runtime),
        })
    }

    /// Fails once the run was interrupted.
    ///
    /// # Errors
    ///
    /// Exactly then.
    pub(crate) fn check(&self) -> Result<()> {
        if lock(&self.pids).interrupted {
            bail!("interrupted")
        } else {
            Ok(())
        }
    }

    /// Sleeps, and fails if the run was interrupted meanwhile.
    ///
    /// # Errors
    ///
    /// When interrupted.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        std::thread::sleep(time);
        self.check()
    }

    /// Starts a process.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or the run was interrupted.
    pub(crate) fn spawn(&self, command: &mut Command) -> Result<Running> {
        // The lock is held so that a signal meets the process either not started or in the list.
        let mut pids = lock(&self.pids);
        if pids.interrupted {
            bail!("interrupted");
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start {name}"))?;
        pids.alive.insert(child.id() as i32);
        Ok(Running {
            child,
            started: self.clone(),
        })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not succeed.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let mut running = self.spawn(command.stdin(Stdio::null()))?;
        let status = loop {
            match running.try_wait()? {
                Some(status) => break status,
                None => self.pause(LOOK_EVERY)?,
            }
        };
        if !status.success() {
            bail!(
                "{} ended with {status}",
                command.get_program().to_string_lossy()
            );
        }
        Ok(())
    }

    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not succeed, or prints other things than text.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        let mut running = self.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let mut text = String::new();
        let stdout = running.child.stdout.take().expect("the output is a pipe");
        let mut stdout = std::io::BufReader::new(stdout);
        stdout.read_to_string(&mut text)?;
        let status = running.child.wait()?;
        if !status.success() {
            bail!(
                "{} ended with {status}",
                command.get_program().to_string_lossy()
            );
        }
        Ok(text)
    }
}

fn lock(pids: &Mutex<Pids>) -> MutexGuard<'_, Pids> {
    pids.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process; its pipes may be taken.
    pub(crate) child: Child,
    started: Started,
}

impl Running {
    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub(crate) fn try_wait(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid());
        let asked = Instant::now();
        if matches!(self.child.try_wait(), Ok(None)) {
            // Whatever fails here, the loop below ends in a kill.
            let _ = kill(pid, Signal::SIGTERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > END_MAX {
                let _ = self.child.kill();
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // Nothing of its group outlives it; most often the group is empty by now.
        let _ = killpg(pid, Signal::SIGKILL);
        lock(&self.started.pids).alive.remove(&pid.as_raw());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: i32) -> bool {
        kill(Pid::from_raw(pid), None).is_ok()
    }

    #[test]
    fn what_is_dropped_has_ended_and_so_have_its_children() {
        let started = Started::new().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut running = started.spawn(&mut command).unwrap();
        let mut line = String::new();
        let stdout = running.child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let (pid, grandchild) = (running.pid(), line.trim().parse().unwrap());
        assert!(alive(pid) && alive(grandchild));
        drop(running);
        assert!(!alive(pid));
        // An orphan is reaped by the system a moment after its end.
        while alive(grandchild) && !ended(grandchild) {
            std::thread::sleep(LOOK_EVERY);
        }
        assert!(lock(&started.pids).alive.is_empty());
    }

    fn ended(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }

    #[test]
    fn a_failure_names_the_program() {
        let started = Started::new().unwrap();
        let error = started.run(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().contains("false"), "{error}");
        let printed = started.output(Command::new("echo").arg("word")).unwrap();
        assert_eq!(printed, "word\n");
    }
}
