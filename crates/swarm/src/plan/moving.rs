//! Whether a ring that stands gives way to a better one.

use super::{Forecast, Goal};

/// How much better another ring must be for the one that is up to be given up. Measurements vary, and whoever moves costs
/// others a load: for less, a commons in which somebody fast appears would never come to rest.
pub const BETTER: f64 = 1.25;

/// Whether an idle ring is worth giving up for another one: what its hosts can do at `best`, beside what all can.
#[must_use]
pub fn is_worth_moving(kept: &Forecast, best: &Forecast, goal: Goal) -> bool {
    kept.cost(goal) >= best.cost(goal) * BETTER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kept: (f64, f64), best: (f64, f64), goal: Goal, expected: bool) {
        let forecast = |(token_ms, pace_ms)| Forecast {
            compute_ms: token_ms,
            lap_ms: 0.0,
            pace_ms,
        };
        let moves = is_worth_moving(&forecast(kept), &forecast(best), goal);
        assert_eq!(moves, expected, "{kept:?} {best:?} {goal:?}");
    }

    #[test]
    fn a_quarter_better_by_what_counts_is_worth_it_and_less_is_not() {
        check((100.0, 9.0), (80.0, 9.0), Goal::Latency, true);
        check((100.0, 9.0), (81.0, 1.0), Goal::Latency, false);
        check((100.0, 9.0), (100.0, 7.2), Goal::Throughput, true);
        check((100.0, 9.0), (10.0, 7.3), Goal::Throughput, false);
        check((100.0, 9.0), (100.0, 9.0), Goal::Latency, false);
    }
}
