//! What our engine says of itself: build and CPU features, asked of an engine-host of the binary under test.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use proto::codec;
use proto::host::{Answer, Call, KvType, LoadSpec, Loaded, Part, Reply, Role, Task};
use proto::model::Numerics;
use proto::packet::{self, PREFIX_BYTES, Prefix};

use crate::rig::started::Started;

/// Loads the model into an engine-host, reads what it says, and ends it.
///
/// # Errors
///
/// When the engine-host does not start or does not load.
pub(super) fn about(started: &Started, myzel: &Path, model: &Path) -> Result<Loaded> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(myzel);
    command
        .arg("engine-host")
        .arg(std::process::id().to_string());
    let _engine = started.spawn(command.stdin(Stdio::from(OwnedFd::from(theirs))))?;
    // What still holds the other end in this process would keep the pipe open after the engine's end.
    drop(command);
    let spec = LoadSpec {
        parts: vec![Part {
            role: Role::Whole,
            files: vec![model.display().to_string()],
        }],
        numerics: Numerics::Throughput,
        positions_max: 64,
        sessions_max: 1,
        step_rows_max: 16,
        threads: Some(1),
        memory_bytes_max: None,
        adapters_dir: None,
        lanes: 1,
        kv: KvType::F16,
        rope_scale: None,
        kv_bytes_max: None,
    };
    ours.write_all(&packet::encode(
        &Call {
            id: 1,
            task: Task::Load(spec),
        },
        &[],
    ))?;
    match reply(&mut ours)
        .context("our engine-host does not answer")?
        .answer
    {
        Answer::Loaded(loaded) => Ok(*loaded),
        other => bail!("our engine-host did not load: {other:?}"),
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
