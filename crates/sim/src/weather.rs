//! The network: distances, losses, partitions.

use crate::dice::Dice;

/// One way across the map, in microseconds: half the earth in glass, with detours.
const ACROSS_US: f64 = 90_000.0;
/// The first and the last stretch of a way, in microseconds.
const ACCESS_US: (f64, f64) = (500.0, 12_000.0);
/// How much a way varies.
const JITTER: f64 = 0.1;

/// Where a node is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    x: f64,
    y: f64,
    access_us: f64,
}

impl Place {
    /// Anywhere.
    pub fn any(dice: &mut Dice) -> Self {
        Self {
            x: dice.unit(),
            y: dice.unit(),
            access_us: dice.between(ACCESS_US.0, ACCESS_US.1),
        }
    }

    /// One way from here to there, in microseconds, without jitter.
    #[must_use]
    pub fn way_us(&self, there: &Self) -> u64 {
        let across = (self.x - there.x).hypot(self.y - there.y) * ACROSS_US;
        (across + self.access_us + there.access_us) as u64
    }

    /// Which side of a cut it is on.
    fn is_west(&self, cut: &Cut) -> bool {
        self.x < cut.west
    }
}

/// A partition: for some time nothing passes between west and east.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// When it begins, in seconds.
    pub from_s: u64,
    /// When it ends, in seconds.
    pub until_s: u64,
    /// Which share of the map is west.
    pub west: f64,
}

/// How the network is.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Which share of packets is lost, and sent again after a round trip.
    pub loss: f64,
    /// Partitions.
    pub cuts: Vec<Cut>,
}

impl Weather {
    /// Whether anything passes between two places now.
    #[must_use]
    pub fn passes(&self, a: &Place, b: &Place, now_us: u64) -> bool {
        let seconds = now_us / 1_000_000;
        let mut active = self
            .cuts
            .iter()
            .filter(|cut| (cut.from_s..cut.until_s).contains(&seconds));
        active.all(|cut| a.is_west(cut) == b.is_west(cut))
    }

    /// How long something takes from one place to another, in microseconds.
    pub fn delay_us(&self, a: &Place, b: &Place, dice: &mut Dice) -> u64 {
        let way_us = a.way_us(b) as f64;
        let mut delay_us = way_us * dice.between(1.0, 1.0 + JITTER);
        while self.loss > 0.0 && dice.chance(self.loss) {
            delay_us += way_us * 2.5;
        }
        delay_us as u64
    }
}
