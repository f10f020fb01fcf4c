//! What a lap of the ring takes, from here round to here: the one thing about other hosts that nobody else has to be
//! believed for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Laps after which their mean is believed.
const LAPS_MIN: u32 = 8;

/// Laps of single rows of lone requests, counted.
#[derive(Debug, Default)]
pub struct Laps(Mutex<(u32, Duration)>);

impl Laps {
    pub(super) fn add(&self, took: Duration) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0 += 1;
        counted.1 += took;
    }

    /// The mean of the laps since the last time, if there were enough, in milliseconds.
    pub fn take_ms(&self) -> Option<f64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 < LAPS_MIN {
            return None;
        }
        let (count, sum) = std::mem::take(&mut *counted);
        Some(sum.as_secs_f64() * 1_000.0 / f64::from(count))
    }
}
