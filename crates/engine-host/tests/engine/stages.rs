//! A model cut into stages computes what the whole model does, to the last bit.

use crate::support::{Staged, bits, cut, load, run, session, tokens};
use engine_host::llama::Input;
use engine_host::parts::Parts;
use proto::gguf::{Header, cuttable};
use proto::host::Role;
use proto::model::Numerics;
use specimen::Family;
use std::path::Path;

/// Rows in chunks, then one by one, as prefill and decode do.
const STEPS: [usize; 9] = [1, 40, 23, 1, 1, 1, 7, 1, 1];

fn whole_bits(model: &Path) -> Vec<proto::ids::Hash> {
    let mut parts = load(Role::Whole, model, Numerics::Exact, 1);
    let width = parts.row_length(Role::Whole).unwrap();
    let tokens = tokens(STEPS.iter().sum(), width as u32);
    let mut out = Vec::new();
    let mut position = 0;
    for count in STEPS {
        let input = Input::Tokens(&tokens[position..position + count]);
        let (who, at, rows) = (session(1), position as u32, count as u32);
        out.extend(
            run(&mut parts, Role::Whole, who, at, input, rows)
                .chunks(width)
                .map(bits),
        );
        position += count;
    }
    out
}

fn staged_bits(staged: &Staged, vocabulary: usize) -> Vec<proto::ids::Hash> {
    let mut stages: Vec<(Role, Parts)> = staged
        .files
        .iter()
        .map(|(role, path)| (*role, load(*role, path, Numerics::Exact, 1)))
        .collect();
    let tokens = tokens(STEPS.iter().sum(), vocabulary as u32);
    let mut out = Vec::new();
    let mut position = 0;
    for count in STEPS {
        let mut values = Vec::new();
        for (role, parts) in &mut stages {
            let input = match role {
                Role::Head => Input::Tokens(&tokens[position..position + count]),
                _ => Input::Rows(&values),
            };
            let (who, at, rows) = (session(1), position as u32, count as u32);
            values = run(parts, *role, who, at, input, rows);
        }
        out.extend(values.chunks(vocabulary).map(bits));
        position += count;
    }
    out
}

fn check(model: &Path, cuts: &[u32]) {
    let whole = whole_bits(model);
    let bytes = std::fs::read(model).unwrap();
    let vocabulary = Header::from_bytes(&bytes).unwrap().vocabulary().unwrap() as usize;
    let staged = staged_bits(&cut(model, cuts), vocabulary);
    assert_eq!(whole.len(), staged.len());
    let differing = whole.iter().zip(&staged).filter(|(a, b)| a != b).count();
    assert_eq!(
        differing,
        0,
        "{}: rows that differ with cuts {cuts:?}",
        model.display()
    );
    let distinct: std::collections::HashSet<_> = whole.iter().collect();
    assert_eq!(
        distinct.len(),
        whole.len(),
        "rows that are all alike prove nothing"
    );
}

fn check_family(family: Family) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    specimen::write(&model, family, 7).unwrap();
    check(&model, &[5]);
    check(&model, &[1, 8]);
}

#[test]
fn llama() {
    check_family(Family::Llama);
}

#[test]
fn qwen2() {
    check_family(Family::Qwen2);
}

#[test]
fn qwen3() {
    check_family(Family::Qwen3);
}

#[test]
fn gemma3() {
    check_family(Family::Gemma3);
}

#[test]
fn phi3() {
    check_family(Family::Phi3);
}

#[test]
fn qwen3moe() {
    check_family(Family::Qwen3Moe);
}

#[test]
fn qwen2moe() {
    check_family(Family::Qwen2Moe);
}

#[test]
fn gpt_oss() {
    check_family(Family::GptOss);
}

#[test]
fn starter() {
    let model = specimen::starter();
    check(&model, &[13]);
    check(&model, &[1, 15, 29]);
}

#[test]
fn a_family_that_cannot_be_cut_says_why_and_runs_whole() {
    for family in Family::ALL.into_iter().filter(|family| !family.cuttable()) {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model.gguf");
        specimen::write(&model, family, 7).unwrap();
        let header = Header::from_bytes(&std::fs::read(&model).unwrap()).unwrap();
        let why = cuttable(&header).unwrap_err().to_string();
        assert!(why.contains(family.architecture()), "{why}");
        assert_eq!(whole_bits(&model).len(), STEPS.iter().sum::<usize>());
    }
}

/// The comparison can fail: a stage of another model gives other bits.
#[test]
fn a_forged_stage_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (model, other) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    specimen::write(&model, Family::Llama, 7).unwrap();
    specimen::write(&other, Family::Llama, 8).unwrap();
    let (mut mine, theirs) = (cut(&model, &[1, 8]), cut(&other, &[1, 8]));
    let vocabulary = specimen::vocabulary::TOKENS as usize;
    let honest = staged_bits(&mine, vocabulary);
    mine.files[1] = theirs.files[1].clone();
    assert_ne!(honest, staged_bits(&mine, vocabulary));
}
