//! The one framing of every stream and pipe: a structure, and optionally raw bytes behind it.
//!
//! ```text
//! u32 LE head length │ u32 LE payload length │ head: CBOR │ payload: raw
//! ```
//!
//! Reading is the caller's business (async or blocking); this module says what the eight bytes mean and refuses
//! lengths over the limits *before* anything is reserved.

use crate::codec::{self, DecodeError, Wire};

/// Bytes before the head.
pub const PREFIX_BYTES: usize = 8;

/// The largest payload, in bytes: 512 rows of 4,096 f32 values. Larger chunks travel as several packets.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;

/// The lengths that precede a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of the CBOR head.
    pub head_bytes: usize,
    /// Bytes of the payload.
    pub payload_bytes: usize,
}

impl Prefix {
    /// Reads the eight bytes before a packet whose head is a `T`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLarge`] when either length is over its limit.
    pub fn parse<T: Wire>(bytes: [u8; PREFIX_BYTES]) -> Result<Self, DecodeError> {
        let [a, b, c, d, e, f, g, h] = bytes;
        let prefix = Self {
            head_bytes: u32::from_le_bytes([a, b, c, d]) as usize,
            payload_bytes: u32::from_le_bytes([e, f, g, h]) as usize,
        };
        for (bytes, bytes_max) in [
            (prefix.head_bytes, T::BYTES_MAX),
            (prefix.payload_bytes, PAYLOAD_BYTES_MAX),
        ] {
            if bytes > bytes_max {
                return Err(DecodeError::TooLarge {
                    what: T::WHAT,
                    bytes,
                    bytes_max,
                });
            }
        }
        Ok(prefix)
    }
}

/// Encodes prefix and head; the payload is written behind it as it is.
///
/// # Panics
///
/// When the payload is over [`PAYLOAD_BYTES_MAX`] or the head over its limit: our own bug, senders split before.
#[must_use]
pub fn head<T: Wire>(value: &T, payload_bytes: usize) -> Vec<u8> {
    assert!(
        payload_bytes <= PAYLOAD_BYTES_MAX,
        "payload of {payload_bytes} bytes was not split"
    );
    let head = codec::to_vec(value);
    assert!(
        head.len() <= T::BYTES_MAX,
        "{} of {} bytes",
        T::WHAT,
        head.len()
    );
    let mut out = Vec::with_capacity(PREFIX_BYTES + head.len() + payload_bytes);
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    out.extend_from_slice(&head);
    out
}

/// Encodes a whole packet.
#[must_use]
pub fn encode<T: Wire>(value: &T, payload: &[u8]) -> Vec<u8> {
    let mut out = head(value, payload.len());
    out.extend_from_slice(payload);
    out
}

/// f32 values as their little-endian bytes.
#[must_use]
pub fn f32_to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Little-endian bytes as f32 values; `None` when the length is not a multiple of four.
#[must_use]
pub fn f32_from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty()
        .then(|| chunks.iter().map(|c| f32::from_le_bytes(*c)).collect())
}
