//! Ads that are genuine, and every way in which one is not.

#![allow(clippy::unwrap_used, reason = "a test may")]

use identity::{AdFault, CommonsKey, NodeKey, check_ad, extend, found, sign_ad};
use proto::ad::{AD_LIFE_MAX_S, AD_LIFE_MIN_S, Ad, Room, SignedAd, Speed, Standing};
use proto::codec::{from_slice, to_vec};
use proto::ids::Hash;
use proto::member::Membership;
use proto::model::LayerRange;

fn commons() -> CommonsKey {
    CommonsKey::from_bytes([9; 32])
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes([n; 32])
}

fn membership(n: u8) -> Membership {
    let founder = found(&commons(), key(0).id(), 1);
    extend(&founder, &key(0), commons().id(), key(n).id(), 2).unwrap()
}

fn ad(n: u8) -> Ad {
    Ad {
        commons: commons().id(),
        node: key(n).id(),
        incarnation: 1,
        sequence: 2,
        issued_s: 3,
        life_s: AD_LIFE_MIN_S,
        name: "anna".into(),
        addrs: vec!["192.0.2.1:7".into()],
        relay: None,
        relays: Vec::new(),
        room: Some(Room::Circle),
        standing: Some(Standing::Serving),
        memory_bytes: 4,
        cpu_class: "c".into(),
        build: "b".into(),
        speeds: Vec::new(),
        held: Vec::new(),
        links: Vec::new(),
        lost: Vec::new(),
        membership: membership(n),
    }
}

/// What checking says, in a word.
fn verdict(signed: SignedAd) -> &'static str {
    match check_ad(signed, commons().id()) {
        Ok(_) => "genuine",
        Err(AdFault::Malformed(_)) => "malformed",
        Err(AdFault::OtherCommons { .. }) => "other commons",
        Err(AdFault::BadSignature { .. }) => "signature",
        Err(AdFault::NoMember { .. }) => "no member",
    }
}

#[test]
fn a_genuine_ad_is_what_was_signed() {
    let signed = sign_ad(&key(1), &ad(1)).unwrap();
    let travelled: SignedAd = from_slice(&to_vec(&signed)).unwrap();
    let checked = check_ad(travelled, commons().id()).unwrap();
    assert_eq!((&*checked, checked.signed()), (&ad(1), &signed));
    assert_eq!(checked.hash(), Hash::of(&signed.body));
}

#[test]
fn forgeries_are_told_apart() {
    let signed = |by: u8, ad: &Ad| sign_ad(&key(by), ad).unwrap();
    assert_eq!(verdict(signed(1, &ad(1))), "genuine");
    assert_eq!(verdict(signed(2, &ad(1))), "signature");
    let stolen = Ad {
        membership: membership(1),
        ..ad(2)
    };
    assert_eq!(verdict(signed(2, &stolen)), "no member");
    let none = Ad {
        membership: Membership { chain: Vec::new() },
        ..ad(1)
    };
    assert_eq!(verdict(signed(1, &none)), "no member");
    let other = Ad {
        commons: CommonsKey::from_bytes([8; 32]).id(),
        ..ad(1)
    };
    assert_eq!(verdict(signed(1, &other)), "other commons");
    let genuine = signed(1, &ad(1));
    for at in 0..genuine.body.len() {
        let mut garbled = genuine.clone();
        garbled.body[at] ^= 1;
        assert_ne!(verdict(garbled), "genuine", "byte {at}");
    }
    for at in 0..64 {
        let mut garbled = genuine.clone();
        garbled.signature[at] ^= 1;
        assert_eq!(verdict(garbled), "signature", "byte {at}");
    }
}

/// A newer version may add fields; the signature covers them although nobody here reads them.
#[test]
fn fields_of_a_newer_version_are_signed_and_skipped() {
    let mut body = to_vec(&ad(1));
    assert_eq!(body[0], 0xb3, "a map of 19 fields, as one is empty");
    body[0] += 1;
    body.extend([0x18, 0x63, 0x63, b'n', b'e', b'w']);
    let mut signed = sign_ad(&key(1), &ad(1)).unwrap();
    signed.body = body;
    assert_eq!(verdict(signed.clone()), "signature");
    signed.signature = identity::keys::Issuer::sign(&key(1), &signed.signed_bytes());
    let checked = check_ad(signed.clone(), commons().id()).unwrap();
    assert_eq!((&*checked, checked.signed()), (&ad(1), &signed));
}

#[test]
fn rooms_and_standings_of_a_newer_version_are_unknown() {
    let body = to_vec(&ad(1));
    // Fields 10 and 11, each an array of an index and nothing.
    let known = [0x0a, 0x82, 0x01, 0x80, 0x0b, 0x82, 0x00, 0x80];
    let at = body.windows(8).position(|bytes| bytes == known).unwrap();
    let mut newer = body;
    (newer[at + 2], newer[at + 6]) = (9, 9);
    let read: Ad = from_slice(&newer).unwrap();
    assert_eq!((read.room, read.standing), (None, None));
    assert_eq!(read.memory_bytes, 4);
}

#[test]
fn bounds_are_kept_by_those_who_sign_and_by_those_who_check() {
    let range = |first, end| LayerRange { first, end };
    let held = |layers| proto::ad::Held {
        model: Hash([1; 32]),
        manifest: None,
        layers,
        whole: false,
    };
    let speed = Speed {
        model: Hash([1; 32]),
        layer_us: 1,
    };
    type Change = Box<dyn Fn(&mut Ad)>;
    let cases: Vec<(&str, Change)> = vec![
        ("life_s", Box::new(|ad| ad.life_s = AD_LIFE_MIN_S - 1)),
        ("life_s", Box::new(|ad| ad.life_s = AD_LIFE_MAX_S + 1)),
        ("name", Box::new(|ad| ad.name = "n".repeat(65))),
        (
            "not an address",
            Box::new(|ad| ad.addrs = vec!["nowhere".into()]),
        ),
        (
            "17 addresses",
            Box::new(|ad| ad.addrs = vec!["192.0.2.1:7".into(); 17]),
        ),
        ("relays", Box::new(|ad| ad.relays = vec!["r".into(); 5])),
        ("relays", Box::new(|ad| ad.relay = Some(String::new()))),
        ("relays", Box::new(|ad| ad.relay = Some("a b".into()))),
        ("build", Box::new(|ad| ad.build = "b".repeat(65))),
        ("speeds", Box::new(move |ad| ad.speeds = vec![speed; 9])),
        (
            "held",
            Box::new(move |ad| ad.held = vec![held(Vec::new()); 17]),
        ),
        (
            "held layers",
            Box::new(move |ad| ad.held = vec![held(vec![range(0, 1); 9])]),
        ),
        (
            "held layers",
            Box::new(move |ad| ad.held = vec![held(vec![range(2, 2)])]),
        ),
        (
            "held layers",
            Box::new(move |ad| ad.held = vec![held(vec![range(0, 1_025)])]),
        ),
    ];
    for (says, change) in cases {
        let mut bad = ad(1);
        change(&mut bad);
        let error = sign_ad(&key(1), &bad).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
        let mut signed = sign_ad(&key(1), &ad(1)).unwrap();
        signed.body = to_vec(&bad);
        signed.signature = identity::keys::Issuer::sign(&key(1), &signed.signed_bytes());
        assert_eq!(verdict(signed), "malformed", "{says}");
    }
}
