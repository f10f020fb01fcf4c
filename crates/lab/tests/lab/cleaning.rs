//! Nothing is left of a world, however it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use crate::world;

/// What could be left of a world: a namespace, a process, a directory, a mount.
#[derive(Debug, Clone)]
struct Traces {
    netns: String,
    pid: i32,
    dir: PathBuf,
}

impl Traces {
    /// Which of them are there.
    fn left(&self) -> [bool; 4] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let lives = stat.is_ok_and(|stat| !stat.contains(") Z "));
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        [
            Path::new("/run/netns").join(&self.netns).exists(),
            lives,
            self.dir.exists(),
            mounts.contains(self.dir.to_str().unwrap()),
        ]
    }
}

#[test]
fn nothing_is_left_of_a_world_that_ends_or_panics() {
    for panics in [false, true] {
        let Some(mut world) = world(1) else { return };
        let seen = Arc::<Mutex<Option<Traces>>>::default();
        let of_world = seen.clone();
        let run = AssertUnwindSafe(move || {
            let a = world.machine("a").unwrap();
            a.disk("disk", 1 << 20).unwrap();
            let mut command = a.command("sh");
            let process = a.start("sleeper", command.args(["-c", "sleep 1000 & wait"]));
            let traces = Traces {
                netns: a.netns().to_owned(),
                pid: process.as_ref().unwrap().pid(),
                dir: a.dir().to_path_buf(),
            };
            assert_eq!(traces.left(), [true; 4]);
            *of_world.lock().unwrap() = Some(traces);
            assert!(!panics, "as a test would that fails");
        });
        assert_eq!(catch_unwind(run).is_err(), panics);
        let traces = seen.lock().unwrap().clone().unwrap();
        assert_eq!(traces.left(), [false; 4], "{traces:?}");
    }
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next_world() {
    let Some(first) = world(2) else { return };
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let name = format!("myzel-lab-{}-1", dead.id());
    let netns = format!("{name}-a");
    let dir = std::env::temp_dir().join(&name);
    let disk = dir.join("a/disk");
    std::fs::create_dir_all(&disk).unwrap();
    ran("mount", &["-t", "tmpfs", "tmpfs", disk.to_str().unwrap()]);
    ran("ip", &["netns", "add", &netns]);
    let mut left = Command::new("ip")
        .args(["netns", "exec", &netns, "sleep", "1000"])
        .spawn()
        .unwrap();
    let traces = Traces {
        netns,
        pid: left.id().cast_signed(),
        dir,
    };
    inside(&left, &traces.netns);
    assert_eq!(traces.left(), [true; 4]);
    let second = world(3).unwrap();
    assert_eq!(traces.left(), [false; 4], "{traces:?}");
    left.wait().unwrap();
    drop((first, second));
}

fn ran(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// Waits until a process has entered a namespace.
fn inside(process: &Child, netns: &str) {
    use std::os::unix::fs::MetadataExt;
    let wanted = Path::new("/run/netns").join(netns);
    let wanted = std::fs::metadata(wanted).unwrap().ino();
    let own = format!("/proc/{}/ns/net", process.id());
    let patience = std::time::Duration::from_secs(20);
    lab::wait::until(patience, "it is inside", || {
        Ok((std::fs::metadata(&own)?.ino() == wanted).then_some(()))
    })
    .unwrap();
}
