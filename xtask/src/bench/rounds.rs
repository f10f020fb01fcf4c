//! Asking servers in turn.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::server::Server;
use super::subject::Subject;
use super::{ANSWER_TOKENS, prompts};
use crate::rig::ask::{Ask, Sample, ask};
use crate::rig::started::Started;
use crate::rig::stats::Series;

/// Rest between two requests, so that threads which still spin for more work have gone to sleep.
pub(super) const REST: Duration = Duration::from_millis(400);
/// The number of the long prompt of the first round; those below are for warming up.
const FIRST_LONG: u64 = 100;

/// What was measured of one subject, round by round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    /// What it is.
    pub(super) subject: Subject,
    /// Tokens a second behind the first.
    pub(super) decode: Series,
    /// Prompt tokens a second until the first token, with the long prompt.
    pub(super) prefill: Series,
    /// Milliseconds to the first token, with the short prompt.
    pub(super) first_ms: Series,
    /// Tokens of the short prompt and of the last long one.
    pub(super) prompt_tokens: (u32, u32),
}

/// The two requests of a round.
#[derive(Debug, Clone, Copy)]
struct Pair {
    short: Sample,
    long: Sample,
}

/// Warms every server up, then asks all of them in every round, each round beginning with another one.
///
/// # Errors
///
/// When a server fails, when two servers count another number of tokens, or when the run is interrupted.
pub(super) fn measure(
    started: &Started,
    servers: &[Server],
    rounds: usize,
) -> Result<Vec<Figures>> {
    for server in servers {
        pair(started, server, 0)?;
    }
    let mut samples: Vec<Vec<Pair>> = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            samples[at].push(pair(started, &servers[at], FIRST_LONG + round as u64)?);
        }
        let newest = samples.iter().filter_map(|of_server| of_server.last());
        same_work(&newest.copied().collect::<Vec<_>>())?;
    }
    Ok(servers
        .iter()
        .zip(samples)
        .map(|(server, pairs)| figures(server.subject, &pairs))
        .collect())
}

fn pair(started: &Started, server: &Server, number: u64) -> Result<Pair> {
    let put = |text: &str, tokens_max: u32| {
        started.pause(REST)?;
        let asked = ask(
            server.addr,
            &Ask {
                model: &server.model,
                text,
                tokens_max,
            },
        );
        started.check()?;
        asked.with_context(|| server.subject.to_string())
    };
    let short = put(prompts::SHORT, ANSWER_TOKENS)?;
    if short.answer_tokens != ANSWER_TOKENS {
        bail!(
            "{} answered with {} tokens, not {ANSWER_TOKENS}: rates of answers of other lengths do not compare",
            server.subject,
            short.answer_tokens
        );
    }
    Ok(Pair {
        short,
        long: put(&prompts::long(number), 1)?,
    })
}

/// Fails unless every server counted the same tokens.
fn same_work(pairs: &[Pair]) -> Result<()> {
    let tokens = |pair: &Pair| (pair.short.prompt_tokens, pair.long.prompt_tokens);
    let all: Vec<_> = pairs.iter().map(tokens).collect();
    if all.windows(2).any(|two| two[0] != two[1]) {
        bail!("the servers made different numbers of tokens of the same prompts: {all:?}");
    }
    Ok(())
}

fn figures(subject: Subject, pairs: &[Pair]) -> Figures {
    let series = |of: &dyn Fn(&Pair) -> f64| Series::new(pairs.iter().map(of).collect());
    let last = pairs.last().expect("there is at least one round");
    Figures {
        subject,
        decode: series(&|pair| pair.short.decode_rate().expect("answers have many tokens")),
        prefill: series(&|pair| pair.long.prefill_rate()),
        first_ms: series(&|pair| pair.short.first.as_secs_f64() * 1e3),
        prompt_tokens: (last.short.prompt_tokens, last.long.prompt_tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt_tokens: u32, answer_tokens: u32, first_ms: u64, last_ms: u64) -> Sample {
        let (first, last) = (
            Duration::from_millis(first_ms),
            Duration::from_millis(last_ms),
        );
        Sample {
            prompt_tokens,
            answer_tokens,
            first,
            last,
        }
    }

    #[test]
    fn figures_are_taken_from_the_right_request() {
        let pair = Pair {
            short: sample(20, 101, 50, 1050),
            long: sample(1000, 1, 2000, 2000),
        };
        let got = figures(Subject::llama_server(None), &[pair, pair]);
        assert_eq!(got.decode, Series::new(vec![100.0, 100.0]));
        assert_eq!(got.prefill, Series::new(vec![500.0, 500.0]));
        assert_eq!(got.first_ms, Series::new(vec![50.0, 50.0]));
        assert_eq!(got.prompt_tokens, (20, 1000));
    }

    #[test]
    fn different_counts_are_an_error_with_both() {
        let pair = |long| Pair {
            short: sample(20, 8, 1, 2),
            long: sample(long, 1, 1, 1),
        };
        assert!(same_work(&[pair(7), pair(7), pair(7)]).is_ok());
        let error = same_work(&[pair(7), pair(7), pair(8)])
            .unwrap_err()
            .to_string();
        assert!(error.contains('7') && error.contains('8'), "{error}");
    }
}
