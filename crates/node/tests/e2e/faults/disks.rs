//! Row 18: a node whose disk is full, or fails.

use super::{linked, member, on, world};
use crate::support::http::greedy;
use crate::support::models::slow;
use lab::Machine;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// The disk, in bytes.
const DISK: u64 = 32 << 20;
/// What a ballast is written in.
const BLOCK: usize = 4_096;

/// Takes all room of a disk, to the last byte.
fn fill(disk: &Path) {
    let mut file = File::create(disk.join("ballast")).unwrap();
    for block in [BLOCK, 1] {
        let error = loop {
            if let Err(error) = file.write_all(&vec![1; block]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
    let error = File::create(disk.join("more")).and_then(|mut file| file.write_all(&[1]));
    assert_eq!(
        error.unwrap_err().kind(),
        ErrorKind::StorageFull,
        "it is full"
    );
}

#[test]
fn a_node_whose_disk_fails_goes_on_answering_and_has_what_was_synchronised_when_it_is_replaced() {
    let (_world, [a, b, c]) = world(182, ["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    on(&a, async || {
        let mut disk = a.failing_disk("disk", DISK).unwrap();
        let first = member(&a, &model).data(disk.path()).up().await;
        let second = member(&b, &model).join(&first).up().await;
        for node in [&first, &second] {
            linked(node, 1).await;
        }
        let question = greedy("hello", 48);
        // Who asks by command line needs the disk, too.
        let client = first.client();
        let expected = client.stream(question.clone()).await.unwrap();
        let id = first.id();
        let invited = member(&c, &model).join(&first);

        disk.fail().unwrap();
        let error = std::fs::File::create(disk.path().join("new")).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(nix::errno::Errno::EIO as i32),
            "{error}"
        );
        for _ in 0..2 {
            assert_eq!(client.stream(question.clone()).await.unwrap(), expected);
        }
        // What would have to be kept is refused: the ticket could be used twice.
        invited.refused();

        disk.replace().unwrap();
        let setup = first.setup().clone();
        let mut first = first;
        first.kill9();
        let first = setup.up().await;
        assert_eq!(first.id(), id);
        let third = member(&c, &model).join(&first).up().await;
        for node in [&first, &second, &third] {
            linked(node, 2).await;
        }
        assert_eq!(first.client().stream(question).await.unwrap(), expected);
    });
}

#[test]
fn a_node_with_a_full_disk_goes_on_answering_and_is_the_same_when_there_is_room_again() {
    let (_world, [a, b, c]) = world(181, ["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let model = slow(dir.path());
    on(&a, async || {
        let disk = |machine: &Machine| machine.disk("disk", DISK).unwrap();
        let (here, there) = (disk(&a), disk(&b));
        let first = member(&a, &model).data(&here).split(1).up().await;
        let second = member(&b, &model).data(&there).join(&first).up().await;
        first.ring_up().await;
        let question = greedy("hello", 48);
        let expected = first.client().stream(question.clone()).await.unwrap();
        let ids = [first.id(), second.id()];

        fill(&here);
        fill(&there);
        assert_eq!(
            first.client().stream(question.clone()).await.unwrap(),
            expected
        );
        // What would have to be kept is refused: a ticket could be used twice.
        member(&c, &model).join(&first).refused();

        for disk in [&here, &there] {
            std::fs::remove_file(disk.join("ballast")).unwrap();
        }
        let third = member(&c, &model).join(&first).up().await;
        for node in [&first, &second, &third] {
            linked(node, 2).await;
        }
        assert_eq!(
            first.client().stream(question.clone()).await.unwrap(),
            expected
        );
        let setups = [first.setup().clone(), second.setup().clone()];
        for mut node in [first, second] {
            node.kill9();
        }
        let (first, second) = (setups[0].up().await, setups[1].up().await);
        assert_eq!([first.id(), second.id()], ids);
        first.ring_up().await;
        assert_eq!(first.client().stream(question).await.unwrap(), expected);
    });
}
