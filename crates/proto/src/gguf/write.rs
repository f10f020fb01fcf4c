//! The writer: everything before the tensor data.

use super::types::TensorType;
use super::value::{Metadata, encode_text};
use super::{ALIGNMENT_DEFAULT, Header, KEY_ALIGNMENT, MAGIC};

/// A tensor to be written. Its place follows from its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the length of a row first.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub kind: TensorType,
}

/// A header as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The header with its padding: the first tensor follows at once.
    pub bytes: Vec<u8>,
    /// What every tensor's data is padded to, in bytes.
    pub alignment: u64,
    /// The data bytes of each tensor, without padding.
    pub tensor_bytes: Vec<u64>,
}

/// Encodes a header. The reader accepts the result if it accepts its parts; a caller in doubt reads it again.
///
/// `None` when a tensor's dimensions make no tensor of its type, or the sum of all does not fit into 63 bits.
#[must_use]
pub fn encode(version: u32, metadata: &Metadata, tensors: &[NewTensor]) -> Option<Encoded> {
    let alignment = metadata
        .uint(KEY_ALIGNMENT)
        .unwrap_or(ALIGNMENT_DEFAULT)
        .max(1);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        encode_text(key.as_bytes(), &mut bytes);
        bytes.extend(value.kind().id().to_le_bytes());
        value.encode_into(&mut bytes);
    }
    let mut tensor_bytes = Vec::new();
    let mut offset = 0u64;
    for tensor in tensors {
        let length = tensor.kind.bytes_of(&tensor.dims)?;
        encode_text(tensor.name.as_bytes(), &mut bytes);
        bytes.extend(u32::try_from(tensor.dims.len()).ok()?.to_le_bytes());
        tensor
            .dims
            .iter()
            .for_each(|dim| bytes.extend(dim.to_le_bytes()));
        bytes.extend(tensor.kind.id().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset = offset
            .checked_add(length)?
            .checked_next_multiple_of(alignment)?;
        i64::try_from(offset).ok()?;
        tensor_bytes.push(length);
    }
    let padded = (bytes.len() as u64).next_multiple_of(alignment);
    bytes.resize(usize::try_from(padded).ok()?, 0);
    Some(Encoded {
        bytes,
        alignment,
        tensor_bytes,
    })
}

impl Header {
    /// The header as bytes: those that it was read from, if their padding was zeros.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let tensors: Vec<NewTensor> = self
            .tensors()
            .iter()
            .map(|t| NewTensor {
                name: t.name.clone(),
                dims: t.dims.clone(),
                kind: t.kind,
            })
            .collect();
        let encoded = encode(self.version(), self.metadata(), &tensors);
        encoded
            .expect("the reader checked dimensions and sums")
            .bytes
    }
}
