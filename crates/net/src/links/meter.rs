//! How much a member may say on a link.
//!
//! Who says more than that is read more slowly, which QUIC's flow control turns into waiting on its side. Who still
//! has more to say when that has gone on for [`FLOOD_MS`] is not going to stop.

use crate::bucket::Bucket;
use crate::limits::{
    FLOOD_MS, LINK_BYTES_BURST, LINK_BYTES_PER_S, LINK_MESSAGES_BURST, LINK_MESSAGES_PER_S,
};
use std::time::{Duration, Instant};

/// What is to be done before the next message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Go,
    Wait(Duration),
    /// The link has to end.
    Flood,
}

/// The measure of one link.
#[derive(Debug)]
pub(super) struct Meter {
    messages: Bucket,
    bytes: Bucket,
    /// Since when the other side has been slowed down without ever letting up.
    slowed_since: Option<Instant>,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::new(LINK_MESSAGES_BURST, f64::from(LINK_MESSAGES_PER_S), now),
            bytes: Bucket::new(LINK_BYTES_BURST, f64::from(LINK_BYTES_PER_S), now),
            slowed_since: None,
        }
    }

    /// Takes note of a message of so many bytes.
    pub(super) fn heard(&mut self, bytes: usize, now: Instant) -> Pace {
        let wait = self.messages.owe(1.0, now);
        let wait = wait.max(self.bytes.owe(bytes as f64, now));
        if wait.is_zero() {
            // Half-full buckets: it has let up, and what comes now is a new burst.
            if self.messages.share(now) >= 0.5 && self.bytes.share(now) >= 0.5 {
                self.slowed_since = None;
            }
            return Pace::Go;
        }
        let since = *self.slowed_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_millis(FLOOD_MS) {
            return Pace::Flood;
        }
        Pace::Wait(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says messages of `bytes` with `pause` between them, waiting whenever it is told to, until it is cut off or
    /// `for_s` seconds are over. Returns the messages said, and whether it was cut off.
    fn talk(bytes: usize, pause: Duration, for_s: u64) -> (u32, bool) {
        let began = Instant::now();
        let (mut now, mut meter, mut said) = (began, Meter::new(began), 0);
        while now - began < Duration::from_secs(for_s) {
            said += 1;
            match meter.heard(bytes, now) {
                Pace::Go => now += pause,
                Pace::Wait(wait) => now += wait.max(pause),
                Pace::Flood => return (said, true),
            }
        }
        (said, false)
    }

    #[test]
    fn what_a_link_is_for_goes_through_for_ever() {
        for (bytes, per_s) in [
            (50, LINK_MESSAGES_PER_S),
            (100_000, LINK_BYTES_PER_S / 110_000),
        ] {
            let pause = Duration::from_secs(1) / per_s;
            let (said, cut) = talk(bytes, pause, 600);
            assert!(!cut && said >= 600 * per_s - 1, "{bytes}: {said}");
        }
    }

    #[test]
    fn who_says_more_is_slowed_then_cut_off() {
        let seconds = u32::try_from(FLOOD_MS / 1000).unwrap() + 1;
        let (said, cut) = talk(50, Duration::ZERO, 600);
        assert!(cut, "{said}");
        assert!(
            said <= LINK_MESSAGES_BURST + seconds * LINK_MESSAGES_PER_S,
            "{said}"
        );
        let (said, cut) = talk(100_000, Duration::ZERO, 600);
        assert!(cut, "{said}");
        let most = LINK_BYTES_BURST + seconds * LINK_BYTES_PER_S;
        assert!(said * 100_000 <= most + 200_000, "{said}");
    }

    #[test]
    fn bursts_with_rests_between_them_are_welcome() {
        let began = Instant::now();
        let (mut now, mut meter) = (began, Meter::new(began));
        for _ in 0..100 {
            for _ in 0..LINK_MESSAGES_BURST + 10 {
                match meter.heard(50, now) {
                    Pace::Go => {}
                    Pace::Wait(wait) => now += wait,
                    Pace::Flood => panic!("after {:?}", now - began),
                }
            }
            now += Duration::from_secs(30);
        }
    }
}
