//! A disk that answers late holds up who asked it, and nobody else.

use crate::blocks::{Bench, hand_over, specimen_of};
use proto::manifest::BlockKind;
use specimen::Family;
use std::fs::{self, OpenOptions};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use store::blocks::ModelBlocks;
use store::progress::Silent;

/// How long the disk of the test below keeps whoever waits for it, should that be the test itself.
const DISK_SLOW: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_disk_that_does_not_answer_keeps_no_other_task_waiting() {
    let (full, new) = (Bench::new(), Bench::new());
    let model = full.model(&specimen_of(Family::Llama));
    let silent = Arc::new(Silent);
    let contents = full.blocks.contents_of(&model, silent).await.unwrap();
    let header = *contents.block(BlockKind::Header).unwrap();
    hand_over(&full.blocks, &new.blocks, &[header]).await;
    // Whoever opens a pipe waits until somebody writes to it.
    let pipe = new.path(&format!("blocks/{}.block", header.hash));
    fs::remove_file(&pipe).unwrap();
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (answer, answers) = mpsc::sync_channel(1);
    let disk = thread::spawn(move || {
        let _ = answers.recv_timeout(DISK_SLOW);
        drop(OpenOptions::new().write(true).open(&pipe).unwrap());
    });
    let opening = ModelBlocks::open(&new.blocks, &contents);
    tokio::pin!(opening);
    tokio::select! {
        biased;
        opened = &mut opening => panic!("before the disk answered: {opened:?}"),
        () = tokio::time::sleep(Duration::from_millis(1)) => {}
    }
    answer.send(()).unwrap();
    assert!(opening.await.is_err(), "a pipe is no block");
    disk.join().unwrap();
}
