use super::*;
use crate::models::ModelsConfig;
use crate::sources::{Hub, Pip};
use proto::model::Catalogue;

const MODEL: Hash = Hash([1; 32]);

fn models(dir: &Path) -> Models {
    Models::open(ModelsConfig {
        dir: dir.to_owned(),
        shared: Vec::new(),
        catalogue: Catalogue { model: Vec::new() },
        pip: Pip::default(),
        hub: Hub::from_env(),
        state: None,
    })
    .unwrap()
}

fn key(n: u8) -> Hash {
    Hash([n; 32])
}

fn memory(weights_bytes: u64) -> Memory {
    Memory {
        weights_bytes,
        ..Memory::default()
    }
}

#[tokio::test]
async fn memory_is_kept_by_model_and_key_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let before = models(dir.path());
    for n in 0..=MEMORY_ENTRIES_MAX as u8 {
        let counted = memory(u64::from(n));
        before.keep_memory(MODEL, key(n), counted).await.unwrap();
    }
    before.keep_memory(MODEL, key(9), memory(99)).await.unwrap();
    let after = models(dir.path());
    assert_eq!(after.memory(MODEL, key(0)).await, None, "the oldest");
    assert_eq!(after.memory(MODEL, key(1)).await, Some(memory(1)));
    assert_eq!(after.memory(MODEL, key(9)).await, Some(memory(99)));
    assert_eq!(after.memory(Hash([2; 32]), key(1)).await, None);
}

#[tokio::test]
async fn a_torn_or_damaged_record_is_as_good_as_none_and_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let models = models(dir.path());
    models.keep_memory(MODEL, key(1), memory(5)).await.unwrap();
    let path = path(dir.path(), MODEL);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        for bytes in [&whole[..at], &damaged] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(models.memory(MODEL, key(1)).await, None, "{at}");
        }
    }
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    assert_eq!(models.memory(MODEL, key(1)).await, None);
    models.keep_memory(MODEL, key(2), memory(6)).await.unwrap();
    assert_eq!(models.memory(MODEL, key(2)).await, Some(memory(6)));
}

#[tokio::test]
async fn a_newer_record_says_nothing_here_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let models = models(dir.path());
    let newer = MemoryRecord {
        version: MEMORY_RECORD_VERSION + 1,
        entries: vec![MemoryEntry {
            key: key(1),
            memory: memory(5),
        }],
    };
    let body = codec::to_vec(&newer);
    let bytes = [&Hash::of(&body).0[..], &body].concat();
    let path = path(dir.path(), MODEL);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(models.memory(MODEL, key(1)).await, None);
    models.keep_memory(MODEL, key(1), memory(6)).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
