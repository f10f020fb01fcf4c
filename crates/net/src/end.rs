//! Why a connection ended, in one vocabulary for links and hops.

use crate::packets::ReadFault;
use iroh::endpoint::{Connection, ConnectionError, VarInt, WriteError};
use proto::close::CloseCode;

/// The longest explanation that is taken from or given to a peer, in bytes.
const DETAIL_BYTES_MAX: usize = 200;

/// Why a link or hop ended. Reads as the continuation of "the peer … is gone: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// The other side had nothing more to say.
    #[error("it finished")]
    Finished,
    /// The other side is shutting down.
    #[error("it is shutting down")]
    Left,
    /// No sign of life for too long: killed, stuck, or cut off.
    #[error("nothing was heard of it for {silent_ms} ms")]
    Silent {
        /// Milliseconds since the last sign of life.
        silent_ms: u64,
    },
    /// The other side sent something that is not the protocol.
    #[error("it does not speak the protocol: {detail}")]
    Malformed {
        /// What came.
        detail: String,
    },
    /// The other side said far more than a link is for.
    #[error("it said too much, and went on when it was slowed down")]
    Flooding,
    /// The other side called again; the newer link goes on.
    #[error("a newer link took its place")]
    Replaced,
    /// The other side closed the connection for another reason.
    #[error("it closed the connection ({}{detail})", code.map_or_else(String::new, |c| format!("{c}: ")))]
    Closed {
        /// Its closed reason; `None` is one that this build does not know.
        code: Option<CloseCode>,
        /// What it added, for people.
        detail: String,
    },
    /// The connection failed.
    #[error("the connection broke: {detail}")]
    Broken {
        /// What QUIC says.
        detail: String,
    },
    /// This node closed the connection, because it is shutting down or has no more use for it.
    #[error("this node closed the connection")]
    Here,
}

impl From<ConnectionError> for EndReason {
    fn from(error: ConnectionError) -> Self {
        let close = match error {
            ConnectionError::ApplicationClosed(close) => close,
            ConnectionError::LocallyClosed => return Self::Here,
            ConnectionError::TimedOut => {
                return Self::Silent {
                    silent_ms: u64::from(crate::limits::IDLE_MS),
                };
            }
            other => {
                return Self::Broken {
                    detail: other.to_string(),
                };
            }
        };
        match CloseCode::from_number(close.error_code.into_inner()) {
            Some(CloseCode::Done) => Self::Finished,
            Some(CloseCode::ShuttingDown) => Self::Left,
            Some(CloseCode::Replaced) => Self::Replaced,
            code => Self::Closed {
                code,
                detail: printable(&close.reason),
            },
        }
    }
}

impl From<WriteError> for EndReason {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) => Self::Finished,
            other => Self::Broken {
                detail: other.to_string(),
            },
        }
    }
}

impl From<ReadFault> for EndReason {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Lost(error) => error.into(),
            ReadFault::Stream(error) => Self::Broken {
                detail: error.to_string(),
            },
            ReadFault::Decode(error) => Self::Malformed {
                detail: error.to_string(),
            },
            ReadFault::Truncated => Self::Malformed {
                detail: "a packet broke off".into(),
            },
        }
    }
}

impl EndReason {
    /// What to tell the other side when the connection ends for this reason.
    pub(crate) fn code(&self) -> CloseCode {
        match self {
            Self::Silent { .. } => CloseCode::Silent,
            Self::Malformed { .. } => CloseCode::Malformed,
            Self::Replaced => CloseCode::Replaced,
            Self::Flooding => CloseCode::Flooding,
            Self::Here => CloseCode::ShuttingDown,
            _ => CloseCode::Done,
        }
    }
}

/// Closes a connection with a code and, where `detail` adds to it, words for people.
pub(crate) fn close(connection: &Connection, code: CloseCode, detail: &str) {
    let detail = &detail.as_bytes()[..detail.len().min(DETAIL_BYTES_MAX)];
    connection.close(VarInt::from_u32(code.number()), detail);
}

/// A peer's words, made harmless for a terminal and a log.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(DETAIL_BYTES_MAX)]);
    text.chars().filter(|c| !c.is_control()).collect()
}
