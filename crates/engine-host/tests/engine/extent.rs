//! Positions, sessions and cache types: what is had, and what is refused with its way out.

use crate::support::{POSITIONS, run, session, spec, tokens};
use engine_host::extent::ExtentError;
use engine_host::llama::{Input, Reading};
use engine_host::parts::{Parts, PartsError, SessionError};
use proto::host::{KvType, LoadSpec, Role};
use proto::model::Numerics;
use specimen::{Family, Shape, Weights};
use std::path::PathBuf;

/// Bytes of one session's f16 caches in a specimen: 12 layers, 1 head, keys and values of 32 numbers.
const SESSION_BYTES: u64 = 12 * (32 + 32) * 2 * POSITIONS as u64;

fn specimen() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.gguf");
    // Heads as long as a block of a quantised cache.
    let shape = Shape {
        heads: 2,
        heads_kv: 1,
        ..Shape::SMALL
    };
    let bytes = specimen::bytes(Family::Llama, &shape, Weights::F32, 1);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Loads with a changed specification.
fn load(change: impl FnOnce(&mut LoadSpec)) -> Result<Parts, PartsError> {
    let (_dir, path) = specimen();
    let mut spec = spec(Role::Whole, &path, Numerics::Throughput, 1);
    change(&mut spec);
    Parts::load(&spec, 1, Reading::Mapped)
}

fn refused(change: impl FnOnce(&mut LoadSpec)) -> ExtentError {
    match load(change) {
        Err(PartsError::Extent(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn positions_beyond_training_are_refused_unless_they_are_stretched() {
    let error = refused(|spec| spec.positions_max = 6000).to_string();
    for part in ["6000", "4096", "--rope-scale 2 "] {
        assert!(error.contains(part), "{error}");
    }
    let stretched = load(|spec| {
        (spec.positions_max, spec.rope_scale) = (6000, Some(2.0));
        spec.sessions_max = 1;
    });
    assert_eq!(stretched.unwrap().positions_max(), 6000);
    for scale in [0.5, 33.0, f32::NAN, -1.0] {
        let error = refused(|spec| spec.rope_scale = Some(scale));
        assert!(matches!(error, ExtentError::Scale(_)), "{error}");
    }
}

#[test]
fn a_stretch_changes_positions_and_nothing_else() {
    let rows = |rope_scale| {
        let mut parts = load(|spec| spec.rope_scale = rope_scale).unwrap();
        let input = tokens(40, 200);
        run(
            &mut parts,
            Role::Whole,
            session(1),
            0,
            Input::Tokens(&input),
            40,
        )
    };
    let plain = rows(None);
    assert_eq!(plain, rows(Some(1.0)), "a factor of 1 is none");
    let stretched = rows(Some(4.0));
    assert_ne!(plain, stretched);
    assert!(stretched.iter().all(|value| value.is_finite()));
}

#[test]
fn a_budget_of_memory_decides_how_many_sessions_there_are() {
    let check = |bytes, kv, expected| {
        let parts = load(|spec| (spec.kv_bytes_max, spec.kv) = (Some(bytes), kv));
        let mut parts = parts.unwrap();
        for n in 0..expected {
            parts.admit(session(n), Role::Whole, 0, 1).unwrap();
        }
        match parts.admit(session(99), Role::Whole, 0, 1) {
            Err(SessionError::Full(sessions)) => assert_eq!(sessions, u32::from(expected)),
            other => panic!("{other:?}"),
        }
    };
    check(SESSION_BYTES, KvType::F16, 1);
    check(3 * SESSION_BYTES - 1, KvType::F16, 2);
    check(u64::MAX, KvType::F16, 4);
    // 34 bytes hold 32 numbers.
    check(SESSION_BYTES, KvType::Q8_0, 1);
    check(2 * SESSION_BYTES, KvType::Q8_0, 3);
    check(2 * SESSION_BYTES, KvType::Q4_0, 4);
}

#[test]
fn a_budget_below_one_session_is_refused_with_both_numbers() {
    let max = SESSION_BYTES - 1;
    let error = refused(|spec| spec.kv_bytes_max = Some(max)).to_string();
    for part in [
        max.to_string(),
        SESSION_BYTES.to_string(),
        "--kv-memory".to_owned(),
    ] {
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn exact_numerics_keep_an_f16_cache() {
    let error = refused(|spec| (spec.numerics, spec.kv) = (Numerics::Exact, KvType::Q8_0));
    let error = error.to_string();
    assert!(
        error.contains("q8_0") && error.contains("--numerics throughput"),
        "{error}"
    );
}
