//! The value types of GGUF metadata and the tensor types of ggml.
//!
//! Numbers and sizes are those of the GGUF specification (ggml, `docs/gguf.md`) and of ggml's type table as built
//! into the pinned engine (`ggml.h`, `enum ggml_type`; `ggml-common.h`, the `block_*` structures).

use std::fmt;

/// The type of a metadata value, or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// 8-bit unsigned integer.
    U8 = 0,
    /// 8-bit signed integer.
    I8 = 1,
    /// 16-bit unsigned integer.
    U16 = 2,
    /// 16-bit signed integer.
    I16 = 3,
    /// 32-bit unsigned integer.
    U32 = 4,
    /// 32-bit signed integer.
    I32 = 5,
    /// 32-bit IEEE 754 number.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// A length of 8 bytes, then that many bytes.
    Text = 8,
    /// Element type, count, elements.
    Array = 9,
    /// 64-bit unsigned integer.
    U64 = 10,
    /// 64-bit signed integer.
    I64 = 11,
    /// 64-bit IEEE 754 number.
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The type with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// The number in the file.
    #[must_use]
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for texts and arrays, whose size varies.
    #[must_use]
    pub fn fixed_bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// How the numbers of a tensor are stored: in blocks of equal size along a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType {
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
}

const fn tensor_type(
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
) -> TensorType {
    TensorType {
        id,
        name,
        block_elements,
        block_bytes,
    }
}

/// Every type that the pinned engine reads, by number. Missing numbers were removed from ggml.
const TENSOR_TYPES: [TensorType; 35] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Q4_0,
    tensor_type(3, "q4_1", 32, 20),
    tensor_type(6, "q5_0", 32, 22),
    tensor_type(7, "q5_1", 32, 24),
    TensorType::Q8_0,
    tensor_type(9, "q8_1", 32, 36),
    tensor_type(10, "q2_K", 256, 84),
    tensor_type(11, "q3_K", 256, 110),
    tensor_type(12, "q4_K", 256, 144),
    tensor_type(13, "q5_K", 256, 176),
    tensor_type(14, "q6_K", 256, 210),
    tensor_type(15, "q8_K", 256, 292),
    tensor_type(16, "iq2_xxs", 256, 66),
    tensor_type(17, "iq2_xs", 256, 74),
    tensor_type(18, "iq3_xxs", 256, 98),
    tensor_type(19, "iq1_s", 256, 50),
    tensor_type(20, "iq4_nl", 32, 18),
    tensor_type(21, "iq3_s", 256, 110),
    tensor_type(22, "iq2_s", 256, 82),
    tensor_type(23, "iq4_xs", 256, 136),
    tensor_type(24, "i8", 1, 1),
    tensor_type(25, "i16", 1, 2),
    tensor_type(26, "i32", 1, 4),
    tensor_type(27, "i64", 1, 8),
    tensor_type(28, "f64", 1, 8),
    tensor_type(29, "iq1_m", 256, 56),
    tensor_type(30, "bf16", 1, 2),
    tensor_type(34, "tq1_0", 256, 54),
    tensor_type(35, "tq2_0", 256, 66),
    tensor_type(39, "mxfp4", 32, 17),
    tensor_type(40, "nvfp4", 64, 36),
    TensorType::Q1_0,
    tensor_type(42, "q2_0", 64, 18),
];

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = tensor_type(0, "f32", 1, 4);
    /// 16-bit floats.
    pub const F16: Self = tensor_type(1, "f16", 1, 2);
    /// 4 bits and a shared 16-bit scale for 32 numbers.
    pub const Q4_0: Self = tensor_type(2, "q4_0", 32, 18);
    /// 8 bits and a shared 16-bit scale for 32 numbers.
    pub const Q8_0: Self = tensor_type(8, "q8_0", 32, 34);
    /// 1 bit and a shared 16-bit scale for 128 numbers: the smallest type there is.
    pub const Q1_0: Self = tensor_type(41, "q1_0", 128, 18);

    /// The type with this number, if the engine knows it.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        TENSOR_TYPES.iter().find(|t| t.id == id).copied()
    }

    /// All types, by number.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &TENSOR_TYPES
    }

    /// The number in the file.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// ggml's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Numbers in one block; a row's length is a multiple of it.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        self.block_elements
    }

    /// Bytes of one block.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.block_bytes
    }

    /// Bytes of a tensor of these dimensions; `None` when a row is no whole number of blocks, a dimension is 0, or
    /// the product does not fit into 63 bits (the engine counts with signed numbers).
    #[must_use]
    pub fn bytes_of(self, dims: &[u64]) -> Option<u64> {
        let row = *dims.first()?;
        if dims.contains(&0) || !row.is_multiple_of(self.block_elements) {
            return None;
        }
        let fits = |n: u64| i64::try_from(n).is_ok().then_some(n);
        let elements = dims
            .iter()
            .try_fold(1u64, |product, &dim| fits(product.checked_mul(dim)?))?;
        fits((elements / self.block_elements).checked_mul(self.block_bytes)?)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_rising() {
        assert!(TENSOR_TYPES.windows(2).all(|pair| pair[0].id < pair[1].id));
        for id in 0..13 {
            assert_eq!(ValueType::from_id(id).map(ValueType::id), Some(id));
        }
        assert_eq!(ValueType::from_id(13), None);
    }

    #[test]
    fn sizes_are_counted_in_blocks_and_never_overflow() {
        for (kind, dims, bytes) in [
            (TensorType::F32, &[3u64, 5][..], Some(60)),
            (TensorType::Q4_0, &[64, 2], Some(72)),
            (TensorType::Q4_0, &[48, 2], None),
            (TensorType::Q1_0, &[256, 7], Some(252)),
            (TensorType::F32, &[4, 0], None),
            (TensorType::F32, &[], None),
            (TensorType::F32, &[1 << 61], None),
            (TensorType::F32, &[u64::MAX, 2], None),
            (TensorType::Q4_0, &[1 << 32, 1 << 31], None),
        ] {
            assert_eq!(kind.bytes_of(dims), bytes, "{kind} {dims:?}");
        }
    }
}
