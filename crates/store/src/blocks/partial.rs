//! A block on its way: parts arrive in any order, and a restart goes on where the last process was.
//!
//! Of the part file a list says which parts were verified. A part is written before it is listed, so a killed process
//! leaves at most a part that nobody knows of. After a power cut the disk may know less than the list says: the whole
//! block is hashed before it gets its name, and begins anew when it is not what it should be.

use super::make::{fault, write_tree};
use super::{BLOCK_END, BlocksError, HAVE_END, PART_END, path_in};
use crate::blocking::Stop;
use crate::durable::{DiskFull, FileError, PRIVATE, remove_file, sync_dir};
use proto::manifest::{Block, PART_BYTES};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a list begins with: its format, and the size of parts that it counts in.
const HAVE_MAGIC: [u8; 8] = *b"MYZHAVE1";

const _: () = assert!(
    PART_BYTES == 1 << 20,
    "lists of another size of parts need another magic"
);

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is kept; others lack.
    More,
    /// The block is whole, verified and named.
    Sealed,
    /// The parts together are not the block, because the disk lost some: all are to be fetched anew.
    Damaged,
}

/// A block on its way, opened for writing.
#[derive(Debug)]
pub(super) struct Partial {
    dir: PathBuf,
    block: Block,
    file: File,
    list: File,
    have: Vec<bool>,
}

/// Which parts of a block are on disk.
pub(super) fn read_have(dir: &Path, block: &Block) -> Result<Vec<bool>, FileError> {
    let mut have = vec![false; block.parts() as usize];
    let read = |end| {
        let path = path_in(dir, block.hash, end);
        (
            path.clone(),
            fs::metadata(&path).map_or(0, |facts| facts.len()),
        )
    };
    let ((_, there), (list, list_bytes)) = (read(PART_END), read(HAVE_END));
    // Each part may be listed twice at most: by two providers that raced for it.
    if !(8..=8 + 8 * have.len() as u64).contains(&list_bytes) {
        return Ok(have);
    }
    let list = fs::read(&list).map_err(FileError::of("read", &list))?;
    let Some(entries) = list.strip_prefix(&HAVE_MAGIC[..]) else {
        return Ok(have);
    };
    for entry in entries.as_chunks::<4>().0 {
        let part = u32::from_le_bytes(*entry);
        let end = u64::from(part) * PART_BYTES + block.part_bytes(part);
        if let Some(have) = have.get_mut(part as usize) {
            *have = end <= there;
        }
    }
    Ok(have)
}

impl Partial {
    pub(super) fn open(dir: &Path, block: &Block) -> Result<Self, BlocksError> {
        let have = read_have(dir, block)?;
        let parts = (0..block.parts()).filter(|part| !have[*part as usize]);
        DiskFull::check(dir, parts.map(|part| block.part_bytes(part)).sum())?;
        let fresh = !have.contains(&true);
        let open = |end| {
            let path = path_in(dir, block.hash, end);
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(true)
                .truncate(fresh)
                .mode(PRIVATE);
            options.open(&path).map_err(FileError::of("open", &path))
        };
        let mut partial = Self {
            dir: dir.to_owned(),
            block: *block,
            file: open(PART_END)?,
            list: open(HAVE_END)?,
            have,
        };
        partial.rewrite_list().map_err(partial.fault(HAVE_END))?;
        Ok(partial)
    }

    /// Writes the list anew: without an entry that a dying process tore.
    fn rewrite_list(&mut self) -> io::Result<()> {
        let mut list = HAVE_MAGIC.to_vec();
        for part in (0..self.block.parts()).filter(|part| self.have[*part as usize]) {
            list.extend(part.to_le_bytes());
        }
        self.list.set_len(0)?;
        io::Seek::rewind(&mut self.list)?;
        self.list.write_all(&list)
    }

    /// Keeps a part. A second time is as good as once.
    pub(super) fn write(&mut self, part: u32, bytes: &[u8]) -> Result<(), BlocksError> {
        if self.have[part as usize] {
            return Ok(());
        }
        let at = u64::from(part) * PART_BYTES;
        self.file
            .write_all_at(bytes, at)
            .map_err(self.fault(PART_END))?;
        self.list
            .write_all(&part.to_le_bytes())
            .map_err(self.fault(HAVE_END))?;
        self.have[part as usize] = true;
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.have.contains(&false)
    }

    /// Checks the whole block and gives it its name: then its path. `None` when it is not what it should be.
    pub(super) fn seal(self) -> Result<Option<PathBuf>, BlocksError> {
        let from = path_in(&self.dir, self.block.hash, PART_END);
        let to = path_in(&self.dir, self.block.hash, BLOCK_END);
        self.file.sync_all().map_err(self.fault(PART_END))?;
        let reader = File::open(&from).map_err(FileError::of("open", &from))?;
        let hash = match write_tree(&self.dir, reader, self.block.bytes, &Stop::default()) {
            // Shorter than it should be.
            Err(BlocksError::File(error)) if error.source.kind() == ErrorKind::UnexpectedEof => {
                None
            }
            other => Some(other?),
        };
        let right = hash == Some(self.block.hash);
        if right {
            fs::rename(&from, &to).map_err(FileError::of("rename to", &to))?;
            sync_dir(&self.dir)?;
        } else {
            tracing::warn!(block = %self.block.hash.short(), "the disk lost parts of a block");
            hash.map_or(Ok(()), |hash| {
                remove_file(&path_in(&self.dir, hash, super::TREE_END))
            })?;
            remove_file(&from)?;
        }
        remove_file(&path_in(&self.dir, self.block.hash, HAVE_END))?;
        Ok(right.then_some(to))
    }

    fn fault(&self, end: &str) -> impl FnOnce(io::Error) -> BlocksError + use<> {
        let path = path_in(&self.dir, self.block.hash, end);
        let lacks = (0..self.block.parts()).filter(|part| !self.have[*part as usize]);
        let needed = lacks.map(|part| self.block.part_bytes(part)).sum();
        move |error| match DiskFull::is(&error) {
            true => DiskFull::at(crate::durable::parent(&path), needed).into(),
            false => fault("write", &path, &Stop::default())(error),
        }
    }
}
