//! An engine-host of the binary under test, asked without a node between.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use proto::codec;
use proto::host::{Answer, Call, LoadSpec, Loaded, Part, Reply, Role, Task};
use proto::model::Numerics;
use proto::packet::{self, PREFIX_BYTES, Prefix};

use crate::rig::started::{Running, Started};

/// Rows of a step, as the node sets its own engine-hosts up.
const STEP_ROWS: u32 = 512;

/// An engine-host that has loaded a model.
#[derive(Debug)]
pub(super) struct Engine {
    pipe: UnixStream,
    calls: u64,
    /// What it says of itself.
    pub(super) loaded: Loaded,
    _running: Running,
}

/// A whole model for one request at a time, on one thread.
pub(super) fn spec(model: &Path, numerics: Numerics, positions_max: u32) -> LoadSpec {
    LoadSpec {
        positions_max,
        step_rows_max: STEP_ROWS.min(positions_max),
        threads: Some(1),
        ..LoadSpec::new(vec![Part::of(Role::Whole, model)], numerics)
    }
}

impl Engine {
    /// Starts one and lets it load.
    ///
    /// # Errors
    ///
    /// When it does not start or does not load.
    pub(super) fn start(started: &Started, myzel: &Path, spec: LoadSpec) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(myzel);
        command
            .arg("engine-host")
            .arg(std::process::id().to_string());
        let running = started.spawn(command.stdin(Stdio::from(OwnedFd::from(theirs))))?;
        // What still holds the other end in this process would keep the pipe open after the engine's end.
        drop(command);
        let mut pipe = ours;
        let mut loaded = None;
        exchange(&mut pipe, 0, Task::Load(spec), |answer| match answer {
            Answer::Loaded(said) => {
                loaded = Some(*said);
                Ok(())
            }
            other => bail!("our engine-host did not load: {other:?}"),
        })?;
        Ok(Self {
            pipe,
            calls: 0,
            loaded: loaded.context("our engine-host said nothing of what it loaded")?,
            _running: running,
        })
    }

    /// Has something done and takes every answer to it.
    ///
    /// # Errors
    ///
    /// When the engine-host is gone, and what `take` says of an answer.
    pub(super) fn call(
        &mut self,
        task: Task,
        take: impl FnMut(Answer) -> Result<()>,
    ) -> Result<()> {
        self.calls += 1;
        exchange(&mut self.pipe, self.calls, task, take)
    }
}

fn exchange(
    pipe: &mut UnixStream,
    id: u64,
    task: Task,
    mut take: impl FnMut(Answer) -> Result<()>,
) -> Result<()> {
    pipe.write_all(&packet::encode(&Call { id, task }, &[]))?;
    loop {
        let reply = reply(pipe).context("our engine-host does not answer")?;
        take(reply.answer)?;
        if !reply.more {
            return Ok(());
        }
    }
}

fn reply(pipe: &mut UnixStream) -> Result<Reply> {
    let mut prefix = [0; PREFIX_BYTES];
    pipe.read_exact(&mut prefix)?;
    let prefix = Prefix::parse::<Reply>(prefix)?;
    let mut bytes = vec![0; prefix.head_bytes + prefix.payload_bytes];
    pipe.read_exact(&mut bytes)?;
    Ok(codec::from_slice(&bytes[..prefix.head_bytes])?)
}
