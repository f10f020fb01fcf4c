//! Names: of nodes, commons, sessions and rings, and hashes of content.

use data_encoding::HEXLOWER;
use minicbor::{CborLen, Decode, Encode};
use std::fmt;
use std::str::FromStr;

/// Text that is not the hexadecimal form of a name of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, got {got:?}")]
pub struct ParseIdError {
    /// How many digits a name of this kind has.
    pub expected: usize,
    /// The text as it was given, at most 80 characters of it.
    pub got: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The first ten hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..5])
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let fault = || ParseIdError {
                    expected: $len * 2,
                    got: text.chars().take(80).collect(),
                };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| fault())?;
                Ok(Self(bytes.try_into().map_err(|_| fault())?))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A node: its Ed25519 public key, which is also its iroh endpoint id.
    NodeId,
    32
);
id!(
    /// A commons: the Ed25519 public key of its founding.
    CommonsId,
    32
);
id!(
    /// A BLAKE3 hash of content (RFC-less; <https://github.com/BLAKE3-team/BLAKE3-specs>).
    Hash,
    32
);
id!(
    /// One request's path through a ring; chosen at random by its coordinator.
    SessionId,
    16
);
id!(
    /// One loaded ring; chosen at random by its coordinator.
    RingId,
    16
);
id!(
    /// A ticket at its introducer: the ticket's nonce.
    TicketId,
    16
);
id!(
    /// Who may share computed prefixes: equal for requests of one caller in one room, different for all others.
    ShareScope,
    16
);
id!(
    /// A streamed answer that can be resumed; chosen at random by its coordinator, and known to its client alone.
    StreamId,
    16
);

impl Hash {
    /// Hashes `bytes` with BLAKE3.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = NodeId([7; 32]);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.short(), "0707070707");
    }

    #[test]
    fn wrong_length_and_wrong_digits_are_refused() {
        assert!("0707".parse::<SessionId>().is_err());
        assert!("zz".repeat(16).parse::<SessionId>().is_err());
    }
}
