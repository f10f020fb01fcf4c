//! How far a pull is. What is reported never goes backwards, whatever the sources do.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The whole of a pull, in the parts that [`Meter::span`] divides it into.
pub(crate) const WHOLE: u32 = 1000;

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What is being done, for people.
    pub phase: &'a str,
    /// Bytes done, out of `total`; never less than in the report before.
    pub done: u64,
    /// Bytes in all: 0 while unknown; once known it stays.
    pub total: u64,
}

/// Hears how far a pull is. Called from several threads, seldom more than a thousand times a pull.
pub trait Progress: Send + Sync {
    /// Takes one report; must return soon.
    fn report(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Progress for F {
    fn report(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _: &Event<'_>) {}
}

/// Turns what sources say into reports that never go backwards.
///
/// The scale is fixed by the first total. Each [`Span`] of work fills a part of it; when a second source begins from
/// nothing, or a guess about a size was wrong, the report stands still until the work has caught up.
pub struct Meter {
    sink: Arc<dyn Progress>,
    reported: Mutex<Reported>,
}

#[derive(Default)]
struct Reported {
    phase: String,
    done: u64,
    total: u64,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Meter {
    /// A meter that reports to `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Progress>) -> Arc<Self> {
        Arc::new(Self {
            sink,
            reported: Mutex::default(),
        })
    }

    /// Fixes the scale; only the first total above 0 counts.
    pub fn set_total(&self, bytes: u64) {
        let mut reported = self.lock();
        if reported.total == 0 {
            reported.total = bytes;
        }
    }

    /// Begins a phase: `work` bytes of it (an estimate will do) fill the `part` (thousandths) of the scale.
    pub fn span(self: &Arc<Self>, phase: &str, part: Range<u32>, work: u64) -> Span {
        let span = Span {
            meter: Arc::clone(self),
            phase: phase.to_owned(),
            part,
            work,
        };
        span.at(0);
        span
    }

    /// Everything is done.
    pub fn finish(&self, phase: &str) {
        self.report(phase, u64::MAX);
    }

    fn report(&self, phase: &str, done: u64) {
        let mut reported = self.lock();
        let (total, renamed) = (reported.total, reported.phase != phase);
        let done = done.min(total).max(reported.done);
        let moved = done - reported.done > total / u64::from(WHOLE) || done == total;
        if !renamed && (!moved || done == reported.done) {
            return;
        }
        if renamed {
            phase.clone_into(&mut reported.phase);
        }
        reported.done = done;
        // The lock is held on purpose: two threads must not deliver their reports in the wrong order.
        self.sink.report(&Event { phase, done, total });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A phase of a pull.
#[derive(Debug)]
pub struct Span {
    meter: Arc<Meter>,
    phase: String,
    part: Range<u32>,
    work: u64,
}

impl Span {
    /// `done` bytes of this phase's work are done.
    pub fn at(&self, done: u64) {
        // In millionths of a thousandth, so that no product of two sizes is ever formed.
        const FINE: u128 = 1_000_000;
        let total = u128::from(self.meter.lock().total);
        let work = u128::from(self.work.max(1));
        let (from, to) = (u128::from(self.part.start), u128::from(self.part.end));
        let inside = to.saturating_sub(from) * FINE * u128::from(done).min(work) / work;
        let scaled = total * (from * FINE + inside) / (u128::from(WHOLE) * FINE);
        self.meter
            .report(&self.phase, u64::try_from(scaled).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests;
