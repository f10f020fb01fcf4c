//! Peers of a newer version: understood, or refused with a reason.

use crate::common::{Node, Raw, hello, key, membership, numbered, packet, within};
use net::{DialError, JoinError};
use proto::close::CloseCode;
use proto::codec::{self, Wire};
use proto::member::{ALPN_LINK, Hello, JoinRefusal, Welcome};
use proto::packet::PREFIX_BYTES;
use proto::ring::{Link, PROTOCOL_VERSION};

/// A structure as a newer build would write it: with a field 23 that this one does not know.
fn with_a_new_field<T: Wire>(value: &T) -> Vec<u8> {
    let mut head = codec::to_vec(value);
    assert!((0xa0..0xb7).contains(&head[0]), "a map of a few fields");
    head[0] += 1;
    head.extend([0x17, 0x63, b'n', b'e', b'w']);
    let mut bytes = u32::try_from(head.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend([0; PREFIX_BYTES - 4]);
    bytes.extend(head);
    bytes
}

fn newer(oldest: u32) -> Hello {
    Hello {
        version: PROTOCOL_VERSION + 1,
        oldest: Some(oldest),
        ..hello(3, Some(membership(3)), None)
    }
}

#[tokio::test]
async fn a_newer_peer_that_still_speaks_ours_is_linked() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = with_a_new_field(&newer(PROTOCOL_VERSION));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    a.up(key(3).id()).await;
    // {0: [99, [1]]}: a body of a kind that this build does not know; then one that it knows, with a new field.
    let mut unknown = vec![7, 0, 0, 0, 0, 0, 0, 0];
    unknown.extend([0xa1, 0x00, 0x82, 0x18, 0x63, 0x81, 0x01]);
    stream.send.write_all(&unknown).await.unwrap();
    let known = with_a_new_field(&Link::from(numbered(5)));
    stream.send.write_all(&known).await.unwrap();
    assert_eq!(a.number().await, 5);
}

#[tokio::test]
async fn a_newer_peer_that_no_longer_speaks_ours_is_told_so() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&newer(PROTOCOL_VERSION + 1));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    let welcome = stream.read::<Welcome>().await;
    assert_eq!(welcome.refused, Some(JoinRefusal::TooNew));
    assert!(JoinRefusal::TooNew.to_string().contains("update"));
    assert_eq!(stream.close_code().await, Some(CloseCode::Refused));
    assert!(a.events.try_recv().is_err(), "the node heard of it");
}

#[tokio::test]
async fn a_peer_that_speaks_only_another_protocol_is_told_that_by_quic() {
    let a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let error = raw.fails_to_connect(&a.member(), b"myzel/link/99").await;
    assert!(error.contains("any known protocol"), "{error}");
}

/// `{3: [99, []]}`, a refusal of a kind that does not exist yet, reads as a welcome without anything in it.
#[test]
fn a_refusal_of_a_newer_kind_is_none_that_is_known() {
    let welcome = codec::from_slice::<Welcome>(&[0xa1, 0x03, 0x82, 0x18, 0x63, 0x80]).unwrap();
    assert_eq!((welcome.refused, welcome.membership), (None, None));
}

#[tokio::test]
async fn a_refusal_of_a_newer_kind_says_that_this_build_is_old() {
    let raw = Raw::listening(2).await;
    let ticket = crate::common::ticket(
        &key(2),
        crate::common::commons().id(),
        &raw.endpoint.bound_sockets(),
        None,
    );
    let mut answer = vec![6, 0, 0, 0, 0, 0, 0, 0];
    answer.extend([0xa1, 0x03, 0x82, 0x18, 0x63, 0x80]);
    let (joined, ()) = within(async {
        let net = crate::common::bind(3).await;
        tokio::join!(
            async { net.join(&ticket, "old").await },
            raw.answer(&answer)
        )
    })
    .await;
    let error = joined.unwrap_err();
    assert!(
        matches!(error, JoinError::Dial(DialError::RefusedAnew { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("update myzel here"), "{error}");
}
