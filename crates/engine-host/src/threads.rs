//! How many threads to compute with: as many as there are cores for us, within a limit.
//!
//! The threads of a step wait for each other hundreds of times, and actively. One that shares its core with another
//! program holds all of them up, so one thread too many is much worse than one too few. Three signs tell:
//!
//! - *What a step got.* Its threads do not sleep, so with cores enough they are hardly ever preempted, and their CPU time
//!   is nearly the step's time for each. Where neither holds, others want the same cores, and threads are given up.
//!   Cores that others use while we do not compute, as the other stages of a ring do, are no loss.
//! - *Who runs at this moment* on the machine. After a pause this is asked, since what was learned before is old.
//! - *One more, tried* for a moment at growing intervals: that a core has become free cannot be seen from fewer threads.
//!
//! Linux tells by getrusage(2) and `/proc/loadavg` (proc(5)); where that is not there, all cores count as free.

use crate::figures::Figures;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long steps are observed before something follows from them.
const WINDOW: Duration = Duration::from_millis(60);
/// How many cores may be missing from what all threads could have got; a step has parts for one thread alone.
const MISSING_MAX: f64 = 0.4;
/// How often threads may be preempted, a second.
const PREEMPTED_MAX: f64 = 50.0;
/// How long after a lost or failed trial the next one is made, at first and at most.
const TRIAL_AFTER_MIN: Duration = Duration::from_millis(250);
const TRIAL_AFTER_MAX: Duration = Duration::from_secs(16);
/// What is kept of that interval over a pause, where others run as before: an answer that begins beside them is not to
/// begin with trials that fail. Not all of it, since who runs is seen for a moment only.
const TRIAL_AFTER_KEPT_MAX: Duration = Duration::from_secs(2);
/// Without a step for so long, who runs on the machine is asked anew.
const PAUSE: Duration = Duration::from_millis(150);
/// Whoever has just handed us work needs a moment to go to sleep, longer where many come at once: so often we look, with
/// this between. A thread too few would cost more, since the next step may be a long one.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// What this process has used so far, or between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time of all threads.
    cpu: Duration,
    /// How often one of them was preempted.
    preempted: u64,
}

impl Usage {
    /// So far.
    pub(crate) fn now() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
            return Self::default();
        };
        let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Self {
            cpu: Duration::from_micros(us.unsigned_abs()),
            preempted: usage.involuntary_context_switches().unsigned_abs(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            preempted: self.preempted.saturating_sub(before.preempted),
        }
    }
}

/// Chooses the number of threads.
#[derive(Debug)]
pub(crate) struct Threads {
    cores: u32,
    tuner: Tuner,
    newest: Option<Instant>,
    begun: Instant,
    figures: Arc<Figures>,
}

impl Threads {
    /// As many as are free of `cores`, and not more than `limit`.
    pub(crate) fn new(limit: Option<u32>, cores: u32, figures: Arc<Figures>) -> Self {
        let cores = cores.max(1);
        Self {
            cores,
            tuner: Tuner::new(limit.unwrap_or(cores).clamp(1, cores)),
            newest: None,
            begun: Instant::now(),
            figures,
        }
    }

    /// The most threads that will ever be chosen.
    pub(crate) fn most(&self) -> u32 {
        self.tuner.most
    }

    /// The number for the next step.
    pub(crate) fn choose(&mut self) -> u32 {
        let paused = self.newest.is_none_or(|newest| newest.elapsed() >= PAUSE);
        if paused && self.tuner.most > 1 {
            let free = self.cores.saturating_sub(self.others());
            self.tuner.begin(free, self.begun.elapsed());
        }
        self.tuner.current
    }

    /// What a step took, and what the process used meanwhile, from one moment to the other.
    pub(crate) fn learn(&mut self, took: Duration, usage: (Usage, Usage)) {
        self.newest = Some(Instant::now());
        let used = usage.1.since(usage.0);
        self.tuner.learn(took, used, self.begun.elapsed());
    }

    /// Threads of others that run at this moment.
    fn others(&self) -> u32 {
        let mut least = u32::MAX;
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::sleep(LOOK_EVERY);
            }
            // This thread runs as well: it is the one that reads.
            let running = self.figures.running().unwrap_or(1);
            least = least.min(running.saturating_sub(1));
            if least == 0 {
                break;
            }
        }
        least
    }
}

/// What is known from steps; the time is passed in.
#[derive(Debug)]
struct Tuner {
    most: u32,
    current: u32,
    /// Of the steps since the last decision.
    took: Duration,
    used: Usage,
    /// Whether the current number is one more than is known to be free.
    tries: bool,
    trial_after: Duration,
    next_trial: Duration,
}

impl Tuner {
    fn new(most: u32) -> Self {
        Self {
            most,
            current: most,
            took: Duration::ZERO,
            used: Usage::default(),
            tries: false,
            trial_after: TRIAL_AFTER_MIN,
            next_trial: Duration::ZERO,
        }
    }

    /// Begins anew with what is free.
    fn begin(&mut self, free: u32, now: Duration) {
        let current = free.clamp(1, self.most);
        let trial_after = if current < self.most {
            self.trial_after.min(TRIAL_AFTER_KEPT_MAX)
        } else {
            TRIAL_AFTER_MIN
        };
        *self = Self {
            current,
            trial_after,
            next_trial: now + trial_after,
            ..Self::new(self.most)
        };
    }

    fn learn(&mut self, took: Duration, used: Usage, now: Duration) {
        self.took += took;
        self.used.cpu += used.cpu;
        self.used.preempted += used.preempted;
        if self.took < WINDOW {
            return;
        }
        let seconds = self.took.as_secs_f64();
        let missing = f64::from(self.current) - self.used.cpu.as_secs_f64() / seconds;
        let preempted = self.used.preempted as f64 / seconds;
        (self.took, self.used) = (Duration::ZERO, Usage::default());
        let tried = std::mem::take(&mut self.tries);
        if self.current > 1 && missing > MISSING_MAX && preempted > PREEMPTED_MAX {
            let lost = (missing.round() as u32).max(1);
            self.current = self.current.saturating_sub(lost).max(1);
            self.trial_after = if tried {
                (self.trial_after * 2).min(TRIAL_AFTER_MAX)
            } else {
                TRIAL_AFTER_MIN
            };
            self.next_trial = now + self.trial_after;
            return;
        }
        if tried {
            self.trial_after = TRIAL_AFTER_MIN;
        }
        if self.current < self.most && (tried || now >= self.next_trial) {
            self.current += 1;
            self.tries = true;
        }
    }
}

#[cfg(test)]
mod tests;
