//! GGUF files: a strict reader, a writer, and the cut of a model into stages.
//!
//! # Story
//!
//! A model file comes from strangers, and the engine that computes with it is C++ that aborts on what it does not
//! expect. So every file passes [`Header::read`] first: it takes nothing on trust, counts with checked arithmetic,
//! reserves no memory that only a length field asked for, and names the field and the byte where something is wrong.
//! What it accepts is at most what the engine's own loader accepts (`gguf.cpp`, `llama-model-loader.cpp` of the
//! pinned llama.cpp), so a refusal there is rare and a crash should be impossible.
//!
//! [`encode`] writes a header back byte for byte. [`cut`] turns a header, a role and a layer range into the recipe
//! of a stage file: new header bytes, and pieces to copy from the source. [`BlockMap`] divides a file into the blocks
//! in which it travels. Everything here is pure: opening files and moving bytes belongs to `store`.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Versions 2 and 3, little endian.

mod blocks;
mod cut;
mod error;
mod family;
mod read;
mod types;
mod value;
mod write;

pub use blocks::{BlockMap, Run};
pub use cut::{CUT_FORMAT, CutError, Piece, StagePlan, cuttable, plan};
pub use error::{Fault, GgufError};
pub use family::{Family, families};
pub use types::{TensorType, ValueType};
pub use value::{Array, Metadata, Value};
pub use write::{Encoded, NewTensor, encode};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that [`encode`] writes unless told otherwise.
pub const VERSION: u32 = 3;
/// The most bytes that everything before the tensor data may take.
pub const HEADER_BYTES_MAX: u64 = 256 << 20;
/// The most bytes of one text or array.
pub const VALUE_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of a key.
pub const KEY_BYTES_MAX: u64 = 65_535;
/// The most keys of a file; published ones have fewer than 100.
pub const KEYS_MAX: u64 = 65_536;
/// The most tensors of a file; the largest published ones have some thousands.
pub const TENSORS_MAX: u64 = 100_000;
/// The most bytes of a tensor's name: the engine keeps 64 with a zero at the end.
pub const TENSOR_NAME_BYTES_MAX: u64 = 63;
/// The most dimensions of a tensor.
pub const DIMS_MAX: u32 = 4;
/// The alignment of tensor data when `general.alignment` is absent, in bytes.
pub const ALIGNMENT_DEFAULT: u64 = 32;
/// The smallest alignment: the engine aborts on mapped tensors that do not begin at a multiple of 32 bytes.
pub const ALIGNMENT_MIN: u64 = 32;
/// The largest alignment: more would only make room for padding.
pub const ALIGNMENT_MAX: u64 = 65_536;
/// The most layers that the engine takes (`LLAMA_MAX_LAYERS`); it aborts on more.
pub const BLOCKS_MAX: u64 = 512;

const _: () = assert!(BLOCKS_MAX <= crate::model::LAYERS_MAX as u64);
const _: () = assert!(VALUE_BYTES_MAX <= HEADER_BYTES_MAX);

/// The key of the architecture's name.
pub const KEY_ARCHITECTURE: &str = "general.architecture";
/// The key of the alignment.
pub const KEY_ALIGNMENT: &str = "general.alignment";
/// The key that says in how many files a model comes.
pub const KEY_SPLIT_COUNT: &str = "split.count";
/// The key that numbers those files, from 0.
pub const KEY_SPLIT_NO: &str = "split.no";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, unique in the file.
    pub name: String,
    /// Its dimensions, the length of a row first; 1 to 4, none of them 0.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub kind: TensorType,
    /// Where it begins, in bytes behind [`Header::data_offset`].
    pub offset: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Everything before the tensor data of a file that passed all checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    version: u32,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    alignment: u64,
    data_offset: u64,
    file_bytes: u64,
}

impl Header {
    /// Reads and checks the header of a file of `file_bytes` bytes.
    ///
    /// Reads no further than the header, in pieces of at most 64 KiB.
    ///
    /// # Errors
    ///
    /// [`GgufError`] that names the field and the byte offset.
    pub fn read(source: impl std::io::Read, file_bytes: u64) -> Result<Self, GgufError> {
        read::header(source, file_bytes)
    }

    /// Reads and checks the header of an adapter: as [`Self::read`], but without what only models have, an architecture
    /// with a number of layers.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_adapter(source: impl std::io::Read, file_bytes: u64) -> Result<Self, GgufError> {
        read::adapter(source, file_bytes)
    }

    /// Reads and checks the header of a file that is in memory.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn from_bytes(file: &[u8]) -> Result<Self, GgufError> {
        Self::read(file, file.len() as u64)
    }

    /// The format's version, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The keys and values.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor with this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The alignment of tensors in bytes.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensor data begins, in bytes from the start of the file.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The length of the file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `general.architecture`; empty only in the second and later files of a split model.
    #[must_use]
    pub fn architecture(&self) -> &str {
        self.metadata.text(KEY_ARCHITECTURE).unwrap_or_default()
    }

    /// How many layers the model has; 0 only in the second and later files of a split model.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.arch_uint("block_count")
            .and_then(|layers| u32::try_from(layers).ok())
            .unwrap_or(0)
    }

    /// Numbers in an activation row.
    #[must_use]
    pub fn embedding_length(&self) -> Option<u64> {
        self.arch_uint("embedding_length")
    }

    /// Positions that the model was trained for.
    #[must_use]
    pub fn context_length(&self) -> Option<u64> {
        self.arch_uint("context_length")
    }

    /// Tokens of the vocabulary: as many as the embedding has rows.
    #[must_use]
    pub fn vocabulary(&self) -> Option<u64> {
        self.tensor("token_embd.weight")?.dims.get(1).copied()
    }

    /// `general.name`, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.metadata.text("general.name")
    }

    /// In how many files the model comes.
    #[must_use]
    pub fn split_count(&self) -> u64 {
        self.metadata.uint(KEY_SPLIT_COUNT).unwrap_or(1).max(1)
    }

    /// `<architecture>.<suffix>` as an unsigned integer.
    #[must_use]
    pub fn arch_uint(&self, suffix: &str) -> Option<u64> {
        self.metadata.uint(&self.arch_key(suffix))
    }

    /// The key `<architecture>.<suffix>`.
    #[must_use]
    pub fn arch_key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture())
    }

    /// Bytes of all tensors, without padding.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Bytes of the tensors of one layer, without padding.
    #[must_use]
    pub fn layer_bytes(&self, layer: u32) -> u64 {
        let in_layer = |name: &str| cut::layer_of(name).is_some_and(|(n, _)| n == layer);
        self.tensors
            .iter()
            .filter(|t| in_layer(&t.name))
            .map(|t| t.bytes)
            .sum()
    }
}
