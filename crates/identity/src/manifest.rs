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
mod tests {
    use super::*;
    use crate::keys::CommonsKey;
    use crate::membership::found;
    use proto::manifest::{Block, BlockKind};

    const ROOT: Hash = Hash([7; 32]);

    fn commons() -> CommonsKey {
        CommonsKey::from_bytes([1; 32])
    }

    fn contents() -> Contents {
        let header = Block {
            kind: BlockKind::Header,
            hash: Hash([8; 32]),
            bytes: 5,
        };
        Contents {
            root: ROOT,
            bytes: 5,
            blocks: vec![header],
        }
    }

    fn signed() -> Manifest {
        let maker = NodeKey::from_bytes([2; 32]);
        let statement = Statement {
            name: "m".into(),
            licence: Some("MIT".into()),
            membership: Some(found(&commons(), maker.id(), 3)),
            issued_s: 4,
        };
        sign_manifest(&maker, contents(), statement).unwrap()
    }

    #[test]
    fn what_a_member_signed_is_accepted_and_any_change_is_not() {
        check_manifest(&signed(), ROOT, commons().id()).unwrap();
        type Strike = fn(&mut Manifest);
        let other = |seed: u8| NodeKey::from_bytes([seed; 32]).id();
        let strikes: [Strike; 6] = [
            |m| m.contents.blocks[0].hash = Hash([9; 32]),
            |m| m.name.push('n'),
            |m| m.licence = None,
            |m| m.issued_s += 1,
            |m| m.signature[0] ^= 1,
            |m| m.membership = None,
        ];
        for (number, strike) in strikes.iter().enumerate() {
            let mut bad = signed();
            strike(&mut bad);
            let fault = check_manifest(&bad, ROOT, commons().id());
            assert!(
                matches!(fault, Err(ManifestFault::BadSignature)),
                "strike {number}: {fault:?}"
            );
        }
        let mut forged = signed();
        forged.maker = other(3);
        let fault = check_manifest(&forged, ROOT, commons().id());
        assert!(
            matches!(fault, Err(ManifestFault::BadSignature)),
            "{fault:?}"
        );
    }

    #[test]
    fn another_model_another_commons_and_no_proof_are_refused() {
        let fault = check_manifest(&signed(), Hash([6; 32]), commons().id());
        assert!(
            matches!(fault, Err(ManifestFault::OtherModel { .. })),
            "{fault:?}"
        );
        let elsewhere = CommonsKey::from_bytes([5; 32]).id();
        let fault = check_manifest(&signed(), ROOT, elsewhere);
        assert!(matches!(fault, Err(ManifestFault::Maker(_))), "{fault:?}");
        let stranger = NodeKey::from_bytes([4; 32]);
        let statement = |membership| Statement {
            name: "m".into(),
            licence: None,
            membership,
            issued_s: 4,
        };
        let borrowed = signed().membership;
        for membership in [None, borrowed] {
            let unproven = sign_manifest(&stranger, contents(), statement(membership)).unwrap();
            let fault = check_manifest(&unproven, ROOT, commons().id());
            assert!(matches!(fault, Err(ManifestFault::Maker(_))), "{fault:?}");
        }
    }

    #[test]
    fn what_nobody_could_read_is_not_signed() {
        let statement = Statement {
            name: "n".repeat(1000),
            licence: None,
            membership: None,
            issued_s: 4,
        };
        assert!(sign_manifest(&NodeKey::from_bytes([2; 32]), contents(), statement).is_err());
    }
}
