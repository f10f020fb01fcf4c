//! Vouches and the chains they form.

use crate::keys::{CommonsKey, Issuer, NodeKey, verifies};
use proto::ids::{CommonsId, NodeId};
use proto::member::{Membership, VOUCH_CHAIN_MAX, Vouch};

/// Why a proof of membership proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipFault {
    /// There is no vouch in it.
    #[error("the proof of membership is empty")]
    Empty,
    /// More than [`VOUCH_CHAIN_MAX`] vouches.
    #[error("the proof of membership has {vouches} vouches, at most {VOUCH_CHAIN_MAX} are allowed")]
    TooLong {
        /// How many there are.
        vouches: usize,
    },
    /// A vouch is for another commons.
    #[error("vouch {link} of the proof is for the commons {}", commons.short())]
    OtherCommons {
        /// Which vouch, from 0.
        link: usize,
        /// The commons that it names.
        commons: CommonsId,
    },
    /// A vouch's issuer is not the subject of the vouch before it, or the first one's is not the commons' key.
    #[error("vouch {link} of the proof was issued by somebody outside the chain")]
    BrokenChain {
        /// Which vouch, from 0.
        link: usize,
    },
    /// A vouch's signature is not its issuer's.
    #[error("the signature of vouch {link} of the proof is not genuine")]
    BadSignature {
        /// Which vouch, from 0.
        link: usize,
    },
    /// The chain is sound and ends at another node.
    #[error("the proof of membership belongs to the node {}", subject.short())]
    OtherNode {
        /// Whose proof it is.
        subject: NodeId,
    },
}

/// A member cannot vouch for anybody: its own chain is as long as chains may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this member was let in through {VOUCH_CHAIN_MAX} others, the most a proof may name; \
     ask a member nearer to the founder for a ticket"
)]
pub struct ChainFull;

/// `issuer`'s word that `subject` belongs to `commons`, given at `issued_s` (seconds since 1970 UTC).
#[must_use]
pub fn vouch(issuer: &impl Issuer, commons: CommonsId, subject: NodeId, issued_s: u64) -> Vouch {
    let mut vouch = Vouch {
        commons,
        subject,
        issuer: issuer.public(),
        issued_s,
        signature: [0; 64],
    };
    vouch.signature = issuer.sign(&vouch.signed_bytes());
    vouch
}

/// The first membership of a commons: its key vouches for `founder` at `now_s` (seconds since 1970 UTC).
#[must_use]
pub fn found(commons: &CommonsKey, founder: NodeId, now_s: u64) -> Membership {
    Membership {
        chain: vec![vouch(commons, commons.id(), founder, now_s)],
    }
}

/// `subject`'s membership: `mine` and one vouch more, by `key` at `now_s` (seconds since 1970 UTC).
///
/// `mine` must be the membership of `key`'s node; otherwise the result will not pass [`check_membership`].
///
/// # Errors
///
/// [`ChainFull`] when `mine` is as long as a chain may be.
pub fn extend(
    mine: &Membership,
    key: &NodeKey,
    commons: CommonsId,
    subject: NodeId,
    now_s: u64,
) -> Result<Membership, ChainFull> {
    if mine.chain.len() >= VOUCH_CHAIN_MAX {
        return Err(ChainFull);
    }
    let mut chain = mine.chain.clone();
    chain.push(vouch(key, commons, subject, now_s));
    Ok(Membership { chain })
}

/// Checks that `membership` leads from the key of `commons` to `node`.
///
/// The order of a vouch's checks is from cheap to dear; the length is checked before any signature is.
///
/// # Errors
///
/// The first [`MembershipFault`], reading from the commons' key on.
pub fn check_membership(
    membership: &Membership,
    commons: CommonsId,
    node: NodeId,
) -> Result<(), MembershipFault> {
    let vouches = membership.chain.len();
    if vouches > VOUCH_CHAIN_MAX {
        return Err(MembershipFault::TooLong { vouches });
    }
    let mut issuer = commons.0;
    for (link, vouch) in membership.chain.iter().enumerate() {
        check_vouch(vouch, link, commons, &issuer)?;
        issuer = vouch.subject.0;
    }
    let subject = membership
        .chain
        .last()
        .ok_or(MembershipFault::Empty)?
        .subject;
    if subject == node {
        Ok(())
    } else {
        Err(MembershipFault::OtherNode { subject })
    }
}

fn check_vouch(
    vouch: &Vouch,
    link: usize,
    commons: CommonsId,
    issuer: &[u8; 32],
) -> Result<(), MembershipFault> {
    if vouch.commons != commons {
        return Err(MembershipFault::OtherCommons {
            link,
            commons: vouch.commons,
        });
    }
    if vouch.issuer != *issuer {
        return Err(MembershipFault::BrokenChain { link });
    }
    if !verifies(&vouch.issuer, &vouch.signed_bytes(), &vouch.signature) {
        return Err(MembershipFault::BadSignature { link });
    }
    Ok(())
}
