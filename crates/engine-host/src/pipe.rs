//! The two directions of the pipe: a thread that reads calls, and a writer of replies.

use proto::codec::{self, DecodeError};
use proto::host::{Answer, Call, Reply};
use proto::packet::{self, PREFIX_BYTES, Prefix};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Calls that may wait to be carried out; more make the node wait.
const QUEUE_CALLS_MAX: usize = 256;

/// A call and its payload.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) call: Call,
    pub(crate) payload: Vec<u8>,
}

/// Starts the reading thread. The channel closes when the pipe does, or when what comes is not a call.
pub(crate) fn read_calls(stream: UnixStream) -> io::Result<Receiver<Received>> {
    let (sender, receiver) = sync_channel(QUEUE_CALLS_MAX);
    let name = "calls".to_owned();
    // The end of the pipe and a broken peer look the same from here: nobody is left to hear of an error.
    std::thread::Builder::new()
        .name(name)
        .spawn(move || drop(read_all(stream, &sender)))?;
    Ok(receiver)
}

fn read_all(stream: UnixStream, sender: &SyncSender<Received>) -> Result<(), ReadError> {
    let mut stream = io::BufReader::with_capacity(64 << 10, stream);
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        stream.read_exact(&mut prefix)?;
        let prefix = Prefix::parse::<Call>(prefix)?;
        let mut head = vec![0; prefix.head_bytes];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; prefix.payload_bytes];
        stream.read_exact(&mut payload)?;
        let call = codec::from_slice(&head)?;
        if sender.send(Received { call, payload }).is_err() {
            return Ok(());
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Writes replies. When the node is gone, writing fails and the process ends.
#[derive(Debug)]
pub(crate) struct Replies {
    stream: UnixStream,
}

impl Replies {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Writes an answer with a payload of f32 values, at most [`packet::PAYLOAD_BYTES_MAX`].
    pub(crate) fn send(
        &mut self,
        id: u64,
        more: bool,
        answer: Answer,
        values: &[f32],
    ) -> io::Result<()> {
        let mut bytes = packet::head(&Reply { id, more, answer }, size_of_val(values));
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        self.stream.write_all(&bytes)
    }
}
