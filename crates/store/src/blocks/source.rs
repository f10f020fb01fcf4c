//! A model as its blocks: the file's bytes, as far as the blocks are here.

use super::{Blocks, BlocksError, Offered, agrees};
use crate::blocking::blocking;
use proto::gguf::{BlockMap, Header, StagePlan};
use proto::manifest::{Block, BlockKind, Contents};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A model's file, read from blocks. Its header block is here; others may lack.
#[derive(Debug)]
pub struct ModelBlocks {
    blocks: Blocks,
    contents: Contents,
    header: Header,
    map: BlockMap,
    /// The block read last: a stage's pieces come layer by layer.
    open: Mutex<Option<(BlockKind, Offered)>>,
}

impl ModelBlocks {
    /// Looks at the header block of a model.
    ///
    /// # Errors
    ///
    /// [`BlocksError::Missing`] without the header block, [`BlocksError::NotAModel`] and
    /// [`BlocksError::Contradiction`] when it is not what the manifest's maker says.
    pub async fn open(blocks: &Blocks, contents: &Contents) -> Result<Self, BlocksError> {
        let (blocks, contents) = (blocks.clone(), contents.clone());
        blocking(move |_| Self::open_blocking(blocks, contents)).await
    }

    fn open_blocking(blocks: Blocks, contents: Contents) -> Result<Self, BlocksError> {
        let missing = || BlocksError::Missing {
            kind: BlockKind::Header,
            root: contents.root,
        };
        let block = contents.block(BlockKind::Header).ok_or_else(missing)?;
        let offered = blocks.find(block.hash).ok_or_else(missing)?;
        let reader = OfferedReader {
            offered: &offered,
            at: 0,
        };
        let header =
            Header::read(reader, contents.bytes).map_err(|source| BlocksError::NotAModel {
                path: PathBuf::from(format!("the header block of {}", contents.root)),
                source,
            })?;
        let map = BlockMap::of(&header);
        if !agrees(&contents, &map) {
            return Err(BlocksError::Contradiction {
                root: contents.root,
            });
        }
        Ok(Self {
            blocks,
            contents,
            header,
            map,
            open: Mutex::default(),
        })
    }

    /// The model's header, to plan with.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the model's file consists of.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The blocks that a stage is composed from, the header among them.
    #[must_use]
    pub fn needed(&self, plan: &StagePlan) -> Vec<Block> {
        let kinds = self.map.needed(plan);
        kinds
            .into_iter()
            .filter_map(|kind| self.contents.block(kind).copied())
            .collect()
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Fills the buffer with bytes of the file. The outer error is a block that is not here, the inner one the system's.
    pub(crate) fn read_exact_at(
        &self,
        buffer: &mut [u8],
        in_file: u64,
    ) -> Result<io::Result<()>, BlocksError> {
        let runs = self.map.locate(in_file, buffer.len() as u64);
        let mut rest = buffer;
        for run in runs {
            let bytes = usize::try_from(run.bytes).expect("a run is no longer than the buffer");
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(bytes);
            rest = behind;
            if let Err(error) = self.read_block(run.kind, run.in_block, part)? {
                return Ok(Err(error));
            }
        }
        Ok(match rest.is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn read_block(
        &self,
        kind: BlockKind,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<io::Result<()>, BlocksError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|(there, _)| *there != kind) {
            let block = self.contents.block(kind);
            let offered = block.and_then(|block| self.blocks.find(block.hash));
            let offered = offered.ok_or(BlocksError::Missing {
                kind,
                root: self.contents.root,
            })?;
            *open = Some((kind, offered));
        }
        let (_, offered) = open.as_ref().expect("it was opened just now");
        Ok(offered.read_exact_at(at, buffer))
    }
}

struct OfferedReader<'a> {
    offered: &'a Offered,
    at: u64,
}

impl Read for OfferedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.offered.read_at(self.at, buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}
