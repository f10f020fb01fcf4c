//! Retained outputs of long sessions on disk, in files without a name.

use bytes::Bytes;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use store::spill::{SpillFile, SpillRecord};
use swarm::spill::{Away, Spill, Spills};
use tracing::warn;

/// A file that is made when something is put away for the first time: few sessions ever need one.
#[derive(Debug)]
struct File {
    dir: PathBuf,
    made: OnceLock<Option<SpillFile>>,
}

#[derive(Debug)]
struct Record(SpillRecord);

impl File {
    fn make(&self) -> Option<SpillFile> {
        let made = SpillFile::create(&self.dir);
        let failed = |error| warn!(dir = %self.dir.display(), %error, "what a stage retains stays in memory");
        made.map_err(failed).ok()
    }
}

impl Spill for File {
    fn put(&self, bytes: &[u8]) -> Option<Arc<dyn Away>> {
        let file = self.made.get_or_init(|| self.make()).as_ref()?;
        Some(Arc::new(Record(file.put(bytes)?)))
    }
}

impl Away for Record {
    fn read(&self) -> Option<Bytes> {
        self.0.read().map(Bytes::from)
    }
}

/// A file for each session that needs one, on the disk that `dir` is on. Where it takes none, outputs stay in memory.
pub(super) fn files(dir: PathBuf) -> Spills {
    Box::new(move || {
        Some(Arc::new(File {
            dir: dir.clone(),
            made: OnceLock::new(),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_when_it_is_needed_and_a_disk_that_takes_none_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let place = |dir: PathBuf| files(dir)().unwrap();
        let missing = dir.path().join("later");
        let later = place(missing.clone());
        std::fs::create_dir(&missing).unwrap();
        assert_eq!(later.put(&[1, 2]).unwrap().read().unwrap(), [1, 2][..]);
        assert!(place(dir.path().join("never")).put(&[1]).is_none());
    }
}
