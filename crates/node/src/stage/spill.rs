//! Retained outputs of long sessions on disk, in files without a name.

use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use store::spill::{SpillFile, SpillRecord};
use swarm::spill::{Away, Spill, Spills};
use tracing::warn;

#[derive(Debug)]
struct File(SpillFile);

#[derive(Debug)]
struct Record(SpillRecord);

impl Spill for File {
    fn put(&self, bytes: &[u8]) -> Option<Arc<dyn Away>> {
        Some(Arc::new(Record(self.0.put(bytes)?)))
    }
}

impl Away for Record {
    fn read(&self) -> Option<Bytes> {
        self.0.read().map(Bytes::from)
    }
}

/// A file for each session, on the disk that `dir` is on. Where it takes none, outputs stay in memory.
pub(super) fn files(dir: PathBuf) -> Spills {
    Box::new(move || match SpillFile::create(&dir) {
        Ok(file) => Some(Arc::new(File(file))),
        Err(error) => {
            warn!(dir = %dir.display(), %error, "what a stage retains stays in memory");
            None
        }
    })
}
