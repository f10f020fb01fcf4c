//! Places for requests that are served at once.
//!
//! The last quarter is for callers who hold less than a quarter: one who asks a thousand times at once leaves room for the rest.

use crate::backend::Caller;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    total: usize,
    held: Mutex<HashMap<Caller, usize>>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    caller: Caller,
    places: Arc<Places>,
}

impl Places {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            held: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub(crate) fn held_total(&self) -> usize {
        self.held().values().sum()
    }

    /// Takes a place for a caller, if there is one.
    pub(crate) fn take(self: &Arc<Self>, caller: Caller) -> Option<Place> {
        let mut held = self.held();
        let free = self.total.saturating_sub(held.values().sum());
        let mine = held.get(&caller).copied().unwrap_or(0);
        let quarter = self.total / 4;
        if free == 0 || (free <= quarter && mine >= quarter) {
            return None;
        }
        held.insert(caller.clone(), mine + 1);
        drop(held);
        Some(Place {
            caller,
            places: Arc::clone(self),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        if let Some(mine) = held.get_mut(&self.caller) {
            *mine -= 1;
            if *mine == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller(Some(name.to_owned()))
    }

    #[test]
    fn the_last_quarter_is_for_those_who_hold_less() {
        let places = Places::new(8);
        let take = |name: &str, times: usize| -> Vec<Place> {
            (0..times)
                .filter_map(|_| places.take(caller(name)))
                .collect()
        };
        let greedy = take("greedy", 100);
        assert_eq!(greedy.len(), 6);
        let modest = take("modest", 1);
        let other = take("other", 2);
        assert_eq!((modest.len(), other.len()), (1, 1));
        assert!(take("late", 1).is_empty(), "all are taken");
        drop(greedy);
        assert_eq!(
            take("late", 100).len(),
            4,
            "two of eight are held, two are for others"
        );
    }

    #[test]
    fn the_only_place_is_given_to_anybody() {
        let places = Places::new(1);
        let first = places.take(Caller(None));
        assert!(first.is_some());
        assert!(places.take(caller("other")).is_none());
        drop(first);
        assert!(places.take(caller("other")).is_some());
        assert!(places.held().is_empty(), "nothing is left behind");
    }
}
