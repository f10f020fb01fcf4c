//! Answering requests for blocks.

use super::throttle::{Clock, Throttle, UploadLimits};
use super::{Blob, Offers};
use crate::end::{self, EndReason};
use crate::limits::{
    BLOB_CONNECTIONS_MAX, BLOB_CONNECTIONS_PER_PEER_MAX, BLOB_REQUEST_BYTES_MAX, BLOB_STREAMS_MAX,
    HELLO_MS, PIECE_BYTES, PIECES_MAX, UPLOAD_STUCK_MS, UPLOADS_MAX,
};
use crate::links::{AnswerFault, Links, Mesh};
use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{ReadAt, encode_ranges_validated};
use bao_tree::{BaoTree, BlockSize, ChunkRanges, blake3};
use bytes::{Bytes, BytesMut};
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use iroh_blobs::protocol::{ERR_INTERNAL, ERR_PERMISSION, Request};
use proto::close::CloseCode;
use proto::ids::{Hash, NodeId};
use proto::manifest::LEAF_CHUNKS_LOG2;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};

/// What has been served since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Uploads {
    /// Bytes written: blocks, and the hashes that prove them.
    pub bytes: u64,
    /// Connections that were closed for what they asked, or for who asked.
    pub refused: u64,
}

/// What a node's tasks share that serve blocks.
pub(crate) struct Serving {
    pub(super) offers: Arc<dyn Offers>,
    clock: Arc<dyn Clock>,
    throttle: Mutex<Throttle>,
    turns: Semaphore,
    guests: Mutex<HashMap<NodeId, usize>>,
    bytes: AtomicU64,
    refused: AtomicU64,
}

/// Why a connection is closed by the side that serves.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("blocks are served to members only")]
    NotAMember,
    #[error("nothing is offered here")]
    NothingOffered,
    #[error("too many connections for blocks")]
    TooMany,
    #[error("not a request for a part of one block: {0}")]
    NotARequest(String),
    #[error("nothing was taken for {UPLOAD_STUCK_MS} ms")]
    Stuck,
    #[error("the block {} is not offered here", .0.short())]
    NotOffered(Hash),
}

impl Links {
    /// Offers blocks to the members from now on, within `limits`. Until then every request is refused.
    ///
    /// # Panics
    ///
    /// When it was called before: what is offered may change behind the same [`Offers`].
    pub fn offer(&self, offers: Arc<dyn Offers>, limits: UploadLimits, clock: Arc<dyn Clock>) {
        let serving = Serving {
            offers,
            throttle: Mutex::new(Throttle::new(limits, clock.now())),
            clock,
            turns: Semaphore::new(UPLOADS_MAX),
            guests: Mutex::default(),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let first = self.mesh().serving.set(Arc::new(serving)).is_ok();
        assert!(first, "blocks are offered once");
    }

    /// Sets other limits for uploads; those under way go on under them.
    pub fn limit_uploads(&self, limits: UploadLimits) {
        if let Some(serving) = self.mesh().serving.get() {
            *serving.throttle() = Throttle::new(limits, serving.clock.now());
        }
    }

    /// What has been served so far.
    #[must_use]
    pub fn uploads(&self) -> Uploads {
        self.mesh()
            .serving
            .get()
            .map_or_else(Uploads::default, |serving| Uploads {
                bytes: serving.bytes.load(Ordering::Relaxed),
                refused: serving.refused.load(Ordering::Relaxed),
            })
    }
}

impl Serving {
    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many bytes may be sent.
    async fn pace(&self, peer: NodeId, bytes: usize) {
        let wait = self.throttle().take(peer, bytes as u64, self.clock.now());
        if !wait.is_zero() {
            self.clock.wait(wait).await;
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of `peer`.
    fn enter(self: &Arc<Self>, peer: NodeId) -> Option<Guest> {
        let mut guests = self.guests();
        let here = guests.get(&peer).copied().unwrap_or(0);
        if guests.values().sum::<usize>() >= BLOB_CONNECTIONS_MAX
            || here >= BLOB_CONNECTIONS_PER_PEER_MAX
        {
            return None;
        }
        guests.insert(peer, here + 1);
        Some(Guest {
            serving: self.clone(),
            peer,
        })
    }
}

/// A connection's place, given back when dropped.
struct Guest {
    serving: Arc<Serving>,
    peer: NodeId,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.serving.guests();
        match guests.get_mut(&self.peer) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(guests.remove(&self.peer)),
        }
    }
}

/// Checks who asks, and what may be asked.
pub(super) fn admit(mesh: &Mesh, peer: NodeId) -> Result<Arc<Serving>, Refusal> {
    let serving = mesh.serving.get();
    let member = mesh.table().is_met(peer);
    if !member && let Some(serving) = serving {
        serving.refused.fetch_add(1, Ordering::Relaxed);
    }
    match (member, serving) {
        (false, _) => Err(Refusal::NotAMember),
        (true, None) => Err(Refusal::NothingOffered),
        (true, Some(serving)) => Ok(serving.clone()),
    }
}

/// Serves one connection until the other side ends it, or asks for what it must not have. `stranger` is its place among
/// those who have proven nothing, given back when it has one of its own.
pub(crate) async fn answer(
    mesh: &Mesh,
    connection: Connection,
    stranger: impl Send,
) -> Result<(), AnswerFault> {
    let peer = NodeId(*connection.remote_id().as_bytes());
    let outcome = match admit(mesh, peer) {
        Ok(serving) => match serving.enter(peer) {
            Some(guest) => {
                drop(stranger);
                serve_guest(&serving, &connection, &guest)
                    .await
                    .inspect_err(|_| {
                        serving.refused.fetch_add(1, Ordering::Relaxed);
                    })
            }
            None => Err(Refusal::TooMany),
        },
        Err(refusal) => Err(refusal),
    };
    outcome.map_err(|refusal| {
        end::close(&connection, CloseCode::Refused, &refusal.to_string());
        AnswerFault::NotServed(refusal)
    })
}

async fn serve_guest(
    serving: &Arc<Serving>,
    connection: &Connection,
    guest: &Guest,
) -> Result<(), Refusal> {
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(BLOB_STREAMS_MAX));
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    requests.spawn(upload(serving.clone(), guest.peer, send, recv));
                }
                Err(error) => {
                    tracing::debug!(peer = %guest.peer.short(), reason = %EndReason::from(error), "no more blocks asked for");
                    return Ok(());
                }
            },
            Some(ended) = requests.join_next() => {
                if let Ok(Err(refusal)) = ended {
                    return Err(refusal);
                }
            }
        }
    }
}

/// Answers one request.
async fn upload(
    serving: Arc<Serving>,
    peer: NodeId,
    mut send: SendStream,
    recv: RecvStream,
) -> Result<(), Refusal> {
    let (hash, ranges) = read_request(recv).await?;
    let _turn = serving
        .turns
        .acquire()
        .await
        .expect("turns are never closed");
    let (pieces, mut read) = mpsc::channel(PIECES_MAX);
    let offers = serving.offers.clone();
    let reading = spawn_blocking(move || encode(&*offers, hash, &ranges, pieces));
    while let Some(piece) = read.recv().await {
        let bytes = piece.len();
        serving.pace(peer, bytes).await;
        let wait = Duration::from_millis(UPLOAD_STUCK_MS);
        match tokio::time::timeout(wait, send.write_chunk(piece)).await {
            Ok(Ok(())) => serving.bytes.fetch_add(bytes as u64, Ordering::Relaxed),
            // It wants no more of this.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Refusal::Stuck),
        };
    }
    // The stream may be gone by now; then nobody needs to be told.
    match reading.await {
        Ok(Encoded::Whole) => {
            let _ = send.finish();
        }
        Ok(Encoded::NotOffered) => {
            let _ = send.reset(ERR_PERMISSION);
            return Err(Refusal::NotOffered(hash));
        }
        Ok(Encoded::Broken(error)) => {
            tracing::error!(block = %hash.short(), %error, "a block on disk cannot be served; check with `myzel model verify`");
            let _ = send.reset(ERR_INTERNAL);
        }
        Err(_) => {
            let _ = send.reset(ERR_INTERNAL);
        }
    }
    Ok(())
}

/// Which part of which block is asked for.
async fn read_request(mut recv: RecvStream) -> Result<(Hash, ChunkRanges), Refusal> {
    let wrong = |why: &str| Refusal::NotARequest(why.to_owned());
    let wait = Duration::from_millis(HELLO_MS);
    let bytes = tokio::time::timeout(wait, recv.read_to_end(BLOB_REQUEST_BYTES_MAX))
        .await
        .map_err(|_| wrong("it took too long"))?
        .map_err(|error| wrong(&error.to_string()))?;
    let request = postcard::from_bytes(&bytes).map_err(|error| wrong(&error.to_string()))?;
    let Request::Get(request) = request else {
        return Err(wrong("another kind of request"));
    };
    match request.ranges.as_single() {
        Some((0, ranges)) => Ok((Hash(request.hash.into()), ranges.clone())),
        _ => Err(wrong("ranges of several blobs")),
    }
}

/// How reading a block for others ended.
enum Encoded {
    Whole,
    NotOffered,
    Broken(String),
}

/// Reads, checks and encodes a part of a block. What does not verify is not sent.
fn encode(
    offers: &dyn Offers,
    hash: Hash,
    ranges: &ChunkRanges,
    pieces: mpsc::Sender<Bytes>,
) -> Encoded {
    let Some(blob) = offers.blob(hash) else {
        return Encoded::NotOffered;
    };
    let mut pipe = Pipe {
        pieces,
        waiting: BytesMut::with_capacity(PIECE_BYTES),
    };
    let outboard = PostOrderOutboard {
        root: blake3::Hash::from(hash.0),
        tree: BaoTree::new(blob.bytes(), BlockSize::from_chunk_log(LEAF_CHUNKS_LOG2)),
        data: Tree(&*blob),
    };
    let written = pipe
        .write_all(&blob.bytes().to_le_bytes())
        .map_err(|error| error.to_string())
        .and_then(|()| {
            let encoded = encode_ranges_validated(Data(&*blob), outboard, ranges, &mut pipe);
            encoded.map_err(|error| error.to_string())
        })
        .and_then(|()| pipe.flush().map_err(|error| error.to_string()));
    match written {
        Ok(()) => Encoded::Whole,
        // Nobody listens any more; that is no fault of the block.
        Err(_) if pipe.pieces.is_closed() => Encoded::Whole,
        Err(error) => Encoded::Broken(error),
    }
}

struct Data<'a>(&'a dyn Blob);

impl ReadAt for Data<'_> {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(at, buffer)
    }
}

struct Tree<'a>(&'a dyn Blob);

impl ReadAt for Tree<'_> {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.tree_at(at, buffer)
    }
}

/// Hands what is written to the task that sends it, in pieces, and waits for it.
struct Pipe {
    pieces: mpsc::Sender<Bytes>,
    waiting: BytesMut,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = self.waiting.split().freeze();
        self.pieces
            .blocking_send(piece)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
