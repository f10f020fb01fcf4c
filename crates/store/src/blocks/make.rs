//! Hashing a model's blocks, and the trees that they are verified along.

use super::place::RunsReader;
use super::{Blocks, BlocksError, TREE_END, agrees, open_model};
use crate::blocking::{Stop, blocking};
use crate::durable::{DiskFull, FileError, PRIVATE, new_path, publish, remove_file};
use crate::models::Model;
use crate::progress::{Meter, Progress};
use bao_tree::io::sync::outboard_post_order;
use bao_tree::{BaoTree, BlockSize};
use proto::gguf::Run;
use proto::ids::Hash;
use proto::manifest::{Block, Contents, LEAF_CHUNKS_LOG2};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// The tree of a blob of so many bytes.
pub(super) fn tree_of(bytes: u64) -> BaoTree {
    BaoTree::new(bytes, BlockSize::from_chunk_log(LEAF_CHUNKS_LOG2))
}

impl Blocks {
    /// What a model's file consists of; its blocks are then offered. Hashed once: a model with a manifest and all trees
    /// is only looked at. The whole file is compared with its root on the way. Dropping the future stops the work.
    ///
    /// # Errors
    ///
    /// [`BlocksError`]; nothing is offered then.
    pub async fn contents_of(
        &self,
        model: &Model,
        progress: Arc<dyn Progress>,
    ) -> Result<Contents, BlocksError> {
        let (blocks, model, meter) = (self.clone(), model.clone(), Meter::new(progress));
        blocking(move |stop| {
            let contents = match blocks.known(&model)? {
                Some(contents) => contents,
                None => blocks.hash_blocks(&model, &meter, stop)?,
            };
            blocks.offer_whole(&contents, &model.path)?;
            Ok(contents)
        })
        .await
    }

    /// The contents from before, if every tree is still there.
    fn known(&self, model: &Model) -> Result<Option<Contents>, BlocksError> {
        let Some(manifest) = self.manifest(model.blake3) else {
            return Ok(None);
        };
        let (_, map) = open_model(&model.path)?;
        let blocks = &manifest.contents.blocks;
        let whole = blocks
            .iter()
            .all(|block| self.path(block.hash, TREE_END).exists());
        Ok((whole && agrees(&manifest.contents, &map)).then(|| manifest.contents.clone()))
    }

    fn hash_blocks(
        &self,
        model: &Model,
        meter: &Arc<Meter>,
        stop: &Stop,
    ) -> Result<Contents, BlocksError> {
        let (file, map) = open_model(&model.path)?;
        DiskFull::check(&self.inner.dir, tree_of(model.bytes).outboard_size())?;
        meter.set_total(model.bytes * 2);
        let phase = format!("hashing {}", model.name);
        let span = meter.span(&phase, 0..500, model.bytes);
        let at = |done: u64| ask(stop, || span.at(done));
        if root_of(&file, map.runs(), at).map_err(fault("read", &model.path, stop))? != model.blake3
        {
            return Err(BlocksError::Damaged {
                path: model.path.clone(),
                root: model.blake3,
            });
        }
        let span = meter.span(&phase, 500..1000, model.bytes);
        let mut blocks = Vec::new();
        let mut done = 0;
        for kind in map.kinds() {
            let runs: Vec<Run> = map.block(kind).collect();
            let bytes = runs.iter().map(|run| run.bytes).sum();
            let reader = RunsReader {
                file: &file,
                runs: &runs,
                done: 0,
                at: |here: u64| ask(stop, || span.at(done + here)),
            };
            let hash = write_tree(&self.inner.dir, reader, bytes, stop)?;
            blocks.push(Block { kind, hash, bytes });
            done += bytes;
        }
        meter.finish(&phase);
        Ok(Contents {
            root: model.blake3,
            bytes: model.bytes,
            blocks,
        })
    }
}

/// BLAKE3 of a whole file, as `runs` order it.
fn root_of(
    file: &File,
    runs: &[Run],
    mut at: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Hash> {
    let end = runs.last().map_or(0, |run| run.in_file + run.bytes);
    let mut hasher = blake3::Hasher::new();
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, file);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut done = 0;
    io::Seek::rewind(&mut reader)?;
    while done < end {
        at(done)?;
        let wanted = usize::try_from(end - done)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        reader.read_exact(&mut buffer[..wanted])?;
        hasher.update(&buffer[..wanted]);
        done += wanted as u64;
    }
    Ok(Hash(*hasher.finalize().as_bytes()))
}

/// Hashes a block while its tree is written; the tree gets its name, the block's hash, when all was read.
pub(super) fn write_tree(
    dir: &Path,
    block: impl Read,
    bytes: u64,
    stop: &Stop,
) -> Result<Hash, BlocksError> {
    let unnamed = Unnamed(new_path(&dir.join("tree")));
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&unnamed.0);
    let file = file.map_err(fault("create", &unnamed.0, stop))?;
    let mut tree = BufWriter::with_capacity(CHUNK_BYTES, file);
    let reader = BufReader::with_capacity(CHUNK_BYTES, block);
    let hash = outboard_post_order(reader, tree_of(bytes), &mut tree);
    let hash = Hash(
        *hash
            .map_err(fault("hash a block beside", &unnamed.0, stop))?
            .as_bytes(),
    );
    let file = tree
        .into_inner()
        .map_err(|error| fault("write", &unnamed.0, stop)(error.into_error()))?;
    file.sync_all().map_err(fault("write", &unnamed.0, stop))?;
    publish(&unnamed.0, &super::path_in(dir, hash, TREE_END))?;
    Ok(hash)
}

/// A tree whose name is not known yet; gone when its hash does not come about.
struct Unnamed(std::path::PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        // After publishing there is nothing to remove; else the next start sweeps what cannot be removed now.
        if let Err(error) = remove_file(&self.0) {
            tracing::warn!(%error, "an unfinished tree stays behind");
        }
    }
}

/// Tells how far the work is, unless nobody waits for it any more.
fn ask(stop: &Stop, tell: impl FnOnce()) -> io::Result<()> {
    if stop.asked() {
        return Err(io::Error::other("stopped"));
    }
    tell();
    Ok(())
}

/// For `map_err`: what a failed operation on a file of ours means.
pub(super) fn fault(
    doing: &'static str,
    path: &Path,
    stop: &Stop,
) -> impl FnOnce(io::Error) -> BlocksError {
    let path = path.to_owned();
    let stop = stop.clone();
    move |error| {
        if stop.asked() {
            return BlocksError::Cancelled;
        }
        if DiskFull::is(&error) {
            return DiskFull::at(crate::durable::parent(&path), CHUNK_BYTES as u64).into();
        }
        FileError::of(doing, &path)(error).into()
    }
}
