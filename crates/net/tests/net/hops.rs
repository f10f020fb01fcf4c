//! Hops: what goes in comes out, in order, or both ends know why not.

use crate::common::{Node, Raw, hop_hello, packet, within};
use bytes::Bytes;
use net::{EndReason, HopError, HopReceiver, HopSender};
use proto::close::CloseCode;
use proto::ids::SessionId;
use proto::member::ALPN_HOP;
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ring::{HopBody, HopWelcome, RefusalCode, Rows, RowsKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn rows(position: u32) -> HopBody {
    HopBody::Rows(Rows {
        session: SessionId([1; 16]),
        epoch: 1,
        position,
        rows: 1,
        chunk: 0,
        stage: 0,
        kind: RowsKind::Decode,
        guessed: 0,
    })
}

/// Bytes that differ from position to position and frame to frame.
fn payload(position: u32, bytes: usize) -> Bytes {
    (0..bytes)
        .map(|at| (at as u32).wrapping_mul(31).wrapping_add(position * 7) as u8)
        .collect()
}

async fn hop(from: &Node, stage: u8, to: &mut Node) -> (HopSender, HopReceiver) {
    let (member, hello) = (to.member(), hop_hello(stage));
    let accept = async {
        let incoming = to.hops.recv().await.unwrap();
        assert_eq!((incoming.peer, &incoming.hello), (from.id(), &hello));
        incoming.accept().await.unwrap()
    };
    let (sender, receiver) =
        within(async { tokio::join!(from.net.dial_hop(&member, &hello), accept) }).await;
    (sender.unwrap(), receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stages_pass_frames_on_unchanged_and_in_order() {
    let a = Node::start(2, Vec::new()).await;
    let (mut b, mut c) = (
        Node::start(3, Vec::new()).await,
        Node::start(4, Vec::new()).await,
    );
    let (mut first, mut into_b) = hop(&a, 2, &mut b).await;
    let (mut second, mut into_c) = hop(&b, 3, &mut c).await;
    let sizes = [
        0,
        1,
        2_304,
        16 << 10,
        (16 << 10) + 1,
        589_824,
        9,
        PAYLOAD_BYTES_MAX,
        2_304,
    ];
    let write = async {
        for (position, bytes) in (0..).zip(sizes) {
            first
                .send(rows(position), payload(position, bytes))
                .await
                .unwrap();
        }
        first.finish().await;
    };
    let pass = async {
        while let Ok((body, bytes)) = into_b.recv().await {
            second.send(body, bytes).await.unwrap();
        }
        second.finish().await;
    };
    let read = async {
        for (position, bytes) in (0..).zip(sizes) {
            let (body, got) = into_c.recv().await.unwrap();
            assert_eq!(body, rows(position));
            assert!(
                got == payload(position, bytes),
                "payload {position} of {bytes} bytes"
            );
        }
        assert_eq!(into_c.recv().await, Err(EndReason::Finished));
    };
    within(async { tokio::join!(write, pass, read) }).await;
}

#[tokio::test]
async fn a_refused_hop_says_why() {
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let (member, hello) = (b.member(), hop_hello(2));
    let refuse = async {
        b.hops
            .recv()
            .await
            .unwrap()
            .refuse(RefusalCode::NoRoom)
            .await
    };
    let (dialled, ()) =
        within(async { tokio::join!(a.net.dial_hop(&member, &hello), refuse) }).await;
    let error = dialled.unwrap_err();
    assert!(
        matches!(
            error,
            HopError::Refused {
                code: RefusalCode::NoRoom,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains(&b.id().short()), "{error}");
}

#[tokio::test]
async fn a_hop_without_a_proof_is_refused_before_the_node_hears_of_it() {
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let error = within(a.net.dial_hop(&b.member(), &hop_hello(9)))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            HopError::Refused {
                code: RefusalCode::NotAMember,
                ..
            }
        ),
        "{error}"
    );
    assert!(b.hops.try_recv().is_err());
}

#[tokio::test]
async fn a_hop_nobody_takes_ends_without_a_welcome() {
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let (member, hello) = (b.member(), hop_hello(2));
    let ignore = async { drop(b.hops.recv().await.unwrap()) };
    let (dialled, ()) =
        within(async { tokio::join!(a.net.dial_hop(&member, &hello), ignore) }).await;
    assert!(matches!(dialled.unwrap_err(), HopError::Ended { .. }));
}

#[tokio::test]
async fn each_end_learns_that_the_other_is_gone() {
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let (sender, receiver) = hop(&a, 2, &mut b).await;
    drop(receiver);
    assert_eq!(within(sender.ended()).await, EndReason::Finished);

    let (sender, mut receiver) = hop(&a, 2, &mut b).await;
    drop(sender);
    assert_eq!(within(receiver.recv()).await, Err(EndReason::Finished));

    let (mut sender, receiver) = hop(&a, 2, &mut b).await;
    within(b.net.close()).await;
    assert_eq!(within(sender.ended()).await, EndReason::Left);
    assert_eq!(
        within(sender.send(rows(0), Bytes::new())).await,
        Err(EndReason::Left)
    );
    assert_eq!(within(receiver.ended()).await, EndReason::Here);
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_down() {
    const FRAMES: usize = 48;
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let (mut sender, mut receiver) = hop(&a, 2, &mut b).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let writer = tokio::spawn(async move {
        for position in 0..FRAMES {
            sender
                .send(rows(position as u32), Bytes::from(vec![7; 1 << 20]))
                .await
                .unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
        sender.finish().await;
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        sent.load(Ordering::SeqCst) < FRAMES / 2,
        "{sent:?} frames went into nowhere"
    );
    for position in 0..FRAMES {
        let (body, bytes) = within(receiver.recv()).await.unwrap();
        assert_eq!((body, bytes.len()), (rows(position as u32), 1 << 20));
    }
    assert_eq!(within(receiver.recv()).await, Err(EndReason::Finished));
    within(writer).await.unwrap();
}

#[tokio::test]
async fn a_torn_frame_closes_the_hop() {
    let a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, Vec::new()).await;
    let (mut sender, mut receiver) = hop(&a, 2, &mut b).await;
    let large = Bytes::from(vec![7; PAYLOAD_BYTES_MAX]);
    // Nobody reads, so at the second frame at the latest the window is full and the write is dropped half-way.
    let torn = async {
        loop {
            let write = sender.send(rows(0), large.clone());
            match tokio::time::timeout(Duration::from_millis(500), write).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => return,
            }
        }
    };
    within(torn).await;
    assert_eq!(
        within(sender.send(rows(1), Bytes::new())).await,
        Err(EndReason::Here)
    );
    let ended = loop {
        if let Err(reason) = within(receiver.recv()).await {
            break reason;
        }
    };
    assert!(
        matches!(
            ended,
            EndReason::Closed {
                code: Some(CloseCode::Malformed),
                ..
            }
        ),
        "{ended}"
    );
}

async fn check_bad_frame(name: &str, bytes: &[u8]) {
    let mut b = Node::start(3, Vec::new()).await;
    let raw = Raw::bind(2).await;
    let mut stream = raw.say(&b.member(), ALPN_HOP, &packet(&hop_hello(2))).await;
    let mut receiver = within(b.hops.recv()).await.unwrap().accept().await.unwrap();
    assert_eq!(
        stream.read::<HopWelcome>().await,
        HopWelcome { refused: None }
    );
    stream.send.write_all(bytes).await.unwrap();
    let reason = within(receiver.recv()).await.unwrap_err();
    assert!(
        matches!(reason, EndReason::Malformed { .. }),
        "{name}: {reason}"
    );
    assert_eq!(
        stream.close_code().await,
        Some(CloseCode::Malformed),
        "{name}"
    );
    within(b.net.close()).await;
}

#[tokio::test]
async fn bad_frames_close_the_hop() {
    let prefix = |head: u32, payload: u32| [head.to_le_bytes(), payload.to_le_bytes()].concat();
    check_bad_frame("a head over its limit", &prefix(257, 0)).await;
    check_bad_frame(
        "a payload over its limit",
        &prefix(9, PAYLOAD_BYTES_MAX as u32 + 1),
    )
    .await;
    check_bad_frame("4 GB promised", &prefix(9, u32::MAX)).await;
    check_bad_frame(
        "a head that is no CBOR",
        &[prefix(4, 0), vec![0xff; 4]].concat(),
    )
    .await;
}
