//! The encodings that leave the process, frozen. A change here is a change of the protocol: bump a version, say how old
//! peers and old files fare, and only then write the new bytes down.

#![allow(clippy::unwrap_used, reason = "a test may")]

use proto::ad::{Ad, Held, Lost, Measured, Room, SignedAd, Speed, Standing};
use proto::close::CloseCode;
use proto::codec::{DecodeError, Wire, from_slice, to_vec};
use proto::disk::PathHash;
use proto::host::{Grammar, Logprobs, Probable};
use proto::ids::{CommonsId, Hash, NodeId, RingId, SessionId, StreamId};
use proto::journal::{
    AnswerPlan, Sealed, StreamBatch, StreamDialect, StreamEvent, StreamFinish, StreamStart,
    StreamToken,
};
use proto::manifest::{AskModel, Block, BlockKind, Contents, Manifest, ModelAnswer};
use proto::member::{Hello, JoinRefusal, Member, Membership, Vouch, Welcome, Whereabouts};
use proto::model::{LayerRange, Numerics, Sampling, WireType};
use proto::ring::{
    Ack, Contract, EpochAnswer, Heartbeat, Hop, HopBody, HopHello, HopWelcome, Link, LinkBody,
    NewEpoch, OpenRing, OpenSession, RefusalCode, Resume, RingProgress, RingReady, RingRefused,
    Rows, RowsKind, SessionFailed, SessionRef, Shadow, StandingBy,
};
use proto::ticket::{TICKET_ADDRS_MAX, Ticket};
use std::fmt::Debug;

/// Freezes an encoding by its BLAKE3 (first ten digits) and length, and checks that it reads back.
fn check<T: Wire + PartialEq + Debug>(value: T, expected: &str) {
    let bytes = to_vec(&value);
    let got = format!("{} {}", Hash::of(&bytes).short(), bytes.len());
    assert_eq!(got, expected, "{}: {value:?}", T::WHAT);
    is_a_seed(&bytes);
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

/// The fuzz target `wire` begins with every frozen encoding.
fn is_a_seed(bytes: &[u8]) {
    let name = format!("../../fuzz/corpus/wire/{}", Hash::of(bytes).short());
    let path = specimen::crate_dir().join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let seed = std::fs::read(&path).unwrap_or_default();
    assert_eq!(seed, bytes, "{}: run with BLESS=1", path.display());
}

fn member() -> Member {
    Member {
        id: NodeId([1; 32]),
        addrs: vec!["192.0.2.1:7".into()],
        name: "anna".into(),
        relays: None,
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
        relays: None,
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
        oldest: None,
    };
    check(hello, "8f9b5900ba 420");
    let relays = Some(vec!["198.51.100.1:7".into()]);
    let relayed = Member {
        relays: relays.clone(),
        ..member()
    };
    check(relayed.clone(), "8dd2efe486 73");
    let invited = Ticket {
        relays: relays.clone(),
        ..ticket()
    };
    check(invited, "8ba35685d7 193");
    let newer = Hello {
        version: 2,
        member: relayed,
        membership: None,
        ticket: None,
        oldest: Some(1),
    };
    check(newer, "8c0750310b 79");
    let at = Whereabouts {
        addrs: member().addrs,
        relays,
    };
    check(at, "0fbc02ae9e 32");
    let welcome = Welcome {
        member: None,
        membership: None,
        yours: None,
        refused: Some(JoinRefusal::OtherCommons),
    };
    check(welcome, "989681a0f6 5");
}

fn ad() -> Ad {
    let model = Hash([6; 32]);
    let speed = Speed {
        model,
        layer_us: 900,
    };
    Ad {
        commons: CommonsId([2; 32]),
        node: NodeId([1; 32]),
        incarnation: 3,
        sequence: 40,
        issued_s: 1_790_000_000,
        life_s: 120,
        name: "anna".into(),
        addrs: vec!["192.0.2.1:7".into()],
        relay: Some("http://192.0.2.1:80".into()),
        relays: vec!["http://192.0.2.9:80".into()],
        room: Some(Room::Square),
        standing: Some(Standing::Draining),
        memory_bytes: 8 << 30,
        cpu_class: "x86_64 AVX2".into(),
        build: "engine 1".into(),
        speeds: vec![speed],
        held: vec![Held {
            model,
            manifest: Some(Hash([5; 32])),
            layers: vec![LayerRange { first: 1, end: 15 }],
            whole: false,
        }],
        links: vec![Measured {
            node: NodeId([9; 32]),
            rtt_us: 20_000,
            bytes_per_s: None,
            stage: Some(speed),
        }],
        lost: vec![Lost {
            node: NodeId([8; 32]),
            incarnation: 1,
            sequence: 2,
        }],
        membership: Membership {
            chain: vec![vouch()],
        },
    }
}

#[test]
fn ads() {
    check(ad(), "1ad93bc3fd 621");
    let signed = SignedAd {
        body: to_vec(&ad()),
        signature: [4; 64],
    };
    assert_eq!(signed.ad().unwrap(), ad());
    check(signed, "86e47abf6e 693");
}

/// The largest ad that is within its bounds can be sent.
#[test]
fn the_fullest_ad_fits() {
    use proto::ad::{
        AD_HELD_MAX, AD_LINKS_MAX, AD_LOST_MAX, AD_RANGES_MAX, AD_RELAYS_MAX, AD_SPEEDS_MAX,
        AD_TEXT_BYTES_MAX, RELAY_BYTES_MAX,
    };
    use proto::member::{NAME_CHARS_MAX, VOUCH_CHAIN_MAX};
    let speed = Speed {
        model: Hash([255; 32]),
        layer_us: u32::MAX,
    };
    let range = LayerRange {
        first: 1_000,
        end: 1_024,
    };
    let held = Held {
        model: Hash([255; 32]),
        manifest: Some(Hash([255; 32])),
        layers: vec![range; AD_RANGES_MAX],
        whole: true,
    };
    let measured = Measured {
        node: NodeId([255; 32]),
        rtt_us: u32::MAX,
        bytes_per_s: Some(u64::MAX),
        stage: Some(speed),
    };
    let lost = Lost {
        node: NodeId([255; 32]),
        incarnation: u64::MAX,
        sequence: u64::MAX,
    };
    let fullest = Ad {
        incarnation: u64::MAX,
        sequence: u64::MAX,
        issued_s: u64::MAX,
        name: "\u{10ffff}".repeat(NAME_CHARS_MAX),
        addrs: vec![format!("[{}:ffff]:65535", "ffff:".repeat(6) + "ffff"); TICKET_ADDRS_MAX],
        relay: Some("r".repeat(RELAY_BYTES_MAX)),
        relays: vec!["r".repeat(RELAY_BYTES_MAX); AD_RELAYS_MAX],
        memory_bytes: u64::MAX,
        cpu_class: "c".repeat(AD_TEXT_BYTES_MAX),
        build: "b".repeat(AD_TEXT_BYTES_MAX),
        speeds: vec![speed; AD_SPEEDS_MAX],
        held: vec![held; AD_HELD_MAX],
        links: vec![measured; AD_LINKS_MAX],
        lost: vec![lost; AD_LOST_MAX],
        membership: Membership {
            chain: vec![
                Vouch {
                    issued_s: u64::MAX,
                    ..vouch()
                };
                VOUCH_CHAIN_MAX
            ],
        },
        ..ad()
    };
    fullest.check_bounds().unwrap();
    let bytes = to_vec(&fullest);
    assert!(bytes.len() <= Ad::BYTES_MAX, "{}", bytes.len());
    assert_eq!(from_slice::<Ad>(&bytes).unwrap(), fullest);
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
        continues: None,
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
    check::<Link>(LinkBody::EpochAnswer(answer).into(), "d543c9e49a 88");
    check::<Link>(LinkBody::SessionFailed(failed).into(), "39e7e05b8e 58");
    check::<Link>(
        LinkBody::RingLoading(RingId([7; 16])).into(),
        "038399565a 22",
    );
    check::<Link>(LinkBody::Gossip(vec![1, 2, 3]).into(), "ab500be141 9");
}

#[test]
fn sessions_that_go_on() {
    let epoch = |positions_max| NewEpoch {
        ring: at().ring,
        session: at().session,
        epoch: at().epoch,
        positions_max,
    };
    let resume = Resume {
        at: at(),
        stage: 2,
        keep: 300,
        from: 40,
        wanted: 290,
    };
    check::<Link>(LinkBody::Epoch(epoch(None)).into(), "42f9139d94 44");
    check::<Link>(LinkBody::Epoch(epoch(Some(4096))).into(), "29b8bfd49e 48");
    check::<Link>(LinkBody::Resume(resume).into(), "0ea636462d 59");
    let standing = StandingBy {
        ring: RingId([7; 16]),
        layers: contract().layers,
        refused: Some("no room".into()),
    };
    check::<Link>(LinkBody::StandingBy(standing).into(), "3a82a84cd0 40");
    let shadow = Shadow {
        at: at(),
        stage: 1,
        to: member(),
        until: 288,
    };
    check::<Link>(LinkBody::Shadow(Box::new(shadow)).into(), "ef01f92f81 110");
}

#[test]
fn the_progress_of_a_stage() {
    let progress = RingProgress {
        ring: RingId([7; 16]),
        done_bytes: 1,
        total_bytes: 2,
    };
    check::<Link>(LinkBody::RingProgress(progress).into(), "01806695e4 28");
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
        guessed: 0,
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
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

fn manifest() -> Manifest {
    let block = |kind, n| Block {
        kind,
        hash: Hash([n; 32]),
        bytes: u64::from(n) * 1_000,
    };
    let blocks = vec![
        block(BlockKind::Header, 1),
        block(BlockKind::Embd, 2),
        block(BlockKind::Layer(0), 3),
        block(BlockKind::Layer(300), 4),
        block(BlockKind::Head, 5),
    ];
    let contents = Contents {
        root: Hash([9; 32]),
        bytes: 15_000,
        blocks,
    };
    Manifest {
        version: 1,
        contents,
        name: "model".into(),
        licence: Some("MIT".into()),
        maker: NodeId([1; 32]),
        membership: Some(Membership {
            chain: vec![vouch()],
        }),
        issued_s: 1_790_000_000,
        signature: [3; 64],
    }
}

#[test]
fn models_by_content() {
    check(manifest().contents, "d32314b549 266");
    check(manifest(), "2906d6a380 573");
    check(
        AskModel {
            root: Hash([9; 32]),
        },
        "7568e0e770 36",
    );
    let held = [true, false, true, true, true];
    check(ModelAnswer::new(manifest(), &held), "e88b6e6b78 578");
    check(
        ModelAnswer {
            manifest: None,
            held: Vec::new(),
        },
        "1d3041fc05 3",
    );
}

#[test]
fn journals_of_streams() {
    let stream = StreamId([1; 16]);
    let sealed = Sealed {
        stream,
        number: 7,
        nonce: [2; 12],
        sealed: vec![3; 20],
        salt: None,
    };
    let frame = Hash::of(&sealed.frame()).short();
    assert_eq!((frame.as_str(), sealed.frame().len()), ("9bb8fca337", 69));
    check(sealed.clone(), "0d65084e2f 57");
    let salt = Some([4; 32]);
    check(Sealed { salt, ..sealed }, "61c2523d23 92");
    let plan = AnswerPlan {
        model: Hash([5; 32]),
        fingerprint: "f".into(),
        numerics: Numerics::Exact,
        grid_rows: 256,
        prompt: vec![1, -2, 70_000],
        grammar: Some(Grammar::Json),
        syntax: Some("s".into()),
        stops: vec!["end".into()],
        sampling: Sampling::GREEDY,
        tokens_max: 9,
    };
    let start = StreamStart {
        begun_s: 1_790_000_000,
        owner: Hash([6; 32]),
        dialect: StreamDialect::Chat,
        body: b"{}".to_vec(),
        room: Some(Room::Circle),
        name: [8; 16],
        choices: vec![plan],
    };
    check(start, "cd67abafa6 163");
    let logprobs = Logprobs {
        drawn: -0.5,
        top: vec![Probable {
            token: 4,
            piece: b"a".to_vec(),
            logprob: -0.5,
        }],
    };
    let token = StreamToken {
        id: 4,
        piece: b"a".to_vec(),
        logprobs: Some(Box::new(logprobs)),
        reused: 2,
    };
    let events = vec![
        StreamEvent::Token(token),
        StreamEvent::Finished(StreamFinish::Stop),
    ];
    check(StreamBatch { choice: 1, events }, "c7a811133b 44");
}
