//! One part of a block from one provider, verified piece by piece as it comes.

use super::fetch::SinkError;
use crate::end::EndReason;
use crate::limits::LAST_WORD_MS;
use bao_tree::io::BaoContentItem;
use bao_tree::{ChunkNum, ChunkRanges};
use iroh::endpoint::Connection;
use iroh_blobs::get::fsm::{
    self, AtBlobHeaderNextError, BlobContentNext, ConnectedNext, DecodeError, RequestCounters,
};
use iroh_blobs::protocol::GetRequest;
use proto::close::CloseCode;
use proto::manifest::{Block, PART_BYTES};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Why a part did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetFault {
    /// What came is not the block.
    #[error("it sent bytes that are not the block it was asked for ({0})")]
    Poison(String),
    /// The provider will not or cannot serve it.
    #[error("it does not serve the block ({0})")]
    Refused(String),
    /// The connection is gone.
    #[error("{0}")]
    Lost(EndReason),
    /// It came, and could not be kept.
    #[error("{0}")]
    Sink(SinkError),
}

/// Asks for a part and returns its bytes, all of them verified. `heard` counts them as they come.
pub(super) async fn part(
    connection: &Connection,
    block: &Block,
    part: u32,
    heard: &AtomicU64,
) -> Result<Vec<u8>, GetFault> {
    let fetched = Box::pin(stream(connection, block, part, heard)).await;
    // Why the connection was closed says more than that a stream broke, and may come a little later.
    let reason = match &fetched {
        Err(GetFault::Lost(_) | GetFault::Refused(_)) => {
            let closed = connection.closed();
            let wait = Duration::from_millis(LAST_WORD_MS);
            tokio::time::timeout(wait, closed).await.ok()
        }
        _ => None,
    };
    match (fetched, reason.map(EndReason::from)) {
        (Err(GetFault::Lost(_) | GetFault::Refused(_)), Some(reason)) => Err(match reason {
            EndReason::Closed {
                code: Some(CloseCode::Refused),
                detail,
            } => GetFault::Refused(detail),
            other => GetFault::Lost(other),
        }),
        (fetched, _) => fetched,
    }
}

async fn stream(
    connection: &Connection,
    block: &Block,
    part: u32,
    heard: &AtomicU64,
) -> Result<Vec<u8>, GetFault> {
    let start = u64::from(part) * PART_BYTES;
    let bytes = block.part_bytes(part);
    let ranges = ChunkRanges::from(ChunkNum::full_chunks(start)..ChunkNum::chunks(start + bytes));
    let request = GetRequest::blob_ranges(block.hash.0.into(), ranges);
    let opened = fsm::start(connection.clone(), request, RequestCounters::default());
    let connected = opened.next().await.map_err(lost)?;
    let ConnectedNext::StartRoot(root) = connected.next().await.map_err(lost)? else {
        return Err(GetFault::Refused(
            "an answer to another question".to_owned(),
        ));
    };
    let (mut content, size) = root.next().next().await.map_err(|error| match error {
        AtBlobHeaderNextError::NotFound { .. } => GetFault::Refused("not there".to_owned()),
        AtBlobHeaderNextError::Read { source, .. } => broken(&source),
    })?;
    if size != block.bytes {
        return Err(GetFault::Poison(format!(
            "a block of {size} bytes, not {}",
            block.bytes
        )));
    }
    let mut out = Vec::with_capacity(usize::try_from(bytes).expect("a part fits into memory"));
    loop {
        match content.next().await {
            BlobContentNext::More((rest, item)) => {
                content = rest;
                if let BaoContentItem::Leaf(leaf) = item.map_err(decoded)? {
                    if leaf.offset != start + out.len() as u64 {
                        return Err(GetFault::Poison("bytes out of order".to_owned()));
                    }
                    out.extend_from_slice(&leaf.data);
                    heard.store(out.len() as u64, Ordering::Relaxed);
                }
            }
            BlobContentNext::Done(_) if out.len() as u64 == bytes => return Ok(out),
            BlobContentNext::Done(_) => {
                return Err(GetFault::Poison(format!("{} bytes of {bytes}", out.len())));
            }
        }
    }
}

fn lost(error: impl std::fmt::Display) -> GetFault {
    GetFault::Lost(EndReason::Broken {
        detail: error.to_string(),
    })
}

/// What a failure to decode says about who sent.
fn decoded(error: DecodeError) -> GetFault {
    match error {
        DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
            GetFault::Poison(error.to_string())
        }
        DecodeError::ChunkNotFound { .. }
        | DecodeError::ParentNotFound { .. }
        | DecodeError::LeafNotFound { .. } => GetFault::Refused(format!("it broke off: {error}")),
        DecodeError::Read { source, .. } => broken(&source),
        other => lost(other),
    }
}

/// A stream that the provider resets is its answer: it met something that it will not send.
fn broken(error: &io::Error) -> GetFault {
    match error.kind() {
        io::ErrorKind::ConnectionReset => GetFault::Refused("it took its answer back".to_owned()),
        _ => lost(error),
    }
}
