//! Row 23: nodes whose wall clocks are an hour off, and jump.
//!
//! Linux has no wall clock of one process, so a small library in C stands between a process and its clock. The time is moved by
//! what a file says, which is mapped into memory, so that an engine which is locked up reads it as well.

use super::{Ring, on, world};
use crate::support::http::greedy;
use crate::support::processes::engine_hosts;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// An hour, in seconds.
const HOUR: i64 = 3_600;
/// How far a process may be from what we expect of its clock, in seconds: it has to be started.
const SLACK: i64 = 60;
/// Tokens of an answer: enough to move clocks in the middle.
const TOKENS: u32 = 400;

/// Moves the wall clock of a process, and no other, by the seconds in the file `SKEW_FILE`.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real)(clockid_t, struct timespec *);
static const volatile int64_t *skew;

__attribute__((constructor)) static void begin(void) {
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SKEW_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, sizeof *skew, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) skew = at;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real) begin();
    int result = real(clock, time);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result == 0 && is_wall && skew) time->tv_sec += *skew;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A clock that can be moved.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(dir: &Path, library: &Path, name: &str) -> Self {
        let file = dir.join(name);
        let clock = Self {
            library: library.to_path_buf(),
            file,
        };
        clock.moves(0);
        clock
    }

    /// From now on it is so many seconds ahead of the system's.
    fn moves(&self, seconds: i64) {
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.file);
        let mut file = file.unwrap();
        file.rewind().unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }

    /// By how much it is ahead, as a process sees it that is started under it.
    fn is_ahead(&self) -> i64 {
        let mut date = Command::new("date");
        let output = date.arg("+%s").envs(self.envs()).output().unwrap();
        let seen: i64 = String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        seen - i64::try_from(now).unwrap()
    }

    fn envs(&self) -> [(&'static str, &str); 2] {
        [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("SKEW_FILE", self.file.to_str().unwrap()),
        ]
    }
}

/// Compiles the library.
fn library(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("skew.c"), dir.join("skew.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl");
    let output = cc.output().expect("cc is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    library
}

/// Whether a process has the library, and the file with it.
fn is_under(pid: u32, clock: &Clock) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    [&clock.library, &clock.file]
        .iter()
        .all(|path| maps.contains(path.to_str().unwrap()))
}

#[test]
fn clocks_that_are_an_hour_off_and_jump_change_nothing() {
    let (_world, machines) = world(231, ["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path());
    let clocks = ["a", "b", "c"].map(|name| Clock::new(dir.path(), &library, name));
    for (clock, ahead) in clocks.iter().zip([0, HOUR, -HOUR]) {
        clock.moves(ahead);
        let seen = clock.is_ahead();
        assert!(
            (seen - ahead).abs() <= SLACK,
            "{seen} where {ahead} was asked"
        );
    }
    on(&machines[0], async || {
        let all: Vec<&lab::Machine> = machines.iter().collect();
        let ring = Ring::with(&all, 2, |setup| {
            let at = machines
                .iter()
                .position(|machine| setup.is_inside(machine.netns()))
                .unwrap();
            let [preload, file] = clocks[at].envs();
            setup.env(preload.0, preload.1).env(file.0, file.1)
        })
        .await;
        for (node, clock) in ring.nodes.iter().zip(&clocks) {
            assert!(is_under(node.pid, clock), "the node has another clock");
            let engines = engine_hosts(node.pid);
            assert!(!engines.is_empty() && engines.iter().all(|engine| is_under(*engine, clock)));
        }
        let question = greedy("hello", TOKENS);
        let (expected, id) = (ring.undisturbed(&question).await, ring.id());
        let mut stream = ring.a().client().open(question.clone()).await.unwrap();
        let mut text = stream.texts(20).await;
        for ahead in [[HOUR, -HOUR, HOUR], [-HOUR, HOUR, 0]] {
            clocks
                .iter()
                .zip(ahead)
                .for_each(|(clock, ahead)| clock.moves(ahead));
            text += &stream.texts(20).await;
        }
        let rest = stream.answer().await.unwrap();
        assert_eq!(text + &rest.text, expected.text);
        assert_eq!(ring.id(), id, "the ring is another one");
        ring.all_there().await;
    });
}
