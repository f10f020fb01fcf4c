//! Signing ads, and checking them once.

use crate::keys::{Issuer, NodeKey, verifies};
use crate::membership::{MembershipFault, check_membership};
use proto::ad::{Ad, SignedAd};
use proto::codec::{self, DecodeError};
use proto::ids::{CommonsId, Hash, NodeId};
use std::ops::Deref;
use std::sync::Arc;

/// Why an ad is not genuine.
#[derive(Debug, thiserror::Error)]
pub enum AdFault {
    /// It is no ad, or one with more in it than may be.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It is for another commons.
    #[error("the ad is for the commons {}", commons.short())]
    OtherCommons {
        /// The commons that it names.
        commons: CommonsId,
    },
    /// The signature is not that of the node it speaks of.
    #[error("the ad of {} was not signed by that node", node.short())]
    BadSignature {
        /// The node.
        node: NodeId,
    },
    /// The node is no member.
    #[error("the ad of {}: {source}", node.short())]
    NoMember {
        /// The node.
        node: NodeId,
        /// What is wrong with its proof.
        source: MembershipFault,
    },
}

/// An ad whose signature, proof of membership and bounds were checked. Only [`check_ad`] makes one; copies share it.
///
/// Whether it is new, and whether it tells the truth, is not checked: `swarm::members` decides.
#[derive(Debug, Clone)]
pub struct CheckedAd(Arc<Checked>);

#[derive(Debug)]
struct Checked {
    ad: Ad,
    signed: SignedAd,
    hash: Hash,
}

impl CheckedAd {
    /// The ad as it came and as it is passed on.
    #[must_use]
    pub fn signed(&self) -> &SignedAd {
        &self.0.signed
    }

    /// The hash of its body: two ads with one hash say the same.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.0.hash
    }
}

impl Deref for CheckedAd {
    type Target = Ad;

    fn deref(&self) -> &Ad {
        &self.0.ad
    }
}

impl PartialEq for CheckedAd {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl Eq for CheckedAd {}

/// Signs an ad.
///
/// # Errors
///
/// [`DecodeError::Invalid`] when it is out of bounds, [`DecodeError::TooLarge`] when it is too long: nobody would take it.
pub fn sign_ad(key: &NodeKey, ad: &Ad) -> Result<SignedAd, DecodeError> {
    let mut signed = SignedAd {
        body: codec::to_vec(ad),
        signature: [0; 64],
    };
    signed.ad()?;
    signed.signature = key.sign(&signed.signed_bytes());
    Ok(signed)
}

/// Checks that an ad is of a member of `commons`, and made by it. From cheap to dear: bounds, signature, proof.
///
/// # Errors
///
/// The first [`AdFault`].
pub fn check_ad(signed: SignedAd, commons: CommonsId) -> Result<CheckedAd, AdFault> {
    let ad = signed.ad()?;
    let node = ad.node;
    if ad.commons != commons {
        return Err(AdFault::OtherCommons {
            commons: ad.commons,
        });
    }
    if !verifies(&node.0, &signed.signed_bytes(), &signed.signature) {
        return Err(AdFault::BadSignature { node });
    }
    check_membership(&ad.membership, commons, node)
        .map_err(|source| AdFault::NoMember { node, source })?;
    let hash = Hash::of(&signed.body);
    Ok(CheckedAd(Arc::new(Checked { ad, signed, hash })))
}
