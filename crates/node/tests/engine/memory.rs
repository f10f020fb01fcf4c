//! Memory: what the engine says that loading takes, and what the process then has.

use crate::support::{Question, launch, spec, start};
use engine::{EngineError, estimate};
use futures::future::join_all;
use proto::gguf::Header;
use proto::host::{FailCode, KvType, LoadSpec};
use proto::model::Numerics;
use std::fs::File;
use std::io::Read;
use std::io::{BufReader, copy};
use std::path::Path;

/// How far an estimate may be off, either way.
const OFF_MAX: f64 = 0.1;

/// What a specification is said to take, and what it takes once all of it was used.
async fn check(change: impl FnOnce(&mut LoadSpec)) {
    let mut spec = spec(&specimen::starter(), Numerics::Exact, 1);
    change(&mut spec);
    let said = estimate(&launch(), spec.clone()).await.unwrap();
    assert!(said.weights_bytes > 0 && said.cache_bytes > 0 && said.compute_bytes > 0);
    let (_engine, host) = start(spec).await;
    // Full steps in every session: until then much of what is reserved was never touched.
    let prompt: Vec<i32> = (0..600).map(|n| 300 + n % 900).collect();
    let question = Question {
        tokens: 2,
        ..Question::new(&prompt)
    };
    let sessions = host.loaded().sessions_max;
    for answer in join_all((0..sessions).map(|_| question.ask(&host))).await {
        answer.unwrap();
    }
    let taken = host.stats().await.unwrap().resident_bytes;
    let ratio = said.total_bytes() as f64 / taken as f64;
    assert!(
        (ratio - 1.0).abs() <= OFF_MAX,
        "{ratio}: {said:?}, taken {taken}"
    );
}

#[tokio::test]
async fn the_estimate_is_what_a_single_session_takes() {
    check(|_| {}).await;
}

#[tokio::test]
async fn the_estimate_is_what_many_sessions_take() {
    check(|spec| {
        spec.sessions_max = 8;
        spec.numerics = Numerics::Throughput;
    })
    .await;
}

#[tokio::test]
async fn the_estimate_knows_small_caches() {
    check(|spec| {
        (spec.numerics, spec.kv) = (Numerics::Throughput, KvType::Q8_0);
        (spec.positions_max, spec.sessions_max) = (2048, 4);
    })
    .await;
}

/// A file with the header of another, and a hole where its weights would be.
fn hollow(model: &Path, to: &Path) {
    let bytes = model.metadata().unwrap().len();
    let header = Header::read(BufReader::new(File::open(model).unwrap()), bytes).unwrap();
    let mut file = File::create(to).unwrap();
    let mut beginning = File::open(model).unwrap().take(header.data_offset());
    copy(&mut beginning, &mut file).unwrap();
    file.set_len(bytes).unwrap();
}

#[tokio::test]
async fn a_header_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hollow.gguf");
    hollow(&specimen::starter(), &path);
    let launch = launch();
    let of = |path: &Path| estimate(&launch, spec(path, Numerics::Exact, 4));
    let (hollow, whole) = (
        of(&path).await.unwrap(),
        of(&specimen::starter()).await.unwrap(),
    );
    assert_eq!(hollow.weights_bytes, whole.weights_bytes);
    assert_eq!(hollow.cache_bytes, whole.cache_bytes);
    assert_eq!(hollow.compute_bytes, whole.compute_bytes);
    assert!(hollow.process_bytes < whole.weights_bytes, "{hollow:?}");
}

#[tokio::test]
async fn what_is_no_model_has_no_estimate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.gguf");
    std::fs::write(&path, b"GGUF but not really").unwrap();
    let refused = estimate(&launch(), spec(&path, Numerics::Exact, 1)).await;
    let unloadable = |error: &EngineError| matches!(error, EngineError::Failed(failed) if failed.code == FailCode::Unloadable);
    assert!(refused.as_ref().is_err_and(unloadable), "{refused:?}");
}
