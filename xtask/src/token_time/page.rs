//! The page that a run writes: figures in, Markdown out.

use super::forecast::{Forecasts, OFF_MAX};
use super::ring::Figures;
use super::{HOP_MS_MAX, LAP_SHARE_MAX};
use crate::rig::table::Table;

/// The whole page.
pub(super) fn page(opening: &str, figures: &[Figures], forecasts: &[Forecasts]) -> String {
    format!(
        "{opening}\nMilliseconds of a token behind the first, as a client of the coordinator sees it: the median of the \
         rounds, with the least and the greatest in parentheses. Computing is a token of the same ring at no distance, \
         in the same round, so it holds what hops cost beside the distance. A token may take computing, \
         {LAP_SHARE_MAX} laps, and {HOP_MS_MAX} ms a hop.\n\n{}\n{METHOD}\n\
         ## Forecasts\n\n\
         What `myzel plan` foretold, and what a token took then. A forecast may be off by {:.0} %.\n\n{}\n{FORECASTS}",
        table(figures),
        OFF_MAX * 100.0,
        forecast_table(forecasts),
    )
}

const METHOD: &str = "\
Each node has a network namespace and one thread; the links between them are this repository's own (crate `lab`). Before \
nodes use a distance, packets of ours measure it on every hop, and the run fails if it is not as asked; `lap` is what \
was asked and, in parentheses, what these packets took. The distance is changed under the running nodes, and \
each round asks at every distance in turn, after a short answer in which the connections learn the new one. The \
model is the starter in exact mode, answers have 64 tokens. `alone` is the whole model on one node, asked \
in the same rounds.
";

const FORECASTS: &str = "\
Here no node has memory for more than its share of the model with caches for 16 requests of 2,048 positions, so that the \
planner has to form the ring. When a \
distance is set and confirmed, nodes have a minute to learn it; then, in every round, there is a short answer, 12 s later the \
coordinator is asked for its plan, and then for an answer of 32 tokens. At no distance packets pass the same emulator without delay; over loopback all \
nodes are on one machine, and nothing is between them.
";

fn forecast_table(all: &[Forecasts]) -> String {
    let mut table = Table::new(&[
        "remote stages",
        "there and back",
        "foretold",
        "token",
        "foretold / token",
        "",
    ]);
    for forecasts in all {
        for at in &forecasts.at {
            table.row([
                forecasts.split.to_string(),
                at.rtt_ms
                    .map_or_else(|| "loopback".to_owned(), |rtt_ms| rtt_ms.to_string()),
                format!("{:.1}", at.foretold_ms),
                format!("{:.1}", at.token_ms),
                format!("{:.2}", at.ratio()),
                if at.holds() { "met" } else { "**missed**" }.to_owned(),
            ]);
        }
    }
    table.to_string()
}

fn table(all: &[Figures]) -> String {
    let mut table = Table::new(&[
        "remote stages",
        "there and back",
        "lap",
        "alone",
        "computing",
        "token",
        "beyond computing",
        "limit",
        "",
    ]);
    for figures in all {
        for far in &figures.far {
            let verdict = if figures.keeps(far) {
                "met"
            } else {
                "**missed**"
            };
            table.row([
                figures.split.to_string(),
                far.rtt_ms.to_string(),
                format!("{:.0} ({:.1})", figures.lap_ms(far), far.lap_ms),
                format!("{:.1}", figures.alone_ms),
                format!("{:.1}", figures.compute_ms),
                format!("{:.1}", far.token_ms),
                format!("{:.1}", figures.beyond_ms(far)),
                format!("≤ {:.1}", figures.limit_ms(far)),
                verdict.to_owned(),
            ]);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::forecast::tests::forecasts;
    use super::super::ring::tests::figures;
    use super::*;

    #[test]
    fn each_distance_has_a_row_with_its_verdict() {
        let page = page("# Token time\n", &[figures(41.0, 190.0)], &[forecasts()]);
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| 2 "))
            .collect();
        assert_eq!(rows.len(), 4, "{page}");
        for part in [" 30 (30.2) ", " 31.0 (31.0–31.0) ", " ≤ 37.5 ", " met "] {
            assert!(rows[0].contains(part), "{part:?} is not in {}", rows[0]);
        }
        assert!(rows[1].contains(" **missed** "), "{}", rows[1]);
        for part in [
            " loopback ",
            " 12.0 (12.0–12.0) ",
            " 1.20 (0.60–1.20) ",
            " met ",
        ] {
            assert!(rows[2].contains(part), "{part:?} is not in {}", rows[2]);
        }
        assert!(rows[3].contains(" **missed** "), "{}", rows[3]);
    }
}
