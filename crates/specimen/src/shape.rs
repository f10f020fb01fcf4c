//! How large a specimen is, and how its weights are stored.

use proto::gguf::TensorType;

/// The size of a specimen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Layers.
    pub layers: u32,
    /// Numbers in an activation row.
    pub embedding: u32,
    /// Query heads; embedding ÷ heads is the length of one.
    pub heads: u32,
    /// Key and value heads.
    pub heads_kv: u32,
    /// Numbers inside a feed-forward block.
    pub feed_forward: u32,
    /// Experts of a mixture.
    pub experts: u32,
    /// Numbers inside an expert.
    pub expert_feed_forward: u32,
    /// Positions of a sliding window.
    pub window: u32,
    /// Positions that the model claims to be trained for.
    pub context: u32,
}

impl Shape {
    /// For tests with the engine: 12 layers, so that three stages can be cut at odd layers.
    pub const SMALL: Self = Self {
        layers: 12,
        embedding: 64,
        heads: 4,
        heads_kv: 2,
        feed_forward: 128,
        experts: 4,
        expert_feed_forward: 32,
        window: 16,
        context: 4096,
    };

    /// For tests of the format alone, where a file of some kilobytes is read at every length.
    pub const MINIATURE: Self = Self {
        layers: 3,
        embedding: 32,
        heads: 2,
        heads_kv: 1,
        feed_forward: 32,
        experts: 2,
        expert_feed_forward: 32,
        window: 4,
        context: 64,
    };

    /// Numbers in one attention head.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.embedding / self.heads
    }
}

/// How matrices are stored. Norms, biases and factors are 32-bit floats always, as in published files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weights {
    /// 32-bit floats.
    F32,
    /// [`TensorType::Q8_0`].
    Q8_0,
    /// [`TensorType::Q4_0`].
    Q4_0,
}

impl Weights {
    /// The type of a tensor under this choice.
    #[must_use]
    pub fn kind_of(self, tensor: &SpecimenTensor) -> TensorType {
        let quantized = tensor.quantizable && tensor.dims[0].is_multiple_of(32);
        match self {
            Self::Q8_0 if quantized => TensorType::Q8_0,
            Self::Q4_0 if quantized => TensorType::Q4_0,
            _ => TensorType::F32,
        }
    }

    /// `general.file_type`, as llama.cpp numbers it (`enum llama_ftype`).
    #[must_use]
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
        }
    }
}

/// One tensor of a specimen.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecimenTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the length of a row first.
    pub dims: Vec<u64>,
    /// What it is filled with.
    pub fill: Fill,
    /// Whether published files quantise it.
    pub quantizable: bool,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Normal numbers of this deviation.
    Matrix(f32),
    /// Numbers near 1.
    Norm,
    /// 1, 1.25, 1.5 …: divisors of rotary frequencies.
    Factors,
    /// Numbers near -1.
    Decay,
}
