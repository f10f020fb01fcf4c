//! The two directions of the pipe: a reader of calls and a writer of replies.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto::codec::{self, DecodeError};
use proto::host::{Answer, Call, Reply};
use proto::packet::{self, PREFIX_BYTES, Prefix};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

/// How much is read from the pipe at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// A call and its payload.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) call: Call,
    pub(crate) payload: Vec<u8>,
}

/// The reading end. It is read by the thread that computes: another one between would cost a wake-up a token.
#[derive(Debug)]
pub(crate) struct Calls {
    stream: BufReader<UnixStream>,
}

impl Calls {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BYTES, stream),
        }
    }

    /// The next call; waits for one if `wait` says so. `None` is none for now.
    ///
    /// The node writes whole calls, so once a call has begun the rest of it is waited for.
    pub(crate) fn next(&mut self, wait: bool) -> Result<Option<Received>, ReadError> {
        if !wait && self.stream.buffer().is_empty() && !self.readable()? {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix)?;
        let prefix = Prefix::parse::<Call>(prefix)?;
        let mut head = vec![0; prefix.head_bytes];
        self.stream.read_exact(&mut head)?;
        let mut payload = vec![0; prefix.payload_bytes];
        self.stream.read_exact(&mut payload)?;
        let call = codec::from_slice(&head)?;
        Ok(Some(Received { call, payload }))
    }

    fn readable(&self) -> Result<bool, ReadError> {
        let mut fds = [PollFd::new(
            self.stream.get_ref().as_fd(),
            PollFlags::POLLIN,
        )];
        Ok(poll(&mut fds, PollTimeout::ZERO).map_err(io::Error::from)? > 0)
    }
}

/// Why no call was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The pipe is closed, or broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is not a call.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Writes replies, from any thread. When the node is gone, writing fails and the process ends.
#[derive(Debug, Clone)]
pub(crate) struct Replies {
    stream: Arc<Mutex<UnixStream>>,
}

impl Replies {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(Mutex::new(stream));
        Self { stream }
    }

    /// Writes an answer with a payload of f32 values, at most [`packet::PAYLOAD_BYTES_MAX`].
    pub(crate) fn send(
        &self,
        id: u64,
        more: bool,
        answer: Answer,
        values: &[f32],
    ) -> io::Result<()> {
        self.write(&reply(id, more, answer, values))
    }

    /// Writes what [`reply`] made, of one reply or of several: each write may wake the node.
    pub(crate) fn write(&self, replies: &[u8]) -> io::Result<()> {
        // A thread that panicked while it wrote has ended the pipe: that shows when it is used.
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(replies)
    }
}

/// The bytes of an answer with a payload of f32 values.
pub(crate) fn reply(id: u64, more: bool, answer: Answer, values: &[f32]) -> Vec<u8> {
    let mut bytes = packet::head(&Reply { id, more, answer }, size_of_val(values));
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}
