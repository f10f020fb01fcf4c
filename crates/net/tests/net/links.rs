//! Links between those who behave, and one who falls silent.

use crate::common::{
    Node, Raw, bind, doorkeeper, hello, key, membership, numbered, packet, standing, within,
};
use net::{Admission, Doorkeeper, EndReason, LinkEvent, Net, PeerState, SendError, Verdict};
use proto::ids::{NodeId, RingId};
use proto::member::{ALPN_LINK, Hello, Member, Welcome};
use proto::ring::{Link, LinkBody, RefusalCode, RingRefused};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

async fn pair(a: u8, b: u8) -> (Node, Node) {
    let mut a = Node::start(a, Vec::new()).await;
    let mut b = Node::start(b, vec![a.member()]).await;
    a.up(b.id()).await;
    b.up(a.id()).await;
    (a, b)
}

#[tokio::test]
async fn messages_arrive_in_order_both_ways() {
    let (mut a, mut b) = pair(2, 3).await;
    for n in 0..100 {
        a.links.send(b.id(), numbered(n)).unwrap();
        b.links.send(a.id(), numbered(n)).unwrap();
    }
    for n in 0..100 {
        assert_eq!(b.number().await, n);
        assert_eq!(a.number().await, n);
    }
}

/// Counts the calls that reach a node, and lets the standard policy decide.
struct Counting(Arc<Doorkeeper>, AtomicUsize);

impl Admission for Counting {
    fn admit(&self, peer: NodeId, hello: &Hello, now_s: u64) -> Verdict {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.admit(peer, hello, now_s)
    }
}

/// Nodes `a` and `b`, each of which knows the other from the start, and the calls that reach them.
async fn crossing(a: u8, b: u8) -> [(Node, Arc<Counting>); 2] {
    let (net_a, net_b) = (bind(a).await, bind(b).await);
    let known = |n: u8, net: &Net| {
        let addrs = net.addrs().iter().map(ToString::to_string).collect();
        vec![Member {
            id: key(n).id(),
            addrs,
            name: String::new(),
            relays: None,
        }]
    };
    let (knows_b, knows_a) = (known(b, &net_b), known(a, &net_a));
    [(a, net_a, knows_b), (b, net_b, knows_a)].map(|(n, net, known)| {
        let standing = standing(n, known);
        let policy = Arc::new(Counting(
            doorkeeper(key(n), &standing),
            AtomicUsize::default(),
        ));
        (
            Node::run_with(net, key(n), standing, policy.clone()),
            policy,
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_call_at_once_have_one_link_and_lose_nothing() {
    let mut crossed = 0;
    for round in 0..12 {
        let [(mut a, calls_to_a), (mut b, calls_to_b)] = crossing(2, 3).await;
        a.up(b.id()).await;
        b.up(a.id()).await;
        for n in 0..20 {
            a.links.send(b.id(), numbered(n)).unwrap();
            b.links.send(a.id(), numbered(n)).unwrap();
        }
        for n in 0..20 {
            assert_eq!(a.number().await, n, "round {round}");
            assert_eq!(b.number().await, n, "round {round}");
        }
        // The call that lost is over by now, or will be soon; it must not take the link with it.
        let wait_ms = if round == 0 { 1500 } else { 50 };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        assert_eq!(a.events.try_recv().ok(), None, "round {round}");
        assert_eq!(b.events.try_recv().ok(), None, "round {round}");
        let calls = [calls_to_a, calls_to_b].map(|calls| calls.1.load(Ordering::SeqCst));
        crossed += usize::from(calls.iter().all(|calls| *calls > 0));
        tokio::join!(within(a.net.close()), within(b.net.close()));
    }
    assert!(crossed > 0, "no two calls crossed");
}

#[tokio::test]
async fn all_who_know_one_are_fully_meshed() {
    let mut first = Node::start(2, Vec::new()).await;
    let mut nodes = Vec::new();
    for n in 3..6 {
        nodes.push(Node::start(n, vec![first.member()]).await);
    }
    let everybody: Vec<NodeId> = (2..6).map(|n| key(n).id()).collect();
    nodes.push({
        let mut linked = Vec::new();
        while linked.len() < 3 {
            match first.event().await {
                LinkEvent::Up { member } => linked.push(member.id),
                other => panic!("{other:?}"),
            }
        }
        first
    });
    for node in &mut nodes {
        let id = node.id();
        within(async {
            loop {
                let mut up: Vec<NodeId> = node
                    .links
                    .snapshot()
                    .into_iter()
                    .filter(|peer| peer.state == PeerState::Up)
                    .map(|peer| peer.member.id)
                    .collect();
                up.push(id);
                up.sort();
                let mut all = everybody.clone();
                all.sort();
                if up == all {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_peer_that_leaves_is_lost_at_once_and_found_again() {
    let (mut a, b) = pair(2, 3).await;
    within(b.net.close()).await;
    assert_eq!(a.lost(key(3).id()).await, EndReason::Left);
    assert_eq!(
        a.links.send(key(3).id(), numbered(0)),
        Err(SendError::Closed)
    );
    let mut again = Node::start(3, vec![a.member()]).await;
    a.up(again.id()).await;
    again.up(a.id()).await;
    assert_ne!(
        again.member().addrs,
        b.member().addrs,
        "it came back at another port"
    );
}

#[tokio::test]
async fn a_known_member_is_called_until_it_is_there() {
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let addrs = vec![port.to_string()];
    let b = Member {
        id: key(3).id(),
        addrs,
        name: "node 3".into(),
        relays: None,
    };
    let mut a = Node::start(2, vec![b.clone()]).await;
    let failed = async {
        while a.links.snapshot()[0].fault.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(failed).await;
    let fault = a.links.snapshot()[0].fault.clone().unwrap();
    assert!(fault.contains(&port.to_string()), "{fault}");
    let told = within(a.events.recv()).await;
    assert_eq!(told, Some(LinkEvent::Unreached { peer: b.id }));
    let config = net::NetConfig {
        bind: Some(port),
        ..net::NetConfig::new(key(3))
    };
    let net = net::Net::bind(config).await.unwrap();
    let _b = Node::run(net, key(3), standing(3, Vec::new()));
    a.up(b.id).await;
}

#[tokio::test]
async fn status_tells_round_trip_and_incarnation() {
    let (a, b) = pair(2, 3).await;
    let measured = async {
        loop {
            let peers = a.links.snapshot();
            if let [peer] = &peers[..]
                && peer.rtt.is_some()
            {
                return peer.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let peer = within(measured).await;
    assert_eq!(
        (peer.member.id, peer.state, peer.incarnation),
        (b.id(), PeerState::Up, Some(3))
    );
    assert_eq!((peer.member.name.as_str(), peer.fault), ("node 3", None));
}

#[tokio::test]
async fn a_silent_peer_is_lost() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    // The connection itself stays alive: QUIC's own keep-alives go on in the raw endpoint.
    let peer = a.up(key(3).id()).await.id;
    let LinkEvent::Silent {
        peer: silent,
        silent_ms,
    } = a.event().await
    else {
        panic!("not silent");
    };
    assert_eq!(silent, peer);
    assert_eq!(a.lost(peer).await, EndReason::Silent { silent_ms });
    assert_eq!(
        stream.close_code().await,
        Some(proto::close::CloseCode::Silent)
    );
}

#[tokio::test]
async fn who_is_doubted_has_to_give_a_sign_of_life_at_once() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    let peer = a.up(key(3).id()).await.id;
    a.links.doubt(peer);
    let LinkEvent::Silent { silent_ms, .. } = a.event().await else {
        panic!("not silent");
    };
    assert!(silent_ms < proto::member::SUSPECT_MS, "{silent_ms}");
    assert_eq!(a.lost(peer).await, EndReason::Silent { silent_ms });
}

#[tokio::test]
async fn who_is_doubted_and_there_stays() {
    let (mut a, b) = pair(2, 3).await;
    for _ in 0..3 {
        a.links.doubt(b.id());
        tokio::time::sleep(std::time::Duration::from_millis(net::limits::DOUBT_MS * 2)).await;
    }
    assert!(a.events.try_recv().is_err(), "the link is as it was");
}

#[tokio::test]
async fn a_peer_that_says_nonsense_is_lost_and_told_why() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    a.up(key(3).id()).await;
    let message = packet(&Link::from(numbered(41)));
    stream.send.write_all(&message).await.unwrap();
    assert_eq!(a.number().await, 41);
    stream.send.write_all(&[0xff; 64]).await.unwrap();
    let reason = a.lost(key(3).id()).await;
    assert!(matches!(reason, EndReason::Malformed { .. }), "{reason}");
    assert_eq!(
        stream.close_code().await,
        Some(proto::close::CloseCode::Malformed)
    );
}

#[tokio::test]
async fn unknown_messages_are_skipped() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    a.up(key(3).id()).await;
    let messages = [
        packet(&Link { body: None }),
        packet(&Link::from(numbered(5))),
    ]
    .concat();
    stream.send.write_all(&messages).await.unwrap();
    assert_eq!(a.number().await, 5);
}

fn refused(detail_bytes: usize) -> LinkBody {
    LinkBody::RingRefused(RingRefused {
        ring: RingId([0; 16]),
        code: Some(RefusalCode::NoRoom),
        detail: "x".repeat(detail_bytes),
    })
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_sending_back_off() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let _stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    let peer = a.up(key(3).id()).await.id;
    let error = loop {
        match a.links.send(peer, refused(120_000)) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Backoff);
    let error = a.links.send(peer, refused(200_000)).unwrap_err();
    assert!(
        matches!(error, SendError::TooLarge { bytes } if bytes > 200_000),
        "{error}"
    );
    assert_eq!(
        a.links.send(key(9).id(), numbered(0)),
        Err(SendError::Closed)
    );
}

#[tokio::test]
async fn lone_packets_are_to_be_confirmed_early() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    a.up(key(3).id()).await;
    let asked = || stream.connection.stats().frame_rx.ack_frequency;
    within(async {
        while asked() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
