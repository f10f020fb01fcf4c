//! Encoding and total decoding of structures.
//!
//! Decoding never panics and never reserves memory that only a length field asked for: `minicbor` grows
//! vectors element by element, and every element takes at least one byte of input.

use minicbor::{Decode, Encode};

/// Input that is not a valid structure of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than a structure of this kind may have.
    #[error("{what}: {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// The kind of structure.
        what: &'static str,
        /// How many bytes came.
        bytes: usize,
        /// How many may come.
        bytes_max: usize,
    },
    /// Not valid CBOR, or a field missing, or of the wrong type.
    #[error("{what}: {source}")]
    Malformed {
        /// The kind of structure.
        what: &'static str,
        /// What the decoder met, and where.
        source: minicbor::decode::Error,
    },
    /// Bytes behind the end of the structure.
    #[error("{what}: {extra} bytes behind its end")]
    Trailing {
        /// The kind of structure.
        what: &'static str,
        /// How many bytes are left over.
        extra: usize,
    },
    /// A value that the type allows and the protocol does not.
    #[error("{what}: {why}")]
    Invalid {
        /// The kind of structure.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// A structure with a name for error messages and a limit on its encoded size.
pub trait Wire: Encode<()> + for<'b> Decode<'b, ()> {
    /// What error messages call it.
    const WHAT: &'static str;
    /// The largest encoding that is read, in bytes.
    const BYTES_MAX: usize;
}

/// Encodes a structure.
#[must_use]
pub fn to_vec<T: Wire>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding into memory cannot fail")
}

/// Decodes exactly one structure from `bytes`.
///
/// # Errors
///
/// [`DecodeError`] when `bytes` is too long, malformed, or longer than the structure in it.
pub fn from_slice<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > T::BYTES_MAX {
        return Err(DecodeError::TooLarge {
            what: T::WHAT,
            bytes: bytes.len(),
            bytes_max: T::BYTES_MAX,
        });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|source| DecodeError::Malformed {
        what: T::WHAT,
        source,
    })?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing {
            what: T::WHAT,
            extra,
        }),
    }
}
