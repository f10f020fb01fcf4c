//! The encodings that leave the process, frozen. A change here is a change of the protocol: bump a version, say how old
//! peers and old files fare, and only then write the new bytes down.

#![allow(clippy::unwrap_used, reason = "a test may")]

use proto::close::CloseCode;
use proto::codec::{DecodeError, Wire, from_slice, to_vec};
use proto::disk::PathHash;
use proto::ids::{CommonsId, Hash, NodeId, RingId, SessionId};
use proto::member::{Hello, JoinRefusal, Member, Membership, Vouch, Welcome};
use proto::model::{LayerRange, Numerics, WireType};
use proto::packet::{self, PREFIX_BYTES, Prefix};
use proto::ring::{
    Ack, Contract, EpochAnswer, Heartbeat, Hop, HopBody, HopHello, HopWelcome, Link, LinkBody,
    OpenRing, OpenSession, RefusalCode, RingReady, RingRefused, Rows, RowsKind, SessionFailed,
    SessionRef,
};
use proto::ticket::Ticket;
use std::fmt::Debug;

/// Freezes an encoding by its BLAKE3 (first ten digits) and length, and checks that it reads back.
fn check<T: Wire + PartialEq + Debug>(value: T, expected: &str) {
    let bytes = to_vec(&value);
    let got = format!("{} {}", Hash::of(&bytes).short(), bytes.len());
    assert_eq!(got, expected, "{}: {value:?}", T::WHAT);
    assert_eq!(from_slice::<T>(&bytes).unwrap(), value);
    assert!(bytes.len() <= T::BYTES_MAX);
    for end in 0..bytes.len() {
        assert!(
            from_slice::<T>(&bytes[..end]).is_err(),
            "{} cut at {end}",
            T::WHAT
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(
        from_slice::<T>(&longer),
        Err(DecodeError::Trailing { extra: 1, .. })
    ));
}

fn member() -> Member {
    Member {
        id: NodeId([1; 32]),
        addrs: vec!["192.0.2.1:7".into()],
        name: "anna".into(),
    }
}

fn vouch() -> Vouch {
    Vouch {
        commons: CommonsId([2; 32]),
        subject: NodeId([1; 32]),
        issuer: [2; 32],
        issued_s: 1_790_000_000,
        signature: [3; 64],
    }
}

fn ticket() -> Ticket {
    Ticket {
        commons: CommonsId([2; 32]),
        introducer: NodeId([1; 32]),
        addrs: vec!["192.0.2.1:7".into()],
        not_after_s: 1_790_000_000,
        nonce: [4; 16],
        uses_max: None,
        signature: [5; 64],
    }
}

fn contract() -> Contract {
    Contract {
        model: Hash([6; 32]),
        layers: LayerRange { first: 1, end: 15 },
        build: "engine 1".into(),
        cpu_class: "x86_64 AVX2".into(),
        kv_type: "f16".into(),
        flash_attention: false,
        chunk_rows: 256,
        numerics: Numerics::Exact,
        wire: WireType::F32,
    }
}

fn at() -> SessionRef {
    SessionRef {
        ring: RingId([7; 16]),
        session: SessionId([8; 16]),
        epoch: 3,
    }
}

#[test]
fn membership() {
    check(vouch(), "d999bc32bd 179");
    check(
        Membership {
            chain: vec![vouch()],
        },
        "32af7c7563 182",
    );
    check(member(), "5f45602444 56");
    check(ticket(), "df75d1d2a7 176");
    let hello = Hello {
        version: 1,
        member: member(),
        membership: Some(Membership {
            chain: vec![vouch()],
        }),
        ticket: Some(ticket()),
    };
    check(hello, "8f9b5900ba 420");
    let welcome = Welcome {
        member: None,
        membership: None,
        yours: None,
        refused: Some(JoinRefusal::OtherCommons),
    };
    check(welcome, "989681a0f6 5");
}

#[test]
fn links() {
    let open = OpenRing {
        ring: RingId([7; 16]),
        stage: 1,
        stages: 2,
        contract: contract(),
        successor: member(),
        sessions_max: 4,
        positions_max: 4096,
        model_name: "m".into(),
        predecessor: NodeId([9; 32]),
    };
    let ready = RingReady {
        ring: RingId([7; 16]),
        contract: contract(),
        load_ms: 12,
    };
    let refused = RingRefused {
        ring: RingId([7; 16]),
        code: Some(RefusalCode::ModelMissing),
        detail: "no".into(),
    };
    let failed = SessionFailed {
        at: at(),
        stage: 2,
        code: Some(RefusalCode::LeaseExpired),
        detail: "late".into(),
    };
    let answer = EpochAnswer {
        at: at(),
        stage: 2,
        length: 40,
        input: Some(Hash([1; 32])),
        output: None,
        retained_from: 8,
    };
    let beat = Heartbeat {
        incarnation: 5,
        sent_us: 77,
        echo_us: Some(70),
    };
    check(contract(), "34d62edd23 84");
    check::<Link>(LinkBody::Heartbeat(beat).into(), "ccc674824a 14");
    check::<Link>(LinkBody::Members(vec![member()]).into(), "790f64aecc 62");
    check::<Link>(LinkBody::OpenRing(Box::new(open)).into(), "455fde0d20 214");
    check::<Link>(LinkBody::RingReady(ready).into(), "704b44de8f 111");
    check::<Link>(LinkBody::RingRefused(refused).into(), "034729ffe1 32");
    check::<Link>(LinkBody::CloseRing(RingId([7; 16])).into(), "7b0626a5bf 22");
    check::<Link>(LinkBody::CloseSession(at()).into(), "23ec8f795b 44");
    check::<Link>(
        LinkBody::Ack(Ack {
            at: at(),
            position: 32,
        })
        .into(),
        "ec925b648c 49",
    );
    check::<Link>(LinkBody::Epoch(at()).into(), "42f9139d94 44");
    check::<Link>(LinkBody::EpochAnswer(answer).into(), "d543c9e49a 88");
    check::<Link>(LinkBody::SessionFailed(failed).into(), "39e7e05b8e 58");
}

#[test]
fn hops() {
    let rows = Rows {
        session: SessionId([8; 16]),
        epoch: 3,
        position: 300,
        rows: 2,
        chunk: 1,
        stage: 1,
        kind: RowsKind::Decode,
    };
    let open = OpenSession {
        session: SessionId([8; 16]),
        epoch: 1,
        positions_max: 4096,
    };
    let membership = Membership {
        chain: vec![vouch()],
    };
    check(
        HopHello {
            ring: RingId([7; 16]),
            from_stage: 0,
            membership,
        },
        "e3db8585af 204",
    );
    check(
        HopWelcome {
            refused: Some(RefusalCode::NotAMember),
        },
        "33ee41b82c 5",
    );
    check::<Hop>(HopBody::Open(open).into(), "cb93c94f05 30");
    check::<Hop>(HopBody::Rows(rows).into(), "7d39083e13 40");
}

#[test]
fn disk() {
    check(
        PathHash {
            bytes: 10,
            modified_ns: 20,
            blake3: Hash([1; 32]),
        },
        "78f088c5f9 40",
    );
}

#[test]
fn close_codes() {
    let numbers: Vec<u32> = CloseCode::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// A newer peer may add fields and messages; this build reads what it knows.
#[test]
fn what_a_newer_peer_adds_is_skipped() {
    // {0: [12, [1]]}: a link message of a kind that does not exist yet.
    assert_eq!(
        from_slice::<Link>(&[0xa1, 0x00, 0x82, 0x0c, 0x81, 0x01])
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
