//! LoRA adapters: who names one gets it, and nobody else.

use crate::support::{Question, spec, start, tokens};
use engine::{EngineError, Host, Supervisor};
use proto::gguf::{Metadata, NewTensor, TensorType, Value, encode};
use proto::host::{ADAPTERS_MAX, AdapterUse, Answer, FailCode, LoadAdapter, LoadSpec, Output};
use proto::host::{Role, Run};
use proto::ids::{SessionId, ShareScope};
use proto::model::Numerics;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// Numbers in an activation row of the starter.
const WIDTH: u64 = 576;
const RANK: u64 = 4;
/// Layers that the adapter changes.
const LAYERS: [u32; 3] = [0, 7, 21];

/// An adapter as it should be, for the tests to spoil.
#[derive(Clone)]
struct File {
    kind: &'static str,
    architecture: &'static str,
    alpha: Value,
    /// Name without its end, and the length of a row of its first matrix.
    matrices: Vec<(String, u64)>,
    second: bool,
}

impl File {
    fn good() -> Self {
        let name = |layer| (format!("blk.{layer}.attn_q.weight"), WIDTH);
        Self {
            kind: "adapter",
            architecture: "llama",
            alpha: Value::F32(8.0),
            matrices: LAYERS.map(name).to_vec(),
            second: true,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut metadata = Metadata::default();
        for (key, value) in [
            ("general.architecture", Value::text(self.architecture)),
            ("general.type", Value::text(self.kind)),
            ("adapter.type", Value::text("lora")),
            ("adapter.lora.alpha", self.alpha.clone()),
        ] {
            metadata.set(key, value);
        }
        let mut tensors = Vec::new();
        for (name, width) in &self.matrices {
            let mut add = |end, dims: [u64; 2]| {
                tensors.push(NewTensor {
                    name: format!("{name}.{end}"),
                    dims: dims.to_vec(),
                    kind: TensorType::F32,
                });
            };
            add("lora_a", [*width, RANK]);
            if self.second {
                add("lora_b", [RANK, WIDTH]);
            }
        }
        let encoded = encode(3, &metadata, &tensors).unwrap();
        let mut bytes = encoded.bytes;
        for tensor in &encoded.tensor_bytes {
            // Numbers without a pattern, between -1 and 1.
            let number = |n: u64| ((n * 2_654_435_761 % 2_001) as f32 - 1_000.0) / 1_000.0;
            bytes.extend((0..tensor / 4).flat_map(|n| (number(n) * 0.2).to_le_bytes()));
            bytes.resize(bytes.len().next_multiple_of(encoded.alignment as usize), 0);
        }
        bytes
    }
}

/// The starter in exact mode, with a directory for adapters in which one lies.
async fn with_adapters() -> (Supervisor, Arc<Host>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("good.gguf"), File::good().bytes()).unwrap();
    let (engine, host) = start(LoadSpec {
        adapters_dir: Some(dir.path().display().to_string()),
        ..spec(&specimen::starter(), Numerics::Exact, 4)
    })
    .await;
    (engine, host, dir)
}

async fn load(host: &Host, name: &str, file: &str) -> Result<(), EngineError> {
    let (name, file) = (name.to_owned(), file.to_owned());
    host.load_adapter(LoadAdapter { name, file }).await
}

fn used(name: &str, scale: f32) -> AdapterUse {
    let name = name.to_owned();
    AdapterUse { name, scale }
}

/// The bytes of a prompt's logits, in a session of its own.
async fn logits(host: &Host, prompt: &[i32], adapters: &[AdapterUse]) -> Vec<u8> {
    let session = SessionId(rand::random());
    let run = Run {
        session,
        role: Role::Whole,
        position: 0,
        tokens: prompt.to_vec(),
        output: Output::Logits,
        scope: None,
        adapters: adapters.to_vec(),
        guesses: Vec::new(),
    };
    let mut answers = host.run(run, &[]).unwrap();
    let (answer, payload) = answers.next().await.unwrap().unwrap();
    assert_eq!(answer, Answer::Rows(prompt.len() as u32));
    host.drop_session(session);
    payload.to_vec()
}

fn failed<T: std::fmt::Debug>(result: Result<T, EngineError>) -> proto::host::Failed {
    match result {
        Err(EngineError::Failed(failed)) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_adapter_changes_answers_and_leaves_no_trace() {
    let (_engine, host, _dir) = with_adapters().await;
    let prompt = tokens(&host, "The fox and the owl").await;
    let plain = logits(&host, &prompt, &[]).await;
    load(&host, "one", "good.gguf").await.unwrap();
    assert_eq!(
        logits(&host, &prompt, &[]).await,
        plain,
        "loaded is not used"
    );
    let one = logits(&host, &prompt, &[used("one", 1.0)]).await;
    assert_ne!(one, plain);
    let weak = logits(&host, &prompt, &[used("one", 0.25)]).await;
    assert!(weak != one && weak != plain, "scales count");
    assert_eq!(logits(&host, &prompt, &[used("one", 0.0)]).await, plain);
    // Two at once are neither of them alone.
    load(&host, "two", "good.gguf").await.unwrap();
    let both = logits(&host, &prompt, &[used("one", 1.0), used("two", 1.0)]).await;
    assert!(both != one && both != plain);
    assert_eq!(logits(&host, &prompt, &[used("one", 1.0)]).await, one);
    assert_eq!(logits(&host, &prompt, &[]).await, plain);
    for name in ["one", "two"] {
        host.unload_adapter(name.to_owned()).await.unwrap();
    }
    assert_eq!(logits(&host, &prompt, &[]).await, plain);
}

#[tokio::test]
async fn neighbours_and_prefixes_stay_apart() {
    let (_engine, host, _dir) = with_adapters().await;
    load(&host, "one", "good.gguf").await.unwrap();
    let text = "The keeper of the mill counts his sacks. ".repeat(20);
    let plain = Question::new(&tokens(&host, &text).await);
    let adapted = Question {
        // Strong enough for another text.
        adapters: vec![used("one", 12.0)],
        ..plain.clone()
    };
    let right = plain.ask(&host).await.unwrap();
    let changed = adapted.ask(&host).await.unwrap();
    assert_ne!(right, changed);
    let together = tokio::join!(plain.ask(&host), adapted.ask(&host), plain.ask(&host));
    assert_eq!(together.0.unwrap(), right);
    assert_eq!(together.1.unwrap(), changed);
    assert_eq!(together.2.unwrap(), right);

    let scoped = |question: &Question| Question {
        scope: Some(ShareScope([1; 16])),
        ..question.clone()
    };
    assert_eq!(scoped(&adapted).ask(&host).await.unwrap(), changed);
    assert_eq!(scoped(&plain).ask(&host).await.unwrap(), right);
    assert_eq!(host.stats().await.unwrap().reused_rows, 0);
    assert_eq!(scoped(&adapted).ask(&host).await.unwrap(), changed);
    assert!(host.stats().await.unwrap().reused_rows > 0);

    // Another adapter of the same name is another one.
    host.unload_adapter("one".to_owned()).await.unwrap();
    load(&host, "one", "good.gguf").await.unwrap();
    let before = host.stats().await.unwrap().reused_rows;
    scoped(&adapted).ask(&host).await.unwrap();
    assert_eq!(host.stats().await.unwrap().reused_rows, before);
}

#[tokio::test]
async fn what_is_in_use_stays_and_sets_have_their_limits() {
    let (_engine, host, _dir) = with_adapters().await;
    load(&host, "0", "good.gguf").await.unwrap();
    let prompt = tokens(&host, "The fox and the owl").await;
    let question = |adapters: Vec<AdapterUse>| Question {
        adapters,
        ..Question::new(&prompt)
    };
    let session = SessionId([7; 16]);
    let mut open = question(vec![used("0", 1.0)]).open(&host, session);
    open.next().await.unwrap().unwrap();
    let error = failed(host.unload_adapter("0".to_owned()).await);
    assert!(error.detail.contains("in use"), "{error}");
    host.drop_session(session);
    host.unload_adapter("0".to_owned()).await.unwrap();
    let error = failed(host.unload_adapter("0".to_owned()).await);
    assert!(error.detail.contains("no adapter \"0\""), "{error}");

    for n in 0..ADAPTERS_MAX {
        load(&host, &n.to_string(), "good.gguf").await.unwrap();
    }
    let error = failed(load(&host, "more", "good.gguf").await);
    assert_eq!(error.code, FailCode::NoRoom);
    let error = failed(load(&host, "0", "good.gguf").await);
    assert!(error.detail.contains("unload it first"), "{error}");
    for wrong in [
        vec![used("0", f32::NAN)],
        vec![used("0", 17.0)],
        vec![used("0", 1.0), used("0", 1.0)],
        vec![used("unknown", 1.0)],
    ] {
        let error = failed(question(wrong).ask(&host).await);
        assert_eq!(error.code, FailCode::BadCall, "{error}");
    }
    assert_eq!(question(Vec::new()).ask(&host).await.unwrap().len(), 24);
}

/// Files that are no adapters of this model, and a word of the reason.
fn bad_files() -> Vec<(Vec<u8>, &'static str)> {
    let good = File::good();
    let name = |name: &str, width| File {
        matrices: vec![(name.to_owned(), width)],
        ..good.clone()
    };
    let cut = good.bytes()[..good.bytes().len() - 4096].to_vec();
    vec![
        (b"GGUF is not all".to_vec(), ""),
        (cut, ""),
        (
            File {
                kind: "model",
                ..good.clone()
            }
            .bytes(),
            "general.type",
        ),
        (
            File {
                architecture: "qwen2",
                ..good.clone()
            }
            .bytes(),
            "general.architecture",
        ),
        (
            File {
                alpha: Value::text("8"),
                ..good.clone()
            }
            .bytes(),
            "adapter.lora.alpha",
        ),
        (
            File {
                matrices: Vec::new(),
                ..good.clone()
            }
            .bytes(),
            "no tensors",
        ),
        (
            File {
                second: false,
                ..good.clone()
            }
            .bytes(),
            "missing one component",
        ),
        (
            name("token_embd.weight", WIDTH).bytes(),
            "matrices of layers",
        ),
        (name("blk.3.attn_q.weight", 64).bytes(), "incorrect shape"),
        (
            name("blk.99.attn_q.weight", WIDTH).bytes(),
            "does not exist",
        ),
    ]
}

#[tokio::test]
async fn bad_files_are_refused_by_name_and_cause() {
    let (_engine, host, dir) = with_adapters().await;
    let outside = tempfile::tempdir().unwrap();
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    write(&outside.path().join("out.gguf"), &File::good().bytes());
    std::os::unix::fs::symlink(outside.path().join("out.gguf"), dir.path().join("link")).unwrap();
    for (bytes, cause) in bad_files() {
        write(&dir.path().join("bad.gguf"), &bytes);
        let error = failed(load(&host, "bad", "bad.gguf").await);
        assert_eq!(error.code, FailCode::Unloadable, "{error}");
        assert!(
            error.detail.contains("\"bad.gguf\"") && error.detail.contains(cause),
            "{error}"
        );
    }
    for (file, cause) in [
        ("link", "not a plain file"),
        ("missing.gguf", "No such file"),
    ] {
        let error = failed(load(&host, "bad", file).await);
        assert!(error.detail.contains(cause), "{error}");
    }
    let above = outside.path().join("out.gguf").display().to_string();
    for file in [
        "",
        ".",
        "..",
        "../good.gguf",
        "./good.gguf",
        "good.gguf/",
        &above,
    ] {
        let error = failed(load(&host, "bad", file).await);
        assert_eq!(error.code, FailCode::BadCall, "{file}: {error}");
    }
    load(&host, "good", "good.gguf").await.unwrap();
}
