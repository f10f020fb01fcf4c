//! Token buckets: so much at once, so much a second.
//!
//! No clock: every call is told the time.

use std::time::{Duration, Instant};

/// A bucket of tokens that fills by itself.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Below zero is a debt.
    tokens: f64,
    burst: f64,
    per_s: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, into which `per_s` flow each second.
    pub(crate) fn new(burst: u32, per_s: f64, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            tokens: burst,
            burst,
            per_s,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_s).min(self.burst);
        self.at = now.max(self.at);
    }

    /// Takes a token; false when there is none.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes tokens, even those that are not there yet. Returns how long it is until the debt is paid.
    pub(crate) fn owe(&mut self, tokens: f64, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= tokens;
        Duration::from_secs_f64((-self.tokens / self.per_s).max(0.0))
    }

    /// How full it is, from 1 downwards.
    pub(crate) fn share(&mut self, now: Instant) -> f64 {
        self.fill(now);
        self.tokens / self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_at_once_and_so_much_a_second() {
        let now = Instant::now();
        let mut bucket = Bucket::new(3, 2.0, now);
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, now), 3);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(3600)), 3);
        // A clock that stands still or goes back gives nothing.
        assert_eq!(taken(&mut bucket, now), 0);
    }

    #[test]
    fn a_debt_takes_its_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, 5.0, now);
        assert_eq!(bucket.owe(10.0, now), Duration::ZERO);
        assert_eq!(bucket.owe(5.0, now), Duration::from_secs(1));
        let later = now + Duration::from_secs(2);
        assert_eq!(bucket.owe(0.0, later), Duration::ZERO);
        assert!((bucket.share(later) - 0.5).abs() < 1e-9);
    }
}
