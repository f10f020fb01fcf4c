//! Signing and checking manifests of models.

use crate::keys::{Issuer, NodeKey, verifies};
use crate::membership::{MembershipFault, check_membership};
use proto::codec::DecodeError;
use proto::ids::{CommonsId, Hash};
use proto::manifest::{Contents, MANIFEST_VERSION, Manifest};
use proto::member::Membership;

/// What a maker says of a model beside its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What people call it.
    pub name: String,
    /// SPDX licence expression where it is known.
    pub licence: Option<String>,
    /// The maker's own proof.
    pub membership: Option<Membership>,
    /// When it is made, in seconds since 1970 UTC.
    pub issued_s: u64,
}

/// Why a manifest is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// It cannot be a manifest.
    #[error(transparent)]
    Form(#[from] DecodeError),
    /// The signature is not the maker's.
    #[error("the signature of the manifest is not genuine")]
    BadSignature,
    /// It is about another model than the one asked for.
    #[error("the manifest is about the model {}, not about {}", root.short(), expected.short())]
    OtherModel {
        /// The model that it is about.
        root: Hash,
        /// The one asked for.
        expected: Hash,
    },
    /// Its maker has not shown that it belongs to the commons.
    #[error("the maker of the manifest is no member: {0}")]
    Maker(#[from] MembershipFault),
}

/// Signs what `maker` says of a model whose whole file it has hashed.
///
/// # Errors
///
/// [`DecodeError`] when nobody could read the manifest: a name that is too long, contents that cannot be.
pub fn sign_manifest(
    maker: &NodeKey,
    contents: Contents,
    statement: Statement,
) -> Result<Manifest, DecodeError> {
    let Statement {
        name,
        licence,
        membership,
        issued_s,
    } = statement;
    let mut manifest = Manifest {
        version: MANIFEST_VERSION,
        contents,
        name,
        licence,
        maker: maker.id(),
        membership,
        issued_s,
        signature: [0; 64],
    };
    manifest.check()?;
    manifest.signature = maker.sign(&manifest.signed_bytes());
    Ok(manifest)
}

/// Checks a manifest of the model `root`, made by a member of `commons`.
///
/// # Errors
///
/// [`ManifestFault`]; what is cheap to find is found first.
pub fn check_manifest(
    manifest: &Manifest,
    root: Hash,
    commons: CommonsId,
) -> Result<(), ManifestFault> {
    manifest.check()?;
    if manifest.contents.root != root {
        return Err(ManifestFault::OtherModel {
            root: manifest.contents.root,
            expected: root,
        });
    }
    if !verifies(
        &manifest.maker.0,
        &manifest.signed_bytes(),
        &manifest.signature,
    ) {
        return Err(ManifestFault::BadSignature);
    }
    let membership = manifest.membership.as_ref().ok_or(MembershipFault::Empty)?;
    Ok(check_membership(membership, commons, manifest.maker)?)
}

#[cfg(test)]
mod tests;
