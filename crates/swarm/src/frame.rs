//! The shape of a frame of activations: how rows are cut into frames, and what is checked when one comes in.
//!
//! Payloads are `rows × embedding length` f32 values, little endian ([`proto::model::WireType::F32`]).

use proto::ids::Hash;
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ring::{CHUNK_ROWS, DETAIL_BYTES_MAX, Rows, RowsKind};

/// Bytes of one number on the wire.
const VALUE_BYTES: usize = 4;
/// The longest activation row, in numbers: one row must fit a packet.
pub const EMBEDDING_LENGTH_MAX: u32 = (PAYLOAD_BYTES_MAX / VALUE_BYTES) as u32;

/// Bytes of one activation row.
#[must_use]
pub fn row_bytes(embedding_length: u32) -> usize {
    embedding_length as usize * VALUE_BYTES
}

/// Rows of a full frame: [`CHUNK_ROWS`], or the largest power of two that still fits a packet for models with very
/// long rows. Frames lie on an absolute grid of this size, which divides the chunk grid.
///
/// # Panics
///
/// When `embedding_length` is 0 or over [`EMBEDDING_LENGTH_MAX`]; machines refuse such models at their making.
#[must_use]
pub fn frame_rows(embedding_length: u32) -> u32 {
    assert!(
        (1..=EMBEDDING_LENGTH_MAX).contains(&embedding_length),
        "rows of {embedding_length}"
    );
    let fitting = (PAYLOAD_BYTES_MAX / row_bytes(embedding_length)).min(CHUNK_ROWS as usize) as u32;
    1 << fitting.ilog2()
}

/// The chunk of the absolute grid that `position` lies in.
#[must_use]
pub fn chunk_of(position: u32) -> u32 {
    position / CHUNK_ROWS
}

/// What a receiver expects of every frame of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The stage that sends.
    pub from_stage: u32,
    /// Numbers in a row.
    pub embedding_length: u32,
    /// The most positions of the session.
    pub positions_max: u32,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeFault {
    /// It names another sender.
    #[error("the frame is of stage {got}, expected stage {expected}")]
    Stage {
        /// The stage it names.
        got: u32,
        /// The stage that sends here.
        expected: u32,
    },
    /// No row, or more than a chunk.
    #[error("{got} rows, expected 1 to {CHUNK_ROWS}")]
    Rows {
        /// How many it claims.
        got: u32,
    },
    /// All rows are guesses, or guesses where none belong.
    #[error("{got} guessed rows of {rows} in a frame of kind {kind:?}")]
    Guessed {
        /// How many it claims.
        got: u32,
        /// How many rows it has.
        rows: u32,
        /// What they are for.
        kind: RowsKind,
    },
    /// The chunk does not belong to the position.
    #[error("chunk {got}, expected {expected}")]
    Chunk {
        /// The chunk it names.
        got: u32,
        /// The chunk of its position.
        expected: u32,
    },
    /// It goes beyond the session.
    #[error("rows up to position {end}, the session has {positions_max} positions")]
    Positions {
        /// The first position behind it.
        end: u64,
        /// Positions of the session.
        positions_max: u32,
    },
    /// The payload has another size.
    #[error("a payload of {got} bytes, expected {expected}")]
    Bytes {
        /// Bytes that came.
        got: usize,
        /// Bytes that so many rows have.
        expected: usize,
    },
    /// A value is infinite or not a number.
    #[error("value {column} of row {row} from stage {stage} is not finite")]
    NotFinite {
        /// The row within the frame.
        row: usize,
        /// The value within the row.
        column: usize,
        /// The stage that sent it.
        stage: u32,
    },
}

impl Shape {
    /// Checks head and payload of a frame, cheap things first.
    ///
    /// # Errors
    ///
    /// [`ShapeFault`], the first that is found.
    pub fn check(&self, rows: &Rows, payload: &[u8]) -> Result<(), ShapeFault> {
        if rows.stage != self.from_stage {
            return Err(ShapeFault::Stage {
                got: rows.stage,
                expected: self.from_stage,
            });
        }
        if rows.rows == 0 || rows.rows > CHUNK_ROWS {
            return Err(ShapeFault::Rows { got: rows.rows });
        }
        if rows.guessed > 0 && (rows.guessed >= rows.rows || rows.kind != RowsKind::Decode) {
            return Err(ShapeFault::Guessed {
                got: rows.guessed,
                rows: rows.rows,
                kind: rows.kind,
            });
        }
        let expected = chunk_of(rows.position);
        if rows.chunk != expected {
            return Err(ShapeFault::Chunk {
                got: rows.chunk,
                expected,
            });
        }
        let end = u64::from(rows.position) + u64::from(rows.rows);
        if end > u64::from(self.positions_max) {
            return Err(ShapeFault::Positions {
                end,
                positions_max: self.positions_max,
            });
        }
        check_payload(payload, rows.rows, self.embedding_length, self.from_stage)
    }
}

/// Checks the size of `rows` rows from `stage`, and that every value is finite.
///
/// # Errors
///
/// [`ShapeFault::Bytes`] or [`ShapeFault::NotFinite`].
pub fn check_payload(
    payload: &[u8],
    rows: u32,
    embedding_length: u32,
    stage: u32,
) -> Result<(), ShapeFault> {
    let expected = rows as usize * row_bytes(embedding_length);
    if payload.len() != expected {
        return Err(ShapeFault::Bytes {
            got: payload.len(),
            expected,
        });
    }
    match first_not_finite(payload) {
        None => Ok(()),
        Some(index) => {
            let length = embedding_length as usize;
            Err(ShapeFault::NotFinite {
                row: index / length,
                column: index % length,
                stage,
            })
        }
    }
}

/// BLAKE3 of the last row of a payload that has at least one.
pub(crate) fn last_row(payload: &[u8], embedding_length: u32) -> Hash {
    let from = payload.len().saturating_sub(row_bytes(embedding_length));
    Hash::of(&payload[from..])
}

/// The first value whose exponent is all ones: infinite or NaN (IEEE 754, binary32).
fn first_not_finite(payload: &[u8]) -> Option<usize> {
    const EXPONENT: u32 = 0x7F80_0000;
    let (values, _) = payload.as_chunks::<VALUE_BYTES>();
    let infinite = |value: &[u8; VALUE_BYTES]| u32::from_le_bytes(*value) & EXPONENT == EXPONENT;
    // A fold without an early exit is compiled to vector instructions; a search is not.
    let any = values
        .iter()
        .fold(false, |any, value| any | infinite(value));
    any.then(|| values.iter().position(infinite)).flatten()
}

/// A peer's or an engine's text as people may see it: no control characters, at most [`DETAIL_BYTES_MAX`] bytes.
pub(crate) fn clean(detail: &str) -> String {
    let shown = detail.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out = String::new();
    for c in shown {
        if out.len() + c.len_utf8() > DETAIL_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
