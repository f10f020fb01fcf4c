//! Memory of a process and all that it started (Linux, proc(5)).

use std::io;

use anyhow::{Context, Result, bail};

use super::tree;

/// Memory of a tree of processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident sets, added up: a page that two processes share counts twice.
    pub(crate) resident: u64,
    /// Proportional sets, added up: a page that two processes share counts half for each.
    pub(crate) proportional: u64,
}

/// The memory of `root` and its descendants.
///
/// # Errors
///
/// When one of them cannot be read, or `root` has ended.
pub(crate) fn of_tree(root: i32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in tree::of(root)? {
        match of(pid)? {
            Some(one) => {
                sum.resident += one.resident;
                sum.proportional += one.proportional;
            }
            None if pid == root => bail!("process {root} has ended"),
            // It ended since the tree was read.
            None => {}
        }
    }
    Ok(sum)
}

/// The memory of one process; `None` once it has none any more, since it ends.
pub(crate) fn of(pid: i32) -> Result<Option<Memory>> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
    };
    let memory = parse(&text).with_context(|| format!("{path} has no Rss or Pss"))?;
    Ok(Some(memory))
}

/// No such process; or it is one without memory, on its way out.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn parse(text: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    Some(Memory {
        resident: field("Rss:")?,
        proportional: field("Pss:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read() {
        let text = "00400000-7ff [rollup]\nRss:      12 kB\nPss:       7 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(
            parse(text),
            Some(Memory {
                resident: 12 << 10,
                proportional: 7 << 10
            })
        );
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let memory = of_tree(std::process::id() as i32).unwrap();
        assert!(
            memory.proportional > 0 && memory.proportional <= memory.resident,
            "{memory:?}"
        );
    }

    #[test]
    fn a_process_that_has_ended_has_none() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        // Not reaped yet, but its memory goes with its end.
        while of(pid).unwrap().is_some() {
            std::thread::yield_now();
        }
        assert!(of_tree(pid).unwrap_err().to_string().contains("has ended"));
        child.wait().unwrap();
        assert_eq!(of(pid).unwrap(), None);
    }
}
