//! How many threads to compute with: as many as cores are free right now, our own load excluded, within a limit.
//!
//! More threads than free cores make every step wait for the thread that shares its core; fewer leave cores idle. The
//! first is much worse, and two processes that both try again and again would do it to each other: so a core must be
//! nearly idle before it is taken, while half a core of others is enough to give one up.
//! Linux tells both loads in clock ticks: `/proc/stat` for the machine, `/proc/self/stat` for this process (see proc(5)).
//! Where they cannot be read, all cores count as free.

use crate::figures::Figures;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a measurement lasts at least: shorter ones are too coarse for 10 ms ticks.
const WINDOW: Duration = Duration::from_millis(400);
/// How much of a core others may use that we take as free.
const IDLE_ENOUGH: f64 = 0.25;

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
    most: u32,
    cores: u32,
    current: u32,
    before: Option<(Instant, Ticks)>,
    figures: Arc<Figures>,
}

impl Threads {
    /// As many as are free of `cores`, and not more than `limit`.
    pub(crate) fn new(limit: Option<u32>, cores: u32, figures: Arc<Figures>) -> Self {
        let cores = cores.max(1);
        let most = limit.unwrap_or(cores).clamp(1, cores);
        Self {
            most,
            cores,
            current: most,
            before: read(&figures).map(|t| (Instant::now(), t)),
            figures,
        }
    }

    /// The most threads that will ever be chosen.
    pub(crate) fn most(&self) -> u32 {
        self.most
    }

    /// The number for the next step.
    pub(crate) fn choose(&mut self) -> u32 {
        let due = self.before.is_some_and(|(at, _)| at.elapsed() >= WINDOW);
        if due
            && self.most > 1
            && let (Some((_, before)), Some(now)) = (self.before, read(&self.figures))
        {
            let free = free(before, now, self.cores);
            self.current = next(self.current, free).clamp(1, self.most);
            self.before = Some((Instant::now(), now));
        }
        self.current
    }
}

/// The number of threads after `current`, with so many cores free.
fn next(current: u32, free: f64) -> u32 {
    let (taken, kept) = ((free + IDLE_ENOUGH).floor() as u32, free.round() as u32);
    if taken > current {
        taken
    } else {
        current.min(kept)
    }
}

/// Cores not busy with others between two readings.
fn free(before: Ticks, now: Ticks, cores: u32) -> f64 {
    let busy = now.busy.saturating_sub(before.busy);
    let total = busy + now.idle.saturating_sub(before.idle);
    let own = now.own.saturating_sub(before.own);
    if total == 0 {
        return f64::from(cores);
    }
    let others = busy.saturating_sub(own) as f64 / total as f64;
    (1.0 - others) * f64::from(cores)
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

    fn check(others: u64, own: u64, idle: u64, cores: u32, expected: f64) {
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
        check(0, 0, 200, 2, 2.0);
        check(0, 200, 0, 2, 2.0);
        check(100, 0, 100, 2, 1.0);
        check(100, 100, 0, 2, 1.0);
        check(200, 0, 0, 2, 0.0);
        check(200, 200, 400, 8, 6.0);
        check(0, 0, 0, 4, 4.0);
    }

    #[test]
    fn a_core_is_given_up_sooner_than_it_is_taken() {
        for (current, free, expected) in [
            (2, 1.5, 2),
            (2, 1.4, 1),
            (1, 1.7, 1),
            (1, 1.75, 2),
            (1, 0.0, 0),
            (4, 8.0, 8),
            (6, 5.6, 6),
            (6, 6.7, 6),
        ] {
            assert_eq!(next(current, free), expected, "{current} {free}");
        }
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
