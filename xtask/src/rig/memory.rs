//! Memory of a process and all that it started (Linux, proc(5)).

use anyhow::{Context, Result};

use super::tree::{self, Identity};

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
/// When one that lives cannot be read, or `root` has ended.
pub(crate) fn of_tree(root: i32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in tree::of(root)? {
        match of(pid) {
            Ok(one) => {
                sum.resident += one.resident;
                sum.proportional += one.proportional;
            }
            Err(error) if pid == root || Identity::of(pid).is_some() => return Err(error),
            // It ended since the tree was read.
            Err(_) => {}
        }
    }
    Ok(sum)
}

fn of(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path} has no Rss or Pss"))
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
}
