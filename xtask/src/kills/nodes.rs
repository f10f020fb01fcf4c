//! The nodes of one ring, each on a machine of a lab: they stay between kills, and who was killed comes back.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Machine, Node, World, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::draw::{Kill, Question, Shape};
use crate::rig::heard::{Heard, hear};
use crate::rig::http;
use crate::rig::say;
use crate::rig::started::Started;

/// Positions of a context: the longest prompt or reply, and some.
const POSITIONS: &str = "2304";
/// The chances of a world; none are taken here, since these links neither lose nor vary.
const SEED: u64 = 6;
/// How long a ring may take to be as it was.
const WHOLE_MAX: Duration = Duration::from_secs(90);
/// How long a coordinator has to take a member that came back into its ring by itself; then it is started again.
const REGROW_MAX: Duration = Duration::from_secs(2);
/// How long members have to stand by for stages before the next kill.
const STANDBYS_MAX: Duration = Duration::from_secs(8);
/// Rest before the next question, so that what was loaded last is idle.
const REST: Duration = Duration::from_millis(300);

/// A node that computes the whole model alone, for replies that nothing disturbs.
pub(super) struct Alone {
    node: Node,
    model: String,
    _world: World,
}

/// A ring that is up.
pub(super) struct Nodes {
    /// How it was asked for.
    pub(super) shape: Shape,
    // Dropped in this order: the coordinator notices the loss of the others.
    coordinator: Node,
    hosts: Vec<Host>,
    model: String,
    _world: World,
}

struct Host {
    node: Node,
    /// Its key.
    id: String,
}

/// What came of a kill.
pub(super) struct Struck {
    /// The reply.
    pub(super) heard: Heard,
    /// When the signal was sent, and how many tokens had come; `None` when the reply was too fast.
    pub(super) killed: Option<(Instant, usize)>,
    /// Whether the process is gone.
    pub(super) is_gone: bool,
    /// Whether the ring of before had ended when the reply had.
    pub(super) ring_ended: bool,
    /// What the coordinator says of how it went on, the newest last.
    pub(super) recoveries: Vec<Value>,
}

/// What came of another loss.
pub(super) struct Lost {
    /// The reply.
    pub(super) heard: Heard,
    /// When the signal was sent.
    pub(super) at: Instant,
    /// When the reply had ended, in whatever way.
    pub(super) ended: Instant,
    /// When the process had, if it did.
    pub(super) gone: Option<Instant>,
    /// Whether the ring of before had ended.
    pub(super) ring_ended: bool,
    /// What the coordinator says of how it went on, the newest last.
    pub(super) recoveries: Vec<Value>,
}

fn setup(machine: &Machine, myzel: &Path, model: &str) -> lab::Setup {
    let setup = machine.myzel(myzel).model(model).exact();
    setup.arg("--context", POSITIONS).arg("--sessions", "2")
}

fn ask(node: &Node, body: &Value, at: impl FnMut(usize) + Send) -> Result<Heard> {
    node.machine().inside(|| hear(node.api(), body, at))?
}

fn model_name(node: &Node) -> Result<String> {
    node.machine().inside(|| http::model_name(node.api()))?
}

impl Alone {
    pub(super) fn start(myzel: &Path, model: &str) -> Result<Self> {
        let mut world = World::new(SEED)?;
        let node = setup(&world.machine("alone")?, myzel, model).up()?;
        Ok(Self {
            model: model_name(&node)?,
            node,
            _world: world,
        })
    }

    /// A reply in full.
    pub(super) fn ask(&self, question: &Question, tokens_max: u32) -> Result<Heard> {
        let heard = ask(&self.node, &question.body(&self.model, tokens_max), |_| {})?;
        ensure!(
            heard.is_whole(),
            "undisturbed, {question:?} failed: {:?}",
            heard.error
        );
        Ok(heard)
    }
}

impl Nodes {
    /// Starts the nodes, one thread each, and waits until answers go over the ring.
    pub(super) fn start(
        started: &Started,
        myzel: &Path,
        model: &str,
        shape: Shape,
    ) -> Result<Self> {
        let mut world = World::new(SEED)?;
        let machine = world.machine("a")?;
        let coordinator = setup(&machine, myzel, model).split(shape.stages).up()?;
        let mut hosts = Vec::new();
        for n in 1..=shape.hosts() {
            started.check()?;
            let machine = world.machine(&format!("h{n}"))?;
            let node = setup(&machine, myzel, model).join(&coordinator).up()?;
            let id = text(&node.status()?["node"])?;
            hosts.push(Host { node, id });
        }
        let mut nodes = Self {
            shape,
            model: model_name(&coordinator)?,
            coordinator,
            hosts,
            _world: world,
        };
        nodes.whole(started)?;
        Ok(nodes)
    }

    /// A reply over the ring that nothing disturbs.
    pub(super) fn ask(&self, question: &Question, tokens_max: u32) -> Result<Heard> {
        let body = question.body(&self.model, tokens_max);
        let heard = ask(&self.coordinator, &body, |_| {})?;
        ensure!(
            heard.is_whole(),
            "undisturbed, {question:?} failed: {:?}",
            heard.error
        );
        Ok(heard)
    }

    /// Asks, and kills the victim after so many tokens, or where they are none so long after the question.
    pub(super) fn strike(&mut self, kill: &Kill, when: When) -> Result<Struck> {
        let before = self.coordinator.status()?;
        let (ring, recovered) = (before["ring"]["ring"].clone(), recoveries(&before));
        let (victim, pid) = self.host_of(&before, kill.victim)?;
        let body = kill.question.body(&self.model, kill.tokens);
        let (heard, killed) = match when {
            When::Tokens(after) => kill_after(&self.coordinator, &body, pid, after as usize)?,
            When::Prefill(time) => kill_before(&self.coordinator, &body, pid, time)?,
        };
        let after = self.coordinator.status()?;
        let process = self.hosts[victim].node.process();
        let is_gone =
            killed.is_some() && wait::until(WHOLE_MAX, "it is gone", || process.ended()).is_ok();
        Ok(Struck {
            heard,
            killed,
            is_gone,
            ring_ended: after["ring"]["ring"] != ring,
            recoveries: newer(recoveries(&after), &recovered),
        })
    }

    /// Asks, and sends the host of a stage a signal after so many of the tokens. One that was stopped goes on when the reply has ended.
    pub(super) fn lose(
        &mut self,
        question: &Question,
        (tokens, after): (u32, u32),
        victim: u32,
        signal: Signal,
    ) -> Result<Lost> {
        let before = self.coordinator.status()?;
        let (ring, recovered) = (before["ring"]["ring"].clone(), recoveries(&before));
        let pid = self.host_of(&before, victim)?.1;
        let body = question.body(&self.model, tokens);
        let mut at = None;
        let (heard, gone) = std::thread::scope(|scope| {
            let (struck, wait) = mpsc::sync_channel::<()>(1);
            let watch = scope.spawn(move || wait.recv().ok().and_then(|()| end_of(pid)));
            let heard = ask(&self.coordinator, &body, |so_far| {
                if so_far >= after as usize && at.is_none() {
                    // It is ours, and was not waited for.
                    at = kill(pid, signal).ok().map(|()| Instant::now());
                    // Who is stopped does not end.
                    if signal != Signal::SIGSTOP {
                        let _ = struck.try_send(());
                    }
                }
            });
            let ended = Instant::now();
            drop(struck);
            if signal == Signal::SIGSTOP {
                let _ = kill(pid, Signal::SIGCONT);
                return (heard.map(|heard| (heard, ended)), None);
            }
            let gone = watch.join().expect("waiting does not panic");
            (heard.map(|heard| (heard, ended)), gone)
        });
        let (heard, ended) = heard?;
        let status = self.coordinator.status()?;
        Ok(Lost {
            heard,
            at: at.context("the reply ended before the stage was lost")?,
            ended,
            gone,
            ring_ended: status["ring"]["ring"] != ring,
            recoveries: newer(recoveries(&status), &recovered),
        })
    }

    /// The host of a stage, and its process.
    fn host_of(&mut self, status: &Value, stage: u32) -> Result<(usize, Pid)> {
        let wanted = text(&status["ring"]["stages"][stage as usize - 1]["node"])?;
        let at = self.hosts.iter().position(|host| host.id == wanted);
        let at = at.context("a stage is on one of the hosts")?;
        Ok((at, Pid::from_raw(self.hosts[at].node.process().pid())))
    }

    /// Starts whoever was killed again, with the data that it left, and waits until the ring is as asked.
    pub(super) fn whole(&mut self, started: &Started) -> Result<()> {
        for host in &mut self.hosts {
            if host.node.process().ended()?.is_some() {
                host.node = host.node.setup().clone().up()?;
            }
        }
        let mut since = Instant::now();
        wait::until(WHOLE_MAX, "the ring is as asked, with everybody", || {
            started.check()?;
            let status = self.coordinator.status()?;
            let ring = &status["ring"];
            let stages = ring["stages"].as_array().map_or(0, Vec::len) as u32;
            if status["answers"] == "ring" && stages == self.shape.stages && self.all_up(&status) {
                return Ok(Some(()));
            }
            // A smaller ring that is up would be looked at again much later.
            let is_small = ring["state"] == "up" && stages < self.shape.stages;
            if is_small && self.all_up(&status) && since.elapsed() > REGROW_MAX {
                self.coordinator.process().kill()?;
                self.coordinator = self.coordinator.setup().clone().up()?;
                since = Instant::now();
            }
            Ok(None)
        })?;
        // Where memory does not allow it, nobody stands by.
        let stood_by = wait::until(STANDBYS_MAX, "each stage has a standby", || {
            started.check()?;
            let status = self.coordinator.status()?;
            let standbys = status["ring"]["standbys"].as_array();
            let have = standbys.map_or(0, Vec::len);
            Ok((have as u32 >= self.shape.stages).then_some(()))
        });
        if stood_by.is_err() {
            let status = self.coordinator.status()?;
            say(&format!(
                "stages without a standby: {}",
                status["ring"]["standbys"]
            ));
        }
        started.pause(REST)
    }

    fn all_up(&self, status: &Value) -> bool {
        let nodes = status["nodes"].as_array().into_iter().flatten();
        nodes.filter(|node| node["state"] == "up").count() == self.hosts.len()
    }
}

/// Waits until a process of ours has ended, and says when that was; `None` when it does not.
fn end_of(pid: Pid) -> Option<Instant> {
    let begun = Instant::now();
    while begun.elapsed() < WHOLE_MAX {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything but this; a zombie has ended and is not waited for yet.
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        if matches!(state, None | Some("Z")) {
            return Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// When a victim is struck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum When {
    /// After so many tokens.
    Tokens(u32),
    /// So long after the question, unless a token has come.
    Prefill(Duration),
}

type Killed = (Heard, Option<(Instant, usize)>);

/// The signal is sent by whoever reads, between two tokens.
fn kill_after(node: &Node, body: &Value, victim: Pid, after: usize) -> Result<Killed> {
    let mut killed = None;
    let heard = ask(node, body, |tokens| {
        if tokens >= after && killed.is_none() {
            killed = strike(victim).map(|at| (at, tokens));
        }
    })?;
    Ok((heard, killed))
}

/// The signal is sent by another thread, which the first token stops.
fn kill_before(node: &Node, body: &Value, victim: Pid, time: Duration) -> Result<Killed> {
    let (first, stopped) = mpsc::sync_channel::<()>(1);
    std::thread::scope(|scope| {
        let killer = scope.spawn(move || match stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => strike(victim).map(|at| (at, 0)),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => None,
        });
        let heard = ask(node, body, |_| {
            // The first one is enough; nobody may be there to take others.
            let _ = first.try_send(());
        });
        drop(first);
        let killed = killer.join().expect("sending a signal does not panic");
        Ok((heard?, killed))
    })
}

/// Kills as a power cut does; `None` if the process was gone before.
fn strike(victim: Pid) -> Option<Instant> {
    kill(victim, Signal::SIGKILL).ok()?;
    Some(Instant::now())
}

/// What a coordinator says of rings that it went on from; nothing where it does not say. It keeps only so many.
fn recoveries(status: &Value) -> Vec<Value> {
    status["recoveries"].as_array().cloned().unwrap_or_default()
}

/// Those that were not there before, the newest last.
fn newer(now: Vec<Value>, before: &[Value]) -> Vec<Value> {
    let at = |one: &Value| one["at_ms"].as_u64();
    let known: Vec<Option<u64>> = before.iter().map(at).collect();
    let mut newer: Vec<Value> = now
        .into_iter()
        .filter(|one| !known.contains(&at(one)))
        .collect();
    newer.sort_by_key(at);
    newer
}

fn text(value: &Value) -> Result<String> {
    let text = value
        .as_str()
        .with_context(|| format!("not a text: {value}"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn recoveries_that_were_there_before_are_not_of_this_kill() {
        let status = |at: &[u64]| {
            let all: Vec<Value> = at.iter().map(|at_ms| json!({ "at_ms": at_ms })).collect();
            json!({ "recoveries": all })
        };
        let before = recoveries(&status(&[2, 1]));
        let after = newer(recoveries(&status(&[4, 3, 2])), &before);
        assert_eq!(after, recoveries(&status(&[3, 4])));
        assert!(newer(recoveries(&json!({})), &before).is_empty());
    }
}
