//! What can be wrong with a GGUF file.

/// A file that was refused: which field, where, why.
#[derive(Debug, thiserror::Error)]
#[error("bad GGUF file: {field} at byte {offset}: {fault}")]
pub struct GgufError {
    /// The field, in words.
    pub field: String,
    /// Where the field begins, in bytes from the start of the file.
    pub offset: u64,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The source failed.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file ends inside the field.
    #[error("needs {needed} bytes, but the file ends after {left}; fetch the file again")]
    Truncated {
        /// How many bytes the field has.
        needed: u64,
        /// How many the file still has.
        left: u64,
    },
    /// Not a GGUF file at all.
    #[error("the file does not begin with \"GGUF\"; it is no GGUF file")]
    NotGguf,
    /// A version that is not read.
    #[error("version {0} is not supported, only 2 and 3 are; convert the model again")]
    Version(u32),
    /// Written for big-endian machines.
    #[error("the file is big-endian; convert it to little-endian")]
    BigEndian,
    /// A length or count beyond its limit.
    #[error("{found} is more than {max}")]
    TooMuch {
        /// What the file says.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A value type that does not exist.
    #[error("value type {0} does not exist")]
    ValueType(u32),
    /// An array whose elements are arrays.
    #[error("arrays inside arrays are not supported")]
    NestedArray,
    /// A truth value that is neither 0 nor 1.
    #[error("{0} is neither 0 nor 1")]
    Bool(u8),
    /// A name or key that is empty, or not plain text.
    #[error("it is empty or not valid text")]
    Name,
    /// A key or tensor name that was there before.
    #[error("it appears twice")]
    Duplicate,
    /// A key that must be there.
    #[error("it is missing")]
    Missing,
    /// A key with a value of the wrong type.
    #[error("it must be {0}")]
    WrongType(&'static str),
    /// A value outside its limits.
    #[error("{found} is not in {min} to {max}")]
    OutOfRange {
        /// What the file says.
        found: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// An alignment that is no power of two.
    #[error("{0} is no power of two")]
    Alignment(u64),
    /// A tensor type that the engine does not know.
    #[error("tensor type {0} is not known to this engine")]
    TensorType(u32),
    /// Dimensions that make no tensor of the type.
    #[error("dimensions {dims:?} make no tensor of type {kind}")]
    Shape {
        /// The dimensions.
        dims: Vec<u64>,
        /// The tensor's type.
        kind: super::TensorType,
    },
    /// Tensor data elsewhere than directly behind the tensor before it.
    #[error(
        "{found} instead of {expected}: tensors must follow one another without gap or overlap"
    )]
    Offset {
        /// What the file says.
        found: u64,
        /// Where the tensor before it ends, aligned.
        expected: u64,
    },
    /// Tensor data that reaches beyond the end of the file.
    #[error("its data ends at byte {end}, the file at {file_bytes}; fetch the file again")]
    OutsideFile {
        /// Where the data would end.
        end: u64,
        /// The length of the file.
        file_bytes: u64,
    },
}
