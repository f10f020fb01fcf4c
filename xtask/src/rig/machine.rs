//! The machine, as a reader of the page wants to know it. No names, no paths.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::started::Started;
use super::{MIB, say};

/// How long we watch how busy the machine is before we begin.
const WATCH: Duration = Duration::from_secs(2);

/// A machine this busy with other things disturbs what is measured on it.
const BUSY_MAX: f64 = 0.05;

/// What the figures were measured on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    /// The day, in UTC.
    pub(crate) date: String,
    /// The CPU's name.
    pub(crate) cpu: String,
    /// Cores that this program may use.
    pub(crate) cores: usize,
    /// Memory in bytes.
    pub(crate) memory_bytes: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The distribution.
    pub(crate) system: String,
    /// The C compiler.
    pub(crate) compiler: String,
    /// Revision of this repository.
    pub(crate) revision: String,
    /// What share of the machine others used just before the run, from 0 to 1.
    pub(crate) busy: f64,
}

impl Machine {
    /// Looks round.
    ///
    /// # Errors
    ///
    /// When the system does not say, or the run was interrupted.
    pub(crate) fn read(started: &Started, root: &Path) -> Result<Self> {
        let file = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let command = |program: &str, args: &[&str]| -> Result<String> {
            let text = started.output(Command::new(program).args(args).current_dir(root))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        say("watching for 2 s how busy the machine is");
        let before = ticks(&file("/proc/stat")?).context("/proc/stat")?;
        started.pause(WATCH)?;
        let after = ticks(&file("/proc/stat")?).context("/proc/stat")?;
        // Pages and results of earlier runs change nothing that is measured.
        let changed = !command("git", &["status", "--porcelain", "--", ":!docs"])?.is_empty();
        let revision = command("git", &["rev-parse", "--short=10", "HEAD"])?;
        Ok(Self {
            date: command("date", &["-u", "+%Y-%m-%d"])?,
            cpu: field(&file("/proc/cpuinfo")?, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: memory(&file("/proc/meminfo")?).context("/proc/meminfo")?,
            kernel: file("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            system: distribution(&file("/etc/os-release").unwrap_or_default()),
            compiler: command("cc", &["--version"])?,
            revision: revision + if changed { " with changes" } else { "" },
            busy: busy(before, after),
        })
    }
}

impl Machine {
    /// How a page of figures opens: what was run, where, how much of it, and whether it should count.
    pub(crate) fn opening(&self, title: &str, command: &str, count: &str) -> String {
        let Self {
            date,
            cpu,
            cores,
            memory_bytes,
            kernel,
            system,
            revision,
            busy,
            ..
        } = self;
        let mut text = format!(
            "# {title}\n\nWritten by `{command}`; do not edit by hand.\n\n\
             {date}, revision {revision}. {cpu}, {cores} cores, {:.1} GiB of memory, {system}, Linux {kernel}. \
             {count}.\n",
            *memory_bytes as f64 / MIB / 1024.0,
        );
        if *busy > BUSY_MAX {
            text.push_str(&format!(
                "\n**Preliminary:** other programs used {:.0} % of the machine just before the run.\n",
                busy * 100.0
            ));
        }
        text
    }
}

/// Ticks of all cores together: (busy, all), see proc(5).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    let all = fields.iter().take(8).sum::<u64>();
    Some((all - fields.get(3)? - fields.get(4)?, all))
}

fn busy(before: (u64, u64), after: (u64, u64)) -> f64 {
    let all = after.1.saturating_sub(before.1).max(1);
    after.0.saturating_sub(before.0) as f64 / all as f64
}

fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
    Some(
        line.split_once(':')?
            .1
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    )
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn distribution(os_release: &str) -> String {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(
        || std::env::consts::OS.to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_busy_ticks() {
        let before = ticks("cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 1").unwrap();
        let after = ticks("cpu  30 0 20 150 20 0 0 0 0 0").unwrap();
        assert_eq!((before, after), ((20, 120), (50, 220)));
        assert_eq!(busy(before, after), 0.3);
        assert_eq!(ticks("cpu 1"), None);
    }

    #[test]
    fn names_and_sizes() {
        let cpu = "processor : 0\nmodel name\t: A  B (R)\nmodel name : other\n";
        assert_eq!(field(cpu, "model name").as_deref(), Some("A B (R)"));
        assert_eq!(
            memory("MemTotal:       1024 kB\nMemFree: 1 kB"),
            Some(1 << 20)
        );
        assert_eq!(distribution("ID=x\nPRETTY_NAME=\"X 12\"\n"), "X 12");
        assert_eq!(distribution(""), std::env::consts::OS);
    }
}
