//! Where the bytes of a block are: a file of its own, or runs of a whole model's file.

use proto::gguf::Run;
use proto::manifest::BlockKind;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// The place of a block on disk.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// In the order of the block.
    pub(super) runs: Arc<[Run]>,
}

impl Place {
    /// A file that is the block.
    pub(super) fn copy(file: PathBuf, bytes: u64) -> Self {
        let run = Run {
            kind: BlockKind::Header,
            in_block: 0,
            in_file: 0,
            bytes,
        };
        Self {
            file,
            runs: [run].into(),
        }
    }
}

/// A block that can be read, with the tree that it is verified along.
#[derive(Debug)]
pub struct Offered {
    pub(super) file: File,
    pub(super) tree: File,
    pub(super) runs: Arc<[Run]>,
}

impl Offered {
    /// The length of the block in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.in_block + run.bytes)
    }

    /// Reads from the block, like `pread`: 0 bytes at its end.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_runs(&self.file, &self.runs, at, buffer)
    }

    /// Reads from the block's tree: pairs of hashes in post-order, with leaves of
    /// [`proto::manifest::LEAF_CHUNKS_LOG2`].
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn tree_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.tree.read_at(buffer, at)
    }

    /// Fills the buffer from the block.
    pub(super) fn read_exact_at(&self, mut at: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(at, buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buffer = &mut buffer[n..];
                    at += n as u64;
                }
            }
        }
        Ok(())
    }
}

fn read_runs(file: &File, runs: &[Run], at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let found = runs.partition_point(|run| run.in_block + run.bytes <= at);
    let Some(run) = runs.get(found) else {
        return Ok(0);
    };
    let into = at - run.in_block;
    let left = usize::try_from(run.bytes - into).unwrap_or(usize::MAX);
    let wanted = buffer.len().min(left);
    file.read_at(&mut buffer[..wanted], run.in_file + into)
}

/// Reads runs of a file one after the other; `at` hears how many bytes are done, and may stop the reading.
pub(super) struct RunsReader<'a, F> {
    pub(super) file: &'a File,
    pub(super) runs: &'a [Run],
    pub(super) done: u64,
    pub(super) at: F,
}

impl<F: FnMut(u64) -> io::Result<()>> Read for RunsReader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.at)(self.done)?;
        let read = read_runs(self.file, self.runs, self.done, buffer)?;
        self.done += read as u64;
        Ok(read)
    }
}
