//! Hostile files: each lie is refused, at the field and byte where it stands, and costs no memory.
#![allow(clippy::unwrap_used)]

use proto::gguf::{Fault, Header};
use std::io::Read;

/// A file under construction: fields as they stand in it, without any check.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &[u8]) -> Self {
        self.u64(text.len() as u64).bytes(text)
    }

    fn key_text(self, key: &str, value: &str) -> Self {
        self.text(key.as_bytes()).u32(8).text(value.as_bytes())
    }

    fn key_u32(self, key: &str, value: u32) -> Self {
        self.text(key.as_bytes()).u32(4).u32(value)
    }

    /// A model's two indispensable keys.
    fn model(self) -> Self {
        self.key_text("general.architecture", "llama")
            .key_u32("llama.block_count", 2)
    }

    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let rank = u32::try_from(dims.len()).unwrap();
        let described = self.text(name.as_bytes()).u32(rank);
        dims.iter()
            .fold(described, |raw, dim| raw.u64(*dim))
            .u32(kind)
            .u64(offset)
    }

    fn data(mut self, bytes: usize) -> Self {
        let padded = self.0.len().next_multiple_of(32);
        self.0.resize(padded, 0);
        self.0.resize(padded + bytes, 1);
        self
    }
}

/// A file of two tensors that is fine.
fn good() -> Raw {
    Raw::new(3, 2, 2)
        .model()
        .tensor("a", &[4, 2], 0, 0)
        .tensor("b", &[32], 8, 32)
        .data(32 + 34)
}

#[track_caller]
fn refused(raw: &Raw, says: &str) {
    let error = Header::from_bytes(&raw.0).expect_err(says);
    assert!(
        error.to_string().contains(says),
        "{error} does not say {says:?}"
    );
}

#[test]
fn a_good_file_is_read() {
    let header = Header::from_bytes(&good().0).unwrap();
    assert_eq!((header.architecture(), header.layers()), ("llama", 2));
    assert_eq!(header.tensor("b").unwrap().bytes, 34);
    assert_eq!(header.tensor_bytes(), 32 + 34);
    assert_eq!(
        header.encode()[..],
        good().0[..header.data_offset() as usize]
    );
}

#[test]
fn truncated_at_any_byte_it_is_refused() {
    let whole = good().0;
    let header_bytes = Header::from_bytes(&whole).unwrap().data_offset() as usize;
    for length in 0..whole.len() {
        let error = Header::from_bytes(&whole[..length]).expect_err("a part was accepted");
        assert!(error.offset <= whole.len() as u64, "{error}");
    }
    // The same when the length is right and the bytes fail to come.
    for length in 0..header_bytes - 32 {
        let error = Header::read(&whole[..length], whole.len() as u64).unwrap_err();
        assert!(matches!(error.fault, Fault::Truncated { .. }), "{error}");
    }
}

#[test]
fn the_beginning() {
    refused(&Raw(b"GGML".to_vec()).u32(3).u64(0).u64(0), "no GGUF file");
    refused(&Raw(vec![]), "needs 4 bytes");
    for (version, says) in [(0, "version 0"), (1, "version 1"), (4, "version 4")] {
        refused(&Raw::new(version, 0, 2).model(), says);
    }
    refused(
        &Raw(b"GGUF".to_vec())
            .bytes(&3u32.to_be_bytes())
            .u64(0)
            .u64(0),
        "big-endian",
    );
}

#[test]
fn lying_counts_and_lengths() {
    for count in [u64::MAX, 1 << 63, 1 << 40, 70_000] {
        refused(&Raw::new(3, 0, count).model(), "number of keys at byte 16");
    }
    for count in [u64::MAX, 1 << 62, 200_000, 3] {
        refused(&Raw::new(3, count, 2).model(), "tensor");
    }
    let key = |length: u64| Raw::new(3, 0, 1).u64(length).bytes(&[b'k'; 100]);
    refused(&key(65_536), "65536 is more than 65535");
    refused(&key(200), "needs 200 bytes");
    refused(&key(u64::MAX), "is more than");
    let text = |length: u64| {
        Raw::new(3, 0, 1)
            .text(b"k")
            .u32(8)
            .u64(length)
            .bytes(&[0; 100])
    };
    refused(&text(1 << 30), "is more than 67108864");
    refused(&text(101), "the value of \"k\"");
    let array = |kind: u32, count: u64| {
        Raw::new(3, 0, 1)
            .text(b"k")
            .u32(9)
            .u32(kind)
            .u64(count)
            .bytes(&[0; 64])
    };
    refused(&array(0, (64 << 20) + 1), "is more than 67108864");
    refused(&array(12, (8 << 20) + 1), "is more than 8388608");
    refused(&array(8, 9), "needs 72 bytes");
    refused(&array(4, u64::MAX), "is more than");
}

#[test]
fn values() {
    let key = |kind: u32| Raw::new(3, 0, 1).text(b"k").u32(kind);
    refused(&key(13).bytes(&[0; 16]), "value type 13");
    refused(&key(u32::MAX).bytes(&[0; 16]), "does not exist");
    refused(
        &key(9).u32(9).u64(1).bytes(&[0; 32]),
        "arrays inside arrays",
    );
    refused(&key(9).u32(77).u64(1).bytes(&[0; 32]), "value type 77");
    refused(&key(7).bytes(&[2, 0, 0, 0]), "2 is neither");
    refused(
        &key(9).u32(7).u64(3).bytes(&[0, 1, 9, 0]),
        "at byte 51: 9 is neither",
    );
}

#[test]
fn names() {
    refused(
        &Raw::new(3, 0, 1).text(b"").u32(0).bytes(&[0; 8]),
        "key 0 at byte 24: it is empty",
    );
    refused(
        &Raw::new(3, 0, 1).text(b"\xff\xfe").u32(0).bytes(&[0; 8]),
        "not valid text",
    );
    refused(
        &Raw::new(3, 0, 1).text(b"a\0b").u32(0).bytes(&[0; 8]),
        "not valid text",
    );
    refused(
        &Raw::new(3, 0, 3).model().key_u32("llama.block_count", 2),
        "appears twice",
    );
    let tensor = |name: &str| Raw::new(3, 1, 2).model().tensor(name, &[4], 0, 0).data(16);
    assert!(Header::from_bytes(&tensor(&"n".repeat(63)).0).is_ok());
    refused(&tensor(&"n".repeat(64)), "64 is more than 63");
    refused(&tensor("\0"), "not valid text");
    let twice = Raw::new(3, 2, 2)
        .model()
        .tensor("a", &[8], 0, 0)
        .tensor("a", &[8], 0, 32);
    refused(&twice.data(64), "appears twice");
}

#[test]
fn indispensable_keys() {
    refused(
        &Raw::new(3, 0, 0),
        "\"general.architecture\" at byte 24: it is missing",
    );
    refused(
        &Raw::new(3, 0, 1).key_u32("general.architecture", 1),
        "must be a text",
    );
    refused(
        &Raw::new(3, 0, 1).key_text("general.architecture", ""),
        "must be a text",
    );
    let llama = |keys| Raw::new(3, 0, keys).key_text("general.architecture", "llama");
    refused(&llama(1), "\"llama.block_count\"");
    for layers in [0, 513, u32::MAX] {
        refused(
            &llama(2).key_u32("llama.block_count", layers),
            "is not in 1 to 512",
        );
    }
    refused(
        &llama(2).key_text("llama.block_count", "2"),
        "must be a 32-bit",
    );
    let aligned = |n| Raw::new(3, 0, 3).model().key_u32("general.alignment", n);
    refused(
        &aligned(48),
        "\"general.alignment\" at byte 102: 48 is no power of two",
    );
    refused(&aligned(0), "0 is no power of two");
    refused(&aligned(1), "is not in 32 to 65536");
    refused(&aligned(1 << 31), "is not in 32 to 65536");
    refused(
        &Raw::new(3, 0, 3)
            .model()
            .key_text("general.alignment", "32"),
        "must be a 32-bit",
    );
}

#[test]
fn the_later_files_of_a_split_model_have_no_architecture() {
    let file = Raw::new(3, 1, 1)
        .key_u32("split.no", 1)
        .tensor("a", &[8], 0, 0)
        .data(32);
    let header = Header::from_bytes(&file.0).unwrap();
    assert_eq!((header.architecture(), header.layers()), ("", 0));
    refused(
        &Raw::new(3, 0, 1).key_u32("split.no", 0),
        "general.architecture",
    );
}

#[test]
fn shapes_and_types() {
    let one = |dims: &[u64], kind| {
        Raw::new(3, 1, 2)
            .model()
            .tensor("a", dims, kind, 0)
            .data(4096)
    };
    for (dims, kind, says) in [
        (&[][..], 0, "0 is not in 1 to 4"),
        (&[1, 1, 1, 1, 1], 0, "5 is not in 1 to 4"),
        (&[0], 0, "dimensions [0]"),
        (&[4, 0], 0, "dimensions [4, 0]"),
        (&[u64::MAX], 0, "make no tensor"),
        (&[1 << 32, 1 << 32], 0, "make no tensor"),
        (&[1 << 21, 1 << 21, 1 << 21, 1 << 21], 2, "make no tensor"),
        (&[33], 8, "make no tensor of type q8_0"),
        (&[128], 12, "make no tensor of type q4_K"),
        (&[4], 4, "tensor type 4"),
        (&[4], 31, "tensor type 31"),
        (&[4], 43, "tensor type 43"),
        (&[4], u32::MAX, "is not known"),
    ] {
        refused(&one(dims, kind), says);
    }
    assert!(Header::from_bytes(&one(&[32, 1, 1, 1], 8).0).is_ok());
}

#[test]
fn places() {
    let two = |first: u64, second: u64| {
        Raw::new(3, 2, 2)
            .model()
            .tensor("a", &[9], 0, first)
            .tensor("b", &[8], 0, second)
    };
    assert!(Header::from_bytes(&two(0, 64).data(96).0).is_ok());
    for (first, second) in [
        (0, 0),
        (0, 32),
        (0, 36),
        (0, 96),
        (32, 96),
        (64, 0),
        (0, u64::MAX),
        (u64::MAX, 0),
    ] {
        refused(&two(first, second).data(4096), "without gap or overlap");
    }
    refused(&two(0, 64).data(95), "its data ends at byte");
    refused(&two(0, 64).data(0), "its data ends at byte");
}

/// Counts how much the reader asks for at once; it allocates nothing that it does not ask for at once.
struct Metered<'a> {
    bytes: &'a [u8],
    largest: usize,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.largest = self.largest.max(buffer.len());
        self.bytes.read(buffer)
    }
}

#[test]
fn lies_about_length_buy_no_memory() {
    let text = Raw::new(3, 0, 1).text(b"k").u32(8).u64(60 << 20);
    let array = Raw::new(3, 0, 1).text(b"k").u32(9).u32(10).u64(8 << 20);
    let texts = Raw::new(3, 0, 1).text(b"k").u32(9).u32(8).u64(8 << 20);
    let keys = Raw::new(3, 0, 65_536);
    let tensors = Raw::new(3, 100_000, 2).model();
    for raw in [text, array, texts, keys, tensors] {
        // The file claims to be endless, so that only the bytes themselves can tell.
        let mut source = Metered {
            bytes: &raw.0,
            largest: 0,
        };
        let error = Header::read(&mut source, u64::MAX).unwrap_err();
        assert!(matches!(error.fault, Fault::Truncated { .. }), "{error}");
        assert!(
            source.largest <= 64 << 10,
            "{} bytes at once",
            source.largest
        );
    }
}

#[test]
fn a_header_that_goes_on_and_on_is_refused() {
    let mut endless = Raw::new(3, 0, 5);
    for key in [b"a", b"b", b"c", b"d"] {
        endless = endless.text(key).u32(9).u32(0).u64(64 << 20);
        endless.0.resize(endless.0.len() + (64 << 20), 0);
    }
    refused(&endless, "is more than 268435456");
}
