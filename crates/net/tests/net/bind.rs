//! Opening the endpoint.

use crate::common::{Node, Raw, bind, hello, key, membership, packet, standing, within};
use net::{BindError, Net, NetConfig};
use proto::member::{ALPN_LINK, Member, Welcome};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

#[tokio::test]
async fn a_taken_port_is_named() {
    for ip in ["127.0.0.1", "0.0.0.0"] {
        let holder = UdpSocket::bind((ip, 0)).unwrap();
        let addr: SocketAddr = (
            ip.parse::<std::net::IpAddr>().unwrap(),
            holder.local_addr().unwrap().port(),
        )
            .into();
        let config = NetConfig {
            bind: Some(addr),
            ..NetConfig::new(key(2))
        };
        let error = within(Net::bind(config)).await.unwrap_err();
        assert!(
            matches!(error, BindError::PortTaken { addr: at } if at == addr),
            "{error}"
        );
        assert!(
            error.to_string().contains(&addr.port().to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let addr: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let config = NetConfig {
        bind: Some(addr),
        ..NetConfig::new(key(2))
    };
    let error = within(Net::bind(config)).await.unwrap_err();
    assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error}");
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

#[tokio::test]
async fn a_chosen_port_is_used_and_free_again_after_the_end() {
    let port = UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let bind = Some(SocketAddr::from(([0, 0, 0, 0], port)));
    let config = || NetConfig {
        bind,
        ..NetConfig::new(key(2))
    };
    let net = Net::bind(config()).await.unwrap();
    assert!(
        net.addrs().iter().all(|addr| addr.port() == port),
        "{:?}",
        net.addrs()
    );
    assert!(matches!(
        Net::bind(config()).await,
        Err(BindError::PortTaken { .. })
    ));
    within(net.close()).await;
    drop(net);
    let again = async {
        // The socket goes with the last of the endpoint's own tasks, a moment later.
        while Net::bind(config()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(again).await;
}

#[tokio::test]
async fn loopback_is_among_the_addresses_and_comes_last() {
    let net = Net::bind(NetConfig::new(key(2))).await.unwrap();
    let addrs = net.addrs();
    assert!(addrs.last().unwrap().ip().is_loopback(), "{addrs:?}");
    assert!(
        !addrs
            .iter()
            .any(|addr| addr.port() == 0 || addr.ip().is_unspecified()),
        "{addrs:?}"
    );
    within(net.close()).await;
}

#[tokio::test]
async fn nodes_on_every_address_find_each_other() {
    let net = Net::bind(NetConfig::new(key(2))).await.unwrap();
    let mut a = Node::run(net, key(2), standing(2, Vec::new()));
    let net = Net::bind(NetConfig::new(key(3))).await.unwrap();
    let mut b = Node::run(net, key(3), standing(3, vec![a.member()]));
    a.up(b.id()).await;
    b.up(a.id()).await;
}

#[tokio::test]
async fn the_end_is_told_to_peers_and_ends_every_task() {
    let mut a = Node::start(2, Vec::new()).await;
    let mut b = Node::start(3, vec![a.member()]).await;
    a.up(b.id()).await;
    b.up(a.id()).await;
    within(a.net.close()).await;
    assert_eq!(b.lost(a.id()).await, net::EndReason::Left);
    // Only tasks and `Links` can hold on to the sending side of the events.
    let Node {
        links, mut events, ..
    } = a;
    drop(links);
    within(async { while events.recv().await.is_some() {} }).await;
    within(b.net.close()).await;
}

/// A peer that makes a link and then stands still, together with its QUIC stack, until `wake` ends.
fn stand_still(to: Member, wake: mpsc::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let held = runtime.block_on(async {
        let raw = Raw::bind(3).await;
        let first = packet(&hello(3, Some(membership(3)), None));
        let mut stream = raw.say(&to, ALPN_LINK, &first).await;
        assert_eq!(stream.read::<Welcome>().await.refused, None);
        (raw, stream)
    });
    let _ = wake.recv();
    let _context = runtime.enter();
    drop(held);
}

#[tokio::test]
async fn the_end_comes_with_a_peer_that_does_not_answer() {
    let mut a = Node::start(2, Vec::new()).await;
    let (hold, wake) = mpsc::sync_channel(1);
    let to = a.member();
    let peer = std::thread::spawn(move || stand_still(to, wake));
    a.up(key(3).id()).await;
    within(a.net.close()).await;
    drop(hold);
    peer.join().unwrap();
}

#[tokio::test]
#[should_panic(expected = "an endpoint is started once")]
async fn starting_twice_is_a_bug() {
    let node = Node::run(bind(2).await, key(2), standing(2, Vec::new()));
    Node::run(node.net.clone(), key(2), standing(2, Vec::new()));
}
