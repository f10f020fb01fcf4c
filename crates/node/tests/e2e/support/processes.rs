//! Processes as `/proc` shows them, and signals.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_myzel");

/// Sends a signal to a process that we started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process is there");
}

/// Whether a process is there and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter of proc(5), `/proc/pid/stat`: R, S, T (stopped), Z …
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain anything, blanks and parentheses too.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The engine-hosts that the node with this process id has started and that still live.
pub(crate) fn engine_hosts(node: u32) -> Vec<u32> {
    let wanted = [BINARY, "engine-host", &node.to_string()].join("\0");
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.strip_suffix(b"\0") == Some(wanted.as_bytes()) && lives(*pid)
    })
    .collect()
}

/// Resident memory of a process in bytes; 0 when it is gone.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
