//! Model files that are not what they seem, and models that are not there.

use crate::planned;
use crate::support::http::greedy;
use crate::support::hub::{Hub, catalogue};
use crate::support::models::small;
use crate::support::node::{Setup, says};
use crate::support::wait::eventually;
use node::status::Answers;
use proto::ids::Hash;
use specimen::{Family, Shape, Weights};
use std::sync::Arc;

/// Where a GGUF file has its counts of tensors and keys, and the length of its first key.
const TENSORS_AT: usize = 8;
const KEYS_AT: usize = 16;
const FIRST_KEY_AT: usize = 24;

/// `bytes` with `value` at `at`.
fn with_u64(bytes: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// `bytes` with the 32-bit value of `key` replaced.
fn with_key(bytes: &[u8], key: &str, value: u32) -> Vec<u8> {
    let at = bytes
        .windows(key.len())
        .position(|window| window == key.as_bytes())
        .unwrap();
    // Behind the key come the type's number and the value, 4 bytes each.
    let at = at + key.len() + 4;
    let mut bytes = bytes.to_vec();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// `bytes` with the length of a tensor's first row doubled, which the file does not have room for.
fn with_longer_tensor(bytes: &[u8]) -> Vec<u8> {
    let name = b"output_norm.weight";
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    // Behind the name comes the number of dimensions, 4 bytes, and then the first.
    let at = at + name.len() + 4;
    let dim = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    with_u64(bytes, at, dim << 20)
}

#[tokio::test]
async fn files_that_lie_are_refused_before_the_engine_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let good = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let path = dir.path().join("bad.gguf");
    for (bytes, parts) in [
        (
            good[..good.len() - 1].to_vec(),
            &["its data ends at byte", "fetch the file again"][..],
        ),
        (good[..good.len() / 2].to_vec(), &["its data ends at byte"]),
        (good[..1000].to_vec(), &["at byte", "the file ends after"]),
        (Vec::new(), &["at byte 0"]),
        (
            b"This is no model, but a letter.".to_vec(),
            &["does not begin with \"GGUF\""],
        ),
        (
            with_u64(&good, TENSORS_AT, u64::MAX),
            &["at byte 8", "is more than"],
        ),
        (
            with_u64(&good, KEYS_AT, u64::MAX),
            &["at byte 16", "is more than"],
        ),
        (with_u64(&good, FIRST_KEY_AT, u64::MAX / 2), &["at byte 24"]),
        (
            with_key(&good, "llama.block_count", 4_000_000),
            &["llama.block_count", "4000000"],
        ),
        (
            with_longer_tensor(&good),
            &["offset of tensor", "at byte", "without gap or overlap"],
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let said = Setup::new("n").model(&path).refused();
        says(&said, &["bad.gguf", "bad GGUF file"]);
        says(&said, parts);
        assert_eq!(
            said.matches("bad GGUF file").count(),
            1,
            "said twice: {said}"
        );
        assert!(
            !said.contains("Endpoint dropped"),
            "the network was left open: {said}"
        );
        // Whether the preflight or the engine refused makes a difference: a native fault is not an answer.
        assert!(!said.contains("engine"), "{said}");
    }
    std::fs::write(&path, good).unwrap();
    Setup::new("n").model(&path).up().await;
}

#[tokio::test]
async fn a_file_that_only_the_engine_can_see_through_is_an_error_and_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    let good = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let path = dir.path().join("odd.gguf");
    // A head count that no tensor agrees with.
    std::fs::write(&path, with_key(&good, "llama.attention.head_count_kv", 3)).unwrap();
    says(&Setup::new("n").model(&path).refused(), &["odd", "error: "]);
}

#[tokio::test]
async fn a_file_with_another_hash_than_the_catalogue_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let hub = Hub::start(file.clone(), Arc::new(|_| ())).await;
    let (right, wrong) = (Hash::of(&file), Hash([7; 32]));
    let setup = Setup::new("n")
        .env("HF_ENDPOINT", &hub.url)
        .arg("--model", "tiny");
    let with_catalogue = |blake3| {
        let path = catalogue(dir.path(), "tiny", &file, blake3);
        setup.clone().arg("--catalogue", path.to_str().unwrap())
    };
    let setup_wrong = with_catalogue(wrong);
    let said = tokio::task::spawn_blocking(move || setup_wrong.refused())
        .await
        .unwrap();
    says(
        &said,
        &[
            "tiny could not be fetched",
            "not the expected file",
            "BLAKE3",
        ],
    );
    says(
        &said,
        &[&right.to_string(), &wrong.to_string(), "myzel model pull"],
    );
    assert!(!hub.starts().is_empty(), "the file was fetched");
    let kept = std::fs::read_dir(setup.dir().join("models"))
        .unwrap()
        .flatten();
    let kept: Vec<_> = kept
        .map(|entry| entry.path())
        .filter(|p| p.extension().is_some())
        .collect();
    assert_eq!(kept, [] as [std::path::PathBuf; 0], "nothing was stored");

    let node = with_catalogue(right).up().await;
    assert_eq!(node.status().model.blake3, right);
}

#[tokio::test]
async fn a_peer_without_memory_is_named_and_another_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let model = small(dir.path());
    let own = planned::small_bytes(&Setup::new("own").model(&model)).await;
    let a = Setup::new("a").model(&model).split(1).up().await;
    // Its own model takes all but a mebibyte of what it gives.
    let memory = planned::kib(own + (1 << 20));
    let b = Setup::new("full").model(&model).arg("--memory", &memory);
    let b = b.join(&a).up().await;
    let why = eventually("the coordinator says why there is no ring", || async {
        a.status()
            .ring
            .unwrap()
            .why
            .filter(|why| why.contains("bytes of memory are needed"))
    })
    .await;
    let b_id = b.id().short();
    says(&why, &[&b_id, "\"full\"", "--memory"]);
    let status = a.status();
    assert_eq!(status.answers, Answers::Home, "the coordinator goes on");
    let answer = a.client().ask(greedy("hello", 5)).await.unwrap();

    let c = Setup::new("c").model(&model).join(&a).up().await;
    let status = a.ring_up().await;
    assert_eq!(status.ring.unwrap().stages[0].node, c.id());
    // Random weights: the same tokens in both modes are not promised, but an answer is.
    assert_eq!(
        a.client().ask(greedy("hello", 5)).await.unwrap().usage,
        answer.usage
    );
}
