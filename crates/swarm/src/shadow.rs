//! What a stage's standby is fed, so that it need not compute everything when it takes over.

use crate::frame::chunk_of;
use crate::retained::Retained;
use bytes::Bytes;
use proto::ring::{HopBody, OpenSession, Rows, RowsKind};

/// Rows that a standby lacks before it is fed again: a replay of so few is short, and computing them together costs far less
/// than one by one.
pub const SHADOW_ROWS: u32 = 32;
/// A session is shadowed once to compute it again would take so long, in milliseconds.
pub const SHADOW_AFTER_MS: u64 = 300;

/// A session's opening and the outputs of `stage` from `from` up to `until`, as frames for whoever stands by for the next stage. Rows
/// that it has are ignored there. `None` when outputs from `from` on are not kept.
pub(crate) fn frames(
    retained: &Retained,
    (open, stage): (OpenSession, u32),
    (from, until): (u32, u32),
    embedding_length: u32,
) -> Option<Vec<(HopBody, Bytes)>> {
    retained.from().filter(|kept| *kept <= from)?;
    let rows = |(position, rows, payload)| {
        let body = HopBody::Rows(Rows {
            session: open.session,
            epoch: open.epoch,
            position,
            rows,
            chunk: chunk_of(position),
            stage,
            kind: RowsKind::Replay,
            guessed: 0,
        });
        (body, payload)
    };
    let all = retained
        .frames(from, until, embedding_length)
        .ok()?
        .into_iter();
    let opening = (HopBody::Open(open), Bytes::new());
    Some([opening].into_iter().chain(all.map(rows)).collect())
}
