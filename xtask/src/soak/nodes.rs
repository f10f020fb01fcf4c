//! The nodes that are soaked: started, watched, interrupted.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::caller::CONTEXT;
use crate::rig::process::Node;
use crate::rig::started::Started;
use crate::rig::tree::{self, Identity};
use crate::rig::{memory, say};

/// How long a ring may take to form.
const RING_MAX: Duration = Duration::from_secs(120);
/// How long after the last answer a place may stay taken, and after SIGINT a process alive.
const SETTLE_MAX: Duration = Duration::from_secs(15);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One node, or the nodes of a ring, the coordinator first.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    started: &'a Started,
    myzel: &'a Path,
    nodes: Vec<Node>,
}

/// What an interrupt left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Processes that there were.
    pub(super) processes: usize,
    /// Those of them that still lived.
    pub(super) alive: usize,
    /// How nodes ended, of those that did not end well.
    pub(super) exits: Vec<String>,
}

impl<'a> Nodes<'a> {
    /// Starts them; a ring is up when this returns.
    ///
    /// # Errors
    ///
    /// When one does not start, or the ring does not come up.
    pub(super) fn start(
        started: &'a Started,
        myzel: &'a Path,
        model: &Path,
        sessions: u32,
        split: u32,
    ) -> Result<Self> {
        let args = |more: &[String]| {
            let line = format!(
                "up --api 127.0.0.1:0 --listen 127.0.0.1:0 --context {CONTEXT} --sessions {sessions}"
            );
            let mut args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            args.extend(["--model".to_owned(), model.display().to_string()]);
            args.extend_from_slice(more);
            args
        };
        let own = match split {
            0 => Vec::new(),
            split => vec!["--split".to_owned(), split.to_string()],
        };
        let mut nodes = vec![Node::start(started, myzel, &args(&own))?];
        let join = ["--join".to_owned(), nodes[0].ticket.clone()];
        for _ in 0..split {
            nodes.push(Node::start(started, myzel, &args(&join))?);
        }
        let all = Self {
            started,
            myzel,
            nodes,
        };
        if split > 0 {
            all.wait_for_ring()?;
        }
        Ok(all)
    }

    fn wait_for_ring(&self) -> Result<()> {
        say("waiting for the ring");
        let begun = Instant::now();
        loop {
            let status = self.nodes[0].process.status(self.started, self.myzel)?;
            if status["answers"] == "ring" {
                return Ok(());
            }
            if begun.elapsed() > RING_MAX {
                bail!(
                    "the ring is not up after {} s: {}",
                    RING_MAX.as_secs(),
                    status["ring"]
                );
            }
            self.started.pause(LOOK_EVERY)?;
        }
    }

    /// Where requests are asked.
    pub(super) fn addr(&self) -> SocketAddr {
        self.nodes[0].addr
    }

    /// Resident memory of all processes, in bytes.
    ///
    /// # Errors
    ///
    /// When a node has ended; the error quotes its log.
    pub(super) fn resident(&mut self) -> Result<u64> {
        let mut sum = 0;
        for node in &mut self.nodes {
            node.process.check()?;
            sum += memory::of_tree(node.process.running.pid())?.resident;
        }
        Ok(sum)
    }

    /// Places that are still taken, after some time to be given back.
    ///
    /// # Errors
    ///
    /// When a node does not say.
    pub(super) fn taken(&self) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let mut taken = 0;
            for node in &self.nodes {
                let status = node.process.status(self.started, self.myzel)?;
                taken += status["model"]["sessions"]
                    .as_u64()
                    .context("`status --json` names no sessions")?;
            }
            if taken == 0 || begun.elapsed() > SETTLE_MAX {
                return Ok(taken);
            }
            self.started.pause(LOOK_EVERY)?;
        }
    }

    /// Sends SIGINT to every node and looks what is left after some time.
    ///
    /// # Errors
    ///
    /// When the system does not say, or the run is interrupted.
    pub(super) fn interrupt(mut self) -> Result<Left> {
        let mut identities = Vec::new();
        for node in &self.nodes {
            identities.extend(tree::of(node.process.running.pid())?);
        }
        let identities: Vec<Identity> = identities.into_iter().filter_map(Identity::of).collect();
        for node in &self.nodes {
            kill(Pid::from_raw(node.process.running.pid()), Signal::SIGINT)
                .context("cannot interrupt a node")?;
        }
        let begun = Instant::now();
        let mut left = Left {
            processes: identities.len(),
            ..Left::default()
        };
        loop {
            left.alive = identities.iter().filter(|one| one.lives()).count();
            if left.alive == 0 || begun.elapsed() > SETTLE_MAX {
                break;
            }
            self.started.pause(LOOK_EVERY)?;
        }
        for node in &mut self.nodes {
            let exit = node.process.running.try_wait()?;
            if !exit.is_some_and(|status| status.success()) {
                let how = exit.map_or_else(|| "not at all".to_owned(), |exit| exit.to_string());
                left.exits.push(format!("{how}: {}", node.process.tail()));
            }
        }
        Ok(left)
    }
}
