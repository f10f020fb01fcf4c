//! How long nodes stay, and how long they stay away.
//!
//! Sessions of peers and of volunteers' machines have falling hazards: many are very short, and who stayed for long will
//! stay for longer. Weibull and log-normal distributions fit them best (Stutzbach and Rejaie, "Understanding churn in
//! peer-to-peer networks", IMC 2006; Nurmi, Brevik and Wolski, "Modeling machine availability in enterprise and wide-area
//! distributed computing environments", Euro-Par 2005; Javadi, Kondo, Vincent and Anderson, "Discovering statistical
//! models of availability in large distributed systems: an empirical study of SETI@home", IEEE TPDS 22(11), 2011). The
//! shape is theirs; the rate is the scenario's, which is far harsher than what volunteers show.

use crate::dice::Dice;

/// The Weibull shape of sessions. With one half, all moments are whole numbers: the mean is twice the scale.
const INVERSE_SHAPE: i32 = 2;
/// The median of absences, in seconds.
const AWAY_MEDIAN_S: f64 = 60.0;
/// The deviation of the logarithm of absences.
const AWAY_SIGMA: f64 = 1.0;
/// Who goes and says so, of all who go.
pub const GOODBYES: f64 = 0.3;

/// How restless a commons is.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Which share of the nodes goes in a minute.
    pub a_minute: f64,
}

/// Many who leave for good within a while, whatever else they do.
#[derive(Debug, Clone, Copy)]
pub struct Exodus {
    /// When it begins, in seconds.
    pub from_s: u64,
    /// How long it lasts, in seconds.
    pub lasts_s: u64,
    /// Which share of all nodes leaves.
    pub share: f64,
}

impl Churn {
    /// The mean length of a session, in seconds; `None` when nobody ever goes.
    #[must_use]
    pub fn mean_s(&self) -> Option<f64> {
        (self.a_minute > 0.0).then(|| 60.0 / self.a_minute)
    }

    /// A new session's length, in seconds.
    pub fn session_s(&self, dice: &mut Dice) -> Option<f64> {
        let scale = self.mean_s()? / f64::from(INVERSE_SHAPE);
        Some(scale * dice.exponential().powi(INVERSE_SHAPE))
    }

    /// What is left of the session of a node that is there at a random moment, in seconds: a random part of a session that
    /// was drawn in proportion to its length. (Length-biased Weibull: the power of a gamma variable of shape 1 + 1/k.)
    pub fn rest_s(&self, dice: &mut Dice) -> Option<f64> {
        let scale = self.mean_s()? / f64::from(INVERSE_SHAPE);
        let gamma: f64 = (0..=INVERSE_SHAPE).map(|_| dice.exponential()).sum();
        Some(scale * gamma.powi(INVERSE_SHAPE) * dice.unit())
    }

    /// How long an absence is, in seconds.
    pub fn away_s(&self, dice: &mut Dice) -> f64 {
        AWAY_MEDIAN_S * (AWAY_SIGMA * dice.normal()).exp()
    }

    /// How many nodes there must be for each that is there.
    #[must_use]
    pub fn crowd(&self) -> f64 {
        let away_s = AWAY_MEDIAN_S * (AWAY_SIGMA * AWAY_SIGMA / 2.0).exp();
        self.mean_s().map_or(1.0, |mean_s| 1.0 + away_s / mean_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes go at the rate that was asked for. Of those that are there, as many go within a minute as renewal theory
    /// says: the mean of what is over within the minute, of the mean of all (Feller, "An introduction to probability
    /// theory and its applications", volume 2, XI.4); the rest of the rate are newcomers that do not stay.
    #[test]
    fn so_many_go_in_a_minute() {
        const COUNT: usize = 20_000;
        let churn = Churn { a_minute: 0.3 };
        let mut dice = Dice::new(1);
        let sessions = (0..COUNT).filter_map(|_| churn.session_s(&mut dice));
        let sessions: Vec<f64> = sessions.collect();
        let mean = sessions.iter().sum::<f64>() / COUNT as f64;
        assert!((180.0..220.0).contains(&mean), "{mean}");
        let over = sessions.iter().map(|s| s.min(60.0)).sum::<f64>() / COUNT as f64;
        let goes = (0..COUNT).filter(|_| churn.rest_s(&mut dice).is_some_and(|rest| rest < 60.0));
        let share = goes.count() as f64 / COUNT as f64;
        assert!(
            (share - over / mean).abs() < 0.02,
            "{share}, {}",
            over / mean
        );
        assert_eq!(Churn { a_minute: 0.0 }.session_s(&mut dice), None);
    }
}
