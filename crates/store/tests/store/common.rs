//! A store in a temporary directory, small models, and sources for them.

use proto::gguf::{Metadata, NewTensor, TensorType, Value, encode};
use proto::ids::Hash;
use proto::model::{Catalogue, CatalogueEntry, SamplingDefaults, Source};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::models::{Models, ModelsConfig, PullError, Pulled};
use store::progress::{Event, Silent};
use store::reference::Reference;
use store::sources::{FetchError, Hub, Pip};

/// A valid GGUF file with `numbers` f32 values, which depend on `seed`.
pub(crate) fn gguf(numbers: u64, seed: u32) -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::text("llama"));
    metadata.set("llama.block_count", Value::U32(1));
    let kind = TensorType::from_id(0).unwrap();
    let tensor = NewTensor {
        name: "token_embd.weight".into(),
        dims: vec![numbers],
        kind,
    };
    let mut file = encode(3, &metadata, &[tensor]).unwrap().bytes;
    let mut state = seed;
    for _ in 0..numbers {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        file.extend(state.to_le_bytes());
    }
    file
}

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// A catalogue entry for a file with these bytes.
pub(crate) fn entry(name: &str, bytes: &[u8], source: Vec<Source>) -> CatalogueEntry {
    CatalogueEntry {
        name: name.into(),
        about: "a test model".into(),
        licence: "MIT".into(),
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
        blake3: Hash::of(bytes),
        source,
        sampling: Some(SamplingDefaults {
            temperature: 0.5,
            top_p: 0.9,
        }),
    }
}

pub(crate) fn hub_source() -> Source {
    Source::Hub {
        repo: "own/repo".into(),
        revision: "main".into(),
        path: "m.gguf".into(),
    }
}

pub(crate) fn pypi_source() -> Source {
    Source::Pypi {
        package: "tiny-model".into(),
        version: "1.0".into(),
        path: "tiny/m.gguf".into(),
    }
}

/// A hub that nobody answers for.
pub(crate) fn no_hub() -> Hub {
    Hub::new("http://127.0.0.1:1", None)
}

/// No pip at all.
pub(crate) fn no_pip() -> Pip {
    Pip {
        commands: vec![vec!["no-such-pip".into()]],
        env: Vec::new(),
    }
}

/// The settings of a store in `dir` that can reach nothing.
pub(crate) fn config(dir: &Path, model: Vec<CatalogueEntry>) -> ModelsConfig {
    ModelsConfig {
        dir: dir.to_owned(),
        shared: Vec::new(),
        catalogue: Catalogue { model },
        pip: no_pip(),
        hub: no_hub(),
        state: None,
    }
}

pub(crate) async fn pull(models: &Models, wanted: &str) -> Result<Pulled, PullError> {
    models
        .pull(&reference(wanted), None, Arc::new(Silent))
        .await
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// The reasons of a pull whose sources all failed.
pub(crate) fn reasons(error: PullError) -> Vec<FetchError> {
    match error {
        PullError::AllFailed { tried, .. } => tried.into_iter().map(|(_, error)| error).collect(),
        other => panic!("expected that all sources fail, got: {other}"),
    }
}

/// All files under a directory, by their paths in it, without lock files.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.retain(|name| name != "lock" && !name.ends_with(".lock"));
    found.sort();
    found
}

/// The files that a store has when it holds exactly these models.
pub(crate) fn files_of(models: &[&[u8]]) -> Vec<String> {
    let both = |bytes: &&[u8]| ["gguf", "toml"].map(|end| format!("{}.{end}", Hash::of(bytes)));
    let mut names: Vec<_> = models.iter().flat_map(both).collect();
    names.sort();
    names
}

/// Where a pull of this file works.
pub(crate) fn staging(dir: &Path, key: Hash) -> PathBuf {
    dir.join("staging").join(key.to_string())
}

/// Keeps every report of a pull.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<(String, u64, u64)>>>);

impl Heard {
    pub(crate) fn listen(&self) -> Arc<impl Fn(&Event<'_>) + Send + Sync + 'static> {
        let heard = Arc::clone(&self.0);
        Arc::new(move |e: &Event<'_>| {
            heard
                .lock()
                .unwrap()
                .push((e.phase.to_owned(), e.done, e.total));
        })
    }

    /// Asserts that the reports never went backwards and reached `total`; returns the phases.
    pub(crate) fn phases(&self, total: u64) -> Vec<String> {
        let heard = self.0.lock().unwrap();
        for pair in heard.windows(2) {
            assert!(pair[0].1 <= pair[1].1, "went backwards: {pair:?}");
        }
        let last = heard.last().expect("something was reported");
        assert_eq!((last.1, last.2), (total, total));
        let mut phases: Vec<_> = heard.iter().map(|(phase, ..)| phase.clone()).collect();
        phases.dedup();
        phases
    }
}
