//! Pulls from a hub: resumed, verified, refused.

use crate::common::*;
use crate::server::Server;
use proto::ids::Hash;
use std::sync::Arc;
use store::models::{Models, ModelsConfig, PullError};
use store::progress::Silent;
use store::sources::{FetchError, HubError};

const NOT_A_HASH: &str = "5d41402abc4b2a76b9719d911017c592aae4f5e1";

struct World {
    dir: tempfile::TempDir,
    file: Vec<u8>,
    server: Server,
}

impl World {
    /// A server with a model of about a megabyte.
    async fn new() -> Self {
        let file = gguf(250_000, 1);
        let server = Server::start(&file, NOT_A_HASH).await;
        Self {
            dir: tempfile::tempdir().unwrap(),
            file,
            server,
        }
    }

    fn models(&self) -> Models {
        let model = vec![entry("tiny", &self.file, vec![hub_source()])];
        let hub = self.server.hub();
        Models::open(ModelsConfig {
            hub,
            ..config(self.dir.path(), model)
        })
        .unwrap()
    }

    fn assert_nothing_stored(&self) {
        assert_eq!(self.models().list().models, []);
        let left = files(self.dir.path());
        assert!(!left.iter().any(|name| name.ends_with(".gguf")), "{left:?}");
    }

    fn assert_stored(&self) {
        assert_eq!(files(self.dir.path()), files_of(&[&self.file]));
        let model = self.models().find_by_hash(Hash::of(&self.file)).unwrap();
        assert_eq!(std::fs::read(model.path).unwrap(), self.file);
    }
}

#[tokio::test]
async fn a_catalogue_model_comes_in_one_stream_and_only_once() {
    let world = World::new().await;
    let (models, heard) = (world.models(), Heard::default());
    let pulled = models
        .pull(&reference("tiny"), None, heard.listen())
        .await
        .unwrap();
    assert!(pulled.fresh);
    assert_eq!(
        (pulled.model.name.as_str(), pulled.model.licence.as_deref()),
        ("tiny", Some("MIT"))
    );
    assert_eq!(pulled.model.sampling.unwrap().temperature, 0.5);
    world.assert_stored();
    let phases = heard.phases(world.file.len() as u64);
    assert_eq!(phases, ["fetching hf:own/repo/m.gguf@main", "done"]);
    let seen = world.server.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|s| s.path == "/own/repo/resolve/main/m.gguf")
    );
    assert!(seen.iter().all(|s| s.authorization == "Bearer hf_secret"));
    assert!(!pull(&models, "tiny").await.unwrap().fresh);
    assert_eq!(world.server.seen(), []);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let world = World::new().await;
    world.server.change(|m| m.cut_after = Some(100_000));
    let mut reasons = reasons(pull(&world.models(), "tiny").await.unwrap_err());
    let Some(FetchError::Hub(HubError::Cut { at, bytes, .. })) = reasons.pop() else {
        panic!("{reasons:?}");
    };
    let starts = world.server.starts();
    assert!(
        (2..=4).contains(&starts.len()),
        "at most three that went on: {starts:?}"
    );
    assert!(
        starts[0] == 0 && starts.is_sorted_by(|a, b| a < b),
        "{starts:?}"
    );
    assert!(
        at > starts[starts.len() - 1] && at < bytes,
        "{at} of {bytes}"
    );
    world.assert_nothing_stored();

    world.server.change(|m| m.cut_after = None);
    let heard = Heard::default();
    world
        .models()
        .pull(&reference("tiny"), None, heard.listen())
        .await
        .unwrap();
    assert_eq!(world.server.starts(), [at]);
    heard.phases(bytes);
    world.assert_stored();
}

#[tokio::test]
async fn a_server_that_brings_nothing_is_not_asked_again_and_again() {
    let world = World::new().await;
    world.server.change(|m| m.cut_after = Some(0));
    let error = pull(&world.models(), "tiny").await.unwrap_err();
    assert!(matches!(
        &reasons(error)[..],
        [FetchError::Hub(HubError::Cut { at: 0, .. })]
    ));
    assert_eq!(world.server.starts(), [0]);
}

#[tokio::test]
async fn another_version_of_the_file_is_not_stitched_to_the_old_part() {
    let world = World::new().await;
    world.server.change(|m| {
        m.bytes[500_000] ^= 1;
        m.cut_after = Some(100_000);
    });
    pull(&world.models(), "tiny").await.unwrap_err();
    assert!(world.server.starts().len() > 1);
    world.server.change(|m| {
        m.bytes.clone_from(&world.file);
        m.cut_after = None;
        m.etag = format!("{NOT_A_HASH}-2");
    });
    pull(&world.models(), "tiny").await.unwrap();
    assert_eq!(world.server.starts(), [0]);
    world.assert_stored();
}

#[tokio::test]
async fn a_server_without_ranges_sends_everything_again() {
    let world = World::new().await;
    world.server.change(|m| {
        m.cut_after = Some(100_000);
        m.no_ranges = true;
    });
    pull(&world.models(), "tiny").await.unwrap_err();
    world.server.change(|m| m.cut_after = None);
    world.server.starts();
    pull(&world.models(), "tiny").await.unwrap();
    let starts = world.server.starts();
    assert!(
        starts.len() == 1 && starts[0] > 0,
        "it was asked to go on: {starts:?}"
    );
    world.assert_stored();
}

#[tokio::test]
async fn wrong_bytes_are_refused_with_both_hashes_and_leave_nothing() {
    let world = World::new().await;
    world.server.change(|m| m.bytes[500_000] ^= 1);
    let mut wrong = world.file.clone();
    wrong[500_000] ^= 1;
    let error = pull(&world.models(), "tiny").await.unwrap_err().to_string();
    for part in [sha256(&world.file).to_string(), sha256(&wrong).to_string()] {
        assert!(error.contains(&part), "{error}");
    }
    assert!(error.contains("hf:own/repo/m.gguf@main") && error.contains("model pull /path"));
    world.assert_nothing_stored();
    let left = files(world.dir.path());
    assert!(
        !left.iter().any(|name| name.ends_with("hub.part")),
        "{left:?}"
    );
    world.server.change(|m| m.bytes.clone_from(&world.file));
    pull(&world.models(), "tiny").await.unwrap();
    assert_eq!(world.server.starts(), [0, 0]);
    world.assert_stored();
}

#[tokio::test]
async fn a_file_that_the_hub_itself_calls_another_is_not_downloaded() {
    for (etag, bytes, says) in [
        ("0".repeat(64), None, "SHA-256"),
        (NOT_A_HASH.to_owned(), Some(gguf(3, 1)), "size"),
    ] {
        let world = World::new().await;
        world.server.change(|m| {
            m.etag = etag;
            m.bytes = bytes.unwrap_or_else(|| world.file.clone());
        });
        let error = pull(&world.models(), "tiny").await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(matches!(&reasons(error)[..], [FetchError::Mismatch(_)]));
        assert_eq!(world.server.starts(), [0u64; 0]);
    }
}

#[tokio::test]
async fn more_bytes_than_announced_are_refused() {
    let world = World::new().await;
    world.server.change(|m| m.excess = 100_000);
    let error = pull(&world.models(), "tiny").await.unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
    world.assert_nothing_stored();
}

#[tokio::test]
async fn a_hub_that_says_no_is_quoted_with_the_next_step() {
    for (status, no_hub, says) in [
        (Some(404), false, "check owner"),
        (Some(401), false, "HF_TOKEN"),
        (Some(403), false, "HF_TOKEN"),
        (Some(429), false, "too many"),
        (Some(503), false, "try again"),
        (Some(302), false, "did not answer as a hub"),
        (None, true, "did not answer as a hub"),
    ] {
        let world = World::new().await;
        world
            .server
            .change(|m| (m.status, m.no_hub) = (status, no_hub));
        let error = pull(&world.models(), "tiny").await.unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains(&world.server.url),
            "{status:?}: {error}"
        );
        assert!(!error.contains("hf_secret"));
        world.assert_nothing_stored();
    }
    let dir = tempfile::tempdir().unwrap();
    let model = vec![entry("tiny", &gguf(3, 1), vec![hub_source()])];
    let models = Models::open(config(dir.path(), model)).unwrap();
    let error = pull(&models, "tiny").await.unwrap_err().to_string();
    assert!(
        error.contains("127.0.0.1:1") && error.contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_hub_address_needs_no_catalogue_and_trusts_the_hubs_own_hash() {
    let world = World::new().await;
    let models = Models::open(ModelsConfig {
        hub: world.server.hub(),
        ..config(world.dir.path(), Vec::new())
    })
    .unwrap();
    let wrong = Hash([7; 32]).to_string();
    world.server.change(|m| m.etag.clone_from(&wrong));
    let error = pull(&models, "hf:own/repo/sub/M.gguf@v1")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&wrong), "{error}");

    world
        .server
        .change(|m| m.etag = sha256(&world.file).to_string());
    let pulled = pull(&models, "hf:own/repo/sub/M.gguf@v1").await.unwrap();
    assert_eq!((pulled.fresh, pulled.model.name.as_str()), (true, "m"));
    assert!(
        world
            .server
            .seen()
            .iter()
            .all(|s| s.path == "/own/repo/resolve/v1/sub/M.gguf")
    );
    world.assert_stored();
    assert!(
        !pull(&models, "hf:own/repo/sub/M.gguf@v1")
            .await
            .unwrap()
            .fresh
    );
    assert_eq!(
        world.server.starts(),
        [0u64; 0],
        "known by its hash, not downloaded again"
    );
    let resolved = models
        .resolve(&reference("hf:own/repo/sub/M.gguf@v1"), Arc::new(Silent))
        .await
        .unwrap();
    assert_eq!(resolved, pulled.model);

    let other = gguf(9, 2);
    world
        .server
        .change(|m| (m.bytes, m.etag) = (other.clone(), sha256(&other).to_string()));
    let error = pull(&models, "hf:own/other/m.gguf").await.unwrap_err();
    assert!(matches!(error, PullError::NameTaken { .. }), "{error}");
    assert_eq!(
        world.server.starts(),
        [0u64; 0],
        "the name is checked before the download"
    );
    let named = reference("hf:own/other/m.gguf");
    models
        .pull(&named, Some("m2"), Arc::new(Silent))
        .await
        .unwrap();
    assert_eq!(files(world.dir.path()), files_of(&[&world.file, &other]));
}

#[tokio::test]
async fn a_file_that_is_no_model_is_refused_after_the_download() {
    let world = World::new().await;
    world
        .server
        .change(|m| m.bytes = b"<html>sign in, please</html>".to_vec());
    let models = Models::open(ModelsConfig {
        hub: world.server.hub(),
        ..config(world.dir.path(), Vec::new())
    })
    .unwrap();
    let error = pull(&models, "hf:own/repo/m.gguf").await.unwrap_err();
    assert!(matches!(error, PullError::NotAModel { .. }), "{error}");
    assert_eq!(files(world.dir.path()), [""; 0]);
}
