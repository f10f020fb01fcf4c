//! Callers who have proven nothing: what they may say, and how long they may stay.

use crate::common::{Node, Raw, close_code, hello, hop_hello, key, membership, now_s, packet};
use identity::{CommonsKey, found, vouch};
use net::limits::STRANGERS_PER_HOST_MAX;
use proto::close::CloseCode;
use proto::member::{ALPN_HOP, ALPN_LINK, Hello, JoinRefusal, Membership, Welcome};
use proto::ring::{HopWelcome, RefusalCode};

/// A stranger says `bytes`; the connection must be closed as not being the protocol. The node must live on.
async fn check_nonsense(a: &mut Node, alpn: &[u8], name: &str, bytes: &[u8]) {
    let raw = Raw::bind(3).await;
    let stream = raw.say(&a.member(), alpn, bytes).await;
    assert_eq!(
        stream.close_code().await,
        Some(CloseCode::Malformed),
        "{name}"
    );
}

#[tokio::test]
async fn nonsense_closes_the_connection() {
    let mut a = Node::start(2, Vec::new()).await;
    let prefix = |head: u32, payload: u32| [head.to_le_bytes(), payload.to_le_bytes()].concat();
    let no_cbor = [prefix(6, 0), vec![0xff; 6]].concat();
    for alpn in [ALPN_LINK, ALPN_HOP] {
        check_nonsense(&mut a, alpn, "another protocol", b"GET / HTTP/1.1\r\n\r\n").await;
        check_nonsense(&mut a, alpn, "4 GB promised", &prefix(u32::MAX, u32::MAX)).await;
        check_nonsense(&mut a, alpn, "a payload where none belongs", &prefix(9, 1)).await;
        check_nonsense(&mut a, alpn, "no CBOR", &no_cbor).await;
        check_nonsense(
            &mut a,
            alpn,
            "the wrong structure",
            &packet(&Welcome {
                member: None,
                membership: None,
                yours: None,
                refused: None,
            }),
        )
        .await;
    }
    let other_name = hello(4, Some(membership(3)), None);
    check_nonsense(
        &mut a,
        ALPN_LINK,
        "somebody else's id",
        &packet(&other_name),
    )
    .await;
    let mut long = hello(3, Some(membership(3)), None);
    long.member.name = "x".repeat(65);
    check_nonsense(&mut a, ALPN_LINK, "a long name", &packet(&long)).await;
    let mut bad_addr = hello(3, Some(membership(3)), None);
    bad_addr.member.addrs = vec!["nowhere".into()];
    check_nonsense(&mut a, ALPN_LINK, "a bad address", &packet(&bad_addr)).await;
    let mut b = Node::start(4, vec![a.member()]).await;
    b.up(a.id()).await;
    a.up(b.id()).await;
}

async fn check_refused(a: &mut Node, name: &str, hello: &Hello, expected: JoinRefusal) {
    let raw = Raw::bind(3).await;
    let mut stream = raw.say(&a.member(), ALPN_LINK, &packet(hello)).await;
    let welcome = stream.read::<Welcome>().await;
    assert_eq!(welcome.refused, Some(expected), "{name}");
    assert_eq!(
        (welcome.member, welcome.membership, welcome.yours),
        (None, None, None),
        "{name}"
    );
    assert_eq!(
        stream.close_code().await,
        Some(CloseCode::Refused),
        "{name}"
    );
    assert!(a.events.try_recv().is_err(), "{name}: the node heard of it");
}

#[tokio::test]
async fn forged_proofs_are_refused() {
    let mut a = Node::start(2, Vec::new()).await;
    let commons = crate::common::commons().id();
    let with = |proof: Membership| hello(3, Some(proof), None);
    check_refused(
        &mut a,
        "nothing shown",
        &hello(3, None, None),
        JoinRefusal::NothingShown,
    )
    .await;
    check_refused(
        &mut a,
        "another's",
        &with(membership(4)),
        JoinRefusal::NotGenuine,
    )
    .await;
    let empty = Membership { chain: Vec::new() };
    check_refused(
        &mut a,
        "an empty one",
        &with(empty),
        JoinRefusal::NotGenuine,
    )
    .await;
    let own = Membership {
        chain: vec![vouch(&key(3), commons, key(3).id(), now_s())],
    };
    check_refused(&mut a, "self-issued", &with(own), JoinRefusal::NotGenuine).await;
    let mut signed = membership(3);
    signed.chain[0].signature[63] ^= 1;
    check_refused(
        &mut a,
        "a flipped bit",
        &with(signed),
        JoinRefusal::NotGenuine,
    )
    .await;
    let other = found(&CommonsKey::from_bytes([99; 32]), key(3).id(), now_s());
    check_refused(
        &mut a,
        "another commons",
        &with(other),
        JoinRefusal::OtherCommons,
    )
    .await;
}

#[tokio::test]
async fn forged_hops_are_refused() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let mut stream = raw.say(&a.member(), ALPN_HOP, &packet(&hop_hello(4))).await;
    let refused = Some(RefusalCode::NotAMember);
    assert_eq!(stream.read::<HopWelcome>().await, HopWelcome { refused });
    assert!(a.hops.try_recv().is_err());
}

#[tokio::test]
async fn those_who_say_nothing_are_sent_away_and_make_room() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let mut crowd = Vec::new();
    for _ in 0..STRANGERS_PER_HOST_MAX {
        crowd.push(raw.connect(&a.member(), ALPN_LINK).await);
    }
    // No place is free for this host: a member has to wait, and gets its link when the crowd is gone.
    let mut b = Node::start(4, vec![a.member()]).await;
    for connection in crowd {
        assert_eq!(close_code(&connection).await, Some(CloseCode::TooSlow));
    }
    b.up(a.id()).await;
    a.up(b.id()).await;
}

#[tokio::test]
async fn a_connection_without_a_stream_is_sent_away_on_hops_too() {
    let a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let connection = raw.connect(&a.member(), ALPN_HOP).await;
    assert_eq!(close_code(&connection).await, Some(CloseCode::TooSlow));
}
