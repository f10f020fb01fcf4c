//! A machine that is slow, not dead: its processes get a share of one core and no more (cgroups).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Machine;

/// Where the system's groups are: of the second version, or the first one's controller of the CPU.
const SECOND: &str = "/sys/fs/cgroup";
const FIRST: &str = "/sys/fs/cgroup/cpu";
/// All places where groups of ours may be.
pub(super) const BASES: [&str; 2] = [SECOND, FIRST];
/// In every such time a machine gets its share, in microseconds: short, so that it is slow rather than absent.
const PERIOD_US: u64 = 20_000;
/// The least share, which is the least that the kernel takes.
const SHARE_MIN: f64 = 0.05;

/// A limit that holds until this is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Starved {
    group: PathBuf,
    is_second: bool,
}

impl Starved {
    /// Limits what runs on a machine now, and what that starts.
    pub(super) fn new(machine: &Machine, share: f64) -> Result<Self> {
        ensure!(
            (SHARE_MIN..1.0).contains(&share),
            "a share of a core is from {SHARE_MIN} to below 1: {share}"
        );
        let is_second = Path::new(SECOND).join("cgroup.controllers").exists();
        let base = Path::new(if is_second { SECOND } else { FIRST });
        let group = base.join(machine.netns());
        fs::create_dir(&group)
            .with_context(|| format!("making {}: groups of the CPU are needed", group.display()))?;
        let starved = Self { group, is_second };
        let quota = (share * PERIOD_US as f64) as u64;
        if is_second {
            starved.write("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        } else {
            starved.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
            starved.write("cpu.cfs_quota_us", &quota.to_string())?;
        }
        for pid in machine.pids() {
            starved.write("cgroup.procs", &pid.to_string())?;
        }
        Ok(starved)
    }

    /// How often the system has held the machine back: the proof that the limit strikes.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn held_back(&self) -> Result<u64> {
        let text = fs::read_to_string(self.group.join("cpu.stat"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(line.context("cpu.stat does not count")?.parse()?)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.group.join(file);
        fs::write(&path, text).with_context(|| format!("writing {text} to {}", path.display()))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // Its processes go back to where all are; a group can only be removed when it is empty.
        let pids = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        let base = Path::new(if self.is_second { SECOND } else { FIRST });
        for pid in pids.lines() {
            let _ = fs::write(base.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
