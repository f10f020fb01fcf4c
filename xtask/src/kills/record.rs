//! What is kept of a kill: one line of JSON.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::draw::{Kill, Kind, Shape};
use super::nodes::Struck;
use crate::rig::heard::Heard;

/// A ring's loss as its coordinator tells it; what it does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    /// From the last frame that came back to the certainty that the stage is lost, in milliseconds.
    pub(super) detected_ms: Option<f64>,
    /// From the certainty until the next ring was up.
    pub(super) formed_ms: Option<f64>,
    /// From the certainty until the first row came back over it.
    pub(super) resumed_ms: Option<f64>,
    /// Rows that were computed again since they were lost with the stage.
    pub(super) rows_replayed: Option<u64>,
    /// Rows that stages which were still there computed a second time.
    pub(super) rows_recomputed: Option<u64>,
    /// Bytes that were sent once more.
    pub(super) bytes_resent: Option<u64>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = [
            ("detected", self.detected_ms),
            ("formed", self.formed_ms),
            ("resumed", self.resumed_ms),
        ];
        for (name, ms) in ms {
            if let Some(ms) = ms {
                write!(f, "{name} {ms:.0} ms ")?;
            }
        }
        let counts = [
            ("replayed", self.rows_replayed),
            ("recomputed", self.rows_recomputed),
            ("bytes", self.bytes_resent),
        ];
        for (name, count) in counts {
            if let Some(count) = count {
                write!(f, "{name} {count} ")?;
            }
        }
        Ok(())
    }
}

/// A kill that struck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The number of the kill in its campaign; `None` for one that was repeated alone.
    pub(super) n: Option<u32>,
    /// What it was drawn from: `cargo xtask kills --only-seed SEED` repeats it.
    pub(super) seed: u64,
    /// The revision that was killed.
    pub(super) revision: String,
    /// Kills drawn before it in its place that did not strike.
    pub(super) voids: u32,
    /// The ring.
    #[serde(flatten)]
    pub(super) shape: Shape,
    /// The sampler's seed; `None` for the most probable tokens.
    pub(super) sampler: Option<u32>,
    /// The stage that was killed, from 1.
    pub(super) victim: u32,
    /// When it was killed.
    pub(super) kind: Kind,
    /// Tokens that had come by then.
    pub(super) after: u32,
    /// Tokens that the undisturbed reply has.
    pub(super) tokens: u32,
    /// Whether the reply came to its end.
    pub(super) finished: bool,
    /// Whether it is the undisturbed one, to the last bit of the last token's probability.
    pub(super) equal: bool,
    /// In what it is not.
    pub(super) differs: Option<String>,
    /// What its client was told of an error.
    pub(super) error: Option<String>,
    /// The longest pause from the kill on, in milliseconds; in a prefill what it took longer than an undisturbed one.
    pub(super) gap_ms: f64,
    /// How the coordinator went on.
    #[serde(flatten)]
    pub(super) told: Told,
}

impl Record {
    /// Holds a reply against the undisturbed one, of whose kind a first token takes `first` over this ring. An error is
    /// why the kill did not strike.
    pub(super) fn of(
        kill: &Kill,
        struck: &Struck,
        expected: &Heard,
        first: Duration,
    ) -> Result<Self, String> {
        let heard = &struck.heard;
        let after = proof(struck)?;
        let tokens = expected.tokens.len().min(kill.tokens as usize);
        let differs = heard.differs(expected, kill.tokens);
        Ok(Self {
            n: None,
            seed: kill.seed,
            revision: String::new(),
            voids: 0,
            shape: kill.shape,
            sampler: kill.question.sampler,
            victim: kill.victim,
            kind: kill.kind,
            after: after as u32,
            tokens: tokens as u32,
            finished: heard.is_whole(),
            equal: heard.is_whole() && differs.is_none(),
            differs,
            error: heard.error.clone(),
            gap_ms: gap(struck, first).as_secs_f64() * 1e3,
            told: struck.recoveries.last().map(told).unwrap_or_default(),
        })
    }
}

/// How many tokens had come when it struck; or why it did not.
fn proof(struck: &Struck) -> Result<usize, String> {
    let (_, after) = struck
        .killed
        .ok_or("the reply was further than the moment of the kill")?;
    if !struck.is_gone {
        return Err("the process lives".to_owned());
    }
    if struck.heard.is_whole() && struck.heard.tokens.len() <= after {
        return Err("the reply had ended".to_owned());
    }
    if struck.heard.is_whole() && !struck.ring_ended {
        return Err("the rest of the reply did not need the stage any more".to_owned());
    }
    Ok(after)
}

/// The longest pause from the kill on.
fn gap(struck: &Struck, first: Duration) -> Duration {
    let Some((at, after)) = struck.killed else {
        return Duration::ZERO;
    };
    let heard = &struck.heard;
    let mut times = heard.tokens.iter().skip(after).map(|(_, time)| *time);
    let Some(next) = times.next() else {
        return Duration::ZERO;
    };
    let beyond = match after {
        0 => (next - heard.asked).saturating_sub(first),
        _ => next.saturating_duration_since(at),
    };
    let mut before = next;
    times.fold(beyond, |longest, time| {
        let pause = time - std::mem::replace(&mut before, time);
        longest.max(pause)
    })
}

fn told(recovery: &Value) -> Told {
    let ms = |name: &str| recovery[name].as_f64();
    let count = |name: &str| recovery[name].as_u64();
    Told {
        detected_ms: ms("detected_ms"),
        formed_ms: ms("formed_ms"),
        resumed_ms: ms("resumed_ms"),
        rows_replayed: count("rows_replayed"),
        rows_recomputed: count("rows_recomputed"),
        bytes_resent: count("bytes_resent"),
    }
}

/// What a file of results has; nothing if it is not there. A line that a power cut left half is no record.
///
/// # Errors
///
/// When a line in its midst is none.
pub(super) fn read(path: &Path) -> Result<Vec<Record>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    if whole.len() + 1 < text.len() {
        let kept = if whole.is_empty() {
            String::new()
        } else {
            format!("{whole}\n")
        };
        fs::write(path, kept)?;
    }
    let record = |(n, line): (usize, &str)| {
        let record = serde_json::from_str(line);
        record.with_context(|| format!("{}, line {}", path.display(), n + 1))
    };
    whole.lines().enumerate().map(record).collect()
}

/// Adds a line.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn append(path: &Path, record: &Record) -> Result<()> {
    let line = serde_json::to_string(record)? + "\n";
    ensure!(line.matches('\n').count() == 1, "a record is one line");
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| path.display().to_string())?;
    Ok(file.write_all(line.as_bytes())?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::draw;
    use super::*;
    use crate::rig::heard::tests::heard;

    const FIRST: Duration = Duration::from_millis(10);

    /// A kill whose reply has four tokens.
    fn kill() -> Kill {
        let seeds = (0..).map(|n| draw::seed_of(1, n));
        let mut kills = seeds.map(|seed| Kill::draw(seed, 0));
        let mut kill = kills.find(|kill| kill.kind == Kind::First).unwrap();
        kill.tokens = 4;
        kill
    }

    /// It was struck after a token, and half a second passed until the next.
    fn struck(tokens: &[&str]) -> Struck {
        let mut heard = heard(tokens);
        let killed = heard.asked + Duration::from_millis(12);
        for (_, at) in heard.tokens.iter_mut().skip(1) {
            *at += Duration::from_millis(492);
        }
        Struck {
            heard,
            killed: Some((killed, 1)),
            is_gone: true,
            ring_ended: true,
            recoveries: vec![serde_json::json!({"detected_ms": 400, "rows_replayed": 7})],
        }
    }

    pub(in crate::kills) fn record() -> Record {
        let expected = heard(&["a", "b", "c", "d"]);
        Record::of(&kill(), &struck(&["a", "b", "c", "d"]), &expected, FIRST).unwrap()
    }

    #[test]
    fn a_reply_that_went_on_is_equal_and_its_gap_is_the_longest_pause() {
        let record = record();
        assert!(record.finished && record.equal && record.error.is_none());
        assert_eq!((record.after, record.tokens, record.gap_ms), (1, 4, 500.0));
        assert_eq!(record.told.detected_ms, Some(400.0));
        assert_eq!(
            (record.told.rows_replayed, record.told.bytes_resent),
            (Some(7), None)
        );
    }

    #[test]
    fn a_later_pause_counts_and_so_does_what_a_prefill_took_longer() {
        let mut later = struck(&["a", "b", "c", "d"]);
        later.heard.tokens[3].1 += Duration::from_secs(2);
        assert_eq!(gap(&later, FIRST).as_millis(), 2_010);
        let mut prefill = struck(&["a", "b"]);
        prefill.killed = Some((prefill.heard.asked, 0));
        prefill.heard.tokens[0].1 += Duration::from_millis(600);
        prefill.heard.tokens[1].1 += Duration::from_millis(100);
        assert_eq!(gap(&prefill, FIRST).as_millis(), 600);
        prefill.heard.tokens.clear();
        assert_eq!(gap(&prefill, FIRST), Duration::ZERO);
    }

    #[test]
    fn what_did_not_strike_is_void() {
        let check = |why: &str, change: &dyn Fn(&mut Struck)| {
            let mut struck = struck(&["a", "b", "c", "d"]);
            change(&mut struck);
            let error = Record::of(&kill(), &struck, &heard(&["a"]), FIRST).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        check("further", &|struck| struck.killed = None);
        check("lives", &|struck| struck.is_gone = false);
        check("had ended", &|struck| struck.killed.as_mut().unwrap().1 = 4);
        check("did not need", &|struck| struck.ring_ended = false);
    }

    #[test]
    fn an_error_is_no_void_but_a_reply_that_did_not_finish() {
        let mut failed = struck(&["a"]);
        failed.heard.error = Some("peer_lost".to_owned());
        failed.ring_ended = false;
        let record = Record::of(&kill(), &failed, &heard(&["a", "b"]), FIRST).unwrap();
        assert!(!record.finished && !record.equal);
        assert_eq!(record.error.as_deref(), Some("peer_lost"));
    }

    #[test]
    fn records_are_lines_and_half_a_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kills.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        append(&path, &record()).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + r#"{"n":1,"se"#).unwrap();
        assert_eq!(read(&path).unwrap(), [record()]);
        append(&path, &record()).unwrap();
        assert_eq!(read(&path).unwrap(), [record(), record()]);
        fs::write(&path, "{}\n").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("line 1"));
    }
}
