//! One way of a link as a pure machine: a packet's size and the time go in, and when it arrives comes out.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::shape::Shape;

/// What happened to packets of one way so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that a machine sent.
    pub sent: u64,
    /// Those that met a cut.
    pub cut: u64,
    /// Those that were lost by chance.
    pub lost: u64,
    /// Those that did not fit into the queue.
    pub overflowed: u64,
    /// Those that the other machine was given.
    pub delivered: u64,
    /// The bytes of those, IP headers included.
    pub delivered_bytes: u64,
    /// By how much the one was late that was given latest after its time: what the emulator itself adds at worst.
    pub latest: Duration,
}

/// One way. Times are counted from any one moment, always the same.
#[derive(Debug)]
pub(crate) struct Wire {
    shape: Shape,
    random: ChaCha8Rng,
    /// When everything that waits for the rate has left.
    free_at: Duration,
    /// When the packet that arrives last does.
    last_due: Duration,
    counts: Counts,
}

impl Wire {
    /// The way numbered `way` of the world of this seed: another number means other chances.
    pub(crate) fn new(seed: u64, way: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(way);
        Self {
            shape: Shape::default(),
            random,
            free_at: Duration::ZERO,
            last_due: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// Its conditions, to be read or changed. A change is for packets to come.
    pub(crate) fn shape(&mut self) -> &mut Shape {
        &mut self.shape
    }

    /// What happened so far.
    pub(crate) fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// When a packet that is sent now arrives; `None` if it never does.
    pub(crate) fn send(&mut self, bytes: usize, now: Duration) -> Option<Duration> {
        // Drawn for every packet, so that the fate of the n-th depends on n and not on what the others met.
        let (luck, lateness) = (self.draw(), self.draw());
        let shape = self.shape;
        self.counts.sent += 1;
        if shape.is_cut {
            self.counts.cut += 1;
            return None;
        }
        if luck < shape.loss {
            self.counts.lost += 1;
            return None;
        }
        let starts = self.free_at.max(now);
        let ends = starts + shape.sending(bytes as u64);
        if ends - now > shape.sending(shape.queue_bytes) {
            self.counts.overflowed += 1;
            return None;
        }
        self.free_at = ends;
        let earliest = (ends + shape.delay).saturating_sub(shape.jitter).max(ends);
        let mut due = earliest + (ends + shape.delay + shape.jitter - earliest).mul_f64(lateness);
        if !shape.reorders {
            due = due.max(self.last_due);
        }
        self.last_due = self.last_due.max(due);
        Some(due)
    }

    /// From 0 to below 1, evenly, in steps of 2⁻⁵³.
    fn draw(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn wire(shape: Shape) -> Wire {
        let mut wire = Wire::new(7, 3);
        *wire.shape() = shape;
        wire
    }

    /// When packets of 1,000 bytes arrive that are sent at these milliseconds.
    #[track_caller]
    fn check(shape: Shape, sent: &[u32], arrive: &[Option<u32>]) {
        let mut wire = wire(shape);
        let got: Vec<_> = sent.iter().map(|at| wire.send(1_000, *at * MS)).collect();
        let expected: Vec<_> = arrive.iter().map(|at| at.map(|at| at * MS)).collect();
        assert_eq!(got, expected, "{shape}");
    }

    #[test]
    fn delay_rate_queue_and_cut_do_what_they_say() {
        let delay = Shape {
            delay: 20 * MS,
            ..Shape::default()
        };
        check(Shape::default(), &[0, 5], &[Some(0), Some(5)]);
        check(delay, &[0, 5, 5], &[Some(20), Some(25), Some(25)]);
        // 1,000 bytes take 8 ms at 1 Mbit/s, and the queue holds two packets.
        let rate = Shape {
            rate_bits: Some(1_000_000),
            queue_bytes: 2_000,
            ..delay
        };
        check(
            rate,
            &[0, 0, 0, 8, 100],
            &[Some(28), Some(36), None, Some(44), Some(128)],
        );
        let cut = Shape {
            is_cut: true,
            ..delay
        };
        check(cut, &[0, 1], &[None, None]);
    }

    #[test]
    fn counts_name_what_happened() {
        let mut wire = wire(Shape {
            rate_bits: Some(1_000_000),
            queue_bytes: 1_000,
            ..Shape::default()
        });
        wire.send(1_000, MS);
        wire.send(1_000, MS);
        wire.shape().is_cut = true;
        wire.send(1_000, MS);
        *wire.shape() = Shape {
            loss: 1.0,
            ..Shape::default()
        };
        wire.send(1_000, MS);
        let expected = Counts {
            sent: 4,
            cut: 1,
            lost: 1,
            overflowed: 1,
            ..Counts::default()
        };
        assert_eq!(*wire.counts(), expected);
    }

    #[test]
    fn jitter_stays_in_its_band_and_reorders_only_if_told() {
        for reorders in [false, true] {
            let mut wire = wire(Shape {
                delay: 50 * MS,
                jitter: 30 * MS,
                reorders,
                ..Shape::default()
            });
            let dues: Vec<_> = (0..1_000)
                .map(|n| (n * MS, wire.send(100, n * MS).unwrap()))
                .collect();
            let flights: Vec<_> = dues.iter().map(|(sent, due)| *due - *sent).collect();
            let (min, max) = (flights.iter().min().unwrap(), flights.iter().max().unwrap());
            assert!(*min >= 20 * MS && *max <= 80 * MS, "{min:?} {max:?}");
            assert!(*max - *min > 30 * MS, "it varies: {min:?} {max:?}");
            let overtakes = dues.windows(2).any(|two| two[1].1 < two[0].1);
            assert_eq!(overtakes, reorders);
        }
    }

    #[test]
    fn no_jitter_is_earlier_than_now() {
        let mut wire = wire(Shape {
            delay: MS,
            jitter: 5 * MS,
            reorders: true,
            ..Shape::default()
        });
        for n in 0..100 {
            let due = wire.send(100, n * MS).unwrap();
            assert!(due >= n * MS && due <= (n + 6) * MS);
        }
    }

    #[test]
    fn the_nth_packet_of_a_way_meets_the_same_fate_in_every_run() {
        let fates = |seed, way, cut: bool| -> Vec<bool> {
            let mut wire = Wire::new(seed, way);
            wire.shape().loss = 0.3;
            // A cut in between takes nothing from the chances of those behind it.
            wire.shape().is_cut = cut;
            wire.send(1, MS);
            wire.shape().is_cut = false;
            (0..200).map(|_| wire.send(1, MS).is_some()).collect()
        };
        assert_eq!(fates(1, 2, false), fates(1, 2, true));
        assert_ne!(fates(1, 2, false), fates(1, 3, false));
        assert_ne!(fates(1, 2, false), fates(2, 2, false));
        let kept = fates(1, 2, false).iter().filter(|kept| **kept).count();
        assert!((110..=170).contains(&kept), "{kept} of 200 at 30 % loss");
    }
}
