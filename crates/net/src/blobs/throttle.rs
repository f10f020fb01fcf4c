//! How fast is uploaded: buckets of bytes that fill with time.

use crate::limits::UPLOAD_BURST_BYTES;
use proto::ids::NodeId;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// Limits of what is uploaded, in bytes a second. Bytes of blocks and of the hashes that prove them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadLimits {
    /// To all members together; `None` is no limit.
    pub all_bytes_s: Option<NonZeroU64>,
    /// To each member; `None` is no limit.
    pub peer_bytes_s: Option<NonZeroU64>,
}

/// What time it is, and waiting: a test brings its own.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Waits for so long.
    fn wait(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The clock on the wall.
#[derive(Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Counted in billionths of a byte, so that no fraction is ever lost.
const FINE: i128 = 1_000_000_000;

/// A bucket of bytes. Who takes more than there is owes the rest, and waits until time has paid it.
#[derive(Debug)]
struct Bucket {
    rate: NonZeroU64,
    level: i128,
    filled: Duration,
}

impl Bucket {
    const FULL: i128 = UPLOAD_BURST_BYTES as i128 * FINE;

    fn new(rate: NonZeroU64, now: Duration) -> Self {
        Self {
            rate,
            level: Self::FULL,
            filled: now,
        }
    }

    /// Takes bytes out at `now`, and says for how long to wait before they may be sent.
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        self.fill(now);
        self.level -= i128::from(bytes) * FINE;
        let owed = u128::try_from(-self.level).unwrap_or(0);
        let ns = owed.div_ceil(u128::from(self.rate.get()));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn fill(&mut self, now: Duration) {
        let ns = i128::try_from(now.saturating_sub(self.filled).as_nanos()).unwrap_or(i128::MAX);
        let gained = ns.saturating_mul(i128::from(self.rate.get()));
        self.level = self.level.saturating_add(gained).min(Self::FULL);
        self.filled = self.filled.max(now);
    }
}

/// The buckets of all and of each.
#[derive(Debug)]
pub(super) struct Throttle {
    limits: UploadLimits,
    all: Option<Bucket>,
    each: HashMap<NodeId, Bucket>,
}

impl Throttle {
    pub(super) fn new(limits: UploadLimits, now: Duration) -> Self {
        Self {
            limits,
            all: limits.all_bytes_s.map(|rate| Bucket::new(rate, now)),
            each: HashMap::new(),
        }
    }

    /// Takes bytes for `peer` at `now`, and says for how long to wait before they may be sent.
    pub(super) fn take(&mut self, peer: NodeId, bytes: u64, now: Duration) -> Duration {
        let all = self
            .all
            .as_mut()
            .map_or(Duration::ZERO, |bucket| bucket.take(bytes, now));
        let Some(rate) = self.limits.peer_bytes_s else {
            return all;
        };
        if !self.each.contains_key(&peer) {
            // Who has not asked for long has a full bucket, which is as good as none.
            self.each.retain(|_, bucket| {
                bucket.fill(now);
                bucket.level < Bucket::FULL
            });
        }
        let each = self
            .each
            .entry(peer)
            .or_insert_with(|| Bucket::new(rate, now));
        all.max(each.take(bytes, now))
    }
}

#[cfg(test)]
mod tests;
