//! What the project promises of its speed and size, and whether a run keeps it.

use proto::model::Numerics;

use super::super::memory::Memory;
use super::super::rounds::Figures;
use super::super::stats::Series;
use super::super::subject::Subject;
use super::table::Table;

/// A single node's decode and prefill rate over llama-server's, at least.
const SINGLE_MIN: f64 = 0.95;
/// A ring's rates over those of a single node of ours, at least.
const RING_MIN: f64 = 0.9;
/// A single node's memory over llama-server's, at most.
const MEMORY_MAX: f64 = 1.15;

/// A ratio and what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    /// What is compared.
    what: String,
    ours: String,
    theirs: String,
    ratio: Series,
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    /// Published beside the others.
    None,
}

impl Bar {
    fn mark(&self) -> &'static str {
        // What the page shows decides: two digits.
        let shown = (self.ratio.median() * 100.0).round() / 100.0;
        match self.limit {
            Limit::AtLeast(min) if shown >= min => "met",
            Limit::AtMost(max) if shown <= max => "met",
            Limit::None => "–",
            _ => "**missed**",
        }
    }

    fn limit(&self) -> String {
        match self.limit {
            Limit::AtLeast(min) => format!("≥ {min}"),
            Limit::AtMost(max) => format!("≤ {max}"),
            Limit::None => "–".to_owned(),
        }
    }
}

/// All bars with their marks.
pub(super) fn table(bars: &[Bar]) -> String {
    let mut table = Table::new(&["what", "ours", "other", "ratio", "bar", ""]);
    for bar in bars {
        table.row([
            bar.what.clone(),
            bar.ours.clone(),
            bar.theirs.clone(),
            format!("{:.2}", bar.ratio),
            bar.limit(),
            bar.mark().to_owned(),
        ]);
    }
    table.to_string()
}

type Rate = fn(&Figures) -> &Series;
const RATES: [(&str, Rate); 2] = [("decode", |f| &f.decode), ("prefill", |f| &f.prefill)];

/// The best of `figures` that `is` holds for.
fn best(figures: &[Figures], rate: Rate, is: impl Fn(&Subject) -> bool) -> Option<&Figures> {
    let candidates = figures.iter().filter(|one| is(&one.subject));
    candidates.max_by(|a, b| rate(a).median().total_cmp(&rate(b).median()))
}

fn is_ours(subject: &Subject, mode: Numerics) -> bool {
    matches!(subject, Subject::Myzel { numerics, remote: 0, .. } if *numerics == mode)
}

fn is_theirs(subject: &Subject) -> bool {
    matches!(subject, Subject::LlamaServer { .. })
}

/// Both modes against the peer, each at its best threads. Exact mode has no bar.
pub(super) fn single(figures: &[Figures]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for mode in [Numerics::Throughput, Numerics::Exact] {
        for (name, rate) in RATES {
            let ours = best(figures, rate, |subject| is_ours(subject, mode));
            let theirs = best(figures, rate, is_theirs);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                continue;
            };
            let limit = match mode {
                Numerics::Throughput => Limit::AtLeast(SINGLE_MIN),
                Numerics::Exact => Limit::None,
            };
            bars.push(bar(
                format!("{name}: {} / llama-server", ours.subject),
                rate,
                ours,
                theirs,
                limit,
            ));
        }
    }
    bars
}

fn bar(what: String, rate: Rate, ours: &Figures, theirs: &Figures, limit: Limit) -> Bar {
    let side = |one: &Figures| {
        let threads = one.subject.threads();
        let plural = if threads == "1" { "" } else { "s" };
        format!("{:.0}/s, {threads} thread{plural}", rate(one).median())
    };
    let (ours_shown, theirs_shown) = (side(ours), side(theirs));
    let ratio = rate(ours).over(rate(theirs));
    Bar {
        what,
        ours: ours_shown,
        theirs: theirs_shown,
        ratio,
        limit,
    }
}

/// Every ring of a group against the single node that is its first. The bar is on rings of one remote stage.
pub(super) fn rings(group: &[Figures]) -> Vec<Bar> {
    let Some((node, rings)) = group.split_first() else {
        return Vec::new();
    };
    let mut bars = Vec::new();
    for ring in rings {
        for (name, rate) in RATES {
            let remote = ring.subject.remote();
            let limit = if remote == 1 {
                Limit::AtLeast(RING_MIN)
            } else {
                Limit::None
            };
            let what = format!("{name}: ring over {remote} remote / single node, exact");
            bars.push(bar(what, rate, ring, node, limit));
        }
    }
    bars
}

/// Throughput mode's memory against the peer's, both at the threads at which they decode best.
pub(super) fn memory(figures: &[Figures], memory: &[(Subject, Memory)]) -> Vec<Bar> {
    let decode = RATES[0].1;
    let of = |figures: Option<&Figures>| {
        let subject = figures?.subject;
        memory
            .iter()
            .find(|(measured, _)| *measured == subject)
            .map(|(_, memory)| *memory)
    };
    let ours = of(best(figures, decode, |subject| {
        is_ours(subject, Numerics::Throughput)
    }));
    let theirs = of(best(figures, decode, is_theirs));
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return Vec::new();
    };
    let bar = |what: &str, ours: u64, theirs: u64| Bar {
        what: format!("memory ({what}): myzel, throughput / llama-server"),
        ours: format!("{:.0} MiB", ours as f64 / super::MIB),
        theirs: format!("{:.0} MiB", theirs as f64 / super::MIB),
        ratio: Series::new(vec![ours as f64 / theirs as f64]),
        limit: Limit::AtMost(MEMORY_MAX),
    };
    vec![
        bar("PSS", ours.proportional, theirs.proportional),
        bar("RSS", ours.resident, theirs.resident),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(subject: Subject, decode: f64, prefill: f64) -> Figures {
        let series = |value: f64| Series::new(vec![value; 3]);
        let (decode, prefill) = (series(decode), series(prefill));
        Figures {
            subject,
            decode,
            prefill,
            first_ms: series(1.0),
            prompt_tokens: (1, 1),
        }
    }

    fn node(numerics: Numerics, threads: u32) -> Subject {
        Subject::node(numerics, Some(threads))
    }

    fn peer(threads: u32) -> Subject {
        Subject::LlamaServer {
            threads: Some(threads),
        }
    }

    fn marks(bars: &[Bar]) -> Vec<(String, &'static str)> {
        bars.iter()
            .map(|bar| (format!("{:.2}", bar.ratio.median()), bar.mark()))
            .collect()
    }

    #[test]
    fn the_best_threads_of_each_are_compared() {
        let figures = [
            figures(node(Numerics::Throughput, 1), 70.0, 500.0),
            figures(node(Numerics::Throughput, 2), 94.0, 960.0),
            figures(peer(1), 100.0, 600.0),
            figures(peer(2), 90.0, 1000.0),
            figures(node(Numerics::Exact, 1), 60.0, 300.0),
        ];
        let got = marks(&single(&figures));
        let expected = [
            ("0.94", "**missed**"),
            ("0.96", "met"),
            ("0.60", "–"),
            ("0.30", "–"),
        ];
        assert_eq!(got, expected.map(|(ratio, mark)| (ratio.to_owned(), mark)));
    }

    #[test]
    fn a_ring_is_held_against_the_node_of_its_group() {
        let ring = |remote| Subject::Myzel {
            numerics: Numerics::Exact,
            threads: Some(1),
            remote,
        };
        let group = [
            figures(node(Numerics::Exact, 1), 100.0, 100.0),
            figures(ring(1), 90.0, 89.0),
            figures(ring(2), 50.0, 50.0),
        ];
        let got = marks(&rings(&group));
        let expected = [
            ("0.90", "met"),
            ("0.89", "**missed**"),
            ("0.50", "–"),
            ("0.50", "–"),
        ];
        assert_eq!(got, expected.map(|(ratio, mark)| (ratio.to_owned(), mark)));
        assert!(rings(&[]).is_empty());
    }

    #[test]
    fn memory_is_compared_at_the_best_threads_and_has_an_upper_bar() {
        let speeds = [
            figures(node(Numerics::Throughput, 1), 1.0, 1.0),
            figures(peer(2), 1.0, 1.0),
        ];
        let sized = |proportional, resident| Memory {
            proportional,
            resident,
        };
        let sizes = [
            (node(Numerics::Throughput, 1), sized(115, 116)),
            (peer(1), sized(1, 1)),
            (peer(2), sized(100, 100)),
        ];
        let got = marks(&memory(&speeds, &sizes));
        let expected = [("1.15", "met"), ("1.16", "**missed**")];
        assert_eq!(got, expected.map(|(ratio, mark)| (ratio.to_owned(), mark)));
    }

    #[test]
    fn the_table_shows_both_sides_ratio_bar_and_mark() {
        let text = table(&single(&[
            figures(node(Numerics::Throughput, 1), 95.0, 1.0),
            figures(peer(2), 100.0, 1.0),
        ]));
        let row = text.lines().nth(2).unwrap();
        for cell in [
            "95/s, 1 thread ",
            "100/s, 2 threads",
            "0.95 (0.95–0.95)",
            "≥ 0.95",
            "| met",
        ] {
            assert!(row.contains(cell), "{cell} in {row}");
        }
    }
}
