//! The cut: from a model's header to the recipe of one stage's file.
//!
//! A stage is a model of its own to the engine, with fewer layers. The rules are those of `2-architecture`, "Cut":
//! layers are renumbered from 0, per-layer arrays are cut, patterns that the engine computes from the layer's index
//! are written out, and each role keeps the vocabulary, embedding and output that it needs. Tensors that the engine
//! insists on and never computes with are filled with zeros (or ones, for a norm) as small as it permits.

use super::family::{self, Family, Scale, WhenNone};
use super::types::{TensorType, ValueType};
use super::value::{Array, Metadata, Value};
use super::write::{NewTensor, encode};
use super::{Header, Tensor};
use crate::host::Role;
use crate::model::LayerRange;

/// Grows whenever [`plan`] makes another file of the same model, role and range; names cached stages.
pub const CUT_FORMAT: u32 = 1;

const TOKEN_EMBD: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";
const OUTPUT_NORM: &str = "output_norm.weight";
const WITH_OUTPUT: [&str; 3] = ["output.bias", "output.scale", "output.input_scale"];
/// Factors of the rotary positions, shared by all layers.
pub(super) const SHARED_BY_LAYERS: [&str; 3] = [
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];
/// Arrays that could happen to be as long as the model has layers, and are not per layer.
const NOT_PER_LAYER: [&str; 2] = ["rope.dimension_sections", "classifier.output_labels"];
const SLIDING_PATTERN: &str = "attention.sliding_window_pattern";
const SLIDING_WINDOW: &str = "attention.sliding_window";
/// A window wider than any cache, in positions; times 64 sequences it still fits the engine's 32 bits.
const WINDOW_WIDE: u32 = 1 << 24;

/// The recipe of a stage file: the pieces one after the other, the header first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePlan {
    /// What the stage is for.
    pub role: Role,
    /// Which of the model's layers it has.
    pub layers: LayerRange,
    /// The header of the file.
    pub header: Vec<u8>,
    /// What follows the header.
    pub pieces: Vec<Piece>,
    /// The length of the file in bytes, header included.
    pub bytes: u64,
}

/// A run of bytes of a stage file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// From the source file.
    Copy {
        /// Where it begins in the source, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// These bytes.
    Literal(Vec<u8>),
    /// So many zeros: filler tensors, and padding.
    Zeros(u64),
}

impl Piece {
    /// How long the piece is, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Copy { bytes, .. } | Self::Zeros(bytes) => *bytes,
            Self::Literal(bytes) => bytes.len() as u64,
        }
    }
}

/// Why a model, or a stage of it, cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The family is not on the list.
    #[error("models of the family \"{architecture}\" run whole on one node: {why}")]
    Family {
        /// `general.architecture`.
        architecture: String,
        /// The reason.
        why: &'static str,
    },
    /// The family can be cut, this model of it cannot.
    #[error("this \"{architecture}\" model runs whole on one node: {why}")]
    Model {
        /// `general.architecture`.
        architecture: String,
        /// The reason.
        why: String,
    },
    /// The range does not fit the role or the model.
    #[error("layers {range} cannot be the {role} of a model with {layers} layers")]
    Range {
        /// The role, in words.
        role: &'static str,
        /// The range asked for.
        range: LayerRange,
        /// How many layers the model has.
        layers: u32,
    },
}

/// Whether a model can be cut at all.
///
/// # Errors
///
/// [`CutError`] with the reason why it runs whole.
pub fn cuttable(header: &Header) -> Result<(), CutError> {
    check(header).map(|_| ())
}

/// The recipe of the file of one stage.
///
/// A head has the first layers, a tail the last, a middle neither.
///
/// # Errors
///
/// [`CutError`] with the reason why the model or this stage of it cannot be cut.
pub fn plan(header: &Header, role: Role, layers: LayerRange) -> Result<StagePlan, CutError> {
    let family = check(header)?;
    check_range(header, role, layers)?;
    check_scale(header, family, u64::from(layers.len()))?;
    let cut = Cut {
        header,
        family,
        role,
        layers,
    };
    let metadata = cut.metadata();
    let tensors = cut.tensors();
    assemble(header, role, layers, &metadata, tensors).ok_or_else(|| CutError::Model {
        architecture: header.architecture().to_owned(),
        why: "its tensors are too large to count".to_owned(),
    })
}

/// The layer in a tensor's name `blk.<n>.<rest>`, and the rest.
pub(super) fn layer_of(name: &str) -> Option<(u32, &str)> {
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = number.parse().ok()?;
    (layer.to_string() == number).then_some((layer, rest))
}

fn check(header: &Header) -> Result<&'static Family, CutError> {
    let architecture = header.architecture();
    let family = family::find(architecture).ok_or_else(|| CutError::Family {
        architecture: architecture.to_owned(),
        why: family::why_not(architecture),
    })?;
    let refuse = |why: String| CutError::Model {
        architecture: architecture.to_owned(),
        why,
    };
    match obstacle(header, family) {
        Some(why) => Err(refuse(why)),
        None => Ok(family),
    }
}

/// What in this model, of a family that can be cut, speaks against it.
fn obstacle(header: &Header, family: &Family) -> Option<String> {
    if header.split_count() > 1 {
        return Some(format!(
            "it comes in {} files; join them into one with llama-gguf-split --merge",
            header.split_count()
        ));
    }
    if header
        .arch_uint("nextn_predict_layers")
        .is_some_and(|n| n > 0)
    {
        return Some("it has extra layers that predict several tokens".to_owned());
    }
    if header.layers() < 2 {
        return Some("it has a single layer".to_owned());
    }
    let sliding = family.sliding.filter(|_| has_window(header));
    if family.insists_on_window() && sliding.is_none() {
        return Some(format!("its key {SLIDING_WINDOW} is missing or 0"));
    }
    if sliding.is_some_and(|sliding| sliding.pattern(header).is_none()) {
        return Some(format!(
            "its key {SLIDING_PATTERN} does not have one entry a layer"
        ));
    }
    uneven_key(header).or_else(|| strange_tensor(header))
}

fn has_window(header: &Header) -> bool {
    header
        .arch_uint(SLIDING_WINDOW)
        .is_some_and(|window| window > 0)
}

/// The families on the list take sizes of all layers from the first, so a stage with another first would differ.
fn uneven_key(header: &Header) -> Option<String> {
    let uneven = |(key, value): (&str, &Value)| {
        let array = value
            .as_array()
            .filter(|_| is_per_layer(header, key, value))?;
        (!key.ends_with(SLIDING_PATTERN) && !array.is_uniform())
            .then(|| format!("its layers differ in {key}"))
    };
    header.metadata().iter().find_map(uneven)
}

fn is_per_layer(header: &Header, key: &str, value: &Value) -> bool {
    let suffix = key
        .strip_prefix(header.architecture())
        .and_then(|rest| rest.strip_prefix('.'))
        .filter(|suffix| !NOT_PER_LAYER.contains(suffix));
    suffix.is_some()
        && value
            .as_array()
            .is_some_and(|array| array.len() == u64::from(header.layers()))
}

/// A tensor that must be there and is not, or is there and has no known place.
fn strange_tensor(header: &Header) -> Option<String> {
    let embedding = header.embedding_length();
    let matrix = header
        .tensor(TOKEN_EMBD)
        .map(|tensor| tensor.dims.as_slice());
    if !matches!(matrix, Some([width, _]) if Some(*width) == embedding) {
        return Some(format!(
            "its tensor {TOKEN_EMBD} is missing or has another shape"
        ));
    }
    let norm = header
        .tensor(OUTPUT_NORM)
        .map(|tensor| tensor.dims.as_slice());
    if !matches!(norm, Some([width]) if Some(*width) == embedding) {
        return Some(format!(
            "its tensor {OUTPUT_NORM} is missing or has another shape"
        ));
    }
    let known = |name: &str| {
        [TOKEN_EMBD, OUTPUT, OUTPUT_NORM].contains(&name)
            || WITH_OUTPUT.contains(&name)
            || SHARED_BY_LAYERS.contains(&name)
            || layer_of(name).is_some_and(|(layer, _)| layer < header.layers())
    };
    let strange = header
        .tensors()
        .iter()
        .find(|tensor| !known(&tensor.name))?;
    Some(format!(
        "it has a tensor {:?} that no stage would know what to do with",
        strange.name
    ))
}

fn check_range(header: &Header, role: Role, range: LayerRange) -> Result<(), CutError> {
    let layers = header.layers();
    let (at_start, at_end) = (range.first == 0, range.end == layers);
    let (name, fits) = match role {
        Role::Whole => ("whole", false),
        Role::Head => ("head", at_start && !at_end),
        Role::Middle => ("middle", !at_start && !at_end),
        Role::Tail => ("tail", !at_start && at_end),
    };
    if fits && !range.is_empty() && range.end <= layers {
        return Ok(());
    }
    Err(CutError::Range {
        role: name,
        range,
        layers,
    })
}

/// Refuses a stage whose number of layers would change the attention scale of its layers.
fn check_scale(header: &Header, family: &Family, stage_layers: u64) -> Result<(), CutError> {
    let Scale::ByLayers(special) = family.scale else {
        return Ok(());
    };
    let heads = header
        .arch_uint("attention.head_count")
        .filter(|heads| *heads > 0);
    let by_heads = header
        .embedding_length()
        .zip(heads)
        .map(|(width, heads)| width / heads);
    let by_key = header.arch_uint("attention.key_length").or(by_heads);
    let scale = |layers| if layers == special { by_heads } else { by_key };
    if scale(u64::from(header.layers())) == scale(stage_layers) {
        return Ok(());
    }
    Err(CutError::Model {
        architecture: family.name.to_owned(),
        why: format!(
            "the engine takes another attention scale for {special} layers than for a part of them"
        ),
    })
}

/// A tensor of the stage, and what it is made from.
struct Planned {
    tensor: NewTensor,
    data: Data,
}

enum Data {
    Copy(u64),
    Ones,
    Zeros,
}

struct Cut<'a> {
    header: &'a Header,
    family: &'a Family,
    role: Role,
    layers: LayerRange,
}

impl Cut<'_> {
    fn metadata(&self) -> Metadata {
        let header = self.header;
        let mut metadata = header.metadata().clone();
        metadata.retain(|key, _| !key.starts_with("split."));
        for (key, value) in header.metadata().iter() {
            if let (true, Some(array)) = (is_per_layer(header, key, value), value.as_array()) {
                let part = array.slice(self.layers.first.into(), self.layers.end.into());
                metadata.set(key, Value::Array(part));
            }
        }
        metadata.set(
            &header.arch_key("block_count"),
            Value::U32(self.layers.len()),
        );
        if self.role == Role::Middle {
            metadata.retain(|key, _| !key.starts_with("tokenizer."));
            metadata.set("tokenizer.ggml.model", Value::text("no_vocab"));
            metadata.set(&header.arch_key("vocab_size"), Value::U32(1));
        }
        self.write_out_pattern(&mut metadata);
        metadata
    }

    /// Writes down which layers of the stage have a sliding window; the engine would count from the stage's first.
    fn write_out_pattern(&self, metadata: &mut Metadata) {
        let Some(sliding) = self.family.sliding.filter(|_| has_window(self.header)) else {
            return;
        };
        let pattern = sliding
            .pattern(self.header)
            .expect("checked before a stage is planned");
        let part = &pattern[self.layers.first as usize..self.layers.end as usize];
        let wide = !part.contains(&true) && sliding.when_none == WhenNone::WindowWide;
        if !part.contains(&true) {
            let window = if wide { WINDOW_WIDE } else { 0 };
            metadata.set(&self.header.arch_key(SLIDING_WINDOW), Value::U32(window));
        }
        if wide {
            let sliding_base = self.header.arch_key("rope.freq_base_swa");
            metadata.retain(|key, _| key != sliding_base);
        }
        let flags: Vec<Value> = part.iter().map(|flag| Value::Bool(*flag || wide)).collect();
        let array = Array::of(ValueType::Bool, &flags).expect("all elements are truth values");
        metadata.set(&self.header.arch_key(SLIDING_PATTERN), Value::Array(array));
    }

    fn tensors(&self) -> Vec<Planned> {
        let mut planned: Vec<Planned> = self
            .header
            .tensors()
            .iter()
            .filter_map(|tensor| self.placed(tensor))
            .collect();
        let has = |name: &str| self.header.tensor(name).is_some();
        if self.family.output_required && self.role != Role::Tail && has(OUTPUT) {
            planned.push(self.filler(OUTPUT));
        }
        planned
    }

    /// What becomes of a tensor of the model in this stage.
    fn placed(&self, tensor: &Tensor) -> Option<Planned> {
        if let Some((layer, rest)) = layer_of(&tensor.name) {
            let kept = (self.layers.first..self.layers.end).contains(&layer);
            return kept
                .then(|| self.copied(tensor, format!("blk.{}.{rest}", layer - self.layers.first)));
        }
        let tail = self.role == Role::Tail;
        let tied = self.header.tensor(OUTPUT).is_none();
        match tensor.name.as_str() {
            TOKEN_EMBD if self.role == Role::Head || (tail && tied) => Some(self.copy(tensor)),
            TOKEN_EMBD => Some(self.filler(TOKEN_EMBD)),
            OUTPUT_NORM if !tail => Some(Planned {
                tensor: NewTensor {
                    kind: TensorType::F32,
                    ..described(tensor)
                },
                data: Data::Ones,
            }),
            name if SHARED_BY_LAYERS.contains(&name) => Some(self.copy(tensor)),
            _ => tail.then(|| self.copy(tensor)),
        }
    }

    fn copy(&self, tensor: &Tensor) -> Planned {
        self.copied(tensor, tensor.name.clone())
    }

    fn copied(&self, tensor: &Tensor, name: String) -> Planned {
        Planned {
            tensor: NewTensor {
                name,
                ..described(tensor)
            },
            data: Data::Copy(self.header.data_offset() + tensor.offset),
        }
    }

    /// Zeros for an embedding or output that the engine insists on and this stage never uses: with a row for every
    /// token where there is a vocabulary, else with one.
    fn filler(&self, name: &str) -> Planned {
        let width = self
            .header
            .embedding_length()
            .expect("checked before a stage is planned");
        let rows = match self.role {
            Role::Middle => 1,
            _ => self
                .header
                .vocabulary()
                .expect("checked before a stage is planned"),
        };
        let kind = if rows == 1 {
            TensorType::F32
        } else {
            smallest_type(width)
        };
        let tensor = NewTensor {
            name: name.to_owned(),
            dims: vec![width, rows],
            kind,
        };
        Planned {
            tensor,
            data: Data::Zeros,
        }
    }
}

fn described(tensor: &Tensor) -> NewTensor {
    NewTensor {
        name: tensor.name.clone(),
        dims: tensor.dims.clone(),
        kind: tensor.kind,
    }
}

/// The type that stores a row of this width in the fewest bytes, of those whose zeros are zero on every back-end.
fn smallest_type(width: u64) -> TensorType {
    [TensorType::Q1_0, TensorType::Q4_0, TensorType::F16]
        .into_iter()
        .find(|kind| kind.bytes_of(&[width]).is_some())
        .expect("a row of 16-bit floats can have any width")
}

/// `None` when the sum of all tensors does not fit into 63 bits.
fn assemble(
    header: &Header,
    role: Role,
    layers: LayerRange,
    metadata: &Metadata,
    planned: Vec<Planned>,
) -> Option<StagePlan> {
    let (tensors, data): (Vec<_>, Vec<_>) = planned.into_iter().map(|p| (p.tensor, p.data)).unzip();
    let encoded = encode(header.version(), metadata, &tensors)?;
    let mut pieces = Vec::new();
    for (data, bytes) in data.into_iter().zip(encoded.tensor_bytes) {
        pieces.push(match data {
            Data::Copy(offset) => Piece::Copy { offset, bytes },
            Data::Zeros => Piece::Zeros(bytes),
            Data::Ones => Piece::Literal(ones(bytes)),
        });
        let padding = bytes.next_multiple_of(encoded.alignment) - bytes;
        if padding > 0 {
            pieces.push(Piece::Zeros(padding));
        }
    }
    let bytes = encoded.bytes.len() as u64 + pieces.iter().map(Piece::bytes).sum::<u64>();
    Some(StagePlan {
        role,
        layers,
        header: encoded.bytes,
        pieces,
        bytes,
    })
}

/// 32-bit ones.
fn ones(bytes: u64) -> Vec<u8> {
    (0..bytes / 4).flat_map(|_| 1f32.to_le_bytes()).collect()
}
