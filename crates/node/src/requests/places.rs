//! Places among the requests that are computed at once, shared fairly between callers.
//!
//! A place that becomes free goes to the waiting caller who holds the fewest, of equal ones to the one who waits longest. So
//! who is alone may have them all, and among those who wait nobody gets more than an equal share: with four of them, a
//! quarter. No place stays empty while somebody waits.

use proto::ids::ShareScope;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// All places of a node.
#[derive(Debug)]
pub(super) struct Places {
    total: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Places held, by caller.
    held: HashMap<ShareScope, u32>,
    taken: u32,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    caller: ShareScope,
    place: oneshot::Sender<Place>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    caller: ShareScope,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.caller);
    }
}

impl Places {
    pub(super) fn new(total: u32) -> Arc<Self> {
        Arc::new(Self {
            total: AtomicU32::new(total),
            inner: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub(super) fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// From now on there are so many places; those that are taken stay taken.
    pub(super) fn set_total(&self, total: u32) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> u32 {
        self.inner().taken
    }

    /// Waits for a place. Whoever stops waiting gives way to the others.
    pub(super) async fn take(self: Arc<Self>, caller: ShareScope) -> Place {
        let (place, granted) = oneshot::channel();
        self.inner().waiting.push_back(Waiting { caller, place });
        self.grant();
        granted
            .await
            .expect("a waiting place lives as long as the places")
    }

    fn give_back(self: &Arc<Self>, caller: ShareScope) {
        self.inner().release(caller);
        self.grant();
    }

    /// Hands out what is free.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some(Waiting { caller, place }) =
                self.inner().next(self.total.load(Ordering::Relaxed))
            else {
                return;
            };
            let granted = Place {
                caller,
                places: Arc::clone(self),
            };
            // Who went away in this moment returns the place by dropping it.
            drop(place.send(granted));
        }
    }
}

impl Inner {
    fn held_by(&self, caller: ShareScope) -> u32 {
        self.held.get(&caller).copied().unwrap_or(0)
    }

    /// Takes the next waiting caller off the queue and counts the place as theirs.
    fn next(&mut self, total: u32) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.place.is_closed());
        if self.taken >= total {
            return None;
        }
        let waiting = self.waiting.iter().enumerate();
        let (at, _) = waiting.min_by_key(|(_, waiting)| self.held_by(waiting.caller))?;
        let next = self.waiting.remove(at)?;
        self.taken += 1;
        *self.held.entry(next.caller).or_default() += 1;
        Some(next)
    }

    fn release(&mut self, caller: ShareScope) {
        self.taken -= 1;
        if let Some(held) = self.held.get_mut(&caller) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&caller);
            }
        }
    }
}

#[cfg(test)]
mod tests;
