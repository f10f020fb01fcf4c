//! Sections that compare something else than speed between servers.

use super::super::agreement::{Agreement, Apart};
use super::super::overhead::Overhead;
use crate::rig::stats::Series;
use crate::rig::table::Table;

/// Microseconds that an answer of one token may take beyond the engine, at most.
const REQUEST_US_MAX: f64 = 1000.0;
/// The same for every further token.
const TOKEN_US_MAX: f64 = 50.0;

pub(super) const AGREEMENT: &str = "\
Fifty questions to every server, each answered with at most 32 tokens, always the most probable one, with the log \
probabilities of the five most probable. Tokens are compared up to the first that differs, since from there on the \
servers compute different things. The columns after them are the largest differences in nats: of the chosen tokens, of \
those that both have among their five, and, where the servers chose differently, by how much the second preferred its own \
choice. Throughput mode computes as llama-server does, and a ring as one node in exact mode; within 0.01 is what is \
promised of both. Exact mode rounds in another order, which in a model with weights of 4 bits moves probabilities: it is \
shown beside how far llama-server moves from itself without flash attention.";

pub(super) const OVERHEAD: &str = "\
A streamed chat answer over HTTP beside the same conversation given to an engine-host of the same binary directly, in turn, \
with a tiny random model: the engine-host makes the prompt and computes. Connection, reading and checking the request, \
admission, events and the client's own reading come on top. Microseconds; the median counts.";

/// How far answers are the peer's.
pub(super) fn agreement(found: &[Agreement]) -> String {
    let mut table = Table::new(&[
        "servers",
        "same text",
        "tokens",
        "chosen",
        "five",
        "near tie",
        "",
    ]);
    for Agreement {
        ours,
        theirs,
        asked,
        same,
        tokens,
        apart,
        promised,
    } in found
    {
        let Apart {
            chosen,
            top,
            margin,
        } = apart;
        table.row([
            format!("{ours} / {theirs}"),
            format!("{same} of {asked}"),
            tokens.to_string(),
            format!("{chosen:.3}"),
            format!("{top:.3}"),
            format!("{margin:.3}"),
            promised
                .then(|| mark(apart.is_within()))
                .unwrap_or_else(|| "–".to_owned()),
        ]);
    }
    table.to_string()
}

/// What HTTP adds, against its bars.
pub(super) fn overhead(found: &Overhead) -> String {
    let mut table = Table::new(&["what", "µs", "bar", ""]);
    let mut row = |what: &str, series: &Series, most: Option<f64>| {
        let limit = most.map_or_else(|| "–".to_owned(), |most| format!("≤ {most}"));
        let verdict = most.map(|most| mark(series.median() <= most));
        table.row([
            what.to_owned(),
            series.to_string(),
            limit,
            verdict.unwrap_or_else(|| "–".to_owned()),
        ]);
    };
    row(
        "beyond the engine: an answer of one token",
        &found.request_us,
        Some(REQUEST_US_MAX),
    );
    row(
        "beyond the engine: each further token",
        &found.token_us,
        Some(TOKEN_US_MAX),
    );
    row(
        "the engine itself: each further token",
        &found.engine_us,
        None,
    );
    table.to_string()
}

fn mark(is_met: bool) -> String {
    if is_met { "met" } else { "**missed**" }.to_owned()
}

#[cfg(test)]
mod tests {
    use proto::model::Numerics;

    use super::super::super::agreement::{TOKENS, TOLERANCE};
    use super::super::super::subject::Subject;
    use super::*;

    #[test]
    fn the_text_names_the_tolerance_that_decides() {
        assert!(AGREEMENT.contains(&format!("within {TOLERANCE} is")));
        assert!(AGREEMENT.contains(&format!("at most {TOKENS} tokens")));
    }

    #[test]
    fn a_difference_beyond_the_tolerance_is_marked() {
        let of = |margin| Agreement {
            ours: Subject::node(Numerics::Exact, None),
            theirs: Subject::llama_server(None),
            asked: 50,
            same: 49,
            tokens: 1590,
            apart: Apart {
                chosen: 0.001,
                top: 0.002,
                margin,
            },
            promised: true,
        };
        let shown = Agreement {
            promised: false,
            ..of(0.2)
        };
        let table = agreement(&[of(0.005), of(0.2), shown]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(
            rows[2].contains("0.200") && !rows[2].contains("missed"),
            "{table}"
        );
        assert!(
            rows[0].contains("49 of 50") && rows[0].contains("| met"),
            "{table}"
        );
        assert!(
            rows[1].contains("0.200") && rows[1].contains("**missed**"),
            "{table}"
        );
    }

    #[test]
    fn what_http_adds_has_bars() {
        let series = |value: f64| Series::new(vec![value; 3]);
        let table = overhead(&Overhead {
            request_us: series(900.0),
            token_us: series(51.0),
            engine_us: series(200.0),
        });
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(
            rows[0].contains("≤ 1000") && rows[0].contains("| met"),
            "{table}"
        );
        assert!(
            rows[1].contains("≤ 50") && rows[1].contains("**missed**"),
            "{table}"
        );
    }
}
