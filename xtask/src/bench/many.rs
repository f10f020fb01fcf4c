//! Asking a server from many connections at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::rounds::REST;
use super::server::Server;
use super::subject::Subject;
use super::{ANSWER_TOKENS, prompts};
use crate::rig::ask::{Ask, Sample, ask};
use crate::rig::started::Started;
use crate::rig::stats::Series;

/// Tokens that came over tokens that were asked for, at least; below that the rates of two servers do not compare,
/// since answers that end early leave the others more room.
const ANSWERED_MIN: f64 = 0.9;
/// No two rounds have a prompt in common; more streams than this would.
const STREAMS_MAX: usize = 100;

/// What was measured of one subject, round by round.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Burst {
    /// What it is; asked over as many connections as it has slots.
    pub(super) subject: Subject,
    /// Tokens of all answers by the time from the first request to the last token.
    pub(super) total: Series,
    /// Milliseconds to the first token: the median over the streams of a round.
    pub(super) first_ms: Series,
    /// Tokens that came over tokens that were asked for, in all rounds.
    pub(super) answered: f64,
    /// Tokens of the shortest and of the longest prompt of the last round.
    pub(super) prompt_tokens: (u32, u32),
}

/// An answer, and when it was asked for after the first of its round.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stream {
    asked: Duration,
    sample: Sample,
}

/// Warms every server up, then asks one after the other in every round, each round beginning with another one.
///
/// # Errors
///
/// When a server fails, when two servers count another number of tokens, when answers end early, or when the run is
/// interrupted.
pub(super) fn measure(
    started: &Started,
    servers: &[Server],
    streams: usize,
    rounds: usize,
) -> Result<Vec<Burst>> {
    assert!(
        streams <= STREAMS_MAX,
        "the prompts of {streams} streams repeat"
    );
    for server in servers {
        burst(started, server, streams, 0)?;
    }
    let mut samples: Vec<Vec<Vec<Stream>>> = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            samples[at].push(burst(started, &servers[at], streams, round + 1)?);
        }
        let newest: Vec<_> = samples.iter().filter_map(|rounds| rounds.last()).collect();
        same_work(&newest)?;
    }
    servers
        .iter()
        .zip(samples)
        .map(|(server, rounds)| figures(server.subject, &rounds))
        .collect()
}

/// One round with one server; every stream has a connection, a thread and a prompt of its own.
fn burst(started: &Started, server: &Server, streams: usize, round: usize) -> Result<Vec<Stream>> {
    started.pause(REST)?;
    let begun = Instant::now();
    let answers: Vec<Result<Stream>> = thread::scope(|scope| {
        let stream = |number: usize| {
            let text = prompts::story((round * STREAMS_MAX + number) as u64);
            let what = Ask {
                model: &server.model,
                text: &text,
                tokens_max: ANSWER_TOKENS,
            };
            let asked = begun.elapsed();
            let sample = ask(server.addr, &what)?;
            Ok(Stream { asked, sample })
        };
        let threads: Vec<_> = (0..streams)
            .map(|number| scope.spawn(move || stream(number)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().expect("a stream does not panic")
        };
        threads.into_iter().map(join).collect()
    });
    started.check()?;
    answers
        .into_iter()
        .collect::<Result<_>>()
        .with_context(|| format!("{}, {streams} streams", server.subject))
}

/// Fails unless every server counted the same tokens of each prompt.
fn same_work(rounds: &[&Vec<Stream>]) -> Result<()> {
    let tokens = |round: &Vec<Stream>| -> Vec<u32> {
        round.iter().map(|one| one.sample.prompt_tokens).collect()
    };
    let all: Vec<_> = rounds.iter().map(|round| tokens(round)).collect();
    if all.windows(2).any(|two| two[0] != two[1]) {
        bail!("the servers made different numbers of tokens of the same prompts: {all:?}");
    }
    Ok(())
}

fn figures(subject: Subject, rounds: &[Vec<Stream>]) -> Result<Burst> {
    let series =
        |of: &dyn Fn(&[Stream]) -> f64| Series::new(rounds.iter().map(|one| of(one)).collect());
    let asked = rounds.iter().map(Vec::len).sum::<usize>() as f64 * f64::from(ANSWER_TOKENS);
    let answered = rounds.iter().map(|round| tokens(round)).sum::<f64>() / asked;
    if answered < ANSWERED_MIN {
        bail!(
            "{subject} ended its answers after {:.0} % of the tokens that were asked for; rates do not compare then",
            answered * 100.0
        );
    }
    let last = rounds.last().expect("there is at least one round");
    let prompts = || last.iter().map(|one| one.sample.prompt_tokens);
    Ok(Burst {
        subject,
        total: series(&|round| tokens(round) / wall(round).as_secs_f64()),
        first_ms: series(&first_ms),
        answered,
        prompt_tokens: (prompts().min().unwrap_or(0), prompts().max().unwrap_or(0)),
    })
}

fn tokens(round: &[Stream]) -> f64 {
    round
        .iter()
        .map(|one| f64::from(one.sample.answer_tokens))
        .sum()
}

/// From the first request to the last token of all.
fn wall(round: &[Stream]) -> Duration {
    let ends = round.iter().map(|one| one.asked + one.sample.last);
    let begun = round.iter().map(|one| one.asked).min().unwrap_or_default();
    ends.max().unwrap_or_default() - begun
}

fn first_ms(round: &[Stream]) -> f64 {
    let times = round
        .iter()
        .map(|one| one.sample.first.as_secs_f64() * 1e3)
        .collect();
    Series::new(times).median()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(asked_ms: u64, first_ms: u64, last_ms: u64, answer_tokens: u32) -> Stream {
        Stream {
            asked: Duration::from_millis(asked_ms),
            sample: Sample {
                prompt_tokens: 30,
                answer_tokens,
                first: Duration::from_millis(first_ms),
                last: Duration::from_millis(last_ms),
            },
        }
    }

    #[test]
    fn all_tokens_count_from_the_first_request_to_the_last_token() {
        let round = vec![
            stream(10, 100, 1_500, 128),
            stream(20, 300, 1_990, 128),
            stream(15, 200, 900, 128),
        ];
        assert_eq!(wall(&round), Duration::from_millis(2_000));
        let got = figures(Subject::llama_server(None), &[round]).unwrap();
        assert_eq!(got.total, Series::new(vec![192.0]));
        assert_eq!(got.first_ms, Series::new(vec![200.0]));
        assert_eq!((got.answered, got.prompt_tokens), (1.0, (30, 30)));
    }

    #[test]
    fn an_answer_that_ends_early_is_borne_and_many_are_not() {
        let full = || stream(0, 1, 1_000, 128);
        let rounds = |early: Stream| vec![vec![full(), full(), full(), early]];
        let subject = Subject::llama_server(None);
        let got = figures(subject, &rounds(stream(0, 1, 500, 96))).unwrap();
        assert_eq!(got.answered, 0.9375);
        let error = figures(subject, &rounds(stream(0, 1, 500, 60))).unwrap_err();
        assert!(error.to_string().contains("87 %"), "{error}");
    }

    #[test]
    fn different_counts_are_an_error() {
        let (a, mut b) = (vec![stream(0, 1, 2, 3)], vec![stream(9, 1, 2, 3)]);
        assert!(same_work(&[&a, &b]).is_ok());
        b[0].sample.prompt_tokens = 31;
        let error = same_work(&[&a, &b]).unwrap_err().to_string();
        assert!(error.contains("30") && error.contains("31"), "{error}");
    }
}
