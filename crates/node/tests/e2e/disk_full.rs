//! A disk that fills up while a model is fetched.

use crate::support::hub::{BeforePiece, Hub, catalogue};
use crate::support::node::{Setup, says};
use crate::support::processes::BINARY;
use crate::support::wait::{PATIENCE, settles};
use proto::ids::Hash;
use specimen::{Family, Shape, Weights};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// What the first pull is to have before its disk fills up, in bytes.
const ARRIVED_BYTES: u64 = 256 << 10;
/// Mounts a disk of 6 MiB that ends with this shell, pulls until it is full, shows what is left, makes room, pulls again.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=6m tmpfs "$DISK" || exit 99
"$@"; echo "first pull: $?"
find "$DISK" -type f -size +0 ! -name ballast | sed "s|^$DISK/|left: |"
rm "$DISK/ballast"
"$@"; echo "second pull: $?"
find "$DISK" -type f -size +0 | sed "s|^$DISK/|then: |"
"#;

/// Takes all room of the disk, seen through the shell's own mounts, once some of the download is on it.
fn fill(shell: u32, disk: &str) {
    let disk = PathBuf::from(format!("/proc/{shell}/root{disk}"));
    let arrived = || {
        let folders = std::fs::read_dir(disk.join("models/staging")).unwrap();
        let mut parts = folders.map(|folder| folder.unwrap().path().join("hub.part"));
        parts.any(|part| part.metadata().is_ok_and(|part| part.len() > ARRIVED_BYTES))
    };
    // The network is ahead of the disk by what its buffers hold.
    assert!(
        settles(PATIENCE, arrived),
        "nothing of the download reaches the disk"
    );
    let mut file = File::create(disk.join("ballast")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Runs a command twice in a mount namespace of its own, with a small disk in the place of `disk`.
fn in_a_small_disk(pull: &Command, disk: &str) -> std::process::Child {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "sh",
        BINARY,
    ]);
    unshare
        .args(pull.get_args())
        .envs(pull.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let child = unshare
        .env("DISK", disk)
        .stdout(std::process::Stdio::piped());
    child.stderr(std::process::Stdio::piped()).spawn().unwrap()
}

/// What the disk holds after the first pull: nothing but what a second one can go on from.
fn only_resumable_is_left(first: &str) {
    for left in first.lines().filter_map(|line| line.strip_prefix("left: ")) {
        let resumable = left.starts_with("models/staging/");
        assert!(
            resumable || left.starts_with("state."),
            "left behind: {left}"
        );
    }
    assert!(
        first.contains("left: models/staging/"),
        "what came is kept: {first}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_is_named_and_the_pull_goes_on_when_there_is_room() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts a small disk; run it as root"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let half = file.len() / 2;
    let setup = Setup::new("n").env("XDG_DATA_HOME", dir.path().join("empty").to_str().unwrap());
    let disk = setup.dir().to_str().unwrap().to_owned();

    let (shell, filled) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
    let (shell_pid, filled_now, where_to) = (shell.clone(), filled.clone(), disk.clone());
    let before: BeforePiece = Arc::new(move |at| {
        if at >= half && !filled_now.swap(true, Ordering::SeqCst) {
            fill(*shell_pid.wait(), &where_to);
        }
    });
    let hub = Hub::start(file.clone(), before).await;
    let path = catalogue(dir.path(), "tiny", &file, Hash::of(&file));
    let setup = setup.env("HF_ENDPOINT", &hub.url);

    let pull = setup.command(&[
        "--catalogue",
        path.to_str().unwrap(),
        "model",
        "pull",
        "tiny",
    ]);
    let child = in_a_small_disk(&pull, &disk);
    shell.set(child.id()).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();

    assert!(
        filled.load(Ordering::SeqCst),
        "the disk was filled during the download: {out}{err}"
    );
    let (first, second) = out
        .split_once("second pull: ")
        .expect("the script ran to its end");
    says(first, &["first pull: 1"]);
    says(
        &err,
        &["error: ", &format!("{disk}/models"), "bytes", "--data-dir"],
    );
    only_resumable_is_left(first);
    assert!(second.starts_with('0'), "{out}{err}");
    let starts = hub.starts();
    assert!(
        starts.len() == 2 && starts[1] > 0,
        "it went on where it was: {starts:?}\n{out}{err}"
    );
    assert!(
        second.contains(&format!("then: models/{}.gguf", Hash::of(&file))),
        "{second}"
    );
    assert!(
        !second.contains("staging/"),
        "nothing else is left: {second}"
    );
}
