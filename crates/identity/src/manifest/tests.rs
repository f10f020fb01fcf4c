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
