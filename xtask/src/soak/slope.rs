//! Whether memory grows: a line through samples of it.

use std::time::Duration;

use crate::rig::MIB;

/// Share of the samples that is left out at the beginning: engines touch their buffers for the first time then.
const WARM_UP: f64 = 0.25;
/// The steepest slope that counts as none, in MiB a minute.
pub(super) const SLOPE_MAX: f64 = 0.5;
/// What memory may wander within the samples without any leak, in MiB: allocators keep what was freed, and the first
/// long prompt comes when it comes. In a short soak this is steeper than [`SLOPE_MAX`].
pub(super) const WANDER_MAX: f64 = 16.0;

/// Resident memory of all processes at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Since the beginning.
    pub(super) at: Duration,
    /// The memory.
    pub(super) bytes: u64,
}

/// A line through samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trend {
    /// MiB a minute.
    pub(super) slope: f64,
    /// Minutes from the first sample on the line to the last.
    pub(super) minutes: f64,
    /// MiB at both ends, as measured.
    pub(super) from_to: (f64, f64),
}

impl Trend {
    /// The steepest slope that is allowed over so many minutes, in MiB a minute.
    pub(super) fn slope_max(&self) -> f64 {
        SLOPE_MAX.max(WANDER_MAX / self.minutes)
    }

    /// Whether memory grew more than is allowed.
    pub(super) fn grows(&self) -> bool {
        // What is no number is no proof.
        self.slope.is_nan() || self.slope > self.slope_max()
    }
}

/// The line of least squares through the samples behind the warm-up; `None` if there are too few for one.
pub(super) fn trend(samples: &[Sample]) -> Option<Trend> {
    let last = samples.last()?.at.as_secs_f64();
    let points: Vec<(f64, f64)> = samples
        .iter()
        .filter(|sample| sample.at.as_secs_f64() >= last * WARM_UP)
        .map(|sample| (sample.at.as_secs_f64() / 60.0, sample.bytes as f64 / MIB))
        .collect();
    let (first, last) = (points.first()?, points.last()?);
    let minutes = last.0 - first.0;
    if minutes <= 0.0 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|(x, y)| of(x - mean_x, y - mean_y)).sum()
    };
    Some(Trend {
        slope: sum(&|x, y| x * y) / sum(&|x, _| x * x),
        minutes,
        from_to: (first.1, last.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample a second for `seconds`, in MiB.
    fn samples(seconds: u64, mib: impl Fn(f64) -> f64) -> Vec<Sample> {
        (0..=seconds)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                bytes: (mib(second as f64) * MIB) as u64,
            })
            .collect()
    }

    #[track_caller]
    fn check(samples: &[Sample], slope: f64, grows: bool) {
        let trend = trend(samples).unwrap();
        assert!((trend.slope - slope).abs() < 0.01, "{trend:?}");
        assert_eq!(trend.grows(), grows, "{trend:?}");
    }

    #[test]
    fn the_slope_is_that_of_the_line_behind_the_warm_up() {
        check(&samples(1_800, |_| 300.0), 0.0, false);
        check(&samples(1_800, |s| 300.0 + s / 60.0), 1.0, true);
        // Steep in the first quarter, flat afterwards.
        check(&samples(1_800, |s| 300.0 + s.min(450.0)), 0.0, false);
        check(&samples(1_800, |s| 900.0 - s / 60.0), -1.0, false);
    }

    #[test]
    fn what_wanders_does_not_grow_and_what_grows_slowly_does() {
        let wave = |s: f64| 300.0 + 8.0 * (s / 5.0).sin();
        assert!(!trend(&samples(1_800, wave)).unwrap().grows());
        assert!(!trend(&samples(60, wave)).unwrap().grows());
        let leak = |s: f64| wave(s) + 0.8 * s / 60.0;
        assert!(trend(&samples(1_800, leak)).unwrap().grows());
        // 30 MiB a minute: enough to be seen in a minute.
        assert!(trend(&samples(60, |s| 300.0 + s / 2.0)).unwrap().grows());
    }

    #[test]
    fn a_short_soak_may_wander_and_a_long_one_may_not_leak() {
        let over = |seconds| trend(&samples(seconds, |_| 1.0)).unwrap();
        assert!((over(60).slope_max() - WANDER_MAX / 0.75).abs() < 1e-9);
        assert_eq!(over(36_000).slope_max(), SLOPE_MAX);
    }

    #[test]
    fn too_few_samples_make_no_line() {
        assert_eq!(trend(&[]), None);
        assert_eq!(trend(&samples(0, |_| 1.0)), None);
        let not_a_number = Trend {
            slope: f64::NAN,
            minutes: 1.0,
            from_to: (0.0, 0.0),
        };
        assert!(not_a_number.grows());
    }
}
