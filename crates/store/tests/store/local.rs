//! Files of this machine, and the store's own operations.

use crate::common::*;
use proto::ids::Hash;
use proto::model::Source;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use store::models::{Models, ModelsConfig, PullError, RemoveError, ResolveError, VerifyError};
use store::progress::Silent;
use store::state::State;

struct World {
    dir: tempfile::TempDir,
    file: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            file: gguf(1000, 1),
        };
        fs::write(world.path(), &world.file).unwrap();
        world
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("My Model.gguf")
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn models(&self) -> Models {
        Models::open(config(&self.store(), Vec::new())).unwrap()
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_local_file_is_linked_and_stays_where_it_is() {
    let world = World::new();
    let (models, heard) = (world.models(), Heard::default());
    let pulled = models
        .pull(&reference(&text(&world.path())), None, heard.listen())
        .await
        .unwrap();
    assert_eq!(
        (pulled.fresh, pulled.model.name.as_str()),
        (true, "my-model")
    );
    heard.phases(world.file.len() as u64);
    assert_eq!(files(&world.store()), files_of(&[&world.file]));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&pulled.model.path), inode(&world.path()));
    assert!(!pull(&models, &text(&world.path())).await.unwrap().fresh);
    models.rm(&reference("my-model")).unwrap();
    assert_eq!(files(&world.store()), [""; 0]);
    assert_eq!(fs::read(world.path()).unwrap(), world.file);
}

#[tokio::test]
async fn a_file_of_the_catalogue_is_recognised_by_its_content() {
    let world = World::new();
    let model = vec![entry("known", &world.file, vec![hub_source()])];
    let models = Models::open(config(&world.store(), model)).unwrap();
    let outside = models
        .resolve(&reference(&text(&world.path())), Arc::new(Silent))
        .await
        .unwrap();
    let stored = pull(&models, &text(&world.path())).await.unwrap().model;
    for model in [outside, stored] {
        assert_eq!(
            (model.name.as_str(), model.licence.as_deref()),
            ("known", Some("MIT"))
        );
        assert!(model.sampling.is_some());
    }
    assert!(
        !pull(&models, "known").await.unwrap().fresh,
        "no source is asked"
    );
}

#[tokio::test]
async fn files_that_are_no_models_are_refused_and_leave_nothing() {
    let world = World::new();
    let models = world.models();
    let bad = world.dir.path().join("bad.gguf");
    for content in [
        Vec::new(),
        b"GGUF".to_vec(),
        world.file[..world.file.len() - 1].to_vec(),
    ] {
        fs::write(&bad, content).unwrap();
        let error = pull(&models, &text(&bad)).await.unwrap_err();
        assert!(matches!(error, PullError::NotAModel { .. }), "{error}");
        let resolved = models
            .resolve(&reference(&text(&bad)), Arc::new(Silent))
            .await;
        assert!(matches!(resolved, Err(ResolveError::NotAModel { .. })));
    }
    let dir = pull(&models, &text(world.dir.path())).await.unwrap_err();
    assert!(matches!(dir, PullError::NotAModel { .. }), "{dir}");
    let missing = pull(&models, "/nowhere/m.gguf").await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/m.gguf"), "{missing}");
    assert_eq!(files(&world.store()), [""; 0]);
}

#[tokio::test]
async fn names_are_unique_and_can_be_chosen() {
    let world = World::new();
    let models = world.models();
    pull(&models, &text(&world.path())).await.unwrap();
    fs::remove_file(world.path()).unwrap();
    let other = gguf(1001, 2);
    fs::write(world.path(), &other).unwrap();
    let wanted = reference(&text(&world.path()));
    let taken = pull(&models, &text(&world.path())).await.unwrap_err();
    assert!(
        matches!(&taken, PullError::NameTaken { there, .. } if *there == Hash::of(&world.file))
    );
    let bad = models
        .pull(&wanted, Some("No!"), Arc::new(Silent))
        .await
        .unwrap_err();
    assert!(matches!(bad, PullError::BadName { .. }), "{bad}");
    models
        .pull(&wanted, Some("second"), Arc::new(Silent))
        .await
        .unwrap();
    assert_eq!(files(&world.store()), files_of(&[&world.file, &other]));
    let names: Vec<_> = models
        .list()
        .models
        .into_iter()
        .map(|m| m.record.name)
        .collect();
    assert_eq!(names, ["my-model", "second"]);
}

#[tokio::test]
async fn models_are_found_by_name_hash_and_path_and_the_missing_are_explained() {
    let world = World::new();
    let model = vec![entry("far", b"x", vec![hub_source()])];
    let models = Models::open(config(&world.store(), model)).unwrap();
    let stored = pull(&models, &text(&world.path())).await.unwrap().model;
    let hash = Hash::of(&world.file).to_string();
    for wanted in ["my-model", &hash, &text(&stored.path)] {
        let found = models
            .resolve(&reference(wanted), Arc::new(Silent))
            .await
            .unwrap();
        assert_eq!(found, stored, "{wanted}");
    }
    for (wanted, says) in [
        ("far", "myzel model pull far"),
        ("unknown", "far, my-model"),
        (&Hash::of(b"x").to_string(), "myzel model pull far"),
        (&Hash::of(b"y").to_string(), "no model"),
        ("hf:a/b/c.gguf", "myzel model pull hf:a/b/c.gguf"),
        ("/nowhere.gguf", "/nowhere.gguf"),
    ] {
        let error = models
            .resolve(&reference(wanted), Arc::new(Silent))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(says), "{wanted}: {error}");
    }
    let error = pull(&models, "unknown").await.unwrap_err().to_string();
    assert!(error.contains("far, my-model"), "{error}");
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let world = World::new();
    let models = world.models();
    let stored = pull(&models, &text(&world.path())).await.unwrap().model;
    let wanted = reference("my-model");
    let heard = Heard::default();
    models.verify(&wanted, heard.listen()).await.unwrap();
    heard.phases(world.file.len() as u64);

    let mut flipped = world.file.clone();
    flipped[700] ^= 1;
    fs::write(&stored.path, &flipped).unwrap();
    let error = models.verify(&wanted, Arc::new(Silent)).await.unwrap_err();
    let VerifyError::Damaged { differs, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        differs.iter().map(|m| m.what).collect::<Vec<_>>(),
        ["SHA-256", "BLAKE3"]
    );
    assert!(error.to_string().contains(&sha256(&flipped).to_string()));
    assert!(
        error.to_string().contains("myzel model pull my-model"),
        "{error}"
    );

    fs::write(&stored.path, &world.file[1..]).unwrap();
    let error = models.verify(&wanted, Arc::new(Silent)).await.unwrap_err();
    let VerifyError::Damaged { differs, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(differs.len(), 3);
    let resolved = models.resolve(&wanted, Arc::new(Silent)).await.unwrap_err();
    assert!(
        matches!(resolved, ResolveError::WrongSize { .. }),
        "{resolved}"
    );
    assert_eq!(models.find_by_hash(stored.blake3), None);
}

#[tokio::test]
async fn other_stores_are_shared_and_never_written() {
    let world = World::new();
    let shared = world.models();
    pull(&shared, &text(&world.path())).await.unwrap();
    let before = files(&world.store());
    let own = world.dir.path().join("own/models");
    let source = Source::Hub {
        repo: "a/b".into(),
        revision: "main".into(),
        path: "c.gguf".into(),
    };
    let model = vec![entry("my-model", &world.file, vec![source])];
    let config = ModelsConfig {
        shared: vec![world.store()],
        ..config(&own, model)
    };
    let models = Models::open(config).unwrap();
    assert!(!pull(&models, "my-model").await.unwrap().fresh);
    assert!(!pull(&models, &text(&world.path())).await.unwrap().fresh);
    assert_eq!(files(&own), [""; 0]);
    assert!(models.show(&reference("my-model")).unwrap().shared);
    let error = models.rm(&reference("my-model")).unwrap_err();
    assert!(matches!(error, RemoveError::Shared { .. }), "{error}");
    assert_eq!(files(&world.store()), before);
}

#[tokio::test]
async fn a_path_is_hashed_again_only_when_the_file_changed() {
    let world = World::new();
    let state = Arc::new(State::open(&world.dir.path().join("state.redb")).unwrap());
    let models = Models::open(ModelsConfig {
        state: Some(state),
        ..config(&world.store(), Vec::new())
    })
    .unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let write = |bytes: &[u8], changed: SystemTime| {
        fs::write(world.path(), bytes).unwrap();
        File::options()
            .write(true)
            .open(world.path())
            .unwrap()
            .set_modified(changed)
            .unwrap();
    };
    let wanted = reference(&text(&world.path()));
    let hash = async || {
        models
            .resolve(&wanted, Arc::new(Silent))
            .await
            .unwrap()
            .blake3
    };
    write(&world.file, old);
    let first = hash().await;
    assert_eq!(first, Hash::of(&world.file));
    // The same size and time: the remembered hash is taken, which shows that nothing was read.
    let other = gguf(1000, 2);
    write(&other, old);
    assert_eq!(hash().await, first);
    write(&other, old + Duration::from_secs(1));
    assert_eq!(hash().await, Hash::of(&other));
}

#[tokio::test]
async fn one_pull_of_a_model_at_a_time() {
    let world = World::new();
    let model = vec![entry("far", b"x", vec![hub_source()])];
    let models = Models::open(config(&world.store(), model)).unwrap();
    let lock = staging(&world.store(), Hash::of(b"x")).with_extension("lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = File::create(&lock).unwrap();
    held.lock().unwrap();
    let error = pull(&models, "far").await.unwrap_err();
    assert!(matches!(error, PullError::Busy { .. }), "{error}");
    drop(held);
    assert_eq!(reasons(pull(&models, "far").await.unwrap_err()).len(), 1);
}

#[tokio::test]
async fn a_start_sweeps_what_dead_processes_left_and_nothing_else() {
    let world = World::new();
    pull(&world.models(), &text(&world.path())).await.unwrap();
    let kept = files(&world.store());
    let orphan = Hash([9; 32]);
    for name in [
        format!("{orphan}.gguf"),
        format!("{}.toml", Hash([8; 32])),
        format!("{orphan}.toml.99-0.new"),
        format!("staging/{orphan}/model.part"),
        format!("staging/{orphan}/pip/tmp/half.whl"),
    ] {
        let path = world.store().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"left").unwrap();
    }
    fs::write(world.store().join("mine.gguf"), b"put there by hand").unwrap();
    world.models();
    let mut expected = kept;
    expected.push("mine.gguf".to_owned());
    assert_eq!(files(&world.store()), expected);
}
