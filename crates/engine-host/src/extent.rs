//! How many positions and sessions a specification gets: what the model was trained for, and what memory allows.

use crate::llama::Model;
use proto::gguf::{Header, TensorType};
use proto::host::{KvType, LoadSpec, ROPE_SCALE_MAX};
use proto::model::Numerics;

/// The longest context that is set up when none is asked for, in positions.
const POSITIONS_DEFAULT_MAX: u32 = 4096;
/// llama.cpp makes caches in multiples of so many positions.
const POSITIONS_GRID: u32 = 256;

/// What is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Positions of each session.
    pub positions: u32,
    /// Sessions at once.
    pub sessions: u32,
    /// How far positions are stretched; 1 is not at all.
    pub rope_scale: f32,
}

/// Why a specification cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ExtentError {
    /// Exact mode's promise was not measured with such caches.
    #[error(
        "exact numerics are kept with an f16 cache only, and {0} was asked for; choose throughput numerics \
         (--numerics throughput), or leave out --kv {0}"
    )]
    KvExact(KvType),
    /// The factor is out of range.
    #[error("positions can be stretched by a factor of 1 to {ROPE_SCALE_MAX}, not by {0}")]
    Scale(f32),
    /// The model has no rotary positions, or its file stretches them.
    #[error(
        "this model's positions cannot be stretched (it has no rotary positions, or stretches them already); leave out \
         --rope-scale"
    )]
    Rigid,
    /// More positions than the model knows.
    #[error(
        "a context of {asked} positions is longer than the {limit} that this model can have: it was trained for {trained}; \
         ask for at most {limit}, or stretch it with --rope-scale {} (answers suffer the more it is stretched)",
        (*asked as f32 / *trained as f32).ceil()
    )]
    Positions {
        /// What was asked for.
        asked: u32,
        /// What the model was trained for.
        trained: u32,
        /// What it can have as specified.
        limit: u32,
    },
    /// Not one session fits.
    #[error(
        "one session of {positions} positions takes {needed} bytes of cache, and {max} are allowed; allow more \
         (--kv-memory), ask for fewer positions (--context), or keep caches smaller (--kv q8_0)"
    )]
    Memory {
        /// Positions of a session.
        positions: u32,
        /// Bytes of its caches.
        needed: u64,
        /// The limit.
        max: u64,
    },
    /// The file's header does not say how large a cache is.
    #[error(
        "the size of its caches cannot be read from {0}, so they cannot be limited; leave out --kv-memory"
    )]
    Unreadable(String),
}

impl Extent {
    /// What a specification gets with these models.
    ///
    /// # Errors
    ///
    /// [`ExtentError`].
    pub fn of<'a>(
        spec: &LoadSpec,
        models: impl Iterator<Item = &'a Model> + Clone,
    ) -> Result<Self, ExtentError> {
        if spec.numerics == Numerics::Exact && spec.kv != KvType::F16 {
            return Err(ExtentError::KvExact(spec.kv));
        }
        let rope_scale = spec.rope_scale.unwrap_or(1.0);
        if !(1.0..=ROPE_SCALE_MAX).contains(&rope_scale) {
            return Err(ExtentError::Scale(rope_scale));
        }
        if rope_scale > 1.0 && !models.clone().all(Model::stretches) {
            return Err(ExtentError::Rigid);
        }
        let trained = models.map(Model::positions_trained).min().unwrap_or(0);
        let positions = positions(spec.positions_max, trained, rope_scale)?;
        let sessions = match spec.kv_bytes_max {
            Some(max) => sessions(spec, positions, max)?,
            None => spec.sessions_max,
        };
        Ok(Self {
            positions,
            sessions,
            rope_scale,
        })
    }
}

fn positions(asked: u32, trained: u32, rope_scale: f32) -> Result<u32, ExtentError> {
    let limit = (f64::from(trained) * f64::from(rope_scale)) as u32;
    match asked {
        0 => Ok(limit.clamp(1, POSITIONS_DEFAULT_MAX)),
        asked if asked <= limit => Ok(asked),
        asked => Err(ExtentError::Positions {
            asked,
            trained,
            limit,
        }),
    }
}

fn sessions(spec: &LoadSpec, positions: u32, max: u64) -> Result<u32, ExtentError> {
    let mut row = 0u64;
    for name in spec.parts.iter().filter_map(|part| part.files.first()) {
        let bytes = header(name).and_then(|header| row_bytes(&header, spec.kv));
        let bytes = bytes.ok_or_else(|| ExtentError::Unreadable(name.clone()))?;
        row = row.saturating_add(bytes);
    }
    let cells = u64::from(positions).next_multiple_of(u64::from(POSITIONS_GRID));
    let needed = row.saturating_mul(cells);
    match max.checked_div(needed) {
        Some(0) => Err(ExtentError::Memory {
            positions,
            needed,
            max,
        }),
        Some(fit) => Ok(spec
            .sessions_max
            .min(u32::try_from(fit).unwrap_or(u32::MAX))),
        // Such a model keeps nothing for each position.
        None => Ok(spec.sessions_max),
    }
}

fn header(name: &str) -> Option<Header> {
    let file = std::fs::File::open(name).ok()?;
    let bytes = file.metadata().ok()?.len();
    Header::read(std::io::BufReader::new(file), bytes).ok()
}

/// Bytes of cache for one position in all layers of a file.
///
/// Architectures that keep less than keys and values of every layer are counted as if they did.
#[must_use]
pub fn row_bytes(header: &Header, kv: KvType) -> Option<u64> {
    let heads = header.arch_uint("attention.head_count");
    let each = |suffix: &str| {
        let head = || header.embedding_length()?.checked_div(heads?);
        header.arch_uint(suffix).or_else(head)
    };
    let pair = [
        each("attention.key_length")?,
        each("attention.value_length")?,
    ];
    let layers = heads_by_layer(header).or_else(|| Some(vec![heads?; header.layers() as usize]))?;
    let kind: TensorType = kv.tensor_type();
    let mut bytes = 0u64;
    for (heads, length) in layers
        .iter()
        .flat_map(|heads| pair.map(|length| (heads, length)))
    {
        let blocks = heads.checked_mul(length)?.div_ceil(kind.block_elements());
        bytes = bytes.checked_add(blocks.checked_mul(kind.block_bytes())?)?;
    }
    Some(bytes)
}

/// Key and value heads of every layer: one number for all, or a list.
fn heads_by_layer(header: &Header) -> Option<Vec<u64>> {
    let suffix = "attention.head_count_kv";
    if let Some(heads) = header.arch_uint(suffix) {
        return Some(vec![heads; header.layers() as usize]);
    }
    let list = header.metadata().array(&header.arch_key(suffix))?;
    list.iter().map(|heads| heads.as_u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_end_where_training_or_its_stretch_does() {
        let check = |asked, scale, expected: Result<u32, &str>| {
            let got = positions(asked, 2048, scale).map_err(|error| error.to_string());
            match expected {
                Ok(positions) => assert_eq!(got, Ok(positions)),
                Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
            }
        };
        check(0, 1.0, Ok(2048));
        check(0, 8.0, Ok(4096));
        check(2048, 1.0, Ok(2048));
        check(
            2049,
            1.0,
            Err("trained for 2048; ask for at most 2048, or stretch it with --rope-scale 2 "),
        );
        check(4096, 2.0, Ok(4096));
        check(5000, 2.0, Err("5000 positions is longer than the 4096"));
    }
}
