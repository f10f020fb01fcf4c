//! Every forgery has a name, and none passes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use identity::{
    CommonsKey, Expected, Invitation, MembershipFault, NodeKey, TicketFault, check_membership,
    check_ticket, extend, found, issue_ticket, vouch,
};
use proptest::prelude::*;
use proto::codec;
use proto::ids::{CommonsId, NodeId};
use proto::member::{Membership, VOUCH_CHAIN_MAX};
use proto::ticket::Ticket;

const NOW_S: u64 = 1_800_000_000;

fn commons() -> CommonsKey {
    CommonsKey::from_bytes([1; 32])
}

fn other_commons() -> CommonsKey {
    CommonsKey::from_bytes([2; 32])
}

fn node(n: u8) -> NodeKey {
    NodeKey::from_bytes([100 + n; 32])
}

/// The membership of node `members - 1`: the commons vouches for node 0, each node for the next.
fn chain_of(commons: &CommonsKey, members: u8) -> Membership {
    (1..members).fold(found(commons, node(0).id(), NOW_S), |membership, n| {
        extend(&membership, &node(n - 1), commons.id(), node(n).id(), NOW_S).unwrap()
    })
}

fn invitation() -> Invitation {
    Invitation {
        commons: commons().id(),
        addrs: vec!["192.0.2.1:7717".into()],
        relays: vec!["198.51.100.1:7717".into()],
        not_after_s: NOW_S + 60,
        nonce: [9; 16],
        uses_max: Some(3),
    }
}

fn ticket() -> Ticket {
    issue_ticket(&node(0), invitation()).unwrap()
}

fn here() -> Expected {
    Expected {
        commons: Some(commons().id()),
        introducer: Some(node(0).id()),
    }
}

#[test]
fn genuine_chains_pass_up_to_the_longest() {
    for members in 1..=VOUCH_CHAIN_MAX as u8 {
        let membership = chain_of(&commons(), members);
        assert_eq!(
            check_membership(&membership, commons().id(), node(members - 1).id()),
            Ok(())
        );
    }
}

#[test]
fn a_full_chain_is_not_extended() {
    let full = chain_of(&commons(), VOUCH_CHAIN_MAX as u8);
    let last = node(VOUCH_CHAIN_MAX as u8 - 1);
    assert!(extend(&full, &last, commons().id(), node(50).id(), NOW_S).is_err());
}

/// `forge` changes the genuine membership of node 2, whom it then is to prove.
fn check_forged_membership(
    name: &str,
    forge: impl FnOnce(&mut Membership),
    expected: MembershipFault,
) {
    let mut membership = chain_of(&commons(), 3);
    let genuine = membership.clone();
    forge(&mut membership);
    assert_ne!(membership, genuine, "{name}: nothing was forged");
    assert_eq!(
        check_membership(&membership, commons().id(), node(2).id()),
        Err(expected),
        "{name}"
    );
}

#[test]
fn forged_chains_are_refused() {
    use MembershipFault::*;
    check_forged_membership("nobody vouched", |m| m.chain.clear(), Empty);
    check_forged_membership(
        "founder cut off",
        |m| _ = m.chain.remove(0),
        BrokenChain { link: 0 },
    );
    check_forged_membership(
        "middle cut out",
        |m| _ = m.chain.remove(1),
        BrokenChain { link: 1 },
    );
    check_forged_membership(
        "order swapped",
        |m| m.chain.swap(1, 2),
        BrokenChain { link: 1 },
    );
    check_forged_membership(
        "somebody else's proof",
        |m| _ = m.chain.pop(),
        OtherNode {
            subject: node(1).id(),
        },
    );
    check_forged_membership(
        "said twice",
        |m| m.chain.push(m.chain[2].clone()),
        BrokenChain { link: 3 },
    );
    check_forged_membership(
        "longer than allowed",
        |m| {
            while m.chain.len() <= VOUCH_CHAIN_MAX {
                let issuer = node(m.chain.len() as u8 - 1);
                let next = node(m.chain.len() as u8);
                m.chain
                    .push(vouch(&issuer, commons().id(), next.id(), NOW_S));
            }
        },
        TooLong {
            vouches: VOUCH_CHAIN_MAX + 1,
        },
    );
    check_forged_membership(
        "chain of another commons",
        |m| *m = chain_of(&other_commons(), 3),
        OtherCommons {
            link: 0,
            commons: other_commons().id(),
        },
    );
    check_forged_membership(
        "tail spliced from another commons",
        |m| m.chain[1..].clone_from_slice(&chain_of(&other_commons(), 3).chain[1..]),
        OtherCommons {
            link: 1,
            commons: other_commons().id(),
        },
    );
    check_forged_membership(
        "another commons' vouch relabelled",
        |m| {
            m.chain[1] = chain_of(&other_commons(), 3).chain[1].clone();
            m.chain[1].commons = commons().id();
        },
        BadSignature { link: 1 },
    );
}

#[test]
fn chains_signed_by_the_wrong_hand_are_refused() {
    use MembershipFault::*;
    check_forged_membership(
        "founded by another key",
        |m| m.chain[0] = vouch(&other_commons(), commons().id(), node(0).id(), NOW_S),
        BrokenChain { link: 0 },
    );
    check_forged_membership(
        "vouched for by a stranger",
        |m| m.chain[2] = vouch(&node(77), commons().id(), node(2).id(), NOW_S),
        BrokenChain { link: 2 },
    );
    check_forged_membership(
        "vouched for by itself",
        |m| m.chain[2] = vouch(&node(2), commons().id(), node(2).id(), NOW_S),
        BrokenChain { link: 2 },
    );
    check_forged_membership(
        "stranger signs in a member's name",
        |m| {
            m.chain[2] = vouch(&node(77), commons().id(), node(2).id(), NOW_S);
            m.chain[2].issuer = node(1).id().0;
        },
        BadSignature { link: 2 },
    );
    check_forged_membership(
        "dated back",
        |m| m.chain[1].issued_s -= 1,
        BadSignature { link: 1 },
    );
    check_forged_membership(
        "issuer that is no key",
        |m| {
            let nobody = NodeId([0xff; 32]);
            m.chain[1] = vouch(&node(0), commons().id(), nobody, NOW_S);
            m.chain[2].issuer = nobody.0;
        },
        BadSignature { link: 2 },
    );
}

#[test]
fn a_genuine_proof_shown_by_another_node_is_refused() {
    let membership = chain_of(&commons(), 2);
    assert_eq!(
        check_membership(&membership, commons().id(), node(9).id()),
        Err(MembershipFault::OtherNode {
            subject: node(1).id()
        })
    );
}

#[test]
fn a_genuine_ticket_passes_until_its_last_second() {
    for expected in [here(), Expected::default()] {
        assert_eq!(check_ticket(&ticket(), NOW_S, expected), Ok(()));
        assert_eq!(check_ticket(&ticket(), NOW_S + 60, expected), Ok(()));
        assert_eq!(
            check_ticket(&ticket(), NOW_S + 61, expected),
            Err(TicketFault::Expired {
                not_after_s: NOW_S + 60,
                now_s: NOW_S + 61
            })
        );
    }
}

#[test]
fn a_ticket_nobody_could_read_is_not_issued() {
    for addrs in [
        vec!["nowhere".to_owned()],
        vec!["192.0.2.1:1".to_owned(); 17],
    ] {
        assert!(
            issue_ticket(
                &node(0),
                Invitation {
                    addrs,
                    ..invitation()
                }
            )
            .is_err()
        );
    }
    let relays = vec!["http://192.0.2.1:1/".to_owned()];
    let invitation = Invitation {
        relays,
        ..invitation()
    };
    assert!(issue_ticket(&node(0), invitation).is_err());
}

fn check_forged_ticket(name: &str, forge: impl FnOnce(&mut Ticket), expected: TicketFault) {
    let mut forged = ticket();
    forge(&mut forged);
    assert_ne!(forged, ticket(), "{name}: nothing was forged");
    assert_eq!(
        check_ticket(&forged, NOW_S, here()),
        Err(expected),
        "{name}"
    );
}

#[test]
fn forged_tickets_are_refused() {
    use TicketFault::BadSignature;
    check_forged_ticket("longer life", |t| t.not_after_s += 1, BadSignature);
    check_forged_ticket("more uses", |t| t.uses_max = Some(4), BadSignature);
    check_forged_ticket("endless uses", |t| t.uses_max = None, BadSignature);
    check_forged_ticket("fresh nonce", |t| t.nonce[0] ^= 1, BadSignature);
    check_forged_ticket(
        "redirected",
        |t| t.addrs[0] = "192.0.2.2:7717".into(),
        BadSignature,
    );
    check_forged_ticket(
        "address added",
        |t| t.addrs.push("192.0.2.2:7717".into()),
        BadSignature,
    );
    check_forged_ticket(
        "another relay",
        |t| t.relays = Some(vec!["192.0.2.2:7717".into()]),
        BadSignature,
    );
    check_forged_ticket("no relay", |t| t.relays = None, BadSignature);
    check_forged_ticket(
        "other commons",
        |t| t.commons = other_commons().id(),
        BadSignature,
    );
    check_forged_ticket(
        "introducer renamed",
        |t| t.introducer = node(1).id(),
        BadSignature,
    );
    check_forged_ticket("unsigned", |t| t.signature = [0; 64], BadSignature);
    check_forged_ticket(
        "signature of another ticket",
        |t| {
            let other = Invitation {
                nonce: [8; 16],
                ..invitation()
            };
            t.signature = issue_ticket(&node(0), other).unwrap().signature;
        },
        BadSignature,
    );
    check_forged_ticket(
        "replayed from another introducer",
        |t| *t = issue_ticket(&node(1), invitation()).unwrap(),
        TicketFault::OtherIntroducer {
            introducer: node(1).id(),
            expected: node(0).id(),
        },
    );
    check_forged_ticket(
        "issued for another commons",
        |t| {
            let other = Invitation {
                commons: other_commons().id(),
                ..invitation()
            };
            *t = issue_ticket(&node(0), other).unwrap();
        },
        TicketFault::OtherCommons {
            commons: other_commons().id(),
            expected: commons().id(),
        },
    );
}

#[test]
fn a_vouch_signature_does_not_pass_for_a_ticket_signature() {
    let mut forged = ticket();
    forged.signature = vouch(&node(0), commons().id(), node(1).id(), NOW_S).signature;
    assert_eq!(
        check_ticket(&forged, NOW_S, here()),
        Err(TicketFault::BadSignature)
    );
}

proptest! {
    /// However one byte of an encoded ticket changes: it does not decode, or it does not pass.
    #[test]
    fn a_flipped_byte_spoils_a_ticket(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = codec::to_vec(&ticket());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(forged) = codec::from_slice::<Ticket>(&bytes) && forged != ticket() {
            prop_assert_eq!(check_ticket(&forged, NOW_S, here()), Err(TicketFault::BadSignature));
        }
    }

    /// However one byte of an encoded chain changes: it does not decode, or it does not pass.
    #[test]
    fn a_flipped_byte_spoils_a_membership(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let genuine = chain_of(&commons(), 3);
        let mut bytes = codec::to_vec(&genuine);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(forged) = codec::from_slice::<Membership>(&bytes) && forged != genuine {
            prop_assert!(check_membership(&forged, commons().id(), node(2).id()).is_err());
        }
    }

    /// A proof holds for exactly one commons and one node.
    #[test]
    fn a_membership_proves_one_thing(commons_id: [u8; 32], node_id: [u8; 32], members in 1u8..=8) {
        let membership = chain_of(&commons(), members);
        let me = node(members - 1).id();
        prop_assert!(check_membership(&membership, CommonsId(commons_id), me).is_err());
        prop_assert!(check_membership(&membership, commons().id(), NodeId(node_id)).is_err());
    }
}
