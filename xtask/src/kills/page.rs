//! The page that a campaign writes: records in, Markdown and a verdict out.

use super::draw::{Kind, Shape};
use super::record::Record;
use crate::rig::table::Table;

/// The share of replies that must come to their end.
pub(super) const FINISHED_MIN: f64 = 0.995;
/// The share of those that must be the undisturbed ones.
pub(super) const EQUAL_MIN: f64 = 1.0;
/// How long the longest pause of half of the replies may be, in milliseconds,
pub(super) const GAP_P50_MS_MAX: f64 = 700.0;
/// and that of 95 of 100.
pub(super) const GAP_P95_MS_MAX: f64 = 1_500.0;
/// How many failures the page quotes.
const QUOTED_MAX: usize = 20;

/// What some kills have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) kills: usize,
    /// Of the kills.
    pub(super) finished: f64,
    /// Of those that finished.
    pub(super) equal: f64,
    /// Of those that finished: half of them have a shorter one, 95 of 100, and all.
    pub(super) gap_ms: [f64; 3],
}

impl Figures {
    /// `None` of no kills.
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Option<Self> {
        let records: Vec<&Record> = records.collect();
        let finished: Vec<&&Record> = records.iter().filter(|record| record.finished).collect();
        let share = |part: usize, all: usize| {
            if all == 0 {
                0.0
            } else {
                part as f64 / all as f64
            }
        };
        let equal = finished.iter().filter(|record| record.equal).count();
        let gaps: Vec<f64> = finished.iter().map(|record| record.gap_ms).collect();
        (!records.is_empty()).then(|| Self {
            kills: records.len(),
            finished: share(finished.len(), records.len()),
            equal: share(equal, finished.len()),
            gap_ms: [0.5, 0.95, 1.0].map(|share| quantile(&gaps, share)),
        })
    }

    /// Whether enough replies went on, all of them as they would have.
    pub(super) fn go_on(&self) -> bool {
        self.finished >= FINISHED_MIN && self.equal >= EQUAL_MIN
    }

    /// Whether they did so soon.
    pub(super) fn are_quick(&self) -> bool {
        let [p50, p95, _] = self.gap_ms;
        p50 <= GAP_P50_MS_MAX && p95 <= GAP_P95_MS_MAX
    }

    fn cells(&self) -> [String; 6] {
        let gap = self.gap_ms.map(|ms| format!("{ms:.0}"));
        let [p50, p95, max] = gap;
        [
            self.kills.to_string(),
            percent(self.finished),
            percent(self.equal),
            p50,
            p95,
            max,
        ]
    }
}

/// The least value that this share of all does not exceed (nearest rank); 0 of none.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Rounded down: what is not all never reads as all.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1_000.0).floor() / 10.0)
}

/// The whole page.
pub(super) fn page(opening: &str, records: &[Record]) -> String {
    let Some(all) = Figures::of(records.iter()) else {
        return format!("{opening}\nNothing was killed yet.\n");
    };
    format!(
        "{opening}\n{}\n{}\n{METHOD}\n## By ring and moment\n\n{}\n## As the coordinator tells it\n\n{}\n{}",
        revisions(records),
        verdict(&all),
        by_ring(records),
        by_told(records),
        failures(records),
    )
}

const METHOD: &str = "\
Each kill is drawn from a seed: the ring, the stage whose node gets SIGKILL, when, the question, greedy or seeded sampling, and up \
to 1,000 tokens of reply. Nodes have a network namespace and one thread each, the links between them are this repository's own \
(crate `lab`), with no delay. The model is the starter in exact mode. Who was killed starts again with its own data before the next \
kill; all others stay, and have up to 8 s to stand by for stages. A reply is *equal* when every token's bytes and the last bit of its probability are those of the same reply by the whole model \
on one node that nothing disturbs, none twice and none missing, and the text is what the bytes say. The *gap* is the longest pause of the \
client's stream from the kill on, in milliseconds; in a prefill it is by how much the first token is later than over the same ring undisturbed. A \
kill counts when the process is gone, its stage was in the ring, the reply had not ended, and the ring did before the reply: others \
are void, are counted, and are drawn again. One remote stage without a spare member is not among the rings, since nobody is left there.
";

fn revisions(records: &[Record]) -> String {
    let mut all: Vec<&str> = records
        .iter()
        .map(|record| record.revision.as_str())
        .collect();
    all.dedup();
    all.sort_unstable();
    all.dedup();
    let voids: u32 = records.iter().map(|record| record.voids).sum();
    format!(
        "{} kills struck, {voids} were void. Revisions killed: {}.\n",
        records.len(),
        all.join(", ")
    )
}

fn verdict(all: &Figures) -> String {
    let mut table = Table::new(&["", "is", "must be", ""]);
    let met = |is_met: bool| if is_met { "met" } else { "**missed**" }.to_owned();
    let [p50, p95, _] = all.gap_ms;
    table.row([
        "replies that finish".into(),
        percent(all.finished),
        format!("≥ {}", percent(FINISHED_MIN)),
        met(all.finished >= FINISHED_MIN),
    ]);
    table.row([
        "of these, equal".into(),
        percent(all.equal),
        percent(EQUAL_MIN),
        met(all.equal >= EQUAL_MIN),
    ]);
    for (name, is, max) in [
        ("gap, half of them, ms", p50, GAP_P50_MS_MAX),
        ("gap, 95 of 100, ms", p95, GAP_P95_MS_MAX),
    ] {
        table.row([
            name.into(),
            format!("{is:.0}"),
            format!("≤ {max:.0}"),
            met(is <= max),
        ]);
    }
    table.to_string()
}

/// Names of a ring.
fn ring(shape: Shape) -> [String; 2] {
    let spare = if shape.spare { "yes" } else { "no" };
    [shape.stages.to_string(), spare.to_owned()]
}

/// Every group of kills that there is, with all moments together behind each ring and all rings at the end.
fn groups(records: &[Record]) -> Vec<([String; 3], Vec<&Record>)> {
    let mut groups = Vec::new();
    for shape in Shape::ALL {
        let [stages, spare] = ring(shape);
        let of_ring = |kind: Option<Kind>| {
            let fits = |record: &&Record| {
                record.shape == shape && kind.is_none_or(|kind| record.kind == kind)
            };
            records.iter().filter(fits).collect()
        };
        for kind in Kind::ALL {
            groups.push((
                [stages.clone(), spare.clone(), kind.words().into()],
                of_ring(Some(kind)),
            ));
        }
        groups.push(([stages, spare, "all".into()], of_ring(None)));
    }
    for kind in Kind::ALL {
        let fits = |record: &&Record| record.kind == kind;
        groups.push((
            ["all".into(), "".into(), kind.words().into()],
            records.iter().filter(fits).collect(),
        ));
    }
    groups.push((
        ["all".into(), "".into(), "all".into()],
        records.iter().collect(),
    ));
    groups
}

fn by_ring(records: &[Record]) -> String {
    let mut table = Table::new(&[
        "stages",
        "spare",
        "killed at",
        "kills",
        "finish",
        "equal",
        "gap p50",
        "p95",
        "max",
    ]);
    for ([stages, spare, kind], group) in groups(records) {
        if let Some(figures) = Figures::of(group.into_iter()) {
            let [kills, finished, equal, p50, p95, max] = figures.cells();
            table.row([stages, spare, kind, kills, finished, equal, p50, p95, max]);
        }
    }
    table.to_string()
}

fn by_told(records: &[Record]) -> String {
    let mut table = Table::new(&[
        "stages",
        "spare",
        "killed at",
        "detected, ms",
        "ring formed, ms",
        "resumed, ms",
        "rows replayed",
        "rows recomputed",
        "bytes resent",
    ]);
    for ([stages, spare, kind], group) in groups(records) {
        if group.is_empty() {
            continue;
        }
        let median = |of: &dyn Fn(&Record) -> Option<f64>| {
            let values: Vec<f64> = group.iter().filter_map(|record| of(record)).collect();
            match values.is_empty() {
                true => "–".to_owned(),
                false => format!("{:.0}", quantile(&values, 0.5)),
            }
        };
        let cells = [
            median(&|record| record.told.detected_ms),
            median(&|record| record.told.formed_ms),
            median(&|record| record.told.resumed_ms),
            median(&|record| record.told.rows_replayed.map(|rows| rows as f64)),
            median(&|record| record.told.rows_recomputed.map(|rows| rows as f64)),
            median(&|record| record.told.bytes_resent.map(|bytes| bytes as f64)),
        ];
        let [detected, formed, resumed, replayed, recomputed, resent] = cells;
        table.row([
            stages, spare, kind, detected, formed, resumed, replayed, recomputed, resent,
        ]);
    }
    format!(
        "Medians. *Detected* is from the last frame that came back to the certainty that the stage is lost; *formed* and *resumed* are from \
         there to the next ring, and to the first row that came back over it. Rows are *replayed* that were lost with the stage, and *recomputed* \
         that stages still had. A dash is where the coordinator does not say.\n\n{table}"
    )
}

fn failures(records: &[Record]) -> String {
    let failed: Vec<&Record> = records.iter().filter(|record| !record.equal).collect();
    if failed.is_empty() {
        return String::new();
    }
    let mut text = format!("\n## What was not as it should be ({})\n\n", failed.len());
    for record in failed.iter().take(QUOTED_MAX) {
        let why = record.error.as_ref().or(record.differs.as_ref());
        text += &format!(
            "- `--only-seed {}`: stage {} of {}, {}: {}\n",
            record.seed,
            record.victim,
            record.shape.stages,
            record.kind.words(),
            why.map_or("", String::as_str)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    /// Kills with these gaps.
    fn records(gaps: &[f64]) -> Vec<Record> {
        let with = |gap_ms: &f64| Record {
            gap_ms: *gap_ms,
            ..record()
        };
        gaps.iter().map(with).collect()
    }

    fn figures(records: &[Record]) -> Figures {
        Figures::of(records.iter()).unwrap()
    }

    #[test]
    fn the_bars_are_held_to_the_kill() {
        let mut kills = records(&[700.0; 400]);
        assert!(figures(&kills).go_on() && figures(&kills).are_quick());
        (kills[0].finished, kills[0].equal) = (false, false);
        (kills[1].finished, kills[1].equal) = (false, false);
        assert!(figures(&kills).go_on(), "two of 400 are 0.5 %");
        (kills[2].finished, kills[2].equal) = (false, false);
        assert!(!figures(&kills).go_on());
        let mut kills = records(&[700.0; 400]);
        kills[7].equal = false;
        assert!(
            !figures(&kills).go_on(),
            "one that went on otherwise is too many"
        );
    }

    #[test]
    fn quantiles_are_of_replies_that_finished() {
        let mut kills = records(&[100.0, 200.0, 300.0, 400.0]);
        assert_eq!(figures(&kills).gap_ms, [200.0, 400.0, 400.0]);
        kills[3].finished = false;
        assert_eq!(figures(&kills).gap_ms, [200.0, 300.0, 300.0]);
        assert!(!figures(&records(&[701.0; 20])).are_quick());
        assert!(!figures(&records(&[[1.0; 18].as_slice(), &[1_501.0; 2]].concat())).are_quick());
        assert!(figures(&records(&[[1.0; 19].as_slice(), &[9_999.0; 1]].concat())).are_quick());
        assert_eq!(percent(0.9999), "99.9 %");
    }

    #[test]
    fn the_page_has_figures_verdict_and_what_failed() {
        let mut kills = records(&[500.0, 600.0]);
        let text = page("# Kills\n", &kills);
        for part in ["2 kills struck", "| 500", "met", "| token 1", "100.0 %"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(
            !text.contains("missed") && !text.contains("should be"),
            "{text}"
        );
        kills[0].equal = false;
        kills[0].differs = Some("token 3 is".to_owned());
        let text = page("# Kills\n", &kills);
        let seed = format!("--only-seed {}", kills[0].seed);
        for part in ["**missed**", "token 3 is", seed.as_str(), "50.0 %"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(page("# Kills\n", &[]).contains("Nothing"));
    }
}
