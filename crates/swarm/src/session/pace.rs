//! How long a lap of the ring may take, judged by those before it.

use std::fmt;

/// The shortest deadline of a lap with one row, in milliseconds.
pub const DECODE_FLOOR_MS: u64 = 500;
/// The shortest deadline of a lap with more rows, in milliseconds.
pub const PREFILL_FLOOR_MS: u64 = 5_000;
/// After so many milliseconds a lap with one row is given up.
pub const DECODE_LIMIT_MS: u64 = 30_000;
/// After so many milliseconds a lap with more rows is given up, times the sessions that share the ring: their prompts may
/// all be ahead of it. A stage that stops is noticed by its link long before.
pub const PREFILL_LIMIT_MS: u64 = 60_000;
/// The shortest time after which a lap that lasts makes peers be asked for a sign of life, in milliseconds.
pub const DOUBT_FLOOR_MS: u64 = 120;
/// The longest. It is asked for again as often as that, for as long as nothing moves.
pub const DOUBT_CEILING_MS: u64 = 250;
/// A lap is suspicious after so many times its usual duration.
pub const DEADLINE_FACTOR: u64 = 3;

/// The smoothed time moves by 1/8 of the difference, as TCP's does (RFC 6298, section 2).
const SMOOTHING: u64 = 8;

/// Kinds of laps, which have deadlines of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// A frame of several rows.
    Prefill,
    /// A frame of one row.
    Decode,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        })
    }
}

impl StepKind {
    pub(super) fn of(rows: u32) -> Self {
        if rows == 1 {
            Self::Decode
        } else {
            Self::Prefill
        }
    }

    fn floor_ms(self) -> u64 {
        match self {
            Self::Prefill => PREFILL_FLOOR_MS,
            Self::Decode => DECODE_FLOOR_MS,
        }
    }

    pub(super) fn limit_ms(self, sharers: u32) -> u64 {
        match self {
            Self::Prefill => PREFILL_LIMIT_MS * u64::from(sharers.max(1)),
            Self::Decode => DECODE_LIMIT_MS,
        }
    }
}

/// Smoothed times of both kinds of laps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// In units of 1/8 ms, so that whole numbers do.
    prefill: Option<u64>,
    decode: Option<u64>,
    /// Of one row in a lap, in units of 1/8 µs: of laps with several, once there was one.
    row: Option<(StepKind, u64)>,
}

impl Pace {
    pub(super) fn observe(&mut self, rows: u32, lap_ms: u64) {
        let kind = StepKind::of(rows);
        let slot = match kind {
            StepKind::Prefill => &mut self.prefill,
            StepKind::Decode => &mut self.decode,
        };
        let lap_ms = lap_ms.min(kind.limit_ms(1));
        *slot = Some(smooth(*slot, lap_ms));
        let row_us = lap_ms * 1_000 / u64::from(rows.max(1));
        self.row = match self.row {
            Some((StepKind::Prefill, _)) if kind == StepKind::Decode => self.row,
            Some((known, old)) if known == kind => Some((kind, smooth(Some(old), row_us))),
            _ => Some((kind, smooth(None, row_us))),
        };
    }

    /// How long a stage takes at most for so many rows again, in milliseconds: no longer than all stages did.
    pub(super) fn again_ms(&self, rows: u32) -> u64 {
        let row_us = self.row.map_or(0, |(_, eighths)| eighths / SMOOTHING);
        u64::from(rows).saturating_mul(row_us) / 1_000
    }

    pub(super) fn smoothed_ms(&self, kind: StepKind) -> Option<u64> {
        let slot = match kind {
            StepKind::Prefill => self.prefill,
            StepKind::Decode => self.decode,
        };
        slot.map(|eighths| eighths / SMOOTHING)
    }

    /// How long a lap may last until peers are asked for a sign of life: 3 × smoothed, within bounds. To ask costs a packet each
    /// way, so that a wrong guess does no harm.
    pub(super) fn doubt_ms(&self, kind: StepKind) -> u64 {
        let usual = self.smoothed_ms(kind).unwrap_or(0);
        (DEADLINE_FACTOR * usual).clamp(DOUBT_FLOOR_MS, DOUBT_CEILING_MS)
    }

    /// max(3 × smoothed, floor).
    pub(super) fn deadline_ms(&self, kind: StepKind) -> u64 {
        let usual = self.smoothed_ms(kind).unwrap_or(0);
        (DEADLINE_FACTOR * usual).max(kind.floor_ms())
    }
}

fn smooth(before: Option<u64>, value: u64) -> u64 {
    before.map_or(value * SMOOTHING, |old| old - old / SMOOTHING + value)
}

#[cfg(test)]
mod tests;
