//! Models by content: the blocks of model files, to hand on and to fetch.
//!
//! ```text
//! blocks/
//!   ROOT.manifest   proto::manifest::Manifest, checked by whoever keeps it here
//!   HASH.tree       the hashes that a block is verified along while it travels
//!   HASH.block      a fetched block, verified in full before it got this name
//!   HASH.part       a block on its way: parts in their places, holes between them
//!   HASH.have       which parts of it were verified
//! ```
//!
//! A model that is here whole is served from its one file: its blocks are runs of that, only their trees are kept. A
//! fetched block is a file of its own; from those [`ModelBlocks`] composes stages, or the whole file
//! ([`crate::models::Models::adopt`]), after which the copies go. Whatever is here is offered to others, so a newcomer
//! with one layer hands on that one.
//!
//! A directory belongs to one process; the node holds the lock of its data directory.

mod error;
mod make;
mod partial;
mod place;
mod source;

pub use error::BlocksError;
pub use partial::Put;
pub use place::Offered;
pub use source::ModelBlocks;

use crate::blocking::blocking;
use crate::durable::{self, DiskFull, FileError, PRIVATE};
use partial::Partial;
use place::Place;
use proto::codec::{self, Wire};
use proto::gguf::{BlockMap, Header, Run};
use proto::ids::Hash;
use proto::manifest::{Block, Contents, Manifest, ModelAnswer};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const MANIFEST_END: &str = "manifest";
const TREE_END: &str = "tree";
const BLOCK_END: &str = "block";
const PART_END: &str = "part";
const HAVE_END: &str = "have";
/// How long a block on its way waits to be fetched further.
const PART_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The blocks in one directory. Clones are the same.
#[derive(Debug, Clone)]
pub struct Blocks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    index: Mutex<Index>,
    /// Held while a part is written: blocks are finished one at a time.
    partials: Mutex<HashMap<Hash, Partial>>,
}

#[derive(Debug, Default)]
struct Index {
    places: HashMap<Hash, Place>,
    manifests: HashMap<Hash, Arc<Manifest>>,
}

/// A block that is not here, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The block.
    pub block: Block,
    /// The parts of [`proto::manifest::PART_BYTES`] that are not here.
    pub parts: Vec<u32>,
}

impl Blocks {
    /// Opens the directory, creating it and sweeping what dead processes left. Whole models are told of with
    /// [`Self::offer_whole`].
    ///
    /// # Errors
    ///
    /// [`FileError`] when the directory cannot be created, listed or swept.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        durable::create_dir(dir)?;
        durable::sweep_new(dir)?;
        let mut index = Index::default();
        let entries = fs::read_dir(dir).map_err(FileError::of("list", dir))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            index.note(path)?;
        }
        let inner = Inner {
            dir: dir.to_owned(),
            index: Mutex::new(index),
            partials: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What is known about the model's contents.
    #[must_use]
    pub fn manifest(&self, root: Hash) -> Option<Arc<Manifest>> {
        self.index().manifests.get(&root).cloned()
    }

    /// All manifests, in no order.
    #[must_use]
    pub fn manifests(&self) -> Vec<Arc<Manifest>> {
        self.index().manifests.values().cloned().collect()
    }

    /// Keeps a manifest, whose signature the caller has checked, instead of an older one of the same model.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be written.
    pub async fn keep(&self, manifest: Manifest) -> Result<Arc<Manifest>, FileError> {
        let blocks = self.clone();
        blocking(move |_| blocks.keep_blocking(manifest)).await
    }

    fn keep_blocking(&self, manifest: Manifest) -> Result<Arc<Manifest>, FileError> {
        let root = manifest.contents.root;
        let path = self.path(root, MANIFEST_END);
        durable::replace(&path, &codec::to_vec(&manifest), PRIVATE)?;
        let manifest = Arc::new(manifest);
        self.index().manifests.insert(root, manifest.clone());
        Ok(manifest)
    }

    /// Forgets a model: its manifest, and fetched blocks of it that no other manifest names.
    ///
    /// # Errors
    ///
    /// [`FileError`] when a file cannot be removed.
    pub async fn forget(&self, root: Hash) -> Result<(), FileError> {
        let blocks = self.clone();
        blocking(move |_| blocks.forget_blocking(root)).await
    }

    fn forget_blocking(&self, root: Hash) -> Result<(), FileError> {
        let Some(manifest) = self.index().manifests.remove(&root) else {
            return Ok(());
        };
        durable::remove_file(&self.path(root, MANIFEST_END))?;
        let others = self.manifests();
        let named: HashSet<Hash> = others
            .iter()
            .flat_map(|other| &other.contents.blocks)
            .map(|block| block.hash)
            .collect();
        for block in manifest
            .contents
            .blocks
            .iter()
            .filter(|block| !named.contains(&block.hash))
        {
            self.index().places.remove(&block.hash);
            self.partials().remove(&block.hash);
            for end in [BLOCK_END, TREE_END, HAVE_END, PART_END] {
                durable::remove_file(&self.path(block.hash, end))?;
            }
        }
        Ok(())
    }

    /// Serves the blocks of a model from its whole file, which was verified against the root. Copies go. Blocks.
    ///
    /// # Errors
    ///
    /// [`BlocksError::NotAModel`], [`BlocksError::Contradiction`], [`BlocksError::File`].
    pub fn offer_whole(&self, contents: &Contents, path: &Path) -> Result<(), BlocksError> {
        let (_, map) = open_model(path)?;
        if !agrees(contents, &map) {
            return Err(BlocksError::Contradiction {
                root: contents.root,
            });
        }
        for block in &contents.blocks {
            let place = Place {
                file: path.to_owned(),
                runs: map.block(block.kind).collect(),
            };
            self.index().places.insert(block.hash, place);
            self.partials().remove(&block.hash);
            for end in [BLOCK_END, HAVE_END, PART_END] {
                durable::remove_file(&self.path(block.hash, end))?;
            }
        }
        Ok(())
    }

    /// A block, if it is here and can be served. Blocks for as long as opening two files takes.
    #[must_use]
    pub fn find(&self, hash: Hash) -> Option<Offered> {
        let place = self.index().places.get(&hash).cloned()?;
        let opened = File::open(&place.file)
            .and_then(|file| Ok((file, File::open(self.path(hash, TREE_END))?)));
        match opened {
            Ok((file, tree)) => Some(Offered {
                file,
                tree,
                runs: place.runs,
            }),
            Err(error) => {
                tracing::debug!(hash = %hash.short(), %error, "a block is no longer here");
                None
            }
        }
    }

    /// Which blocks of a model are here, in the order of the contents. Blocks.
    #[must_use]
    pub fn held(&self, contents: &Contents) -> Vec<bool> {
        contents
            .blocks
            .iter()
            .map(|block| self.find(block.hash).is_some())
            .collect()
    }

    /// What to answer somebody who asks for a model; `None` when nothing of it is here. Blocks.
    #[must_use]
    pub fn answer(&self, root: Hash) -> Option<ModelAnswer> {
        let manifest = self.manifest(root)?;
        let held = self.held(&manifest.contents);
        held.contains(&true)
            .then(|| ModelAnswer::new((*manifest).clone(), &held))
    }

    /// What lacks of these blocks, once there is room for it: each block once, without those that are here.
    ///
    /// # Errors
    ///
    /// [`BlocksError::DiskFull`] before the first byte is fetched, [`BlocksError::File`].
    pub async fn missing(&self, wanted: &[Block]) -> Result<Vec<Missing>, BlocksError> {
        let (blocks, wanted) = (self.clone(), wanted.to_vec());
        blocking(move |_| blocks.missing_blocking(&wanted)).await
    }

    fn missing_blocking(&self, wanted: &[Block]) -> Result<Vec<Missing>, BlocksError> {
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for block in wanted.iter().filter(|block| seen.insert(block.hash)) {
            if self.find(block.hash).is_none() {
                let have = partial::read_have(&self.inner.dir, block)?;
                let parts = (0..block.parts())
                    .filter(|part| !have[*part as usize])
                    .collect();
                missing.push(Missing {
                    block: *block,
                    parts,
                });
            }
        }
        let bytes = |m: &Missing| -> u64 { m.parts.iter().map(|p| m.block.part_bytes(*p)).sum() };
        DiskFull::check(&self.inner.dir, missing.iter().map(bytes).sum())?;
        Ok(missing)
    }

    /// Keeps a part of a block, whose bytes were verified. With the last part the whole block is checked again and gets
    /// its name. Blocks; one part after the other.
    ///
    /// # Errors
    ///
    /// [`BlocksError::DiskFull`], [`BlocksError::File`]: what was kept before stays, and the block has no name.
    ///
    /// # Panics
    ///
    /// When `bytes` is not as long as the part: the caller's bug.
    pub fn put(&self, block: &Block, part: u32, bytes: &[u8]) -> Result<Put, BlocksError> {
        assert_eq!(
            bytes.len() as u64,
            block.part_bytes(part),
            "a part of another length"
        );
        let mut partials = self.partials();
        if self.find(block.hash).is_some() {
            return Ok(Put::Sealed);
        }
        let partial = match partials.entry(block.hash) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(Partial::open(&self.inner.dir, block)?),
        };
        partial.write(part, bytes)?;
        if !partial.is_complete() {
            return Ok(Put::More);
        }
        let partial = partials
            .remove(&block.hash)
            .expect("it is there as long as the lock is held");
        match partial.seal()? {
            Some(file) => {
                let place = Place::copy(file, block.bytes);
                self.index().places.insert(block.hash, place);
                Ok(Put::Sealed)
            }
            None => Ok(Put::Damaged),
        }
    }

    fn path(&self, name: Hash, end: &str) -> PathBuf {
        path_in(&self.inner.dir, name, end)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.inner
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn partials(&self) -> MutexGuard<'_, HashMap<Hash, Partial>> {
        self.inner
            .partials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Takes note of a file of the directory; removes one that is of no use any more.
    fn note(&mut self, path: PathBuf) -> Result<(), FileError> {
        let text =
            |part: Option<&std::ffi::OsStr>| part.and_then(|s| s.to_str()).map(str::to_owned);
        let Some(Ok(name)) = text(path.file_stem()).map(|stem| stem.parse::<Hash>()) else {
            return Ok(());
        };
        match text(path.extension()).as_deref() {
            Some(MANIFEST_END) => match read_manifest(&path, name) {
                Ok(manifest) => drop(self.manifests.insert(name, Arc::new(manifest))),
                Err(why) => tracing::warn!(path = %path.display(), why, "not a usable manifest"),
            },
            Some(BLOCK_END) => {
                let bytes = fs::metadata(&path)
                    .map_err(FileError::of("measure", &path))?
                    .len();
                self.places.insert(name, Place::copy(path, bytes));
            }
            Some(PART_END | HAVE_END) if is_stale(&path) => durable::remove_file(&path)?,
            _ => {}
        }
        Ok(())
    }
}

fn is_stale(path: &Path) -> bool {
    let changed = fs::metadata(path).and_then(|facts| facts.modified());
    let age = changed
        .ok()
        .and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age > PART_LIFE)
}

fn read_manifest(path: &Path, root: Hash) -> Result<Manifest, String> {
    let bytes = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if bytes > Manifest::BYTES_MAX as u64 {
        return Err(format!("it has {bytes} bytes"));
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let manifest = Manifest::from_bytes(&bytes).map_err(|e| e.to_string())?;
    if manifest.contents.root != root {
        return Err("it is about another model".to_owned());
    }
    Ok(manifest)
}

fn path_in(dir: &Path, name: Hash, end: &str) -> PathBuf {
    dir.join(format!("{name}.{end}"))
}

/// Opens a model's whole file and looks at its header.
fn open_model(path: &Path) -> Result<(File, BlockMap), BlocksError> {
    let file = File::open(path).map_err(FileError::of("open", path))?;
    let bytes = file
        .metadata()
        .map_err(FileError::of("measure", path))?
        .len();
    let header =
        Header::read(BufReader::new(&file), bytes).map_err(|source| BlocksError::NotAModel {
            path: path.to_owned(),
            source,
        })?;
    Ok((file, BlockMap::of(&header)))
}

/// Whether contents name the blocks that the header says.
fn agrees(contents: &Contents, map: &BlockMap) -> bool {
    let size = |kind| map.block(kind).map(|run: Run| run.bytes).sum::<u64>();
    let said = contents
        .blocks
        .iter()
        .map(|block| (block.kind, block.bytes));
    said.eq(map.kinds().into_iter().map(|kind| (kind, size(kind))))
}
