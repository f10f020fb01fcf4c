//! What the kernel says about the machine and this process, read again and again through files that stay open.
//!
//! Once the process is sealed no file can be opened (see [`crate::sandbox`]), so these are opened before.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// How much of a file is read, in bytes: all of them are one line.
const READ_BYTES: usize = 256;

/// The open files of proc(5); those that are not there are skipped.
#[derive(Debug)]
pub struct Figures {
    load: Option<File>,
    memory: Option<File>,
}

impl Figures {
    /// Opens them.
    #[must_use]
    pub fn open() -> Self {
        let open = |path| File::open(path).ok();
        Self {
            load: open("/proc/loadavg"),
            memory: open("/proc/self/statm"),
        }
    }

    /// Threads that run on the machine or could, at this moment, the calling one included.
    #[must_use]
    pub fn running(&self) -> Option<u32> {
        running(&beginning(self.load.as_ref()?)?)
    }

    /// Resident memory of this process in bytes, 0 where it cannot be read.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.pages(1)
    }

    /// Resident memory that is this process's alone, in bytes, 0 where it cannot be read.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.pages(1).saturating_sub(self.pages(2))
    }

    /// Address space of this process in bytes, 0 where it cannot be read.
    #[must_use]
    pub fn address_bytes(&self) -> u64 {
        self.pages(0)
    }

    /// A field of `/proc/self/statm`, in bytes.
    fn pages(&self, field: usize) -> u64 {
        let count = || -> Option<u64> {
            let statm = beginning(self.memory.as_ref()?)?;
            statm.split_whitespace().nth(field)?.parse().ok()
        };
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page.ok().flatten().unwrap_or(4096);
        count().unwrap_or(0) * page as u64
    }
}

/// Of `0.20 0.18 0.12 1/80 11206`, the 1.
fn running(load: &str) -> Option<u32> {
    let (running, _all) = load.split_whitespace().nth(3)?.split_once('/')?;
    running.parse().ok()
}

fn beginning(file: &File) -> Option<String> {
    let mut bytes = vec![0; READ_BYTES];
    let count = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(count);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_read_twice_and_says_something_new() {
        let figures = Figures::open();
        assert!(figures.running().unwrap() >= 1, "this thread at least");
        let before = figures.address_bytes();
        let more = std::hint::black_box(Vec::<u8>::with_capacity(1 << 30));
        let grown = figures.address_bytes() - before;
        assert!(grown >= 1 << 30, "grown by {grown}");
        assert!(figures.resident_bytes() > 0 && figures.resident_bytes() < before);
        drop(more);
    }

    #[test]
    fn the_load_is_read_or_not() {
        assert_eq!(running("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        for rubbish in ["", "1 2 3", "1 2 3 4 5", "1 2 3 x/80 5"] {
            assert_eq!(running(rubbish), None, "{rubbish}");
        }
    }
}
