//! Memory that this node gives to engines: its own model's, and stages of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What part of the memory that is free at the start is given when the owner does not say.
const SHARE_OF_FREE: f64 = 0.75;

/// So many bytes, and what of them is taken. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    total_bytes: u64,
    taken_bytes: Arc<AtomicU64>,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    bytes: u64,
    taken_bytes: Arc<AtomicU64>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.taken_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// There is not as much memory left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed_bytes} bytes of memory are needed, and of the {total_bytes} that this node gives {free_bytes} are free; \
     its owner can give more with --memory"
)]
pub struct TooLittle {
    /// What was asked for.
    pub needed_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
    /// What the node gives in all.
    pub total_bytes: u64,
}

impl Budget {
    /// A budget of so many bytes; without a number, a share of what is free on the machine now.
    #[must_use]
    pub fn new(total_bytes: Option<u64>) -> Self {
        Self {
            total_bytes: total_bytes.unwrap_or_else(share_of_free),
            taken_bytes: Arc::default(),
        }
    }

    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What is not taken.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let taken = self.taken_bytes.load(Ordering::Acquire);
        self.total_bytes.saturating_sub(taken)
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    ///
    /// [`TooLittle`]; nothing is taken then.
    pub fn reserve(&self, bytes: u64) -> Result<Reserved, TooLittle> {
        let fits = |taken: u64| {
            taken
                .checked_add(bytes)
                .filter(|sum| *sum <= self.total_bytes)
        };
        let (taken, order) = (&self.taken_bytes, Ordering::AcqRel);
        match taken.fetch_update(order, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reserved {
                bytes,
                taken_bytes: taken.clone(),
            }),
            Err(_) => Err(TooLittle {
                needed_bytes: bytes,
                free_bytes: self.free_bytes(),
                total_bytes: self.total_bytes,
            }),
        }
    }
}

/// A share of the memory that the machine could give without swapping; everything where the system does not say.
fn share_of_free() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_bytes(&text).map_or(u64::MAX, |bytes| (bytes as f64 * SHARE_OF_FREE) as u64)
}

/// `MemAvailable` of proc(5), `meminfo`.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Budget::new(Some(100));
        let first = budget.reserve(60).unwrap();
        let refused = budget.reserve(41).unwrap_err();
        assert_eq!(
            (
                refused.needed_bytes,
                refused.free_bytes,
                refused.total_bytes
            ),
            (41, 40, 100)
        );
        assert_eq!(budget.free_bytes(), 40);
        let _second = budget.clone().reserve(40).unwrap();
        drop(first);
        assert_eq!(budget.free_bytes(), 60);
        assert!(budget.reserve(u64::MAX).is_err());
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       16384000 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available_bytes(text), Some(2 << 20));
        assert_eq!(available_bytes("MemTotal: 5 kB"), None);
    }
}
