//! What is going to happen, in the order of the clock.

use std::collections::BTreeMap;

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    events: BTreeMap<(u64, u64), T>,
    count: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            events: BTreeMap::new(),
            count: 0,
        }
    }

    pub(crate) fn put(&mut self, at_us: u64, event: T) {
        self.count += 1;
        self.events.insert((at_us, self.count), event);
    }

    /// The next event that is not later than this.
    pub(crate) fn next(&mut self, until_us: u64) -> Option<(u64, T)> {
        let first = self.events.first_entry()?;
        let (at_us, _) = *first.key();
        (at_us <= until_us).then(|| (at_us, first.remove()))
    }
}
