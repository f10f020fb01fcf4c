//! What is going to happen, in the order of the clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// When, the how-manieth, and where it lies: events themselves stay where they are while the heap is sorted.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
    count: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            order: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            count: 0,
        }
    }

    pub(crate) fn put(&mut self, at_us: u64, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.count += 1;
        self.order.push(Reverse((at_us, self.count, place)));
    }

    /// The next event that is not later than this.
    pub(crate) fn next(&mut self, until_us: u64) -> Option<(u64, T)> {
        let Reverse((at_us, _, place)) = *self.order.peek()?;
        if at_us > until_us {
            return None;
        }
        self.order.pop();
        self.free.push(place);
        Some((at_us, self.events[place].take()?))
    }
}
