//! A machine with layers is taken away in the middle of a reply.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::ring::{Programs, Ring, Who};
use crate::rig::heard::{Heard, hear};
use crate::rig::started::Started;

/// The distance, in milliseconds from a machine to another and back, and the remote stages.
pub(super) const RTT_MS: u32 = 50;
pub(super) const SPLIT: u32 = 2;
/// Tokens of the reply, and those that have come when the machine is taken.
pub(super) const TOKENS: u32 = 64;
pub(super) const AFTER: usize = 24;
/// A reply that has not ended by then is lost: undisturbed it takes far less.
const REPLY_MAX: Duration = Duration::from_secs(60);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// SIGTERM.
    Drain,
}

impl Loss {
    pub(super) const ALL: [Self; 3] = [Self::Kill, Self::Freeze, Self::Drain];

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Freeze => "frozen",
            Self::Drain => "told to leave",
        }
    }
}

/// What came of the reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) loss: Loss,
    /// Tokens that came.
    pub(super) tokens: usize,
    /// It came to its end, with the tokens of the undisturbed one.
    pub(super) is_whole: bool,
    /// The longest pause from the loss on, in milliseconds, where anything came any more.
    pub(super) pause_ms: Option<f64>,
}

/// All losses, each of a ring of its own with a machine to spare.
pub(super) fn all(started: &Started, programs: &Programs<'_>, who: Who) -> Result<Vec<Outcome>> {
    let one = |loss| {
        let mut ring = Ring::start(started, programs, (who, SPLIT, 1), true)?;
        ring.stood_by()?;
        ring.place(started, RTT_MS)?;
        lose(&mut ring, loss).with_context(|| format!("{who:?}, {loss:?}"))
    };
    Loss::ALL.into_iter().map(one).collect()
}

fn lose(ring: &mut Ring, loss: Loss) -> Result<Outcome> {
    let expected = ask(ring, |_| {})?;
    ensure!(
        expected.is_whole(),
        "a reply failed that nothing disturbed: {expected:?}"
    );
    let (first, (machine, victim)) = (ring.first_pid(), ring.victim()?);
    let (mut at, mut struck) = (None, Ok(0));
    let ended = AtomicBool::new(false);
    let heard = thread::scope(|scope| {
        // A client of the peer would wait for ever: whoever answers nothing any more is ended.
        let watch = || {
            let begun = Instant::now();
            while !ended.load(Ordering::Acquire) {
                if begun.elapsed() > REPLY_MAX {
                    let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
        };
        scope.spawn(watch);
        let heard = ask(ring, |tokens| {
            if tokens >= AFTER && at.is_none() {
                at = Some(Instant::now());
                struck = match loss {
                    Loss::Kill => machine.kill(),
                    Loss::Freeze => machine.freeze(),
                    Loss::Drain => {
                        let told = kill(Pid::from_raw(victim), Signal::SIGTERM);
                        told.map(|()| 1).map_err(anyhow::Error::from)
                    }
                };
            }
        });
        ended.store(true, Ordering::Release);
        heard
    });
    ensure!(struck? > 0, "nothing was struck");
    let at = at.context("the reply ended before the machine was taken")?;
    // A connection that breaks off is what a client of the peer sees.
    let heard = heard.ok();
    let tokens = heard.as_ref().map_or(AFTER, |heard| heard.tokens.len());
    let whole =
        heard.filter(|heard| heard.is_whole() && heard.differs(&expected, TOKENS).is_none());
    Ok(Outcome {
        loss,
        tokens,
        pause_ms: whole
            .as_ref()
            .and_then(|heard| heard.pause(at))
            .map(|pause| pause.as_secs_f64() * 1e3),
        is_whole: whole.is_some(),
    })
}

fn ask(ring: &Ring, at: impl FnMut(usize) + Send) -> Result<Heard> {
    let (api, model, machine) = ring.asked();
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": "Tell a very long story about a river."}],
        "temperature": 0,
        "max_tokens": TOKENS,
        "stream": true,
        "logprobs": true,
        "cache_prompt": false,
    });
    machine.inside(|| hear(api, &body, at))?
}
