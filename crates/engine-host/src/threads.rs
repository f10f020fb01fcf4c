//! How many threads to compute with: as many as cores are free right now, our own load excluded.
//!
//! More threads than free cores make every step wait for the thread that shares its core; fewer leave cores idle.
//! Linux tells both loads in clock ticks: `/proc/stat` for the machine, `/proc/self/stat` for this process (see proc(5)).
//! Where they cannot be read, all cores count as free.

use crate::figures::Figures;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a measurement lasts at least: shorter ones are too coarse for 10 ms ticks.
const WINDOW: Duration = Duration::from_millis(400);

/// Ticks since boot, of the machine (all cores together) and of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    idle: u64,
    own: u64,
}

/// Chooses the number of threads.
#[derive(Debug)]
pub(crate) struct Threads {
    fixed: Option<u32>,
    cores: u32,
    current: u32,
    before: Option<(Instant, Ticks)>,
    figures: Arc<Figures>,
}

impl Threads {
    /// `fixed` threads, or as many as are free of `cores`.
    pub(crate) fn new(fixed: Option<u32>, cores: u32, figures: Arc<Figures>) -> Self {
        let current = fixed.unwrap_or(cores).max(1);
        Self {
            fixed,
            cores: cores.max(1),
            current,
            before: read(&figures).map(|t| (Instant::now(), t)),
            figures,
        }
    }

    /// The most threads that will ever be chosen.
    pub(crate) fn most(&self) -> u32 {
        self.fixed.unwrap_or(self.cores).max(1)
    }

    /// The number for the next step.
    pub(crate) fn choose(&mut self) -> u32 {
        let due = self.before.is_some_and(|(at, _)| at.elapsed() >= WINDOW);
        if self.fixed.is_none()
            && due
            && let (Some((_, before)), Some(now)) = (self.before, read(&self.figures))
        {
            self.current = free(before, now, self.cores);
            self.before = Some((Instant::now(), now));
        }
        self.current
    }
}

/// Cores not busy with others between two readings, rounded, at least 1.
fn free(before: Ticks, now: Ticks, cores: u32) -> u32 {
    let busy = now.busy.saturating_sub(before.busy);
    let total = busy + now.idle.saturating_sub(before.idle);
    let own = now.own.saturating_sub(before.own);
    if total == 0 {
        return cores;
    }
    let others = busy.saturating_sub(own) as f64 / total as f64 * f64::from(cores);
    ((f64::from(cores) - others).round() as u32).clamp(1, cores)
}

fn read(figures: &Figures) -> Option<Ticks> {
    parse(&figures.machine()?, &figures.own()?)
}

fn parse(machine: &str, own: &str) -> Option<Ticks> {
    let line = machine.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user already.
    let idle = fields.get(3)? + fields.get(4)?;
    let busy = fields.iter().take(8).sum::<u64>() - idle;
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field behind it.
    let mut behind = own.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || behind.next()?.parse::<u64>().ok();
    Some(Ticks {
        busy,
        idle,
        own: next()? + next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(others: u64, own: u64, idle: u64, cores: u32, expected: u32) {
        let before = Ticks {
            busy: 1000,
            idle: 500,
            own: 10,
        };
        let now = Ticks {
            busy: 1000 + others + own,
            idle: 500 + idle,
            own: 10 + own,
        };
        assert_eq!(free(before, now, cores), expected, "{others} {own} {idle}");
    }

    #[test]
    fn own_load_counts_as_free_and_that_of_others_does_not() {
        check(0, 0, 200, 2, 2);
        check(0, 200, 0, 2, 2);
        check(100, 0, 100, 2, 1);
        check(100, 100, 0, 2, 1);
        check(200, 0, 0, 2, 1);
        check(160, 240, 400, 8, 6);
        check(0, 0, 0, 4, 4);
    }

    #[test]
    fn a_process_name_with_spaces_and_parentheses_is_skipped() {
        let machine = "cpu  10 1 5 100 4 0 2 0 0 0\ncpu0 …";
        let own = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
        assert_eq!(
            parse(machine, own),
            Some(Ticks {
                busy: 18,
                idle: 104,
                own: 100
            })
        );
    }

    #[test]
    fn rubbish_is_not_parsed() {
        assert_eq!(parse("", ""), None);
        assert_eq!(parse("cpu  1 2", "1 (x) S"), None);
    }
}
