//! Where retained outputs go that memory has no room for.

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Outputs of a session that usually stay in memory where others can be put away, in bytes.
pub const MEMORY_BYTES_MAX: usize = 8 << 20;

/// Keeps the outputs of one session elsewhere. Nobody else can read them there.
pub trait Spill: fmt::Debug + Send + Sync {
    /// Puts bytes away; `None` when there is no room.
    fn put(&self, bytes: &[u8]) -> Option<Arc<dyn Away>>;
}

/// Bytes that were put away. They are gone with this.
pub trait Away: fmt::Debug + Send + Sync {
    /// The bytes as they were; `None` when they cannot be read any more.
    fn read(&self) -> Option<Bytes>;
}

/// Makes a place for one session; `None` where there is none.
pub type Spills = Box<dyn Fn() -> Option<Arc<dyn Spill>> + Send>;

/// Where a session's outputs go, and how many bytes of them stay in memory; the newest one does in any case.
#[derive(Debug, Clone)]
pub(crate) struct Overflow {
    pub(crate) spill: Arc<dyn Spill>,
    pub(crate) memory_bytes_max: usize,
}

/// An output, wherever it is.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    Here(Bytes),
    Away { kept: Arc<dyn Away>, bytes: usize },
}

impl Kept {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(output) => output.len(),
            Self::Away { bytes, .. } => *bytes,
        }
    }

    /// Bytes of it in memory.
    pub(crate) fn here(&self) -> usize {
        match self {
            Self::Here(output) => output.len(),
            Self::Away { .. } => 0,
        }
    }

    /// The bytes; `None` when they cannot be read any more.
    pub(crate) fn read(&self) -> Option<Bytes> {
        match self {
            Self::Here(output) => Some(output.clone()),
            Self::Away { kept, bytes } => kept.read().filter(|read| read.len() == *bytes),
        }
    }

    /// Puts it away, if there is room.
    pub(crate) fn put(&mut self, spill: &dyn Spill) -> bool {
        let Self::Here(output) = self else {
            return true;
        };
        let (bytes, kept) = (output.len(), spill.put(output));
        let is_kept = kept.is_some();
        if let Some(kept) = kept {
            *self = Self::Away { kept, bytes };
        }
        is_kept
    }
}
