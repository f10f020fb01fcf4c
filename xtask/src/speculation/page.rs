//! The page that a run writes: pairs of answers in, Markdown out.

use super::questions::Kind;
use super::{Pair, RTT_MS, SPLIT, TOKENS, TOKENS_MIN};
use crate::rig::stats::Series;
use crate::rig::table::Table;

/// How much faster answers are that copy, at least, in the median.
const COPY_MIN: f64 = 1.5;
/// How fast answers of any kind are, at least, in the median.
const ANY_MIN: f64 = 0.95;

/// What a run brought.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) pairs: Vec<Pair>,
    /// Tokens that were guessed, and how many of them were right.
    pub(super) guessed: (u64, u64),
}

impl Figures {
    fn equal(&self) -> usize {
        self.pairs
            .iter()
            .filter(|pair| pair.differs.is_none())
            .count()
    }

    /// By how much answers of a kind were faster; `None` when all were short.
    fn ratios(&self, kind: Kind) -> Option<Series> {
        let of_kind = self.pairs.iter().filter(|pair| pair.kind == kind);
        let ratios: Vec<f64> = of_kind.filter_map(Pair::ratio).collect();
        (!ratios.is_empty()).then(|| Series::new(ratios))
    }

    /// Whether all answers are equal, and guesses are worth what they must be.
    pub(super) fn are_good(&self) -> bool {
        let quick = |kind: &Kind| {
            let ratios = self.ratios(*kind);
            ratios.is_none_or(|ratios| ratios.median() >= bar(*kind))
        };
        self.equal() == self.pairs.len() && Kind::ALL.iter().all(quick)
    }

    /// The whole page.
    pub(super) fn page(&self, opening: &str) -> String {
        let (equal, all) = (self.equal(), self.pairs.len());
        let (guessed, right) = self.guessed;
        let verdict = verdict(equal == all);
        format!(
            "{opening}\n{equal} of {all} answers are equal with guesses and without: {verdict}. {guessed} tokens were guessed, of which \
             {right} were right.\n\n{table}\n{notes}",
            table = self.table(),
            notes = notes()
        )
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "asked to",
            "answers",
            "ms a token",
            "without guesses",
            "times as fast",
            "must be",
            "",
        ]);
        for kind in Kind::ALL {
            let of_kind = self.pairs.iter().filter(|pair| pair.kind == kind);
            let times: Vec<(f64, f64)> = of_kind.filter_map(|pair| pair.token_ms).collect();
            let Some(ratios) = self.ratios(kind) else {
                continue;
            };
            let (guessed, plain): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
            table.row([
                kind.words().to_owned(),
                times.len().to_string(),
                format!("{:.1}", Series::new(guessed).median()),
                format!("{:.1}", Series::new(plain).median()),
                format!("{ratios:.2}"),
                format!("≥ {}", bar(kind)),
                verdict(ratios.median() >= bar(kind)).to_owned(),
            ]);
        }
        table
    }
}

fn bar(kind: Kind) -> f64 {
    match kind {
        Kind::Copy | Kind::Change => COPY_MIN,
        Kind::Tell | Kind::Answer => ANY_MIN,
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

fn notes() -> String {
    format!(
        "Two coordinators share {SPLIT} remote stages; from each node to another and back it is {RTT_MS} ms, confirmed by packets of our own \
         before. One guesses up to eight tokens ahead (look-up in the text so far), the other none. Both are asked every question, one after \
         the other, the first one in turn; half of the answers are drawn with a seed. An answer is equal when every token's bytes and the last bit of \
         its probability are the same. Milliseconds are of a token behind the first; medians of answers of at least {TOKENS_MIN} tokens, of at most \
         {TOKENS}. *Times as fast* is by question, with the least and the greatest in parentheses. The model is the starter in exact mode, one \
         request at a time: while a ring computes for several, nothing is guessed.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(kind: Kind, guessed: f64, differs: Option<&str>) -> Pair {
        Pair {
            kind,
            differs: differs.map(str::to_owned),
            token_ms: Some((guessed, 90.0)),
        }
    }

    fn figures(pairs: Vec<Pair>) -> Figures {
        Figures {
            pairs,
            guessed: (30, 20),
        }
    }

    #[test]
    fn a_difference_or_a_slow_kind_is_a_miss() {
        let good = figures(vec![
            pair(Kind::Copy, 45.0, None),
            pair(Kind::Tell, 91.0, None),
        ]);
        assert!(good.are_good());
        let page = good.page("# Speculation\n");
        assert!(
            page.contains("2 of 2 answers are equal") && page.contains("2.00"),
            "{page}"
        );
        for bad in [
            vec![pair(Kind::Copy, 45.0, Some("token 3"))],
            vec![pair(Kind::Copy, 65.0, None)],
            vec![pair(Kind::Answer, 96.0, None)],
        ] {
            let bad = figures(bad);
            assert!(!bad.are_good());
            assert!(bad.page("").contains("**missed**"));
        }
    }
}
