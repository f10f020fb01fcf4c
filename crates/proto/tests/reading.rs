//! What is read of bytes that no peer of this version wrote.

#![allow(clippy::unwrap_used, reason = "a test may")]

use proto::codec::{DecodeError, from_slice};
use proto::member::Member;
use proto::packet::{self, PREFIX_BYTES, Prefix};
use proto::ring::{Hop, HopWelcome, Link};

/// A newer peer may add fields and messages; this build reads what it knows.
#[test]
fn what_a_newer_peer_adds_is_skipped() {
    // {0: [99, [1]]}: a link message of a kind that does not exist yet.
    assert_eq!(
        from_slice::<Link>(&[0xa1, 0x00, 0x82, 0x18, 0x63, 0x81, 0x01])
            .unwrap()
            .body,
        None
    );
    // {0: null, 9: "new"}
    let bytes = [0xa2, 0x00, 0xf6, 0x09, 0x63, b'n', b'e', b'w'];
    assert_eq!(
        from_slice::<HopWelcome>(&bytes).unwrap(),
        HopWelcome { refused: None }
    );
}

/// Lengths that claim more than there is are refused before anything is reserved for them.
#[test]
fn lying_lengths_are_refused() {
    // {1: array of 2^60}
    let bytes = [0xa1, 0x01, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0];
    assert!(from_slice::<Member>(&bytes).is_err());
    let mut prefix = [0xff; PREFIX_BYTES];
    assert!(matches!(
        Prefix::parse::<Hop>(prefix),
        Err(DecodeError::TooLarge { .. })
    ));
    prefix[..4].copy_from_slice(&4u32.to_le_bytes());
    assert!(matches!(
        Prefix::parse::<Hop>(prefix),
        Err(DecodeError::TooLarge { .. })
    ));
}

#[test]
fn packets() {
    let bytes = packet::encode(&Hop { body: None }, &[1, 2, 3]);
    assert_eq!(bytes, [1, 0, 0, 0, 3, 0, 0, 0, 0xa0, 1, 2, 3]);
    let prefix = Prefix::parse::<Hop>(bytes[..PREFIX_BYTES].try_into().unwrap()).unwrap();
    assert_eq!(
        prefix,
        Prefix {
            head_bytes: 1,
            payload_bytes: 3
        }
    );
}
