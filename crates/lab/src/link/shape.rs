//! What one way of a link does to packets, as somebody asked for it.

use std::fmt;
use std::time::Duration;

/// What a way with a rate holds back at most, in bytes, unless asked otherwise: a router's buffer.
pub const QUEUE_BYTES: u64 = 256 << 10;

/// The conditions of one way, from one machine to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// How long a packet is on its way.
    pub delay: Duration,
    /// By how much that varies, up and down, evenly. No packet is faster than light: less than nothing is nothing.
    pub jitter: Duration,
    /// Whether jitter may let a packet overtake another.
    pub reorders: bool,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Bits a second, counted with IP headers; `None` is without a limit.
    pub rate_bits: Option<u64>,
    /// What waits for the rate at most, in bytes; a packet that does not fit is dropped.
    pub queue_bytes: u64,
    /// Whether nothing goes through. What is on its way already still arrives.
    pub is_cut: bool,
}

impl Default for Shape {
    /// A wire that one does not notice.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorders: false,
            loss: 0.0,
            rate_bits: None,
            queue_bytes: QUEUE_BYTES,
            is_cut: false,
        }
    }
}

impl Shape {
    /// How long `bytes` take to leave at the way's rate.
    pub(crate) fn sending(&self, bytes: u64) -> Duration {
        let rate = self.rate_bits.map_or(f64::INFINITY, |rate| rate as f64);
        Duration::from_secs_f64(bytes as f64 * 8.0 / rate)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        if self.is_cut {
            return write!(f, "cut");
        }
        write!(f, "{} ms", ms(self.delay))?;
        if !self.jitter.is_zero() {
            write!(f, " ± {} ms", ms(self.jitter))?;
        }
        if self.loss > 0.0 {
            write!(f, ", {} % loss", self.loss * 100.0)?;
        }
        if let Some(rate) = self.rate_bits {
            write!(f, ", {} kbit/s", rate as f64 / 1e3)?;
        }
        Ok(())
    }
}
