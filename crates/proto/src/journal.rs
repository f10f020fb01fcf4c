//! The journals of streamed answers on their coordinator's disk.
//!
//! A journal has two parts. Its *head* is a file of its own with one record, number 0: the [`StreamStart`], all that fixes the
//! answer. Its other records, [`StreamBatch`]es numbered from 1, stand in *logs*, which all answers under way share, so that
//! one `fdatasync` makes the newest tokens of all of them durable. Each record is sealed under the key of its own
//! answer, which is made of the node's secret and the salt in the head: without its head, a record in a log says nothing any more.
//!
//! ```text
//! file   = MAGIC frame*                      (a head has exactly one frame)
//! frame  = body bytes, u32 LE │ check, 8 bytes │ body
//! check  = the first 8 bytes of BLAKE3(body)
//! body   = CBOR of Sealed
//! sealed = AEAD(key of the stream, nonce, additional data of the record, CBOR of StreamStart or StreamBatch)
//! ```
//!
//! A file is valid up to the first frame that is cut off or damaged. Journals live for minutes, so there is no way up from an older
//! version: files of another one are dropped, and their answers are lost to those who would have resumed them.

use crate::ad::Room;
use crate::codec::{self, Wire};
use crate::host::{Grammar, Logprobs};
use crate::ids::{Hash, StreamId};
use crate::model::{Numerics, Sampling};
use minicbor::{CborLen, Decode, Encode};

/// The first bytes of every file; the last of them is the version of all that follows.
pub const MAGIC: [u8; 8] = *b"myzelj\0\x01";
/// The largest head, and the most that one answer may write in all, in bytes.
pub const STREAM_BYTES_MAX: usize = 32 << 20;
/// The largest record of tokens, in bytes before it is sealed.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// The most choices of an answer that is journalled.
pub const STREAM_CHOICES_MAX: usize = 64;
/// Bytes of a frame before its body.
pub const FRAME_PREFIX_BYTES: usize = 4 + CHECK_BYTES;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;
/// Bytes of a frame's check.
const CHECK_BYTES: usize = 8;
/// What sealing and the structure round it add, in bytes.
const SEALED_OVERHEAD_BYTES: usize = 256;

/// One sealed record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Sealed {
    /// The answer.
    #[n(0)]
    pub stream: StreamId,
    /// Which of its records; each follows the one before.
    #[n(1)]
    pub number: u64,
    /// Random, never used twice.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub nonce: [u8; NONCE_BYTES],
    /// The record, sealed, and its tag.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
    /// In a head: what makes the answer's key, together with the node's secret.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub salt: Option<[u8; SALT_BYTES]>,
}

impl Wire for Sealed {
    const WHAT: &'static str = "sealed record of a stream";
    const BYTES_MAX: usize = STREAM_BYTES_MAX + SEALED_OVERHEAD_BYTES;
}

impl Sealed {
    /// What is authenticated beside the record: that it is this one of this answer, in this version.
    #[must_use]
    pub fn additional_data(stream: StreamId, number: u64) -> Vec<u8> {
        [&MAGIC[..], &stream.0, &number.to_le_bytes()].concat()
    }

    /// The record as it stands in a file.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let body = codec::to_vec(self);
        let length = u32::try_from(body.len()).expect("a record is far below 4 GiB");
        [&length.to_le_bytes()[..], &check(&body), &body].concat()
    }
}

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&Hash::of(body).0[..CHECK_BYTES]);
    check
}

/// The records of a file, up to its end or the first that is cut off or damaged. A file of another kind or version has none.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Reads a whole file.
    #[must_use]
    pub fn of(file: &'a [u8]) -> Self {
        let rest = file.strip_prefix(&MAGIC[..]).unwrap_or_default();
        Self { rest }
    }

    /// Bytes behind the last good record.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for Frames<'_> {
    type Item = Sealed;

    fn next(&mut self) -> Option<Sealed> {
        let (prefix, rest) = self.rest.split_at_checked(FRAME_PREFIX_BYTES)?;
        let (length, sum) = prefix.split_at(4);
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let (body, rest) = rest.split_at_checked(length)?;
        if check(body) != sum {
            return None;
        }
        let record = codec::from_slice(body).ok()?;
        self.rest = rest;
        Some(record)
    }
}

/// The dialect in which an answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
pub enum StreamDialect {
    /// `POST /v1/chat/completions`.
    #[n(0)]
    Chat,
    /// `POST /v1/completions`.
    #[n(1)]
    Completions,
    /// `POST /v1/responses`.
    #[n(2)]
    Responses,
    /// `POST /v1/messages`.
    #[n(3)]
    Messages,
}

/// All that fixes a streamed answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct StreamStart {
    /// When it began, in seconds since 1970 UTC.
    #[n(0)]
    pub begun_s: u64,
    /// Whose it is: a hash of the key that asked.
    #[n(1)]
    pub owner: Hash,
    /// How the request is read, and the answer written.
    #[n(2)]
    pub dialect: StreamDialect,
    /// The request as it came.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Who may see it, where it said so.
    #[n(4)]
    pub room: Option<Room>,
    /// The random number that the dialect's names in the answer are made of.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub name: [u8; 16],
    /// What each of its choices follows; at most [`STREAM_CHOICES_MAX`].
    #[n(6)]
    pub choices: Vec<AnswerPlan>,
}

impl Wire for StreamStart {
    const WHAT: &'static str = "start of a stream";
    const BYTES_MAX: usize = STREAM_BYTES_MAX;
}

/// What fixes the tokens of one choice, as the backend has settled it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct AnswerPlan {
    /// The model's root.
    #[n(0)]
    pub model: Hash,
    /// What else fixes the bits: engine build, CPU class, cache type and attention, in few characters.
    #[n(1)]
    pub fingerprint: String,
    /// Whether equal tokens are promised at all.
    #[n(2)]
    pub numerics: Numerics,
    /// Rows of the absolute grid that prompts are computed on.
    #[n(3)]
    pub grid_rows: u32,
    /// The prompt.
    #[n(4)]
    pub prompt: Vec<i32>,
    /// What binds the reply.
    #[n(5)]
    pub grammar: Option<Grammar>,
    /// How the reply is taken apart.
    #[n(6)]
    pub syntax: Option<String>,
    /// Texts at which the template wants it to end.
    #[n(7)]
    pub stops: Vec<String>,
    /// How tokens are drawn, the seed included.
    #[n(8)]
    pub sampling: Sampling,
    /// The most tokens of the whole reply.
    #[n(9)]
    pub tokens_max: u32,
}

/// What happened in one choice, durable before any of it is sent. What a client was sent follows from the batches and
/// their bounds alone.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct StreamBatch {
    /// The choice, from 0.
    #[n(0)]
    pub choice: u32,
    /// In their order; never empty.
    #[n(1)]
    pub events: Vec<StreamEvent>,
}

impl Wire for StreamBatch {
    const WHAT: &'static str = "tokens of a stream";
    const BYTES_MAX: usize = BATCH_BYTES_MAX;
}

/// One step of a choice.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
pub enum StreamEvent {
    /// A token.
    #[n(0)]
    Token(#[n(0)] StreamToken),
    /// The end.
    #[n(1)]
    Finished(#[n(0)] StreamFinish),
}

/// A token as its client gets it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct StreamToken {
    /// Its number in the vocabulary.
    #[n(0)]
    pub id: i32,
    /// Its text.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub piece: Vec<u8>,
    /// How probable it was, where that was asked for.
    #[n(2)]
    pub logprobs: Option<Box<Logprobs>>,
    /// With the first token: how many rows of the prompt were not computed anew.
    #[n(3)]
    pub reused: u32,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum StreamFinish {
    /// The model was done.
    #[n(0)]
    Stop,
    /// The most tokens, or the end of the context.
    #[n(1)]
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(number: u64) -> Sealed {
        Sealed {
            stream: StreamId([1; 16]),
            number,
            nonce: [2; NONCE_BYTES],
            sealed: vec![3; 40],
            salt: (number == 0).then_some([4; SALT_BYTES]),
        }
    }

    fn file() -> Vec<u8> {
        let frames = (0..3).flat_map(|number| sealed(number).frame());
        MAGIC.into_iter().chain(frames).collect()
    }

    #[test]
    fn a_file_is_read_up_to_a_cut_at_any_byte() {
        let file = file();
        let ends: Vec<usize> = (0..3)
            .scan(MAGIC.len(), |end, number| {
                *end += sealed(number).frame().len();
                Some(*end)
            })
            .collect();
        for cut in 0..=file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let read: Vec<Sealed> = Frames::of(&file[..cut]).collect();
            let expected: Vec<Sealed> = (0..whole as u64).map(sealed).collect();
            assert_eq!(read, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_ends_the_file_before_its_record() {
        let file = file();
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= flip;
                for (number, record) in Frames::of(&changed).enumerate() {
                    assert_eq!(record, sealed(number as u64), "byte {at} ^ {flip:#x}");
                }
                assert!(Frames::of(&changed).count() < 3, "byte {at} ^ {flip:#x}");
            }
        }
    }

    #[test]
    fn a_length_without_bytes_reserves_nothing() {
        let mut file = MAGIC.to_vec();
        file.extend(u32::MAX.to_le_bytes());
        file.extend([0; 64]);
        let mut frames = Frames::of(&file);
        assert_eq!(frames.next(), None);
        assert_eq!(frames.left(), 68);
    }
}
