//! What recoveries took: how long, and how much was computed and sent again.

use crate::status::{RebuiltStage, RecoveryStatus, RecoveryTotals};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many recoveries are shown; the oldest is forgotten first.
pub const RECOVERIES_MAX: usize = 16;

/// A stage that is certain to be lost.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    /// Which, from 1.
    pub(super) stage: u32,
    /// Why, in few words.
    pub(super) cause: String,
    /// From the last frame that came back to the certainty.
    pub(super) detected: Duration,
    /// When it was certain.
    pub(super) at: Instant,
}

/// What one session had computed and sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resent {
    /// By stage of the ring that it goes on over.
    pub stages: Vec<RebuiltStage>,
    /// Bytes of activations that were sent again.
    pub bytes: u64,
}

/// The newest recoveries, and all of them summed up. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Recoveries(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    newest: VecDeque<Entry>,
    begun: u64,
    totals: RecoveryTotals,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    certain: Instant,
    shown: RecoveryStatus,
}

impl Recoveries {
    /// A ring lost a stage, and requests want to go on. Returns the recovery's number.
    pub(super) fn begin(&self, loss: Loss) -> u64 {
        let mut log = self.log();
        log.begun += 1;
        log.totals.losses += 1;
        if log.newest.len() == RECOVERIES_MAX {
            log.newest.pop_front();
        }
        let number = log.begun;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let shown = RecoveryStatus {
            at_ms: since_1970
                .unwrap_or_default()
                .saturating_sub(loss.at.elapsed())
                .as_millis() as u64,
            stage: loss.stage,
            cause: loss.cause,
            detected_ms: loss.detected.as_millis() as u64,
            ..RecoveryStatus::default()
        };
        log.newest.push_back(Entry {
            number,
            certain: loss.at,
            shown,
        });
        number
    }

    /// The next ring is up.
    pub(super) fn formed(&self, number: u64) {
        let mut log = self.log();
        if let Some(entry) = log.entry(number) {
            let after_ms = entry.certain.elapsed().as_millis() as u64;
            entry.shown.formed_ms.get_or_insert(after_ms);
        }
    }

    /// A session's next row came back over the next ring.
    pub(super) fn resumed(&self, number: u64, resent: &Resent) {
        let mut log = self.log();
        let replayed = resent
            .stages
            .iter()
            .map(|stage| stage.replayed)
            .sum::<u64>();
        let recomputed = resent
            .stages
            .iter()
            .map(|stage| stage.recomputed)
            .sum::<u64>();
        log.totals.sessions += 1;
        log.totals.rows_replayed += replayed;
        log.totals.rows_recomputed += recomputed;
        log.totals.bytes_resent += resent.bytes;
        let Some(entry) = log.entry(number) else {
            return;
        };
        let after_ms = entry.certain.elapsed().as_millis() as u64;
        let shown = &mut entry.shown;
        shown.resumed_ms.get_or_insert(after_ms);
        shown.sessions += 1;
        shown.rows_replayed += replayed;
        shown.rows_recomputed += recomputed;
        shown.bytes_resent += resent.bytes;
        for stage in &resent.stages {
            match shown
                .stages
                .iter_mut()
                .find(|seen| seen.stage == stage.stage)
            {
                Some(seen) => {
                    seen.replayed += stage.replayed;
                    seen.recomputed += stage.recomputed;
                }
                None => shown.stages.push(*stage),
            }
        }
    }

    /// The newest recoveries, oldest first.
    #[must_use]
    pub fn newest(&self) -> Vec<RecoveryStatus> {
        let log = self.log();
        log.newest.iter().map(|entry| entry.shown.clone()).collect()
    }

    /// All recoveries since the start.
    #[must_use]
    pub fn totals(&self) -> RecoveryTotals {
        self.log().totals
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        self.newest.iter_mut().find(|entry| entry.number == number)
    }
}

#[cfg(test)]
mod tests;
