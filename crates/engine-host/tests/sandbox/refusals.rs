//! Each probe twice: it must fail in a sealed process, and succeed in one that is not.

use crate::Test;
use crate::models::small;
use nix::libc::{EACCES, ENOMEM, EPERM, SIGABRT};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_refused_when_sealed_is_allowed_before", refused),
    ("what_computing_needs_still_works", works),
    ("an_abort_still_kills", aborts),
    ("a_sealed_process_says_so", full),
    ("a_kernel_without_landlock_is_named", without_landlock),
    ("threads_from_before_are_named", with_threads),
];

struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        small(dir.path());
        std::fs::write(dir.path().join("other"), "secret").unwrap();
        Self { dir }
    }

    fn probe(&self, mode: &str, name: &str) -> Output {
        let path = |name| self.dir.path().join(name).display().to_string();
        Command::new(std::env::current_exe().unwrap())
            .args(["probe", mode, name, &path("small.gguf"), &path("other")])
            .output()
            .unwrap()
    }

    fn code(&self, mode: &str, name: &str) -> Option<i32> {
        self.probe(mode, name).status.code()
    }
}

fn refused() {
    for (name, expected) in [
        ("read another file", EACCES),
        ("list a directory", EACCES),
        ("write the model", EPERM),
        ("create a file", EPERM),
        ("remove a file", EPERM),
        ("a TCP socket", EPERM),
        ("a UDP socket", EPERM),
        ("a Unix socket", EPERM),
        ("start a process", EPERM),
        ("become a process", EPERM),
        ("fork", EPERM),
        ("trace", EPERM),
        ("signal another process", EPERM),
        ("executable memory", EPERM),
        ("allocate too much", ENOMEM),
        ("become dumpable", EPERM),
        ("kernel services", EPERM),
    ] {
        let ground = Ground::new();
        assert_eq!(
            ground.code("sealed", name),
            Some(expected),
            "{name}, sealed"
        );
        assert_eq!(ground.code("open", name), Some(0), "{name}, not sealed");
    }
}

fn works() {
    let ground = Ground::new();
    for name in ["read the model", "threads"] {
        assert_eq!(ground.code("sealed", name), Some(0), "{name}");
    }
}

fn aborts() {
    let ended = Ground::new().probe("sealed", "abort").status;
    assert_eq!(ended.signal(), Some(SIGABRT), "{ended}");
    assert!(!ended.core_dumped());
}

fn report(mode: &str) -> String {
    let output = Ground::new().probe(mode, "report");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn full() {
    assert_eq!(report("sealed"), "full: \n");
}

fn without_landlock() {
    let said = report("without-landlock");
    assert!(
        said.starts_with("partial: Landlock, so other files can be read"),
        "{said}"
    );
    let ground = Ground::new();
    assert_eq!(
        ground.code("without-landlock", "read another file"),
        Some(0)
    );
    assert_eq!(ground.code("without-landlock", "a TCP socket"), Some(EPERM));
}

fn with_threads() {
    let said = report("with-threads");
    assert!(
        said.starts_with("partial: 1 threads that run already"),
        "{said}"
    );
}
