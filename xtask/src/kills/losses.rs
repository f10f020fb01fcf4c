//! Losses that are no kill: a stage that is frozen and thaws, one that leaves in good order, and one whose layers nobody else has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::draw::{Question, Shape};
use super::nodes::{Alone, Lost, Nodes};
use super::page::{percent, quantile};
use crate::rig::say;
use crate::rig::started::Started;
use crate::rig::table::Table;

/// Tokens of a reply, and those that have come when the stage is lost: long enough that its standby is fed.
const TOKENS: u32 = 300;
const AFTER: u32 = 200;
/// A stage that is frozen is noticed so soon, in milliseconds.
const NOTICED_MS_MAX: f64 = 1_000.0;
/// Who leaves is gone so soon, in milliseconds.
const GONE_MS_MAX: f64 = 2_000.0;
/// Layers that nobody has are named so soon, in milliseconds.
const NAMED_MS_MAX: f64 = 2_000.0;

/// What is done to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// SIGSTOP, and SIGCONT when the reply has ended.
    Freeze,
    /// SIGTERM.
    Leave,
    /// SIGKILL, and no other member is there.
    Alone,
}

impl Loss {
    const ALL: [Self; 3] = [Self::Freeze, Self::Leave, Self::Alone];

    fn signal(self) -> Signal {
        match self {
            Self::Freeze => Signal::SIGSTOP,
            Self::Leave => Signal::SIGTERM,
            Self::Alone => Signal::SIGKILL,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Self::Freeze | Self::Leave => Shape::new(2, true),
            Self::Alone => Shape::new(1, false),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Freeze => "frozen, and thawed when the reply had ended",
            Self::Leave => "leaves in good order (SIGTERM)",
            Self::Alone => "killed, and nobody else has its layers",
        }
    }
}

/// What came of one way of losing a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    loss: Loss,
    rounds: usize,
    /// Replies that ended as the undisturbed one; with nobody left, those whose error names the layers.
    right: usize,
    /// The longest pause of the client, or the time until its error, in milliseconds.
    gaps_ms: Vec<f64>,
    /// What is held against a bar, in milliseconds.
    held_ms: Vec<f64>,
}

/// Loses stages in each way so often.
pub(super) fn rounds(
    started: &Started,
    (myzel, model): (&std::path::Path, &str),
    rounds: u32,
) -> Result<Vec<Outcome>> {
    let question = Question::first();
    let expected = Alone::start(myzel, model)?.ask(&question, TOKENS)?;
    ensure!(
        expected.tokens.len() as u32 == TOKENS,
        "the undisturbed reply is too short"
    );
    let lose = |loss: Loss| -> Result<Outcome> {
        let mut nodes = Nodes::start(started, myzel, model, loss.shape())?;
        let mut outcome = Outcome {
            loss,
            rounds: rounds as usize,
            right: 0,
            gaps_ms: Vec::new(),
            held_ms: Vec::new(),
        };
        for round in 0..rounds {
            started.check()?;
            let victim = 1 + round % loss.shape().stages;
            let lost = nodes.lose(&question, (TOKENS, AFTER), victim, loss.signal())?;
            let differs = lost.heard.differs(&expected, TOKENS);
            outcome.add(&lost, differs.as_deref())?;
            say(&format!("{loss:?}: {} of {rounds} is done", round + 1));
            nodes.whole(started)?;
        }
        Ok(outcome)
    };
    Loss::ALL.into_iter().map(lose).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Outcome {
    fn add(&mut self, lost: &Lost, differs: Option<&str>) -> Result<()> {
        let heard = &lost.heard;
        if self.loss == Loss::Alone {
            let error = heard.error.as_deref().unwrap_or_default();
            self.right += usize::from(error.contains("layers"));
            let named = ms(lost.ended.saturating_duration_since(lost.at));
            self.gaps_ms.push(named);
            self.held_ms.push(named);
            return Ok(());
        }
        if let Some(differs) = differs {
            say(&format!("NOT EQUAL: {differs}; {:?}", heard.error));
        }
        self.right += usize::from(heard.is_whole() && differs.is_none());
        ensure!(lost.ring_ended, "the loss did not strike the ring");
        self.gaps_ms
            .push(ms(heard.pause(lost.at).unwrap_or_default()));
        let held = match self.loss {
            Loss::Freeze => detected_ms(lost.recoveries.last()),
            _ => lost
                .gone
                .map(|gone| ms(gone.saturating_duration_since(lost.at))),
        };
        self.held_ms
            .push(held.context("a loss that nobody tells of")?);
        Ok(())
    }

    fn held(&self) -> (&'static str, f64) {
        match self.loss {
            Loss::Freeze => ("noticed", NOTICED_MS_MAX),
            Loss::Leave => ("gone", GONE_MS_MAX),
            Loss::Alone => ("named", NAMED_MS_MAX),
        }
    }

    /// Whether all replies are right, and nothing took longer than it may.
    pub(super) fn is_good(&self) -> bool {
        self.right == self.rounds && quantile(&self.held_ms, 1.0) <= self.held().1
    }
}

/// From the last frame that came back to the certainty.
fn detected_ms(recovery: Option<&Value>) -> Option<f64> {
    recovery?["detected_ms"].as_f64()
}

/// The whole page.
pub(super) fn page(opening: &str, outcomes: &[Outcome]) -> String {
    let mut table = Table::new(&[
        "a stage is",
        "rounds",
        "right",
        "pause p50, ms",
        "p95",
        "max",
        "held against a bar, ms",
        "bar",
        "",
    ]);
    for outcome in outcomes {
        let gap = |share| format!("{:.0}", quantile(&outcome.gaps_ms, share));
        let held = |share| quantile(&outcome.held_ms, share);
        let (what, bar) = outcome.held();
        let verdict = if outcome.is_good() {
            "met"
        } else {
            "**missed**"
        };
        table.row([
            outcome.loss.words().to_owned(),
            outcome.rounds.to_string(),
            percent(outcome.right as f64 / outcome.rounds.max(1) as f64),
            gap(0.5),
            gap(0.95),
            gap(1.0),
            format!("{what}: {:.0}, at most {:.0}", held(0.5), held(1.0)),
            format!("≤ {bar:.0}"),
            verdict.to_owned(),
        ]);
    }
    format!("{opening}\n{table}\n{METHOD}")
}

const METHOD: &str = "\
The starter model in exact mode, over nodes with a network namespace and one thread each, without delay between them. A stage is lost when 200 of \
300 tokens have come. Frozen and leaving stages are two, with a spare member: *right* is a reply that ends with every token's bytes and the last \
bit of its probability as when nothing disturbs it. The one whose layers nobody else has is alone: *right* is an error that names the layers, and the \
pause is the time until it comes; before the next round it starts again, and the ring is up without anybody's doing. *Noticed* is from the last frame \
that came back to the certainty that the stage is lost, as the coordinator tells it; *gone* is from the signal to the end of the process.
";

#[cfg(test)]
mod tests {
    use crate::rig::heard::tests::heard;
    use std::time::Instant;

    use super::*;

    fn lost(error: Option<&str>, gone_ms: u64) -> Lost {
        let at = Instant::now();
        let mut heard = heard(&["a", "b"]);
        heard.error = error.map(str::to_owned);
        Lost {
            heard,
            at,
            ended: at + Duration::from_millis(gone_ms),
            gone: Some(at + Duration::from_millis(gone_ms)),
            ring_ended: true,
            recoveries: vec![serde_json::json!({ "detected_ms": gone_ms })],
        }
    }

    fn check(loss: Loss, error: Option<&str>, differs: Option<&str>, ms: u64, good: bool) {
        let mut outcome = Outcome {
            loss,
            rounds: 1,
            right: 0,
            gaps_ms: Vec::new(),
            held_ms: Vec::new(),
        };
        outcome.add(&lost(error, ms), differs).unwrap();
        assert_eq!(outcome.is_good(), good, "{outcome:?}");
        let verdict = if good { "met" } else { "**missed**" };
        assert!(page("# Losses\n", &[outcome]).contains(verdict));
    }

    #[test]
    fn bars_are_held() {
        check(Loss::Freeze, None, None, 1_000, true);
        check(Loss::Freeze, None, None, 1_001, false);
        check(Loss::Freeze, None, Some("token 1"), 9, false);
        check(Loss::Freeze, Some("lost"), None, 9, false);
        check(Loss::Leave, None, None, 2_000, true);
        check(Loss::Leave, None, None, 2_001, false);
        check(
            Loss::Alone,
            Some("stage 1 (layers 1..29)"),
            None,
            2_000,
            true,
        );
        check(
            Loss::Alone,
            Some("stage 1 (layers 1..29)"),
            None,
            2_001,
            false,
        );
        check(Loss::Alone, Some("something is wrong"), None, 9, false);
        check(Loss::Alone, None, None, 9, false);
    }

    #[test]
    fn a_loss_that_did_not_strike_is_no_figure() {
        let mut outcome = Outcome {
            loss: Loss::Freeze,
            rounds: 1,
            right: 0,
            gaps_ms: Vec::new(),
            held_ms: Vec::new(),
        };
        let missed = Lost {
            ring_ended: false,
            ..lost(None, 5)
        };
        assert!(outcome.add(&missed, None).is_err());
    }
}
