//! Which processes a process started, and whether they live (Linux, proc(5)).

use std::collections::BTreeMap;

use anyhow::Result;

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: i32,
    /// When it was started, in the system's ticks since its own start.
    start_ticks: u64,
}

impl Identity {
    /// The process that has this number now, unless it has ended.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = parse(&read(pid))?;
        // One that has ended and was not asked for yet is no process any more.
        let ended = matches!(stat.state, 'Z' | 'X');
        (!ended).then_some(Self {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether it has not ended.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// The numbers of `root` and its descendants.
///
/// # Errors
///
/// When the system does not list its processes.
pub(crate) fn of(root: i32) -> Result<Vec<i32>> {
    Ok(descendants(root, &parents()?))
}

/// Every process with its parent.
fn parents() -> Result<BTreeMap<i32, i32>> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = parse(&read(pid)) {
            parents.insert(pid, stat.parent);
        }
    }
    Ok(parents)
}

/// A process that has ended has no line any more.
fn read(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

/// The fields 3, 4 and 22 of a stat line; the second, the name, may hold spaces and parentheses.
fn parse(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

fn descendants(root: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&pid) = found.get(at) {
        let children = parents.iter().filter(|(_, parent)| **parent == pid);
        found.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_tree_is_all_descendants_and_nothing_else() {
        let parents = BTreeMap::from([(1, 0), (5, 1), (6, 5), (7, 6), (8, 5), (9, 1)]);
        let mut found = descendants(5, &parents);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7, 8]);
    }

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "7 (a (b) c) S 6 7 7 0 -1 4 1 0 0 0 5 5 0 0 20 0 1 0 4711 9 9";
        let stat = parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 6, 4711));
        assert_eq!(parse("7 (a) S 6"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        assert!(identity.lives());
        assert!(
            of(std::process::id() as i32)
                .unwrap()
                .contains(&identity.pid)
        );
        let later = Identity {
            start_ticks: identity.start_ticks + 1,
            ..identity
        };
        assert!(!later.lives(), "another process of the same number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!identity.lives());
    }
}
