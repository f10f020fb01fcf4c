//! Memory of a process and all that it started (Linux, proc(5)).

use std::collections::BTreeMap;

use anyhow::{Context, Result};

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
/// When one of them cannot be read, for example because it has just ended.
pub(crate) fn of_tree(root: i32) -> Result<Memory> {
    let mut sum = Memory::default();
    for pid in tree(root, &parents()?) {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let one = parse(&text).with_context(|| format!("{path} has no Rss or Pss"))?;
        sum.resident += one.resident;
        sum.proportional += one.proportional;
    }
    Ok(sum)
}

/// Every process with its parent.
fn parents() -> Result<BTreeMap<i32, i32>> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile has no line any more.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

/// The fourth field of a stat line; the second, the name, may hold spaces and parentheses.
fn parent(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn tree(root: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| **parent == pid)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found
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
    fn a_tree_is_all_descendants_and_nothing_else() {
        let parents = BTreeMap::from([(1, 0), (5, 1), (6, 5), (7, 6), (8, 5), (9, 1)]);
        let mut found = tree(5, &parents);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7, 8]);
        assert_eq!(parent("7 (a (b) c) S 6 7 7 0"), Some(6));
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
