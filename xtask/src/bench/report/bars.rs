//! What the project promises of its speed and size, and whether a run keeps it.

use proto::model::Numerics;

use super::super::many::Burst;
use super::super::rounds::Figures;
use super::super::subject::{Kind, Subject};
use crate::rig::MIB;
use crate::rig::memory::Memory;
use crate::rig::stats::Series;
use crate::rig::table::Table;

/// A single node's rates over llama-server's, at least, with one request or many at once.
const SINGLE_MIN: f64 = 1.0;
/// A single node's time to the first token over llama-server's, at most.
const FIRST_MAX: f64 = 1.0;
/// How many streams at once make the total rate count.
const MANY: u32 = 4;
/// At how many streams the time to the first token has a bar, and rings beside RPC.
const STREAMS: u32 = 8;
/// A ring's rates over those of a single node of ours, at least.
const RING_MIN: f64 = 0.9;
/// A ring's total rate over that of llama.cpp's RPC, at least.
const RPC_MIN: f64 = 1.5;
/// Beside a busy core: decode rate over llama-server's, at least.
const BESIDE_MIN: f64 = 2.0;
/// A single node's memory over llama-server's, at most.
const MEMORY_MAX: f64 = 1.1;

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

impl Limit {
    /// The same, or none where `is` does not hold.
    fn only_if(self, is: bool) -> Self {
        if is { self } else { Self::None }
    }
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

/// Something that was measured of `T`.
#[derive(Debug, Clone, Copy)]
struct Quantity<T> {
    name: &'static str,
    unit: &'static str,
    of: fn(&T) -> &Series,
    /// Whether more is better.
    more: bool,
}

const DECODE: Quantity<Figures> = Quantity {
    name: "decode",
    unit: "/s",
    of: |figures| &figures.decode,
    more: true,
};
const PREFILL: Quantity<Figures> = Quantity {
    name: "prefill",
    unit: "/s",
    of: |figures| &figures.prefill,
    more: true,
};
const FIRST: Quantity<Figures> = Quantity {
    name: "first token",
    unit: " ms",
    of: |figures| &figures.first_ms,
    more: false,
};
const TOTAL: Quantity<Burst> = Quantity {
    name: "total",
    unit: "/s",
    of: |burst| &burst.total,
    more: true,
};
const FIRST_OF_MANY: Quantity<Burst> = Quantity {
    name: "first token",
    unit: " ms",
    of: |burst| &burst.first_ms,
    more: false,
};

/// Whatever was measured of a subject.
trait Measured {
    fn subject(&self) -> Subject;
}

impl Measured for Figures {
    fn subject(&self) -> Subject {
        self.subject
    }
}

impl Measured for Burst {
    fn subject(&self) -> Subject {
        self.subject
    }
}

impl<T: Measured> Quantity<T> {
    /// The best of `measured` that `is` holds for.
    fn best<'a>(&self, measured: &'a [T], is: impl Fn(&Subject) -> bool) -> Option<&'a T> {
        let value = |one: &T| {
            let median = (self.of)(one).median();
            if self.more { median } else { -median }
        };
        let candidates = measured.iter().filter(|one| is(&one.subject()));
        candidates.max_by(|a, b| value(a).total_cmp(&value(b)))
    }

    fn bar(&self, what: &str, ours: &T, theirs: &T, limit: Limit) -> Bar {
        let side = |one: &T| {
            let threads = one.subject().threads();
            let plural = if threads == "1" { "" } else { "s" };
            let median = (self.of)(one).median();
            format!("{median:.0}{}, {threads} thread{plural}", self.unit)
        };
        Bar {
            what: format!("{}: {what}", self.name),
            ours: side(ours),
            theirs: side(theirs),
            ratio: (self.of)(ours).over((self.of)(theirs)),
            limit,
        }
    }

    /// The best of ours in `mode` over the best of the peer's; nothing if one of them was not measured.
    fn against_peer(
        &self,
        measured: &[T],
        mode: Numerics,
        words: &str,
        limit: Limit,
    ) -> Option<Bar> {
        let ours = self.best(measured, |subject| is_ours(subject, mode))?;
        let theirs = self.best(measured, |subject| !subject.is_ours())?;
        let (us, them) = (ours.subject(), theirs.subject());
        Some(self.bar(&format!("{us} / {them}{words}"), ours, theirs, limit))
    }
}

fn is_ours(subject: &Subject, mode: Numerics) -> bool {
    matches!(subject.kind, Kind::Myzel { numerics, .. } if numerics == mode)
}

/// The modes, and whether they have bars against the peer: exact mode is published beside.
const MODES: [(Numerics, bool); 2] = [(Numerics::Throughput, true), (Numerics::Exact, false)];

/// Both modes against the peer, each at its best threads.
pub(super) fn single(figures: &[Figures]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (mode, has_bar) in MODES {
        let (least, most) = (Limit::AtLeast(SINGLE_MIN), Limit::AtMost(FIRST_MAX));
        for (quantity, limit) in [(DECODE, least), (PREFILL, least), (FIRST, most)] {
            bars.extend(quantity.against_peer(figures, mode, "", limit.only_if(has_bar)));
        }
    }
    bars
}

/// The same at so many streams as the group was measured with.
pub(super) fn streams(group: &[Burst]) -> Vec<Bar> {
    let Some(streams) = group.first().map(|burst| burst.subject.slots) else {
        return Vec::new();
    };
    let words = format!(", {streams} at once");
    let mut bars = Vec::new();
    for (mode, has_bar) in MODES {
        let total = Limit::AtLeast(SINGLE_MIN).only_if(has_bar && streams >= MANY);
        let first = Limit::AtMost(FIRST_MAX).only_if(has_bar && streams == STREAMS);
        bars.extend(TOTAL.against_peer(group, mode, &words, total));
        bars.extend(FIRST_OF_MANY.against_peer(group, mode, &words, first));
    }
    bars
}

/// Our ring against llama.cpp's RPC with as many workers: at as many threads, and each at its best ones.
pub(super) fn rpc(group: &[Burst]) -> Vec<Bar> {
    let Some(streams) = group.first().map(|burst| burst.subject.slots) else {
        return Vec::new();
    };
    let words = format!(", {streams} at once");
    let limit = Limit::AtLeast(RPC_MIN).only_if(streams == STREAMS);
    let (exact, none) = (Numerics::Exact, Limit::None);
    let theirs = |threads| {
        let same = |burst: &&Burst| !burst.subject.is_ours() && burst.subject.threads == threads;
        group.iter().find(same)
    };
    let ours = group.iter().filter(|burst| burst.subject.is_ours());
    let mut bars: Vec<Bar> = ours
        .filter_map(|ours| {
            let (subject, peer) = (&ours.subject, theirs(ours.subject.threads)?);
            let what = format!("{subject} / {}{words}, as many threads", peer.subject);
            Some(TOTAL.bar(&what, ours, peer, limit))
        })
        .collect();
    let words = format!("{words}, best threads");
    bars.extend(TOTAL.against_peer(group, exact, &words, none));
    bars.extend(FIRST_OF_MANY.against_peer(group, exact, &words, none));
    bars
}

/// Every ring of a group against the single node that is its first. The bar is on rings of one remote stage.
pub(super) fn rings(group: &[Figures]) -> Vec<Bar> {
    let Some((node, rings)) = group.split_first() else {
        return Vec::new();
    };
    let mut bars = Vec::new();
    for ring in rings {
        for quantity in [DECODE, PREFILL] {
            let remote = ring.subject.others();
            let limit = Limit::AtLeast(RING_MIN).only_if(remote == 1);
            let what = format!("ring over {remote} remote / single node, exact");
            bars.push(quantity.bar(&what, ring, node, limit));
        }
    }
    bars
}

/// Both as they choose their threads, one core busy with something else.
pub(super) fn beside(figures: &[Figures]) -> Vec<Bar> {
    let limit = Limit::AtLeast(BESIDE_MIN);
    let bar = DECODE.against_peer(figures, Numerics::Throughput, ", beside a busy core", limit);
    bar.into_iter().collect()
}

/// Throughput mode's memory against the peer's, both at the threads at which they decode best.
pub(super) fn memory(figures: &[Figures], memory: &[(Subject, Memory)]) -> Vec<Bar> {
    let of = |figures: Option<&Figures>| {
        let subject = figures?.subject;
        memory
            .iter()
            .find(|(measured, _)| *measured == subject)
            .map(|(_, memory)| *memory)
    };
    let ours = of(DECODE.best(figures, |subject| is_ours(subject, Numerics::Throughput)));
    let theirs = of(DECODE.best(figures, |subject| !subject.is_ours()));
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return Vec::new();
    };
    let bar = |what: &str, ours: u64, theirs: u64| Bar {
        what: format!("memory ({what}): myzel, throughput / llama-server"),
        ours: format!("{:.0} MiB", ours as f64 / MIB),
        theirs: format!("{:.0} MiB", theirs as f64 / MIB),
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
    use super::super::super::subject::Cache;
    use super::*;

    fn figures(subject: Subject, decode: f64, prefill: f64, first_ms: f64) -> Figures {
        let series = |value: f64| Series::new(vec![value; 3]);
        Figures {
            subject,
            decode: series(decode),
            prefill: series(prefill),
            first_ms: series(first_ms),
            prompt_tokens: (1, 1),
        }
    }

    fn burst(subject: Subject, total: f64, first_ms: f64) -> Burst {
        let series = |value: f64| Series::new(vec![value; 3]);
        Burst {
            subject,
            total: series(total),
            first_ms: series(first_ms),
            answered: 1.0,
            prompt_tokens: (1, 1),
        }
    }

    fn node(numerics: Numerics, threads: u32) -> Subject {
        Subject::node(numerics, Some(threads))
    }

    fn peer(threads: u32) -> Subject {
        Subject::llama_server(Some(threads))
    }

    #[track_caller]
    fn check(bars: &[Bar], expected: &[(&str, &str)]) {
        let marks: Vec<(String, &str)> = bars
            .iter()
            .map(|bar| (format!("{:.2}", bar.ratio.median()), bar.mark()))
            .collect();
        let expected: Vec<(String, &str)> = expected
            .iter()
            .map(|(ratio, mark)| ((*ratio).to_owned(), *mark))
            .collect();
        assert_eq!(marks, expected, "{bars:?}");
    }

    #[test]
    fn the_best_threads_of_each_are_compared() {
        let figures = [
            figures(node(Numerics::Throughput, 1), 70.0, 500.0, 90.0),
            figures(node(Numerics::Throughput, 2), 99.0, 1000.0, 110.0),
            figures(peer(1), 100.0, 600.0, 100.0),
            figures(peer(2), 90.0, 1000.0, 120.0),
            figures(node(Numerics::Exact, 1), 60.0, 300.0, 150.0),
        ];
        let expected = [
            ("0.99", "**missed**"),
            ("1.00", "met"),
            ("0.90", "met"),
            ("0.60", "–"),
            ("0.30", "–"),
            ("1.50", "–"),
        ];
        check(&single(&figures), &expected);
    }

    #[test]
    fn totals_count_from_four_streams_and_the_first_token_at_eight() {
        let group = |streams: u32| {
            [
                burst(node(Numerics::Throughput, 1), 99.0, 101.0),
                burst(node(Numerics::Throughput, 2), 80.0, 130.0),
                burst(peer(2), 100.0, 100.0),
                burst(node(Numerics::Exact, 2), 50.0, 200.0),
            ]
            .map(|one| Burst {
                subject: one.subject.with_slots(streams),
                ..one
            })
        };
        let exact = [("0.50", "–"), ("2.00", "–")];
        for (streams, total, first) in [
            (1, "–", "–"),
            (4, "**missed**", "–"),
            (8, "**missed**", "**missed**"),
            (16, "**missed**", "–"),
        ] {
            let expected = [("0.99", total), ("1.01", first), exact[0], exact[1]];
            check(&streams_of(&group(streams)), &expected);
        }
        let better = group(8).map(|mut one| {
            if one.subject.is_ours() {
                one.total = Series::new(vec![100.0; 3]);
                one.first_ms = Series::new(vec![100.0; 3]);
            }
            one
        });
        let met = [
            ("1.00", "met"),
            ("1.00", "met"),
            ("1.00", "–"),
            ("1.00", "–"),
        ];
        check(&streams_of(&better), &met);
        assert!(streams_of(&[]).is_empty());
    }

    fn streams_of(group: &[Burst]) -> Vec<Bar> {
        super::streams(group)
    }

    #[test]
    fn rings_are_held_against_workers_at_eight_streams() {
        let group = |ours: f64, streams: u32| {
            let ring = Subject::ring(Numerics::Exact, Some(1), 2).with_slots(streams);
            let workers =
                |threads| Subject::llama_rpc(Cache::Parted, Some(threads), 2).with_slots(streams);
            [
                burst(ring, ours, 10.0),
                burst(workers(1), 100.0, 20.0),
                burst(workers(2), 90.0, 40.0),
            ]
        };
        let best = [("1.50", "–"), ("0.50", "–")];
        check(
            &rpc(&group(150.0, 8)),
            &[&[("1.50", "met")], &best[..]].concat(),
        );
        let (slower, first) = (("1.49", "–"), ("0.50", "–"));
        let missed = ("1.49", "**missed**");
        check(&rpc(&group(149.0, 8)), &[missed, slower, first]);
        check(&rpc(&group(149.0, 1)), &[slower, slower, first]);
        assert!(rpc(&[]).is_empty());
        let what = &rpc(&group(150.0, 8))[0].what;
        assert_eq!(
            what,
            "total: myzel, exact, ring over 2 remote / llama-server, RPC, 2 workers, 8 at once, as many threads"
        );
    }

    #[test]
    fn a_ring_is_held_against_the_node_of_its_group() {
        let ring = |remote| Subject::ring(Numerics::Exact, Some(1), remote);
        let group = [
            figures(ring(0), 100.0, 100.0, 1.0),
            figures(ring(1), 90.0, 89.0, 1.0),
            figures(ring(2), 50.0, 50.0, 1.0),
        ];
        let expected = [
            ("0.90", "met"),
            ("0.89", "**missed**"),
            ("0.50", "–"),
            ("0.50", "–"),
        ];
        check(&rings(&group), &expected);
        assert!(rings(&[]).is_empty());
    }

    #[test]
    fn beside_a_busy_core_twice_the_rate_is_asked_for() {
        let with = |ours: f64| {
            [
                figures(Subject::node(Numerics::Throughput, None), ours, 1.0, 1.0),
                figures(Subject::llama_server(None), 20.0, 1.0, 1.0),
            ]
        };
        check(&beside(&with(40.0)), &[("2.00", "met")]);
        check(&beside(&with(39.0)), &[("1.95", "**missed**")]);
        assert!(beside(&[]).is_empty());
    }

    #[test]
    fn memory_is_compared_at_the_best_threads_and_has_an_upper_bar() {
        let speeds = [
            figures(node(Numerics::Throughput, 1), 1.0, 1.0, 1.0),
            figures(peer(2), 1.0, 1.0, 1.0),
        ];
        let sized = |proportional, resident| Memory {
            proportional,
            resident,
        };
        let sizes = [
            (node(Numerics::Throughput, 1), sized(110, 111)),
            (peer(1), sized(1, 1)),
            (peer(2), sized(100, 100)),
        ];
        check(
            &memory(&speeds, &sizes),
            &[("1.10", "met"), ("1.11", "**missed**")],
        );
    }

    #[test]
    fn the_table_shows_both_sides_ratio_bar_and_mark() {
        let text = table(&single(&[
            figures(node(Numerics::Throughput, 1), 100.0, 1.0, 30.0),
            figures(peer(2), 80.0, 1.0, 20.0),
        ]));
        let rows: Vec<&str> = text.lines().skip(2).collect();
        for (row, cells) in [
            (
                rows[0],
                [
                    "100/s, 1 thread ",
                    "80/s, 2 threads",
                    "1.25 (1.25–1.25)",
                    "≥ 1",
                    "| met",
                ],
            ),
            (
                rows[2],
                [
                    "30 ms, 1 thread ",
                    "20 ms, 2 threads",
                    "1.50 (1.50–1.50)",
                    "≤ 1",
                    "| **missed**",
                ],
            ),
        ] {
            for cell in cells {
                assert!(row.contains(cell), "{cell} in {row}");
            }
        }
    }
}
