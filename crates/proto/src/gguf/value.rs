//! Metadata values, kept so that they can be written again byte for byte.

use super::types::ValueType;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// See [`ValueType::U8`].
    U8(u8),
    /// See [`ValueType::I8`].
    I8(i8),
    /// See [`ValueType::U16`].
    U16(u16),
    /// See [`ValueType::I16`].
    I16(i16),
    /// See [`ValueType::U32`].
    U32(u32),
    /// See [`ValueType::I32`].
    I32(i32),
    /// See [`ValueType::F32`].
    F32(f32),
    /// See [`ValueType::Bool`].
    Bool(bool),
    /// Bytes: tokens of some vocabularies are no valid UTF-8.
    Text(Vec<u8>),
    /// See [`ValueType::U64`].
    U64(u64),
    /// See [`ValueType::I64`].
    I64(i64),
    /// See [`ValueType::F64`].
    F64(f64),
    /// See [`ValueType::Array`].
    Array(Array),
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::Text(_) => ValueType::Text,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
            Self::Array(_) => ValueType::Array,
        }
    }

    /// The value as an unsigned integer, if it is an integer of any width that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => n.try_into().ok(),
            Self::I16(n) => n.try_into().ok(),
            Self::I32(n) => n.try_into().ok(),
            Self::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The value as text, if it is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value as an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(n) => out.push(*n),
            Self::I8(n) => out.extend(n.to_le_bytes()),
            Self::U16(n) => out.extend(n.to_le_bytes()),
            Self::I16(n) => out.extend(n.to_le_bytes()),
            Self::U32(n) => out.extend(n.to_le_bytes()),
            Self::I32(n) => out.extend(n.to_le_bytes()),
            Self::F32(n) => out.extend(n.to_le_bytes()),
            Self::Bool(b) => out.push((*b).into()),
            Self::Text(bytes) => encode_text(bytes, out),
            Self::U64(n) => out.extend(n.to_le_bytes()),
            Self::I64(n) => out.extend(n.to_le_bytes()),
            Self::F64(n) => out.extend(n.to_le_bytes()),
            Self::Array(array) => {
                out.extend(array.kind.id().to_le_bytes());
                out.extend(array.count.to_le_bytes());
                out.extend(&array.encoded);
            }
        }
    }
}

pub(super) fn encode_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

/// An array of one element type, kept as it stands in the file: a vocabulary of a million empty tokens then takes no
/// more memory than it takes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    kind: ValueType,
    count: u64,
    encoded: Vec<u8>,
}

impl Array {
    /// An array from elements of one type.
    ///
    /// `None` when an element has another type, or is itself an array.
    #[must_use]
    pub fn of(kind: ValueType, elements: &[Value]) -> Option<Self> {
        let uniform = kind != ValueType::Array && elements.iter().all(|e| e.kind() == kind);
        let mut encoded = Vec::new();
        elements
            .iter()
            .for_each(|element| element.encode_into(&mut encoded));
        uniform.then_some(Self {
            kind,
            count: elements.len() as u64,
            encoded,
        })
    }

    /// `encoded` must hold exactly `count` well-formed elements of `kind`; only the reader can know that.
    pub(super) fn from_encoded(kind: ValueType, count: u64, encoded: Vec<u8>) -> Self {
        Self {
            kind,
            count,
            encoded,
        }
    }

    /// The type of the elements.
    #[must_use]
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || decode(self.kind, &mut rest))
    }

    /// The elements `first..end` as an array; shorter if the array ends before.
    #[must_use]
    pub fn slice(&self, first: u64, end: u64) -> Self {
        let wanted = end.saturating_sub(first);
        let elements: Vec<Value> = self
            .iter()
            .skip(to_usize(first))
            .take(to_usize(wanted))
            .collect();
        Self::of(self.kind, &elements).expect("elements of one array have one type")
    }

    /// Whether all elements are equal.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        let mut elements = self.iter();
        let first = elements.next();
        elements.all(|element| Some(element) == first)
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Takes one element off the front of `rest`; `None` at the end.
fn decode(kind: ValueType, rest: &mut &[u8]) -> Option<Value> {
    Some(match kind {
        ValueType::U8 => Value::U8(u8::from_le_bytes(front(rest)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(front(rest)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(front(rest)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(front(rest)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(front(rest)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(front(rest)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(front(rest)?)),
        ValueType::Bool => Value::Bool(front::<1>(rest)? != [0]),
        ValueType::U64 => Value::U64(u64::from_le_bytes(front(rest)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(front(rest)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(front(rest)?)),
        ValueType::Text => {
            let length = to_usize(u64::from_le_bytes(front(rest)?));
            let (text, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            Value::Text(text.to_vec())
        }
        ValueType::Array => return None,
    })
}

fn front<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*bytes)
}

/// Keys and values in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value)
    }

    /// The value of a key as an unsigned integer; see [`Value::as_u64`].
    #[must_use]
    pub fn uint(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// The value of a key as text; see [`Value::as_str`].
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The value of a key as an array.
    #[must_use]
    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key)?.as_array()
    }

    /// Sets a key: in place if it is there, else behind the last.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The caller has made sure that the key is new.
    pub(super) fn push(&mut self, key: String, value: Value) {
        self.entries.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_cut_by_element_also_where_elements_vary_in_size() {
        let texts = ["a", "", "ccc", "dd"].map(Value::text);
        let array = Array::of(ValueType::Text, &texts).unwrap();
        assert_eq!(array.slice(1, 3).iter().collect::<Vec<_>>(), texts[1..3]);
        assert_eq!(array.slice(3, 9).len(), 1);
        assert_eq!(array.iter().collect::<Vec<_>>(), texts);
    }

    #[test]
    fn mixed_and_nested_elements_make_no_array() {
        assert!(Array::of(ValueType::U8, &[Value::U8(1), Value::I8(1)]).is_none());
        assert!(Array::of(ValueType::Array, &[]).is_none());
    }

    #[test]
    fn setting_a_key_keeps_its_place() {
        let mut metadata = Metadata::default();
        metadata.set("a", Value::U8(1));
        metadata.set("b", Value::U8(2));
        metadata.set("a", Value::U8(3));
        assert_eq!(
            metadata.iter().map(|(k, _)| k).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(metadata.uint("a"), Some(3));
    }
}
