//! What the caches of whole models hold, and which of it a new session may begin with.
//!
//! A closed session leaves its cache behind until the slot is needed. A new session of the same scope that begins with the
//! same tokens takes the rows over, in whole chunks of an absolute grid. A slot that is kept is given away whole; from one
//! whose session is still open the cache is copied. Sessions without a scope, or of another one, never share.

use proto::ids::ShareScope;
use std::collections::{BTreeSet, VecDeque};

/// Prefixes are shared in multiples of so many rows: shorter ones are not worth a copy.
pub(crate) const GRID_ROWS: usize = 64;

/// Where a new session's cache comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// An empty slot.
    Empty,
    /// A slot whose session is over; its first `rows` rows stay.
    Keep {
        /// How many.
        rows: usize,
    },
    /// An empty slot that gets a copy of another one's first `rows` rows.
    Copy {
        /// The other one.
        from: u32,
        /// How many.
        rows: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct Slot {
    scope: Option<ShareScope>,
    /// The tokens whose rows are in the cache, as far as they are known: whole models only.
    tokens: Vec<i32>,
}

/// The slots of a process: in use, kept or free.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: BTreeSet<u32>,
    /// Slots whose session is over and whose cache may be useful, the oldest first.
    kept: VecDeque<u32>,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            slots: vec![Slot::default(); count as usize],
            free: (0..count).collect(),
            kept: VecDeque::new(),
        }
    }

    /// Takes a slot for a session that begins with `tokens`; `None` when all are in use.
    ///
    /// The slot counts as holding the shared rows. [`Begin::Empty`] slots may hold an old cache, which the caller clears.
    pub(crate) fn open(
        &mut self,
        scope: Option<ShareScope>,
        tokens: &[i32],
    ) -> Option<(u32, Begin)> {
        let best = self.best(scope, tokens);
        if let Some((slot, rows)) = best
            && let Some(at) = self.kept.iter().position(|kept| *kept == slot)
        {
            self.kept.remove(at);
            self.slots[slot as usize].tokens.truncate(rows);
            return Some((slot, Begin::Keep { rows }));
        }
        let slot = self.free.pop_first().or_else(|| self.kept.pop_front())?;
        let (rows, begin) = match best {
            Some((from, rows)) => (rows, Begin::Copy { from, rows }),
            None => (0, Begin::Empty),
        };
        self.slots[slot as usize] = Slot {
            scope,
            tokens: tokens[..rows].to_vec(),
        };
        Some((slot, begin))
    }

    /// The slot with the longest prefix in common, in whole chunks; at least one row is left to compute.
    fn best(&self, scope: Option<ShareScope>, tokens: &[i32]) -> Option<(u32, usize)> {
        scope?;
        let most = tokens.len().saturating_sub(1);
        let common = |slot: &Slot| {
            let same = slot.tokens.iter().zip(&tokens[..most]);
            let count = same.take_while(|(a, b)| a == b).count();
            count / GRID_ROWS * GRID_ROWS
        };
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.scope == scope)
            .map(|(at, slot)| (at as u32, common(slot)))
            .filter(|(_, rows)| *rows > 0)
            .max_by_key(|(at, rows)| (*rows, self.kept.contains(at)))
    }

    /// Rows of these tokens were computed behind the others.
    pub(crate) fn computed(&mut self, slot: u32, tokens: &[i32]) {
        self.slots[slot as usize].tokens.extend_from_slice(tokens);
    }

    /// The tokens in a slot's cache.
    pub(crate) fn tokens(&self, slot: u32) -> &[i32] {
        &self.slots[slot as usize].tokens
    }

    /// The cache was cut back.
    pub(crate) fn trim(&mut self, slot: u32, length: usize) {
        self.slots[slot as usize].tokens.truncate(length);
    }

    /// The session is over; says whether the cache is kept for others.
    pub(crate) fn close(&mut self, slot: u32) -> bool {
        let held = &mut self.slots[slot as usize];
        let useful = held.scope.is_some() && held.tokens.len() >= GRID_ROWS;
        if useful {
            self.kept.push_back(slot);
        } else {
            *held = Slot::default();
            self.free.insert(slot);
        }
        useful
    }
}

#[cfg(test)]
mod tests;
