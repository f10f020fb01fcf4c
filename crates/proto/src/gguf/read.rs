//! The strict reader.

use super::error::{Fault, GgufError};
use super::types::{TensorType, ValueType};
use super::value::{Array, Metadata, Value};
use super::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ALIGNMENT_MIN, BLOCKS_MAX, DIMS_MAX, HEADER_BYTES_MAX,
    Header, KEY_ALIGNMENT, KEY_ARCHITECTURE, KEY_BYTES_MAX, KEY_SPLIT_NO, KEYS_MAX, MAGIC,
    TENSOR_NAME_BYTES_MAX, TENSORS_MAX, Tensor, VALUE_BYTES_MAX,
};
use std::collections::{HashMap, HashSet};
use std::io::Read;

/// How much is read at once, in bytes: memory grows by this as bytes arrive, never by what a length field says.
const CHUNK_BYTES: u64 = 64 << 10;
/// The least that a key with its value can take: a length, one letter, a type, a byte.
const KEY_ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
/// The least that a tensor's description can take: a length, one letter, rank, one dimension, type, offset.
const TENSOR_ENTRY_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// The length in front of a text.
const TEXT_BYTES_MIN: u64 = 8;

/// Reads a header; see [`Header::read`].
pub(super) fn header(source: impl Read, file_bytes: u64) -> Result<Header, GgufError> {
    checked(source, file_bytes, check_model)
}

/// The same for an adapter, which names an architecture and has no layers of its own.
pub(super) fn adapter(source: impl Read, file_bytes: u64) -> Result<Header, GgufError> {
    checked(source, file_bytes, |_| Ok(()))
}

fn checked(
    source: impl Read,
    file_bytes: u64,
    check: fn(&Keys) -> Result<(), GgufError>,
) -> Result<Header, GgufError> {
    let mut cursor = Cursor {
        source,
        position: 0,
        file_bytes,
    };
    let (version, tensor_count, key_count) = preamble(&mut cursor)?;
    let keys = keys(&mut cursor, key_count)?;
    let alignment = alignment(&keys)?;
    check(&keys)?;
    let tensors = tensors(&mut cursor, tensor_count, alignment)?;
    let data_offset = cursor.position.next_multiple_of(alignment);
    check_inside(&tensors, data_offset, file_bytes)?;
    Ok(Header {
        version,
        metadata: keys.metadata,
        tensors,
        alignment,
        data_offset,
        file_bytes,
    })
}

/// Magic, version and the two counts.
fn preamble(cursor: &mut Cursor<impl Read>) -> Result<(u32, u64, u64), GgufError> {
    if cursor.array::<4>("the magic")? != MAGIC {
        return Err(refused("the magic", 0, Fault::NotGguf));
    }
    let version = cursor.u32("the version")?;
    // A version below 65,536 read in the wrong byte order has its low half zero.
    if version != 0 && version & 0xffff == 0 {
        return Err(refused("the version", 4, Fault::BigEndian));
    }
    if !(2..=3).contains(&version) {
        return Err(refused("the version", 4, Fault::Version(version)));
    }
    let tensor_count =
        cursor.count("the number of tensors", TENSORS_MAX, TENSOR_ENTRY_BYTES_MIN)?;
    let key_count = cursor.count("the number of keys", KEYS_MAX, KEY_ENTRY_BYTES_MIN)?;
    Ok((version, tensor_count, key_count))
}

/// The metadata, and where in the file each key stands.
struct Keys {
    metadata: Metadata,
    places: HashMap<String, u64>,
    end: u64,
}

impl Keys {
    /// A fault of a key, at its place; a missing key would stand behind the last.
    fn refused(&self, key: &str, fault: Fault) -> GgufError {
        let offset = self.places.get(key).copied().unwrap_or(self.end);
        refused(&format!("the value of {}", shown(key)), offset, fault)
    }
}

fn keys(cursor: &mut Cursor<impl Read>, key_count: u64) -> Result<Keys, GgufError> {
    let mut metadata = Metadata::default();
    let mut places = HashMap::new();
    for number in 0..key_count {
        let at = cursor.position;
        let key = cursor.name(&format!("key {number}"), KEY_BYTES_MAX)?;
        if places.insert(key.clone(), at).is_some() {
            return Err(refused(
                &format!("key {}", shown(&key)),
                at,
                Fault::Duplicate,
            ));
        }
        let value = value(cursor, &format!("the value of {}", shown(&key)))?;
        metadata.push(key, value);
    }
    Ok(Keys {
        metadata,
        places,
        end: cursor.position,
    })
}

fn value(cursor: &mut Cursor<impl Read>, field: &str) -> Result<Value, GgufError> {
    Ok(match cursor.value_type(field)? {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(field)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(field)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(field)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(field)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(cursor.array(field)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(field)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(field)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(cursor.array(field)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(field)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(field)?)),
        ValueType::Bool => {
            let at = cursor.position;
            let [byte] = cursor.array(field)?;
            Value::Bool(truth(byte).ok_or_else(|| refused(field, at, Fault::Bool(byte)))?)
        }
        ValueType::Text => Value::Text(cursor.text(field, VALUE_BYTES_MAX)?),
        ValueType::Array => Value::Array(array(cursor, field)?),
    })
}

fn array(cursor: &mut Cursor<impl Read>, field: &str) -> Result<Array, GgufError> {
    let at = cursor.position;
    let kind = cursor.value_type(field)?;
    if kind == ValueType::Array {
        return Err(refused(field, at, Fault::NestedArray));
    }
    let each = kind.fixed_bytes().unwrap_or(TEXT_BYTES_MIN);
    let count = cursor.count(field, VALUE_BYTES_MAX / each, each)?;
    let at = cursor.position;
    if kind == ValueType::Text {
        return Ok(Array::from_encoded(
            kind,
            count,
            texts(cursor, field, count)?,
        ));
    }
    let encoded = cursor.take(count * each, field)?;
    if kind == ValueType::Bool
        && let Some((index, byte)) = encoded
            .iter()
            .enumerate()
            .find(|(_, b)| truth(**b).is_none())
    {
        return Err(refused(field, at + index as u64, Fault::Bool(*byte)));
    }
    Ok(Array::from_encoded(kind, count, encoded))
}

/// The encoded elements of an array of texts.
fn texts(cursor: &mut Cursor<impl Read>, field: &str, count: u64) -> Result<Vec<u8>, GgufError> {
    let start = cursor.position;
    let mut encoded = Vec::new();
    for _ in 0..count {
        let text = cursor.text(field, VALUE_BYTES_MAX)?;
        super::value::encode_text(&text, &mut encoded);
        if encoded.len() as u64 > VALUE_BYTES_MAX {
            let found = encoded.len() as u64;
            return Err(refused(
                field,
                start,
                Fault::TooMuch {
                    found,
                    max: VALUE_BYTES_MAX,
                },
            ));
        }
    }
    Ok(encoded)
}

fn truth(byte: u8) -> Option<bool> {
    (byte <= 1).then_some(byte == 1)
}

fn alignment(keys: &Keys) -> Result<u64, GgufError> {
    let wrong = |fault| Err(keys.refused(KEY_ALIGNMENT, fault));
    let found = match keys.metadata.get(KEY_ALIGNMENT) {
        None => return Ok(ALIGNMENT_DEFAULT),
        Some(Value::U32(found)) => u64::from(*found),
        Some(_) => return wrong(Fault::WrongType("a 32-bit unsigned integer")),
    };
    if !found.is_power_of_two() {
        return wrong(Fault::Alignment(found));
    }
    if !(ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&found) {
        return wrong(Fault::OutOfRange {
            found,
            min: ALIGNMENT_MIN,
            max: ALIGNMENT_MAX,
        });
    }
    Ok(found)
}

/// Architecture and number of layers; only the first file of a split model carries them.
fn check_model(keys: &Keys) -> Result<(), GgufError> {
    if keys
        .metadata
        .uint(KEY_SPLIT_NO)
        .is_some_and(|number| number > 0)
    {
        return Ok(());
    }
    let architecture = match keys.metadata.get(KEY_ARCHITECTURE) {
        None => return Err(keys.refused(KEY_ARCHITECTURE, Fault::Missing)),
        Some(value) => value.as_str().filter(|name| !name.is_empty()),
    };
    let Some(architecture) = architecture else {
        return Err(keys.refused(KEY_ARCHITECTURE, Fault::WrongType("a text")));
    };
    let key = format!("{architecture}.block_count");
    let fault = match keys.metadata.get(&key) {
        None => Fault::Missing,
        Some(Value::U32(found)) if (1..=BLOCKS_MAX).contains(&u64::from(*found)) => return Ok(()),
        Some(Value::U32(found)) => Fault::OutOfRange {
            found: (*found).into(),
            min: 1,
            max: BLOCKS_MAX,
        },
        Some(_) => Fault::WrongType("a 32-bit unsigned integer"),
    };
    Err(keys.refused(&key, fault))
}

fn tensors(
    cursor: &mut Cursor<impl Read>,
    count: u64,
    alignment: u64,
) -> Result<Vec<Tensor>, GgufError> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    let mut expected = 0;
    for number in 0..count {
        let at = cursor.position;
        let tensor = tensor(cursor, number)?;
        if !seen.insert(tensor.name.clone()) {
            return Err(refused(
                &format!("tensor {}", shown(&tensor.name)),
                at,
                Fault::Duplicate,
            ));
        }
        if tensor.offset != expected {
            let field = format!("the offset of tensor {}", shown(&tensor.name));
            let fault = Fault::Offset {
                found: tensor.offset,
                expected,
            };
            return Err(refused(&field, cursor.position - 8, fault));
        }
        expected = end_of(&tensor, alignment).ok_or_else(|| {
            refused(
                &format!("tensor {}", shown(&tensor.name)),
                at,
                shape(&tensor),
            )
        })?;
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// Where the next tensor begins; `None` when that does not fit into 63 bits.
fn end_of(tensor: &Tensor, alignment: u64) -> Option<u64> {
    let end = tensor
        .offset
        .checked_add(tensor.bytes)?
        .checked_next_multiple_of(alignment)?;
    i64::try_from(end).is_ok().then_some(end)
}

fn shape(tensor: &Tensor) -> Fault {
    Fault::Shape {
        dims: tensor.dims.clone(),
        kind: tensor.kind,
    }
}

fn tensor(cursor: &mut Cursor<impl Read>, number: u64) -> Result<Tensor, GgufError> {
    let name = cursor.name(
        &format!("the name of tensor {number}"),
        TENSOR_NAME_BYTES_MAX,
    )?;
    let field = format!("the dimensions of tensor {name:?}");
    let at = cursor.position;
    let rank = cursor.u32(&field)?;
    if !(1..=DIMS_MAX).contains(&rank) {
        let fault = Fault::OutOfRange {
            found: rank.into(),
            min: 1,
            max: DIMS_MAX.into(),
        };
        return Err(refused(&field, at, fault));
    }
    let dims = (0..rank)
        .map(|_| cursor.u64(&field))
        .collect::<Result<Vec<_>, _>>()?;
    let type_at = cursor.position;
    let id = cursor.u32(&format!("the type of tensor {name:?}"))?;
    let kind = TensorType::from_id(id).ok_or_else(|| {
        refused(
            &format!("the type of tensor {name:?}"),
            type_at,
            Fault::TensorType(id),
        )
    })?;
    let bytes = kind.bytes_of(&dims).ok_or_else(|| {
        refused(
            &field,
            at,
            Fault::Shape {
                dims: dims.clone(),
                kind,
            },
        )
    })?;
    let offset = cursor.u64(&format!("the offset of tensor {name:?}"))?;
    Ok(Tensor {
        name,
        dims,
        kind,
        offset,
        bytes,
    })
}

fn check_inside(tensors: &[Tensor], data_offset: u64, file_bytes: u64) -> Result<(), GgufError> {
    for tensor in tensors {
        let start = data_offset.saturating_add(tensor.offset);
        let end = start.saturating_add(tensor.bytes);
        if end > file_bytes {
            let fault = Fault::OutsideFile { end, file_bytes };
            return Err(refused(
                &format!("tensor {}", shown(&tensor.name)),
                start,
                fault,
            ));
        }
    }
    Ok(())
}

fn refused(field: &str, offset: u64, fault: Fault) -> GgufError {
    GgufError {
        field: field.to_owned(),
        offset,
        fault,
    }
}

/// A name for an error message: quoted, at most 80 characters of it.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(80).collect::<String>())
}

/// A reader that knows where it is and how much may still come.
struct Cursor<R> {
    source: R,
    position: u64,
    file_bytes: u64,
}

impl<R: Read> Cursor<R> {
    fn left(&self) -> u64 {
        self.file_bytes
            .min(HEADER_BYTES_MAX)
            .saturating_sub(self.position)
    }

    /// Checks that `needed` bytes can still come, before any of them is asked for.
    fn expect(&self, needed: u64, field: &str) -> Result<(), GgufError> {
        if needed <= self.left() {
            return Ok(());
        }
        let end = self.position.saturating_add(needed);
        let fault = if end > self.file_bytes {
            Fault::Truncated {
                needed,
                left: self.file_bytes.saturating_sub(self.position),
            }
        } else {
            Fault::TooMuch {
                found: end,
                max: HEADER_BYTES_MAX,
            }
        };
        Err(refused(field, self.position, fault))
    }

    fn take(&mut self, count: u64, field: &str) -> Result<Vec<u8>, GgufError> {
        self.expect(count, field)?;
        let mut bytes = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let chunk = missing.min(CHUNK_BYTES);
            let start = bytes.len();
            bytes.resize(
                start + usize::try_from(chunk).expect("a chunk fits in memory"),
                0,
            );
            self.fill(&mut bytes[start..], count, field)?;
            missing -= chunk;
        }
        self.position += count;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8], needed: u64, field: &str) -> Result<(), GgufError> {
        self.source.read_exact(buffer).map_err(|error| {
            let fault = match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Fault::Truncated { needed, left: 0 },
                _ => Fault::Io(error),
            };
            refused(field, self.position, fault)
        })
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.expect(N as u64, field)?;
        self.fill(&mut bytes, N as u64, field)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, field: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A count of things that take at least `each` bytes.
    fn count(&mut self, field: &str, max: u64, each: u64) -> Result<u64, GgufError> {
        let at = self.position;
        let found = self.u64(field)?;
        if found > max {
            return Err(refused(field, at, Fault::TooMuch { found, max }));
        }
        self.expect(found.saturating_mul(each), field)?;
        Ok(found)
    }

    fn value_type(&mut self, field: &str) -> Result<ValueType, GgufError> {
        let at = self.position;
        let id = self.u32(field)?;
        ValueType::from_id(id).ok_or_else(|| refused(field, at, Fault::ValueType(id)))
    }

    fn text(&mut self, field: &str, max: u64) -> Result<Vec<u8>, GgufError> {
        let length = self.count(field, max, 1)?;
        self.take(length, field)
    }

    /// A text that is valid UTF-8, not empty, and has no zero byte at which C would end it.
    fn name(&mut self, field: &str, max: u64) -> Result<String, GgufError> {
        let at = self.position;
        let bytes = self.text(field, max)?;
        String::from_utf8(bytes)
            .ok()
            .filter(|name| !name.is_empty() && !name.contains('\0'))
            .ok_or_else(|| refused(field, at, Fault::Name))
    }
}
