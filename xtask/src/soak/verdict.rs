//! What a soak found, and whether that is as it should be.

use std::fmt;
use std::time::Duration;

use super::client::Tally;
use super::nodes::Left;
use super::slope::Trend;

/// Everything that a soak found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Findings {
    /// What everything random was drawn from.
    pub(super) seed: u64,
    /// How long it was.
    pub(super) time: Duration,
    /// What became of the requests.
    pub(super) tally: Tally,
    /// Where memory went; `None` if there were too few samples.
    pub(super) trend: Option<Trend>,
    /// Places that were still taken when everything had ended.
    pub(super) taken: u64,
    /// What became of as many requests as there are places, afterwards.
    pub(super) refill: Tally,
    /// What SIGINT left behind.
    pub(super) left: Left,
}

impl Findings {
    /// Everything that is not as it should be, in words.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |is: bool, what: String| {
            if is {
                faults.push(what);
            }
        };
        let tally = &self.tally;
        fault(
            tally.failed > 0,
            format!("{} requests failed", tally.failed),
        );
        fault(
            tally.answers == 0 || tally.left == 0,
            "nothing was answered, or no caller left: this proves nothing".to_owned(),
        );
        match self.trend {
            None => fault(true, "memory was not sampled".to_owned()),
            Some(trend) => fault(
                trend.grows(),
                format!(
                    "memory grows by {:.2} MiB a minute, more than {:.2}",
                    trend.slope,
                    trend.slope_max()
                ),
            ),
        }
        fault(self.taken > 0, format!("{} places are stuck", self.taken));
        let refill = &self.refill;
        fault(
            refill.failed + refill.refused + refill.too_much > 0 || refill.answers == 0,
            format!("afterwards not every place answers: {refill:?}"),
        );
        let Left { alive, exits, .. } = &self.left;
        fault(
            *alive > 0,
            format!("{alive} processes were left behind after SIGINT"),
        );
        fault(
            !exits.is_empty(),
            format!("nodes ended badly: {}", exits.join("; ")),
        );
        faults
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            answers,
            tokens,
            left,
            refused,
            too_much,
            failed,
            quoted,
        } = &self.tally;
        writeln!(f, "soak of {} s, --seed {}", self.time.as_secs(), self.seed)?;
        writeln!(
            f,
            "requests:  {answers} answered with {tokens} tokens, {left} left by their callers, {too_much} too long, \
             {refused} refused for want of room, {failed} failed"
        )?;
        for one in quoted {
            writeln!(f, "           failed: {one}")?;
        }
        if let Some(trend) = self.trend {
            let (from, to) = trend.from_to;
            writeln!(
                f,
                "memory:    {from:.1} MiB after the warm-up, {to:.1} MiB at the end, slope {:+.2} MiB a minute over \
                 {:.1} minutes, at most {:.2}",
                trend.slope,
                trend.minutes,
                trend.slope_max()
            )?;
        }
        writeln!(
            f,
            "places:    {} taken when everything had ended, then {} more requests answered at once",
            self.taken, self.refill.answers
        )?;
        let Left {
            processes, alive, ..
        } = &self.left;
        writeln!(
            f,
            "processes: {processes}, of which {alive} outlived SIGINT"
        )?;
        let faults = self.faults();
        if faults.is_empty() {
            return writeln!(f, "verdict:   passed");
        }
        writeln!(f, "verdict:   FAILED")?;
        for fault in faults {
            writeln!(f, "           {fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Findings {
        Findings {
            seed: 7,
            time: Duration::from_secs(60),
            tally: Tally {
                answers: 40,
                tokens: 3_000,
                left: 12,
                refused: 2,
                too_much: 1,
                ..Tally::default()
            },
            trend: Some(Trend {
                slope: 0.1,
                minutes: 0.75,
                from_to: (300.0, 300.1),
            }),
            taken: 0,
            refill: Tally {
                answers: 8,
                ..Tally::default()
            },
            left: Left {
                processes: 2,
                ..Left::default()
            },
        }
    }

    /// Fails for `why`, and for nothing else.
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut Findings), why: &str) {
        let mut findings = good();
        spoil(&mut findings);
        let faults = findings.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(why), "{faults:?}");
        assert!(findings.to_string().contains("FAILED"), "{findings}");
        assert!(findings.to_string().contains(why), "{findings}");
    }

    #[test]
    fn what_is_as_it_should_be_passes_and_says_all() {
        assert!(good().faults().is_empty(), "{}", good());
        let text = good().to_string();
        for part in [
            "--seed 7",
            "40 answered with 3000 tokens, 12 left",
            "2 refused",
            "slope +0.10 MiB a minute",
            "passed",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn each_fault_fails_alone() {
        check(|f| f.tally.failed = 1, "1 requests failed");
        check(|f| f.tally.answers = 0, "proves nothing");
        check(|f| f.tally.left = 0, "proves nothing");
        check(|f| f.trend = None, "not sampled");
        check(
            |f| f.trend.as_mut().unwrap().slope = 30.0,
            "memory grows by 30.00",
        );
        check(|f| f.taken = 2, "2 places are stuck");
        check(|f| f.refill.answers = 0, "not every place answers");
        check(|f| f.refill.failed = 1, "not every place answers");
        check(|f| f.refill.refused = 1, "not every place answers");
        check(|f| f.left.alive = 1, "1 processes were left behind");
        check(
            |f| f.left.exits.push("signal: 9: no words".to_owned()),
            "ended badly: signal: 9",
        );
    }

    #[test]
    fn failures_are_quoted() {
        let mut findings = good();
        findings.tally.failed = 1;
        findings.tally.quoted.push("the answer broke".to_owned());
        assert!(findings.to_string().contains("failed: the answer broke"));
    }
}
