//! Processes as `/proc` shows them (proc(5)), and signals whose effect is waited for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How long the system may take until a signal has had its effect.
const EFFECT_MAX: Duration = Duration::from_secs(10);

/// The letter of a process's state: R, S, T (stopped), Z …; `None` if it is not there.
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything, blanks and parentheses too.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process is there and has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The living processes of a network namespace, which `path` names.
pub(crate) fn within(path: &Path) -> Vec<i32> {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let Some(wanted) = identity(path) else {
        return Vec::new();
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let own = format!("/proc/{pid}/ns/net");
        identity(Path::new(&own)) == Some(wanted) && lives(*pid)
    })
    .collect()
}

/// Sends a signal and waits until it has had its effect: the process is gone, stopped, or no longer stopped.
///
/// # Errors
///
/// When it has none.
pub(crate) fn strike(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        // It ended before, which is all that a kill wants.
        Err(Errno::ESRCH) if signal == Signal::SIGKILL => return Ok(()),
        sent => sent.with_context(|| format!("sending {signal} to process {pid}"))?,
    }
    let what = format!("{signal} strikes process {pid}");
    wait::until(EFFECT_MAX, &what, || {
        let has_struck = match signal {
            Signal::SIGSTOP => state(pid) == Some('T'),
            Signal::SIGCONT => state(pid) != Some('T'),
            Signal::SIGKILL => !lives(pid),
            _ => true,
        };
        Ok(has_struck.then_some(()))
    })
}

/// Does the same to every process of a namespace, again until none is there that it has not struck.
///
/// # Errors
///
/// When a process withstands.
pub(crate) fn strike_all(path: &Path, signal: Signal) -> Result<usize> {
    let mut struck = 0;
    loop {
        let pids = within(path).into_iter();
        let left: Vec<i32> = pids.filter(|pid| is_due(*pid, signal)).collect();
        if left.is_empty() {
            return Ok(struck);
        }
        for pid in left {
            // A parent's end may have ended it too.
            if lives(pid) {
                strike(pid, signal)?;
            }
            struck += 1;
        }
    }
}

fn is_due(pid: i32, signal: Signal) -> bool {
    match signal {
        Signal::SIGSTOP => state(pid).is_some_and(|state| state != 'T'),
        Signal::SIGCONT => state(pid) == Some('T'),
        _ => lives(pid),
    }
}
