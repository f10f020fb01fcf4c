//! What providers offer in tests: blocks in memory, and who takes parts.

use bao_tree::BlockSize;
use bao_tree::io::outboard::PostOrderMemOutboard;
use net::blobs::{Blob, Clock, Kept, Offers, Provider, Sink, SinkError, UploadLimits, Wanted};
use proto::ids::Hash;
use proto::manifest::{Block, BlockKind, LEAF_CHUNKS_LOG2, ModelAnswer, PART_BYTES};
use proto::member::Member;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A block's bytes, and the tree that proves them.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) block: Block,
    pub(crate) data: Arc<Vec<u8>>,
    pub(crate) tree: Arc<PostOrderMemOutboard>,
}

impl Page {
    /// The block of a layer: bytes that nobody could guess, a little less than so many parts.
    pub(crate) fn new(layer: u32, parts: u64) -> Self {
        let bytes = (parts * PART_BYTES - 1_000) as usize;
        let mut state = u64::from(layer) + 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        Self::of(layer, (0..bytes).map(|_| next()).collect())
    }

    pub(crate) fn of(layer: u32, data: Vec<u8>) -> Self {
        let tree = PostOrderMemOutboard::create(&data, BlockSize::from_chunk_log(LEAF_CHUNKS_LOG2));
        let block = Block {
            kind: BlockKind::Layer(layer),
            hash: Hash::of(&data),
            bytes: data.len() as u64,
        };
        assert_eq!(tree.root.as_bytes(), block.hash.as_bytes());
        Self {
            block,
            data: Arc::new(data),
            tree: Arc::new(tree),
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            block: self.block,
            parts: (0..self.block.parts()).collect(),
        }
    }
}

fn copy(from: &[u8], at: u64, buffer: &mut [u8]) -> usize {
    let from = &from[(at as usize).min(from.len())..];
    let bytes = from.len().min(buffer.len());
    buffer[..bytes].copy_from_slice(&from[..bytes]);
    bytes
}

/// What a provider offers.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) pages: Mutex<HashMap<Hash, Page>>,
    pub(crate) models: Mutex<HashMap<Hash, ModelAnswer>>,
    /// Bytes of blocks read so far.
    pub(crate) read: Arc<AtomicU64>,
    /// Reading waits behind so many bytes until the test says otherwise.
    pub(crate) gate: Option<watch::Receiver<u64>>,
}

impl Shelf {
    pub(crate) fn of(pages: &[Page]) -> Self {
        let pages = pages
            .iter()
            .map(|page| (page.block.hash, page.clone()))
            .collect();
        Self {
            pages: Mutex::new(pages),
            ..Self::default()
        }
    }
}

struct Open {
    page: Page,
    read: Arc<AtomicU64>,
    gate: Option<watch::Receiver<u64>>,
}

impl Blob for Open {
    fn bytes(&self) -> u64 {
        self.page.block.bytes
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = copy(&self.page.data, at, buffer);
        let so_far = self.read.fetch_add(read as u64, Ordering::SeqCst);
        if let Some(mut gate) = self.gate.clone() {
            let open = tokio::runtime::Handle::current()
                .block_on(async { gate.wait_for(|until| so_far < *until).await.map(drop) });
            open.map_err(|_| io::Error::other("the test is over"))?;
        }
        Ok(read)
    }

    fn tree_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(copy(&self.page.tree.data, at, buffer))
    }
}

impl Offers for Shelf {
    fn blob(&self, hash: Hash) -> Option<Box<dyn Blob>> {
        let page = self.pages.lock().unwrap().get(&hash).cloned()?;
        Some(Box::new(Open {
            page,
            read: self.read.clone(),
            gate: self.gate.clone(),
        }))
    }

    fn model(&self, root: Hash) -> Option<ModelAnswer> {
        self.models.lock().unwrap().get(&root).cloned()
    }
}

/// Takes parts, and puts blocks together from them.
#[derive(Default)]
pub(crate) struct Basket {
    pub(crate) blocks: Mutex<HashMap<Hash, Vec<u8>>>,
    pub(crate) parts: Mutex<BTreeSet<(Hash, u32)>>,
    /// After so many parts there is no room.
    pub(crate) room: Option<usize>,
    pub(crate) puts: AtomicUsize,
}

impl Sink for Basket {
    fn put(&self, block: &Block, part: u32, bytes: &[u8]) -> Result<Kept, SinkError> {
        // Held to the end, so that whoever is refused sees what was taken before.
        let mut parts = self.parts.lock().unwrap();
        let put = self.puts.fetch_add(1, Ordering::SeqCst);
        if self.room.is_some_and(|room| put >= room) {
            return Err("no room in /basket".into());
        }
        let mut blocks = self.blocks.lock().unwrap();
        let whole = blocks
            .entry(block.hash)
            .or_insert_with(|| vec![0; block.bytes as usize]);
        let at = (u64::from(part) * PART_BYTES) as usize;
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        parts.insert((block.hash, part));
        Ok(Kept::Part)
    }
}

impl Basket {
    /// Whether every byte of these blocks is there and right.
    pub(crate) fn holds(&self, pages: &[Page]) -> bool {
        let blocks = self.blocks.lock().unwrap();
        pages
            .iter()
            .all(|page| blocks.get(&page.block.hash) == Some(&*page.data))
    }
}

/// A clock that goes on when the test says so.
#[derive(Debug, Default)]
pub(crate) struct HandClock {
    pub(crate) now: watch::Sender<Duration>,
    pub(crate) waiting: AtomicUsize,
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.now.borrow()
    }

    fn wait(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let until = self.now() + time;
        Box::pin(async move {
            let mut now = self.now.subscribe();
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _ = now.wait_for(|now| *now >= until).await;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        })
    }
}

pub(crate) fn unlimited() -> UploadLimits {
    UploadLimits::default()
}

/// A member that says it holds these blocks.
pub(crate) fn provider(member: Member, pages: &[Page]) -> Provider {
    let blocks = pages.iter().map(|page| page.block.hash).collect();
    Provider { member, blocks }
}
