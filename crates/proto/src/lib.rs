//! Every type that leaves the process: on the wire, on disk, or on the pipe to an engine.
//!
//! # Story
//!
//! Two Myzel processes agree on nothing but this crate. It holds data, limits and encodings; it does no
//! input or output, reads no clock and knows no key. Structures are CBOR maps with numbered fields
//! ([`minicbor`]), so a newer node may add optional fields that an older one skips. Activations are raw
//! little-endian numbers behind such a structure ([`packet`]), because they are large and must not be copied twice.
//!
//! | module | what it fixes |
//! | --- | --- |
//! | [`ids`] | names of nodes, commons, sessions, rings; content hashes |
//! | [`codec`] | total decoding: never a panic, never an allocation that a length field asked for |
//! | [`packet`] | structure + payload framing of every stream and pipe |
//! | [`ticket`], [`member`] | the invitation, and the proof that somebody was invited |
//! | [`ad`] | what a member says of itself to all others |
//! | [`manifest`] | the blocks in which a model travels, and what a member holds of them |
//! | [`close`] | why a connection was closed |
//! | [`ring`] | what coordinator and stages say: handshake, hop messages, control messages |
//! | [`host`] | the pipe between a node and its engine-host |
//! | [`model`] | catalogue entries, model facts, layer ranges, numerics modes |
//! | [`disk`] | what the store writes beside the models |
//! | [`journal`] | what the store keeps of streamed answers, so that they outlive clients and nodes |
//! | [`gguf`] | a strict reader of GGUF files, and the cut of one into stages |
//!
//! *Invariant:* changing an encoding breaks `tests/golden.rs`, on purpose.

pub mod ad;
pub mod close;
pub mod codec;
pub mod disk;
pub mod gguf;
pub mod host;
pub mod ids;
pub mod journal;
pub mod manifest;
pub mod member;
pub mod model;
pub mod packet;
pub mod ring;
pub mod ticket;
