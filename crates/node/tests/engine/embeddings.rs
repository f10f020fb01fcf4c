//! Embeddings: vectors of length 1 that say what texts have in common.

use crate::support::{Question, spec, start, starter, tokens};
use engine::EngineError;
use proto::host::EMBED_TEXTS_MAX;
use proto::model::Numerics;

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn like_texts_are_nearer_and_nobody_is_disturbed() {
    let (_engine, host) = starter(2).await;
    let texts = [
        "The cat sleeps on the warm sofa.",
        "A cat is sleeping on a soft sofa.",
        "Interest rates rose by two percent in March.",
    ];
    let mut lists = Vec::new();
    for text in texts {
        lists.push(tokens(&host, text).await);
    }
    let question = Question::new(&lists[0]);
    let right = question.ask(&host).await.unwrap();
    let (beside, vectors) = tokio::join!(question.ask(&host), host.embed(lists.clone()));
    assert_eq!(beside.unwrap(), right);
    let vectors = vectors.unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in &vectors {
        assert_eq!(vector.len(), 576);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]));
    let alone = host.embed(vec![lists[1].clone()]).await.unwrap();
    assert_eq!(alone[0], vectors[1], "texts do not see each other");
}

#[tokio::test]
async fn a_specimen_has_them_too_and_limits_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.gguf");
    specimen::write(&path, specimen::Family::Llama, 1).unwrap();
    let (_engine, host) = start(spec(&path, Numerics::Throughput, 1)).await;
    let vectors = host.embed(vec![vec![1, 2, 3], vec![9]]).await.unwrap();
    assert_eq!((vectors[0].len(), vectors[1].len()), (64, 64));
    for (texts, part) in [
        (Vec::new(), "0 texts"),
        (vec![vec![1]; EMBED_TEXTS_MAX + 1], "33 texts"),
        (vec![Vec::new()], "0 tokens"),
        (vec![vec![1; 2_049]], "1 to 2048"),
        (vec![vec![-1]], "not in the vocabulary"),
    ] {
        match host.embed(texts).await {
            Err(EngineError::Failed(failed)) => assert!(failed.detail.contains(part), "{failed}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        host.embed(vec![vec![1, 2, 3]]).await.unwrap()[0],
        vectors[0]
    );
}
