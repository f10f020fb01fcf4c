//! The manifest: of which blocks a model's file consists, signed by a member that has the file.
//!
//! A block is one blob: a name by content, and so many bytes of the file. Which bytes they are follows from the
//! GGUF header alone ([`crate::gguf::BlockMap`]), so all who have a file name the same blocks: [`Contents`] says what
//! makers must agree about, [`Manifest`] who says so. A stage needs a few blocks; all of them are the whole file.

use crate::codec::{self, DecodeError, Wire};
use crate::ids::{Hash, NodeId};
use crate::member::Membership;
use crate::model::LAYERS_MAX;
use minicbor::{CborLen, Decode, Encode};
use std::fmt;

/// The version of [`Manifest`] that this build writes.
pub const MANIFEST_VERSION: u32 = 1;
/// The longest name of a model, in characters.
pub const MODEL_NAME_CHARS_MAX: usize = 128;
/// The longest licence expression, in characters.
pub const LICENCE_CHARS_MAX: usize = 128;
/// The most blocks of a model: every layer, and header, embedding and head.
pub const MODEL_BLOCKS_MAX: usize = LAYERS_MAX as usize + 3;
/// The ALPN of questions about what a member holds of a model.
pub const ALPN_MODEL: &[u8] = b"myzel/model/1";
/// How much of a block is asked for at once, in bytes; the last part of a block may be shorter.
pub const PART_BYTES: u64 = 1 << 20;
/// The tree that a block is verified along has a leaf for 2 to the power of this many BLAKE3 chunks of 1,024 bytes. The
/// blob protocol (iroh-blobs) says so.
pub const LEAF_CHUNKS_LOG2: u8 = 4;

const _: () = assert!(PART_BYTES.is_multiple_of(1024 << LEAF_CHUNKS_LOG2));

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
pub enum BlockKind {
    /// What every stage needs: the file up to its tensors, and the small tensors that all layers share.
    #[n(0)]
    Header,
    /// The token embedding, and whatever belongs neither to a layer nor to the output.
    #[n(1)]
    Embd,
    /// The tensors of this layer.
    #[n(2)]
    Layer(#[n(0)] u32),
    /// The last norm and the output matrix.
    #[n(3)]
    Head,
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Embd => f.write_str("embd"),
            Self::Layer(layer) => write!(f, "blk.{layer:03}"),
            Self::Head => f.write_str("head"),
        }
    }
}

/// One line of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Block {
    /// What it is for.
    #[n(0)]
    pub kind: BlockKind,
    /// BLAKE3 of its bytes: the name under which it is asked for.
    #[n(1)]
    pub hash: Hash,
    /// How many bytes it has.
    #[n(2)]
    pub bytes: u64,
}

impl Block {
    /// In how many parts of [`PART_BYTES`] it travels.
    #[must_use]
    pub fn parts(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(PART_BYTES)).unwrap_or(u32::MAX)
    }

    /// How many bytes the part `part` has; 0 for one behind the end.
    #[must_use]
    pub fn part_bytes(&self, part: u32) -> u64 {
        let start = u64::from(part) * PART_BYTES;
        self.bytes.saturating_sub(start).min(PART_BYTES)
    }
}

/// What a model's file consists of. Equal for all who have the file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Contents {
    /// BLAKE3 of the GGUF file: the model's root.
    #[n(0)]
    pub root: Hash,
    /// Size of the file in bytes.
    #[n(1)]
    pub bytes: u64,
    /// The blocks, in the order of their kinds.
    #[n(2)]
    pub blocks: Vec<Block>,
}

impl Wire for Contents {
    const WHAT: &'static str = "contents of a model";
    const BYTES_MAX: usize = 58 << 10;
}

impl Contents {
    /// Checks what the type allows and the protocol does not.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] when blocks are missing, double, out of order, empty or not as large together as the file.
    pub fn check(&self) -> Result<(), DecodeError> {
        let invalid = |why: String| Err(invalid(Self::WHAT, why));
        if self.blocks.len() > MODEL_BLOCKS_MAX {
            return invalid(format!("{} blocks", self.blocks.len()));
        }
        if self.blocks.first().map(|block| block.kind) != Some(BlockKind::Header) {
            return invalid("the first block is not the header".to_owned());
        }
        if let Some(pair) = self.blocks.windows(2).find(|w| w[0].kind >= w[1].kind) {
            return invalid(format!("{} behind {}", pair[1].kind, pair[0].kind));
        }
        for block in &self.blocks {
            if block.bytes == 0 {
                return invalid(format!("the block {} is empty", block.kind));
            }
            if matches!(block.kind, BlockKind::Layer(layer) if layer >= LAYERS_MAX) {
                return invalid(format!("a block {}", block.kind));
            }
        }
        let sum = self
            .blocks
            .iter()
            .try_fold(0u64, |sum, block| sum.checked_add(block.bytes));
        if sum != Some(self.bytes) {
            return invalid(format!("the blocks are not {} bytes together", self.bytes));
        }
        Ok(())
    }

    /// BLAKE3 of the encoding: the same for all makers who agree, for ads and comparisons.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of(&codec::to_vec(self))
    }

    /// The block of this kind, if the model has one.
    #[must_use]
    pub fn block(&self, kind: BlockKind) -> Option<&Block> {
        let at = self.blocks.binary_search_by_key(&kind, |block| block.kind);
        at.ok().map(|at| &self.blocks[at])
    }
}

/// A member's signed word about a model's contents.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`] of the build that made it.
    #[n(0)]
    pub version: u32,
    /// What the file consists of.
    #[n(1)]
    pub contents: Contents,
    /// What people call the model, at most [`MODEL_NAME_CHARS_MAX`] characters.
    #[n(2)]
    pub name: String,
    /// SPDX licence expression where it is known, at most [`LICENCE_CHARS_MAX`] characters.
    #[n(3)]
    pub licence: Option<String>,
    /// Who made it: who had the whole file and hashed it.
    #[n(4)]
    pub maker: NodeId,
    /// The maker's proof, for those who have not met it.
    #[n(5)]
    pub membership: Option<Membership>,
    /// When it was made, in seconds since 1970 UTC.
    #[n(6)]
    pub issued_s: u64,
    /// Ed25519 by the maker over the CBOR of this structure with 64 zeros here.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Wire for Manifest {
    const WHAT: &'static str = "manifest";
    const BYTES_MAX: usize = Contents::BYTES_MAX + Membership::BYTES_MAX + (2 << 10);
}

impl Manifest {
    /// The bytes that the maker signs, under a context string of their own.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = b"myzel manifest v1\0".to_vec();
        bytes.extend(codec::to_vec(&Self {
            signature: [0; 64],
            ..self.clone()
        }));
        bytes
    }

    /// Reads a manifest and checks its form. The signature is not checked here (`identity` does).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] that says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let manifest: Self = codec::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks what the type allows and the protocol does not.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] that says what is wrong.
    pub fn check(&self) -> Result<(), DecodeError> {
        let plain = |text: &str, chars_max| {
            text.chars().count() <= chars_max && !text.chars().any(char::is_control)
        };
        if self.version == 0 || self.version > MANIFEST_VERSION {
            let why = format!(
                "version {}, this build knows {MANIFEST_VERSION}",
                self.version
            );
            return Err(invalid(Self::WHAT, why));
        }
        if self.name.is_empty() || !plain(&self.name, MODEL_NAME_CHARS_MAX) {
            return Err(invalid(
                Self::WHAT,
                "its name is empty, too long or not printable".to_owned(),
            ));
        }
        if !self
            .licence
            .as_deref()
            .is_none_or(|text| plain(text, LICENCE_CHARS_MAX))
        {
            return Err(invalid(
                Self::WHAT,
                "its licence is too long or not printable".to_owned(),
            ));
        }
        self.contents.check()
    }
}

/// "What do you hold of this model?", the first message under [`ALPN_MODEL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct AskModel {
    /// The model's root.
    #[n(0)]
    pub root: Hash,
}

impl Wire for AskModel {
    const WHAT: &'static str = "question about a model";
    const BYTES_MAX: usize = 64;
}

/// The answer to [`AskModel`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct ModelAnswer {
    /// The manifest that the member knows; `None` when it has nothing of the model.
    #[n(0)]
    pub manifest: Option<Manifest>,
    /// Which of the manifest's blocks it serves: bit `n % 8` of byte `n / 8` for block `n`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub held: Vec<u8>,
}

impl Wire for ModelAnswer {
    const WHAT: &'static str = "answer about a model";
    const BYTES_MAX: usize = Manifest::BYTES_MAX + MODEL_BLOCKS_MAX / 8 + 16;
}

impl ModelAnswer {
    /// The answer of a member with this manifest that serves the blocks for which `held` is true.
    #[must_use]
    pub fn new(manifest: Manifest, held: &[bool]) -> Self {
        let mut bits = vec![0; held.len().div_ceil(8)];
        for at in (0..held.len()).filter(|at| held[*at]) {
            bits[at / 8] |= 1 << (at % 8);
        }
        Self {
            manifest: Some(manifest),
            held: bits,
        }
    }

    /// Whether it serves the block at this place of its manifest.
    #[must_use]
    pub fn holds(&self, at: usize) -> bool {
        self.held
            .get(at / 8)
            .is_some_and(|bits| bits & (1 << (at % 8)) != 0)
    }
}

fn invalid(what: &'static str, why: String) -> DecodeError {
    DecodeError::Invalid { what, why }
}

#[cfg(test)]
mod tests;
