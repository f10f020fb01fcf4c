//! Waiting for something to become true, with a deadline that only a fault reaches.

use std::future::Future;
use std::time::{Duration, Instant};

/// The deadline of waits whose length is not what is tested: several nodes may share one slow core.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, and returns it.
///
/// # Panics
///
/// When [`PATIENCE`] is over.
pub(crate) async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within(PATIENCE, what, look).await
}

/// Looks for at most `max`.
///
/// # Panics
///
/// When `max` is over.
pub(crate) async fn within<T, F>(max: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            begun.elapsed() < max,
            "waited {max:?} in vain for this: {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The same without a runtime, for clean-up; `false` when `max` is over.
pub(crate) fn settles(max: Duration, mut look: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !look() {
        if begun.elapsed() > max {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
