//! The page that a run writes: figures in, Markdown out.

use super::losses::{self, Loss, Outcome};
use super::ring::Who;
use super::{Cell, Figures, Standing};
use crate::rig::MIB;
use crate::rig::table::Table;

/// Where the bars are: milliseconds from a machine to another and back, and remote stages.
const BAR_AT: (u32, u32) = (50, 2);
/// Streams, and how many times as fast as the peer ours must be there.
const BARS: [(usize, f64); 2] = [(1, 2.0), (8, 3.0)];

/// Whether rings of ours are as fast as they must be, and lose nothing.
pub(super) fn is_good(figures: &Figures) -> bool {
    let quick = BARS.iter().all(|(streams, bar)| {
        let ratio = ratio(&figures.cells, BAR_AT, *streams);
        ratio.is_none_or(|ratio| ratio >= *bar)
    });
    let mut ours = figures.losses.iter().filter(|(who, _)| *who == Who::Myzel);
    quick && ours.all(|(_, outcome)| outcome.is_whole)
}

/// How many times as fast as the peer ours decodes.
fn ratio(cells: &[Cell], (rtt_ms, split): (u32, u32), streams: usize) -> Option<f64> {
    let decode = |who| {
        let at = |cell: &&Cell| {
            (cell.who, cell.split, cell.rtt_ms, cell.streams) == (who, split, rtt_ms, streams)
        };
        cells.iter().find(at).map(|cell| cell.decode)
    };
    Some(decode(Who::Myzel)? / decode(Who::Llama)?)
}

/// The whole page.
pub(super) fn page(opening: &str, figures: &Figures) -> String {
    format!(
        "{opening}\n![Tokens a second over distance](far.svg)\n\n## Bars\n\n{bars}\n## Pace\n\n{pace}\n## When a machine is taken away\n\n\
         {losses}\n{about_losses}\n## Memory and threads\n\n{standings}\n{ABOUT}",
        bars = bars(&figures.cells),
        pace = pace(&figures.cells),
        losses = losses_table(&figures.losses),
        about_losses = about_losses(),
        standings = standings(&figures.standings),
    )
}

fn bars(cells: &[Cell]) -> Table {
    let mut table = Table::new(&[
        "there and back, ms",
        "remote",
        "streams",
        "times as fast",
        "must be",
        "",
    ]);
    for (streams, bar) in BARS {
        if let Some(ratio) = ratio(cells, BAR_AT, streams) {
            table.row([
                BAR_AT.0.to_string(),
                BAR_AT.1.to_string(),
                streams.to_string(),
                format!("{ratio:.2}"),
                format!("≥ {bar}"),
                if ratio >= bar { "met" } else { "**missed**" }.to_owned(),
            ]);
        }
    }
    table
}

fn pace(cells: &[Cell]) -> Table {
    let mut table = Table::new(&[
        "remote",
        "there and back, ms",
        "streams",
        "who",
        "first token, ms",
        "tokens a second",
        "bytes a token",
        "times the peer's tokens",
    ]);
    let mut sorted = cells.to_vec();
    sorted.sort_by_key(|cell| (cell.split, cell.rtt_ms, cell.streams, cell.who));
    for cell in &sorted {
        let ratio = ratio(cells, (cell.rtt_ms, cell.split), cell.streams);
        let ratio = ratio.filter(|_| cell.who == Who::Myzel);
        table.row([
            cell.split.to_string(),
            cell.rtt_ms.to_string(),
            cell.streams.to_string(),
            cell.who.words().to_owned(),
            format!("{:.0}", cell.first_ms),
            format!("{:.1}", cell.decode),
            cell.token_bytes
                .map_or_else(String::new, |bytes| format!("{bytes:.0}")),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        ]);
    }
    table
}

fn losses_table(all: &[(Who, Outcome)]) -> Table {
    let mut table = Table::new(&[
        "a machine is",
        "who",
        "tokens that came",
        "reply",
        "longest pause, ms",
    ]);
    for loss in Loss::ALL {
        for (who, outcome) in all.iter().filter(|(_, outcome)| outcome.loss == loss) {
            table.row([
                loss.words().to_owned(),
                who.words().to_owned(),
                format!("{} of {}", outcome.tokens, losses::TOKENS),
                if outcome.is_whole {
                    "whole, the same tokens"
                } else {
                    "lost"
                }
                .to_owned(),
                outcome
                    .pause_ms
                    .map_or_else(|| "–".to_owned(), |pause| format!("{pause:.0}")),
            ]);
        }
    }
    table
}

fn about_losses() -> String {
    format!(
        "Over {} ms there and back, {} remote stages or workers, and a machine more that a ring of ours may use. All processes on one machine with \
         layers get SIGKILL or SIGSTOP, or its server gets SIGTERM, when {} tokens of a reply have come. A reply is whole when every token's bytes and \
         probability are those of the same reply before, undisturbed; one that has not ended a minute after it was asked for is lost.\n",
        losses::RTT_MS,
        losses::SPLIT,
        losses::AFTER
    )
}

fn standings(all: &[Standing]) -> Table {
    let mut table = Table::new(&[
        "remote",
        "who",
        "threads of each process",
        "memory of all, MiB",
    ]);
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|standing| (standing.split, standing.who));
    for standing in &sorted {
        table.row([
            standing.split.to_string(),
            standing.who.words().to_owned(),
            standing.threads.to_string(),
            format!("{:.0}", standing.memory_bytes as f64 / MIB),
        ]);
    }
    table
}

const ABOUT: &str = "Every machine has a network namespace; the links between all of them are of this repository (crate `lab`), with the delay that \
is said, confirmed by packets of our own, and no loss. The model is the starter. Ours runs in exact mode with its default flags, and guesses \
ahead while a single stream has the ring for itself; the peer with `--gpu-layers 99 --no-kv-unified`, so that its workers have the layers. For each, the \
number of threads is the better one of 1 and 2, by one stream at no distance. *Tokens a second* are of all streams together, each behind its first token; *first \
token* is the median over the streams; *bytes a token* is what one token more costs on all links, IP headers included. Each figure is of one run; no two \
answers of a run are computed from the same prompt's cache.\n";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::far) fn cells(ours: f64, theirs: f64) -> Vec<Cell> {
        let cell = |who, streams, decode| Cell {
            who,
            split: 2,
            rtt_ms: 50,
            streams,
            first_ms: 100.0,
            decode,
            token_bytes: None,
        };
        vec![
            cell(Who::Myzel, 1, ours),
            cell(Who::Llama, 1, theirs),
            cell(Who::Myzel, 8, 3.0 * ours),
            cell(Who::Llama, 8, 2.0 * theirs),
        ]
    }

    fn outcome(is_whole: bool) -> (Who, Outcome) {
        let outcome = Outcome {
            loss: Loss::Kill,
            tokens: 24,
            is_whole,
            pause_ms: None,
        };
        (Who::Myzel, outcome)
    }

    #[test]
    fn slow_rings_and_lost_replies_are_misses() {
        let figures = |cells, losses| Figures {
            cells,
            losses,
            ..Figures::default()
        };
        let good = figures(cells(10.0, 5.0), vec![outcome(true)]);
        assert!(is_good(&good));
        let page = page("# Far rings\n", &good);
        assert!(
            page.contains("2.00") && page.contains("3.00") && !page.contains("missed"),
            "{page}"
        );
        assert!(!is_good(&figures(cells(9.0, 5.0), vec![outcome(true)])));
        assert!(!is_good(&figures(cells(10.0, 5.0), vec![outcome(false)])));
    }
}
