//! Caches of fewer bits: what they save, and what stays the same.

use crate::support::{Question, refused, spec, start, tokens};
use proto::host::{FailCode, KvType, LoadSpec};
use proto::model::Numerics;

/// Layers × heads × (keys + values) of the starter.
const NUMBERS_A_POSITION: u64 = 30 * 3 * (64 + 64);
const POSITIONS: u32 = 4096;
const SESSIONS: u32 = 2;

fn with(kv: KvType) -> LoadSpec {
    LoadSpec {
        kv,
        positions_max: POSITIONS,
        ..spec(&specimen::starter(), Numerics::Throughput, SESSIONS)
    }
}

/// Resident bytes after loading, and the tokens of an answer.
async fn measure(kv: KvType) -> (u64, Vec<i32>) {
    let (_engine, host) = start(with(kv)).await;
    assert_eq!(host.loaded().kv_type, kv.to_string());
    let resident = host.stats().await.unwrap().resident_bytes;
    // A text that repeats itself goes on as it began, as long as the cache can be read well enough to find the place.
    let text = "The keeper of the mill counts his sacks of grain every evening. ".repeat(8);
    let prompt = tokens(&host, &format!("{text}The keeper of the")).await;
    let question = Question {
        tokens: 10,
        burst: 10,
        ..Question::new(&prompt)
    };
    (resident, question.ask(&host).await.unwrap())
}

#[tokio::test]
async fn a_quantised_cache_is_smaller_and_the_answer_begins_the_same() {
    let (plain_bytes, plain) = measure(KvType::F16).await;
    let (small_bytes, small) = measure(KvType::Q8_0).await;
    let numbers = NUMBERS_A_POSITION * u64::from(POSITIONS * SESSIONS);
    // 2 bytes a number become 34 for 32; whatever else is resident differs by less than a quarter of that.
    let saved = numbers * 2 - numbers / 32 * 34;
    assert!(
        plain_bytes > small_bytes + saved * 3 / 4,
        "{plain_bytes} {small_bytes} {saved}"
    );
    assert_eq!(plain, small);
    let (tiny_bytes, _) = measure(KvType::Q4_0).await;
    assert!(tiny_bytes < small_bytes, "{tiny_bytes} {small_bytes}");
}

#[tokio::test]
async fn exact_numerics_refuse_a_quantised_cache_and_name_the_way_out() {
    let failed = refused(LoadSpec {
        numerics: Numerics::Exact,
        ..with(KvType::Q8_0)
    })
    .await;
    assert_eq!(failed.code, FailCode::Unsupported);
    assert!(failed.detail.contains("--numerics throughput"), "{failed}");
}
