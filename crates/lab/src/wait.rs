//! Waiting for something to become true, with a deadline that only a fault reaches.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` finds something, and returns it.
///
/// # Errors
///
/// When `look` fails, or `max` is over.
pub fn until<T>(
    max: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > max {
            bail!("waited {max:?} in vain for this: {what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
