//! The two kinds of secret key, and the one way in which signatures are made and checked.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use proto::ids::{CommonsId, NodeId};
use std::fmt;

/// A node's secret key. Its public half is the node's id and the identity of its QUIC endpoint.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

/// The secret key of a commons. Needed to found it, not to run it.
#[derive(Clone)]
pub struct CommonsKey(SigningKey);

impl NodeKey {
    /// The key with this seed; 32 random bytes make a new one.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept secret.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }
}

impl CommonsKey {
    /// The key with this seed; 32 random bytes make a new one.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed, to be kept secret.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> CommonsId {
        CommonsId(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(of {})", self.id().short())
    }
}

impl fmt::Debug for CommonsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommonsKey(of {})", self.id().short())
    }
}

/// A key that can vouch: a node's, or the commons' own.
pub trait Issuer: sealed::Sealed {
    /// Its public half.
    fn public(&self) -> [u8; 32];
    /// Ed25519 (RFC 8032) over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NodeKey {}
    impl Sealed for super::CommonsKey {}
}

impl Issuer for NodeKey {
    fn public(&self) -> [u8; 32] {
        self.id().0
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl Issuer for CommonsKey {
    fn public(&self) -> [u8; 32] {
        self.id().0
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Whether `signature` over `message` is `public`'s. Bytes that are no key verify nothing.
pub(crate) fn verifies(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_appear_in_debug() {
        let seed = [0xab; 32];
        for text in [
            format!("{:?}", NodeKey::from_bytes(seed)),
            format!("{:?}", CommonsKey::from_bytes(seed)),
            format!("{:#?}", Some(NodeKey::from_bytes(seed))),
        ] {
            assert!(!text.contains("abab") && !text.contains("171"), "{text}");
        }
    }

    #[test]
    fn a_key_is_its_seed() {
        let key = NodeKey::from_bytes([7; 32]);
        assert_eq!(NodeKey::from_bytes(key.to_bytes()).id(), key.id());
        assert_ne!(NodeKey::from_bytes([8; 32]).id(), key.id());
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral point: with it, the all-zero scalar "signs" every message under lenient rules.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(VerifyingKey::from_bytes(&neutral).unwrap().is_weak());
        assert!(!verifies(&neutral, b"anything", &signature));
    }
}
