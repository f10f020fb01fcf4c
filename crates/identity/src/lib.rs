//! Keys, signatures, tickets and proofs of membership.
//!
//! # Story
//!
//! A commons is an Ed25519 key. Whoever founds it holds the [`CommonsKey`] and vouches with it for its own node key;
//! from then on every member may vouch for others with its [`NodeKey`], so a proof of membership is a chain that
//! begins at the commons' key ([`membership`]). A newcomer gets its first vouch by showing a [`ticket`]: addresses
//! and a promise, signed by the member who will let it in. What members say of themselves ([`ad`]) is signed by their
//! node keys and carries their proof. A member that has a model's file says of which blocks it
//! consists in a signed [`manifest`].
//!
//! Everything here is a function of its arguments: time and the bytes of keys and nonces come from the caller, no
//! task runs, nothing is kept. All signatures are checked with `verify_strict`, which also refuses keys of small
//! order (<https://docs.rs/ed25519-dalek/3.0.0/ed25519_dalek/struct.VerifyingKey.html#method.verify_strict>).
//!
//! *Invariant:* a secret key leaves its type through `to_bytes` alone, for the node's own disk and endpoint; it never
//! shows up in `Debug`.

pub mod ad;
pub mod keys;
pub mod manifest;
pub mod membership;
pub mod ticket;

pub use ad::{AdFault, CheckedAd, check_ad, sign_ad};
pub use keys::{CommonsKey, NodeKey};
pub use manifest::{ManifestFault, Statement, check_manifest, sign_manifest};
pub use membership::{ChainFull, MembershipFault, check_membership, extend, found, vouch};
pub use ticket::{Expected, Invitation, TicketFault, check_ticket, issue_ticket};
