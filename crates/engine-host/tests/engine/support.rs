//! Loading models and stages, and running rows through them.

use engine_host::llama::{Input, Reading, Wanted};
use engine_host::parts::{Parts, SessionSlice};
use proto::gguf::{Header, Piece, plan};
use proto::host::{LoadSpec, Part, Role};
use proto::ids::SessionId;
use proto::model::{LayerRange, Numerics};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Positions of every context in these tests.
pub(crate) const POSITIONS: u32 = 1_536;
/// Sequences of every context: one that is measured, three neighbours.
pub(crate) const SESSIONS: u32 = 4;

/// A session by number.
pub(crate) fn session(n: u8) -> SessionId {
    SessionId([n; 16])
}

/// What [`load`] loads.
pub(crate) fn spec(role: Role, path: &Path, numerics: Numerics, threads: u32) -> LoadSpec {
    LoadSpec {
        positions_max: POSITIONS,
        sessions_max: SESSIONS,
        threads: Some(threads),
        ..LoadSpec::new(vec![Part::of(role, path)], numerics)
    }
}

/// Loads one part from one file.
pub(crate) fn load(role: Role, path: &Path, numerics: Numerics, threads: u32) -> Parts {
    let spec = spec(role, path, numerics, threads);
    let mut parts = Parts::load(&spec, threads, Reading::Mapped).unwrap_or_else(|e| panic!("{e}"));
    parts.set_threads(threads);
    parts
}

/// Runs one slice of a session; the outputs of all its rows.
pub(crate) fn run(
    parts: &mut Parts,
    role: Role,
    who: SessionId,
    position: u32,
    input: Input<'_>,
    rows: u32,
) -> Vec<f32> {
    parts.admit(who, role, position, rows).unwrap();
    let slice = SessionSlice {
        session: who,
        position,
        input,
        wanted: Wanted::All,
    };
    parts.step(role, &[slice]).unwrap().remove(0)
}

/// A model cut into stages in a directory of its own.
pub(crate) struct Staged {
    pub(crate) files: Vec<(Role, PathBuf)>,
    _dir: TempDir,
}

/// Cuts a model at `cuts` (layers where a new stage begins).
pub(crate) fn cut(model: &Path, cuts: &[u32]) -> Staged {
    let bytes = std::fs::read(model).unwrap();
    let header = Header::from_bytes(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut edges = vec![0];
    edges.extend_from_slice(cuts);
    edges.push(header.layers());
    let last = edges.len() - 2;
    let compose = |(i, range): (usize, &[u32])| {
        let role = match i {
            0 => Role::Head,
            i if i == last => Role::Tail,
            _ => Role::Middle,
        };
        let layers = LayerRange {
            first: range[0],
            end: range[1],
        };
        let recipe = plan(&header, role, layers).unwrap();
        let mut file = recipe.header.clone();
        for piece in &recipe.pieces {
            match piece {
                Piece::Copy {
                    offset,
                    bytes: count,
                } => {
                    let start = *offset as usize;
                    file.extend_from_slice(&bytes[start..start + *count as usize]);
                }
                Piece::Literal(literal) => file.extend_from_slice(literal),
                Piece::Zeros(count) => file.resize(file.len() + *count as usize, 0),
            }
        }
        let path = dir.path().join(format!("{i}.gguf"));
        std::fs::write(&path, file).unwrap();
        (role, path)
    };
    let files = edges.windows(2).enumerate().map(compose).collect();
    Staged { files, _dir: dir }
}

/// Tokens that look like text to nobody, but are all in the vocabulary.
pub(crate) fn tokens(count: usize, vocabulary: u32) -> Vec<i32> {
    (0..count)
        .map(|i| ((i * 733 + i * i * 7 + 11) % vocabulary as usize) as i32)
        .collect()
}

/// A row's bits, short enough to keep thousands.
pub(crate) fn bits(row: &[f32]) -> blake3_hash::Hash {
    blake3_hash::of(row)
}

/// Hashes of rows; through `proto`, which hashes for everybody.
pub(crate) mod blake3_hash {
    pub(crate) use proto::ids::Hash;

    pub(crate) fn of(row: &[f32]) -> Hash {
        Hash::of(&proto::packet::f32_to_bytes(row))
    }
}
