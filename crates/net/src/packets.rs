//! Reading and writing packets on QUIC streams.

use bytes::{Buf, Bytes, BytesMut};
use iroh::endpoint::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use proto::codec::{self, DecodeError, Wire};
use proto::packet::{self, PREFIX_BYTES, Prefix};

/// How much room is made at once for a packet that has not arrived yet, in bytes. The buffer then doubles, so what a
/// length field asks for is reserved only as far as bytes have come.
const GROWTH_BYTES: usize = 64 << 10;
/// Pieces taken from the stream at once; each is at most one datagram.
const PIECES: usize = 16;
/// Payloads up to this many bytes are copied behind their head, which is cheaper than a second piece.
const COPY_BYTES_MAX: usize = 16 << 10;

/// Why no packet was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    #[error(transparent)]
    Lost(ConnectionError),
    #[error(transparent)]
    Stream(ReadError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the stream ended inside a packet")]
    Truncated,
}

impl From<ReadError> for ReadFault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            other => Self::Stream(other),
        }
    }
}

/// The packets that arrive on one stream.
#[derive(Debug)]
pub(crate) struct PacketReader {
    stream: RecvStream,
    buffer: BytesMut,
    /// Bytes of all packets so far.
    taken: u64,
}

impl PacketReader {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            taken: 0,
        }
    }

    /// Bytes of all packets so far, with their prefixes.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The next packet; `None` when the other side ended the stream behind a packet.
    ///
    /// Cancel-safe: what has arrived stays in the buffer.
    pub(crate) async fn next<T: Wire>(
        &mut self,
        payload_bytes_max: usize,
    ) -> Result<Option<(T, Bytes)>, ReadFault> {
        loop {
            let before = self.buffer.len();
            match take::<T>(&mut self.buffer, payload_bytes_max)? {
                Step::Packet(head, payload) => {
                    self.taken += (before - self.buffer.len()) as u64;
                    return Ok(Some((head, payload)));
                }
                Step::Missing(bytes) => {
                    if !self.fill(bytes).await? {
                        return if self.buffer.is_empty() {
                            Ok(None)
                        } else {
                            Err(ReadFault::Truncated)
                        };
                    }
                }
            }
        }
    }

    /// Takes what the stream has; false at its end.
    async fn fill(&mut self, missing: usize) -> Result<bool, ReadError> {
        self.buffer
            .reserve(missing.min(self.buffer.len().max(GROWTH_BYTES)));
        let mut pieces: [Bytes; PIECES] = Default::default();
        let Some(count) = self.stream.read_many_chunks(&mut pieces).await? else {
            return Ok(false);
        };
        for piece in &pieces[..count] {
            self.buffer.extend_from_slice(piece);
        }
        Ok(true)
    }
}

enum Step<T> {
    Packet(T, Bytes),
    Missing(usize),
}

/// Cuts one packet off the front of `buffer`, or says how many bytes it lacks.
fn take<T: Wire>(buffer: &mut BytesMut, payload_bytes_max: usize) -> Result<Step<T>, DecodeError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(Step::Missing(PREFIX_BYTES - buffer.len()));
    };
    let Prefix {
        head_bytes,
        payload_bytes,
    } = Prefix::parse::<T>(*prefix)?;
    if payload_bytes > payload_bytes_max {
        return Err(DecodeError::TooLarge {
            what: T::WHAT,
            bytes: payload_bytes,
            bytes_max: payload_bytes_max,
        });
    }
    let bytes = PREFIX_BYTES + head_bytes + payload_bytes;
    if buffer.len() < bytes {
        return Ok(Step::Missing(bytes - buffer.len()));
    }
    let mut packet = buffer.split_to(bytes).freeze();
    packet.advance(PREFIX_BYTES);
    let head = codec::from_slice(&packet.split_to(head_bytes))?;
    Ok(Step::Packet(head, packet))
}

/// Writes one packet. QUIC sends it at once; there is nothing to flush.
///
/// Not cancel-safe: a packet may be left half written.
pub(crate) async fn write<T: Wire>(
    stream: &mut SendStream,
    head: &T,
    payload: Bytes,
) -> Result<(), WriteError> {
    if payload.len() <= COPY_BYTES_MAX {
        return stream
            .write_chunk(packet::encode(head, &payload).into())
            .await;
    }
    let head = Bytes::copy_from_slice(&packet::head(head, payload.len()));
    stream.write_all_chunks(&mut [head, payload]).await
}

/// Writes one packet without a payload.
pub(crate) async fn write_head<T: Wire>(
    stream: &mut SendStream,
    head: &T,
) -> Result<(), WriteError> {
    write(stream, head, Bytes::new()).await
}

#[cfg(test)]
mod tests;
