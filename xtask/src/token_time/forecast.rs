//! Rings that the planner formed: the time of a token that `myzel plan` foretells, beside the one that it takes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::ring::{self, Ring, WARM_TOKENS};
use crate::rig::say;
use crate::rig::started::Started;
use crate::rig::stats::Series;

/// By how much a forecast may be off, as a share of what was measured.
pub(super) const OFF_MAX: f64 = 0.2;
/// How long nodes have to learn a new distance: by their heartbeats, and of ways between others by ads, which are renewed every
/// 40 s. Distances are not changed in turns, since no real one is.
const LEARN: Duration = Duration::from_secs(60);
/// How long they have to look at the laps of a short answer: two looks of a node at what it measured.
const LOOK: Duration = Duration::from_secs(12);
/// Tokens of an answer whose time is taken.
pub(super) const TOKENS: u32 = 32;

/// Forecasts for one ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Forecasts {
    /// Remote stages.
    pub(super) split: u32,
    /// At each distance, the shortest first.
    pub(super) at: Vec<Forecast>,
}

/// A token at one distance, in milliseconds, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Forecast {
    /// From a node to another and back, as asked; `None` is over loopback.
    pub(super) rtt_ms: Option<u32>,
    /// As `myzel plan` said it before.
    pub(super) foretold_ms: Series,
    /// As it was.
    pub(super) token_ms: Series,
}

impl Forecast {
    /// What was foretold over what it was, round by round.
    pub(super) fn ratio(&self) -> Series {
        self.foretold_ms.over(&self.token_ms)
    }

    /// Whether the median of the rounds is close enough.
    pub(super) fn holds(&self) -> bool {
        (self.ratio().median() - 1.0).abs() <= OFF_MAX
    }
}

impl Forecasts {
    /// At every distance asks for a forecast and then for an answer, in so many rounds.
    pub(super) fn measure(
        ring: &Ring,
        started: &Started,
        (split, rounds): (u32, usize),
        rtts: &[Option<u32>],
    ) -> Result<Self> {
        let mut found = vec![(Vec::new(), Vec::new()); rtts.len()];
        for (rtt, found) in rtts.iter().zip(&mut found) {
            if let Some(rtt_ms) = rtt {
                ring.lap(started, *rtt_ms)?;
                started.pause(LEARN)?;
            }
            for _ in 0..rounds {
                ring.ask(started, ring.coordinator(), WARM_TOKENS)?;
                started.pause(LOOK)?;
                let (stages, foretold_ms) = foretold(ring)?;
                ensure!(
                    stages == u64::from(split),
                    "the planner chose {stages} remote stages where {split} were to be needed"
                );
                let token_ms = ring.ask(started, ring.coordinator(), TOKENS)?;
                found.0.push(foretold_ms);
                found.1.push(token_ms);
            }
            say(&format!("forecasts: {rtt:?} is done"));
        }
        let at = rtts
            .iter()
            .zip(found)
            .map(|(rtt, (foretold, token))| Forecast {
                rtt_ms: *rtt,
                foretold_ms: Series::new(foretold),
                token_ms: Series::new(token),
            });
        let at = at.collect();
        Ok(Self { split, at })
    }

    /// Whether all are close enough.
    pub(super) fn hold(&self) -> bool {
        self.at.iter().all(Forecast::holds)
    }
}

/// How many remote stages the planner would choose now, and what it expects of a token, in milliseconds.
fn foretold(ring: &Ring) -> Result<(u64, f64)> {
    ring.coordinator().ring_up()?;
    let plan = ring::plan(ring.coordinator())?;
    let choice = &plan["choice"];
    let both = choice["stages"].as_u64().zip(choice["token_ms"].as_f64());
    both.with_context(|| format!("no choice in the plan: {plan}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two distances, the second foretold wrongly by a quarter.
    pub(in crate::token_time) fn forecasts() -> Forecasts {
        let at = |rtt_ms, foretold: f64, token: f64| Forecast {
            rtt_ms,
            foretold_ms: Series::new(vec![foretold; 3]),
            token_ms: Series::new(vec![token, token, token * 2.0]),
        };
        Forecasts {
            split: 2,
            at: vec![at(None, 12.0, 10.0), at(Some(20), 50.0, 40.0)],
        }
    }

    #[test]
    fn a_forecast_is_off_by_a_fifth_at_most() {
        let forecasts = forecasts();
        assert!(forecasts.at[0].holds());
        assert!(!forecasts.at[1].holds());
        assert!(!forecasts.hold());
        let low = Forecast {
            foretold_ms: Series::new(vec![31.0; 3]),
            ..forecasts.at[1].clone()
        };
        assert!(!low.holds());
    }
}
