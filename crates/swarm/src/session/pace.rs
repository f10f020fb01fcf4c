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
pub const DOUBT_CEILING_MS: u64 = 400;
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
}

impl Pace {
    pub(super) fn observe(&mut self, kind: StepKind, lap_ms: u64) {
        let slot = match kind {
            StepKind::Prefill => &mut self.prefill,
            StepKind::Decode => &mut self.decode,
        };
        let lap_ms = lap_ms.min(kind.limit_ms(1));
        *slot = Some(slot.map_or(lap_ms * SMOOTHING, |old| old - old / SMOOTHING + lap_ms));
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
        let usual = self.smoothed_ms(kind).unwrap_or(DOUBT_CEILING_MS);
        (DEADLINE_FACTOR * usual).clamp(DOUBT_FLOOR_MS, DOUBT_CEILING_MS)
    }

    /// max(3 × smoothed, floor).
    pub(super) fn deadline_ms(&self, kind: StepKind) -> u64 {
        let usual = self.smoothed_ms(kind).unwrap_or(0);
        (DEADLINE_FACTOR * usual).max(kind.floor_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_laps() {
        fn check(kind: StepKind, laps_ms: &[u64], smoothed: Option<u64>, deadline: u64) {
            let mut pace = Pace::default();
            laps_ms.iter().for_each(|&lap| pace.observe(kind, lap));
            assert_eq!(pace.smoothed_ms(kind), smoothed, "{kind} {laps_ms:?}");
            assert_eq!(pace.deadline_ms(kind), deadline, "{kind} {laps_ms:?}");
        }
        check(StepKind::Decode, &[], None, 500);
        check(StepKind::Decode, &[10], Some(10), 500);
        check(StepKind::Decode, &[400], Some(400), 1_200);
        check(StepKind::Decode, &[400, 1_200], Some(500), 1_500);
        check(StepKind::Decode, &[400; 50], Some(400), 1_200);
        check(StepKind::Decode, &[u64::MAX], Some(30_000), 90_000);
        check(StepKind::Prefill, &[100], Some(100), 5_000);
        check(StepKind::Prefill, &[2_000], Some(2_000), 6_000);
    }

    #[test]
    fn doubts_come_soon_and_within_bounds() {
        fn check(laps_ms: &[u64], expected: u64) {
            let mut pace = Pace::default();
            laps_ms
                .iter()
                .for_each(|&lap| pace.observe(StepKind::Decode, lap));
            assert_eq!(pace.doubt_ms(StepKind::Decode), expected, "{laps_ms:?}");
        }
        check(&[], 400);
        check(&[10], 120);
        check(&[70], 210);
        check(&[1_000], 400);
    }

    #[test]
    fn kinds_do_not_mix() {
        let mut pace = Pace::default();
        pace.observe(StepKind::of(256), 9_000);
        assert_eq!(pace.smoothed_ms(StepKind::of(1)), None);
    }
}
