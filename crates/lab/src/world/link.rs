//! What lies between machines, changed while they run.

use std::time::Duration;

use super::World;
use crate::link::{Counts, Shape};

/// One way or several, which are changed together. A change is for packets that are sent from then on.
#[derive(Debug, Clone)]
#[must_use = "a link changes when it is told to"]
pub struct Link<'a> {
    world: &'a World,
    ways: Vec<(usize, usize)>,
}

impl<'a> Link<'a> {
    pub(super) fn new(world: &'a World, ways: Vec<(usize, usize)>) -> Self {
        Self { world, ways }
    }

    /// Replaces all conditions.
    pub fn shape(&self, shape: Shape) -> &Self {
        self.each(|asked| *asked = shape)
    }

    /// The time of one way, in milliseconds.
    pub fn delay_ms(&self, delay: impl Into<f64>) -> &Self {
        let delay = milliseconds(delay);
        self.each(|asked| asked.delay = delay)
    }

    /// How much that varies up and down, in milliseconds; packets keep their order.
    pub fn jitter_ms(&self, jitter: impl Into<f64>) -> &Self {
        let jitter = milliseconds(jitter);
        self.each(|asked| asked.jitter = jitter)
    }

    /// Lets jitter change the order of packets.
    pub fn reordering(&self) -> &Self {
        self.each(|asked| asked.reorders = true)
    }

    /// The share of packets that are lost, 0 to 1.
    pub fn loss(&self, share: f64) -> &Self {
        assert!(
            (0.0..=1.0).contains(&share),
            "a share is from 0 to 1: {share}"
        );
        self.each(|asked| asked.loss = share)
    }

    /// Kilobits a second, headers included.
    pub fn rate_kbit(&self, rate: u64) -> &Self {
        assert!(rate > 0, "nothing a second is a cut");
        self.each(|asked| asked.rate_bits = Some(rate * 1_000))
    }

    /// Bytes that wait for the rate at most.
    pub fn queue_bytes(&self, bytes: u64) -> &Self {
        self.each(|asked| asked.queue_bytes = bytes)
    }

    /// Lets nothing through.
    pub fn cut(&self) -> &Self {
        self.each(|asked| asked.is_cut = true)
    }

    /// Lets through again what was cut; all else stays as asked.
    pub fn mend(&self) -> &Self {
        self.each(|asked| asked.is_cut = false)
    }

    /// What is asked of the first of these ways.
    ///
    /// # Panics
    ///
    /// When there is none: a world with less than two machines.
    pub fn asked(&self) -> Shape {
        let first = self.ways.first().expect("a link has a way");
        self.world.emulator().with(*first, |wire| *wire.shape())
    }

    /// What has happened to packets of these ways, together.
    pub fn counts(&self) -> Counts {
        let each = self
            .ways
            .iter()
            .map(|way| self.world.emulator().with(*way, |wire| *wire.counts()));
        each.fold(Counts::default(), |sum, one| Counts {
            sent: sum.sent + one.sent,
            cut: sum.cut + one.cut,
            lost: sum.lost + one.lost,
            overflowed: sum.overflowed + one.overflowed,
            delivered: sum.delivered + one.delivered,
            delivered_bytes: sum.delivered_bytes + one.delivered_bytes,
            latest: sum.latest.max(one.latest),
        })
    }

    fn each(&self, change: impl Fn(&mut Shape)) -> &Self {
        for way in &self.ways {
            self.world
                .emulator()
                .with(*way, |wire| change(wire.shape()));
        }
        self
    }
}

fn milliseconds(time: impl Into<f64>) -> Duration {
    Duration::from_secs_f64(time.into() / 1e3)
}
