//! What a coordinator hears while a stage fetches its layers.

use net::Links;
use proto::ids::{NodeId, RingId};
use proto::ring::{LinkBody, RingProgress};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::progress::{Event, Progress};

/// How often it is told at most how far the fetch is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// Tells a coordinator how far the fetch of a stage's layers is.
pub(super) struct Told {
    links: Links,
    coordinator: NodeId,
    ring: RingId,
    last: Mutex<Option<Instant>>,
}

impl Told {
    pub(super) fn new(links: Links, coordinator: NodeId, ring: RingId) -> Self {
        Self {
            links,
            coordinator,
            ring,
            last: Mutex::default(),
        }
    }
}

impl Progress for Told {
    fn report(&self, event: &Event<'_>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = event.done == event.total;
        if !ends && last.is_some_and(|at| at.elapsed() < PROGRESS_PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        // Who takes messages too slowly hears the next one.
        let said = LinkBody::RingProgress(RingProgress {
            ring: self.ring,
            done_bytes: event.done,
            total_bytes: event.total,
        });
        let _ = self.links.send(self.coordinator, said);
    }
}
