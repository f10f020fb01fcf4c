//! Blocks on disk as `net` offers and takes them: two crates that do not know each other meet here.
//!
//! `net`'s own tests of a model's whole way include this file, so that they go the way that a node goes.

use net::blobs::{Blob, Kept, Offers, Sink, SinkError};
use proto::ids::Hash;
use proto::manifest::{Block, ModelAnswer};
use std::io;
use store::blocks::{Blocks, Offered, Put};

/// A directory of blocks: what is there is offered, what is fetched goes there.
#[derive(Debug, Clone)]
pub(crate) struct Shelf(pub(crate) Blocks);

impl Offers for Shelf {
    fn blob(&self, hash: Hash) -> Option<Box<dyn Blob>> {
        Some(Box::new(Lent(self.0.find(hash)?)))
    }

    fn model(&self, root: Hash) -> Option<ModelAnswer> {
        self.0.answer(root)
    }
}

impl Sink for Shelf {
    fn put(&self, block: &Block, part: u32, bytes: &[u8]) -> Result<Kept, SinkError> {
        match self.0.put(block, part, bytes)? {
            Put::More | Put::Sealed => Ok(Kept::Part),
            Put::Damaged => Ok(Kept::Damaged),
        }
    }
}

/// A block that is being read for somebody.
struct Lent(Offered);

impl Blob for Lent {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(at, buffer)
    }

    fn tree_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.tree_at(at, buffer)
    }
}
