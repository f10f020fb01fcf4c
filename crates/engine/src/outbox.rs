//! The writing end of the pipe to an engine-host.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

/// Calls that may wait to be written.
pub(crate) const CALLS_WAITING_MAX: usize = 256;
/// With drops of sessions, which must not get lost: many more than an engine-host has sessions.
pub(crate) const DROPS_WAITING_MAX: usize =
    CALLS_WAITING_MAX + 16 * proto::host::SESSIONS_MAX as usize;

/// Writes calls in order.
///
/// Whoever calls writes at once, since handing over to a task would cost a wake-up a token; only what
/// the pipe does not take waits for [`Outbox::drain`].
#[derive(Debug)]
pub(crate) struct Outbox {
    pipe: OwnedWriteHalf,
    waiting: Mutex<VecDeque<Bytes>>,
    more: Notify,
}

impl Outbox {
    pub(crate) fn new(pipe: OwnedWriteHalf) -> Self {
        Self {
            pipe,
            waiting: Mutex::default(),
            more: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a call, or lets it wait behind at most `waiting_max` others; false when there are more.
    pub(crate) fn send(&self, mut bytes: Bytes, waiting_max: usize) -> bool {
        let mut waiting = self.waiting();
        if waiting.len() >= waiting_max {
            return false;
        }
        if waiting.is_empty() {
            // A broken pipe is noticed by the reading end.
            let _ = self.write(&mut bytes);
        }
        if !bytes.is_empty() {
            waiting.push_back(bytes);
            self.more.notify_one();
        }
        true
    }

    /// Writes as much as the pipe takes now.
    fn write(&self, bytes: &mut Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.pipe.try_write(bytes) {
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what waits, until the pipe breaks.
    pub(crate) async fn drain(&self) -> io::Result<()> {
        loop {
            self.more.notified().await;
            while !self.waiting().is_empty() {
                self.pipe.writable().await?;
                let mut waiting = self.waiting();
                if let Some(bytes) = waiting.front_mut() {
                    self.write(bytes)?;
                    if bytes.is_empty() {
                        waiting.pop_front();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn what_the_pipe_does_not_take_follows_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let outbox = std::sync::Arc::new(Outbox::new(ours.into_split().1));
        let calls: Vec<Bytes> = (0..40u8).map(|i| vec![i; 50_000].into()).collect();
        for call in &calls {
            assert!(outbox.send(call.clone(), CALLS_WAITING_MAX));
        }
        assert!(
            !outbox.waiting().is_empty(),
            "the pipe took everything: nothing is tested"
        );
        let draining = outbox.clone();
        let task = tokio::spawn(async move { draining.drain().await });
        let mut got = vec![0; 40 * 50_000];
        let read = theirs.read_exact(&mut got);
        tokio::time::timeout(Duration::from_secs(30), read)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(got, calls.concat());
        task.abort();
    }

    #[tokio::test]
    async fn there_is_a_limit() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let outbox = Outbox::new(ours.into_split().1);
        let big = Bytes::from(vec![0; 1 << 20]);
        assert!(outbox.send(big.clone(), 2));
        assert!(outbox.send(big.clone(), 2));
        assert!(!outbox.send(big, 2));
    }
}
