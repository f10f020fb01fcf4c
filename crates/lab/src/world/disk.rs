//! A disk that can fail: a file system of its own, which on command answers everything with an input/output error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::ground::run;

/// The request that shuts an ext4 file system down (linux/fs.h, `EXT4_IOC_SHUTDOWN`), and its flag: what the journal has not
/// written is lost.
const SHUTDOWN: &str = "0x8004587d";
const WITHOUT_JOURNAL: &str = "2";

/// A directory on such a disk. It is gone with its world.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    image: PathBuf,
    /// How often it was replaced.
    copies: u32,
}

impl Disk {
    /// Makes a file system of so many bytes in a file, and mounts it.
    pub(crate) fn make(dir: PathBuf, bytes: u64) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        let image = dir.with_extension("ext4");
        let file = fs::File::create_new(&image);
        let file = file.with_context(|| format!("making {}", image.display()))?;
        file.set_len(bytes)?;
        run(
            Command::new("mkfs.ext4").arg("-q").arg(&image),
            "install e2fsprogs (Debian: apt-get install e2fsprogs)",
        )?;
        let disk = Self {
            dir,
            image,
            copies: 0,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&self.image).arg(&self.dir);
        run(&mut mount, "a kernel with ext4 and loop devices is needed").map(drop)
    }

    /// From now on everything that is asked of it is an input/output error. What was not synchronised is lost.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub fn fail(&self) -> Result<()> {
        let script = format!(
            "import fcntl, os, struct, sys\n\
             fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), {SHUTDOWN}, struct.pack('I', {WITHOUT_JOURNAL}))"
        );
        let mut python = Command::new("python3");
        python.args(["-c", &script]).arg(&self.dir);
        let out = "install python3 (Debian: apt-get install python3)";
        run(&mut python, out).map(drop)
    }

    /// Puts a sound disk in its place, with what the failed one has of it. Processes that had files open have the failed ones still.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or mounted.
    pub fn replace(&mut self) -> Result<()> {
        umount2(&self.dir, MntFlags::MNT_DETACH)?;
        self.copies += 1;
        // Of the same file, the system would give the failed one again, as long as anybody has it.
        let copy = self.image.with_extension(format!("{}.ext4", self.copies));
        fs::copy(&self.image, &copy)?;
        fs::remove_file(&self.image)?;
        self.image = copy;
        self.mount()
    }
}
