//! The ways to a member, each alone, and each left out. Every test has a network of its own, from which nothing leads out.

use crate::common::{Node, Raw, key, numbered, standing, ticket, within};
use crate::netns::{alone, cut, cut_tcp, dropped, ip};
use n0_mainline::Testnet;
use net::{
    DhtConfig, DialError, JoinError, LinkEvent, Net, NetConfig, PeerState, PeerStatus, RelayOffer,
    Way, WaysConfig,
};
use proto::ids::NodeId;
use proto::member::{ALPN_LINK, Member};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Where the relay of machine 3 is.
const RELAY_PORT: u16 = 7001;
/// A port at which nobody listens.
const STALE_PORT: u16 = 9;

/// Node `n` on machine `n`.
async fn bind(n: u8, ways: WaysConfig) -> Net {
    let config = NetConfig {
        bind: Some(format!("{}:0", ip(n)).parse().unwrap()),
        ways,
        ..NetConfig::new(key(n))
    };
    Net::bind(config).await.unwrap()
}

/// Node `n` as others remember it, at a port.
fn remembered(n: u8, port: u16) -> Member {
    Member {
        id: key(n).id(),
        addrs: vec![format!("{}:{port}", ip(n))],
        name: String::new(),
        relays: None,
    }
}

fn member(n: u8, net: &Net) -> Member {
    remembered(n, net.addrs()[0].port())
}

/// Waits for the link to `peer`, whatever else happens meanwhile, and says how it came about.
async fn linked(node: &mut Node, peer: NodeId) -> Way {
    within(async {
        loop {
            match node.events.recv().await.unwrap() {
                LinkEvent::Up { member } if member.id == peer => return,
                _ => {}
            }
        }
    })
    .await;
    status(node, peer).way.expect("the link is up")
}

fn status(node: &Node, peer: NodeId) -> PeerStatus {
    let all = node.links.snapshot();
    all.into_iter().find(|at| at.member.id == peer).unwrap()
}

/// Waits until a call of `node` to `peer` has failed, and says how.
async fn fault(node: &Node, peer: NodeId) -> String {
    within(async {
        loop {
            let at = status(node, peer);
            assert_ne!(at.state, PeerState::Up, "there is a way: {:?}", at.way);
            if let Some(fault) = at.fault {
                return fault;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Which ways are open between nodes 1 and 2.
#[derive(Debug, Clone, Copy)]
struct Open {
    known: bool,
    lan: bool,
    dht: bool,
    relay: bool,
}

/// Two members that have both moved, unless they are known to be where they are; in between, what is open.
struct Scene {
    nodes: [Node; 2],
    _relay: Option<Node>,
    _dht: Option<Testnet>,
}

impl Open {
    const NONE: Self = Self {
        known: false,
        lan: false,
        dht: false,
        relay: false,
    };
    const ALL: Self = Self {
        known: true,
        lan: true,
        dht: true,
        relay: true,
    };

    async fn scene(self) -> Scene {
        let dht = match self.dht {
            true => Some(Testnet::new(5).await.unwrap()),
            false => None,
        };
        let relay = match self.relay {
            true => Some(relay().await),
            false => None,
        };
        // A relay's node tells the two where they are, so that it takes a firewall for a relay to be needed.
        if self.relay && !(self.known || self.lan || self.dht) {
            cut(1, 2);
        }
        let ways = || WaysConfig {
            lan: self.lan,
            dht: dht.as_ref().map(|dht| DhtConfig {
                bootstrap: dht.bootstrap.clone(),
                public: false,
            }),
            relay: RelayOffer::Off,
        };
        let (a, b) = (bind(1, ways()).await, bind(2, ways()).await);
        let port = |net: &Net| match self.known {
            true => net.addrs()[0].port(),
            false => STALE_PORT,
        };
        let (at_a, at_b) = (remembered(1, port(&a)), remembered(2, port(&b)));
        let knows = |other| -> Vec<Member> {
            let relay = relay.iter().map(Node::member);
            relay.chain([other]).collect()
        };
        let (knows_b, knows_a) = (knows(at_b), knows(at_a));
        let nodes = [(1, a, knows_b), (2, b, knows_a)]
            .map(|(n, net, known)| Node::run(net, key(n), standing(n, known)));
        Scene {
            nodes,
            _relay: relay,
            _dht: dht,
        }
    }
}

/// Node 3, which offers a relay.
async fn relay() -> Node {
    let at = format!("{}:{RELAY_PORT}", ip(3)).parse().unwrap();
    let ways = WaysConfig {
        relay: RelayOffer::At(at),
        ..WaysConfig::default()
    };
    let net = bind(3, ways).await;
    let mut node = Node::run(net, key(3), standing(3, Vec::new()));
    within(async {
        while node.member().relays.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(node.events.try_recv().is_err());
    node
}

impl Scene {
    /// By which way the link came about, from the side that called; and something is said over it.
    async fn way(&mut self) -> Way {
        let [a, b] = &mut self.nodes;
        let (id_a, id_b) = (a.id(), b.id());
        let ways = [linked(a, id_b).await, linked(b, id_a).await];
        a.links.send(id_b, numbered(7)).unwrap();
        within(async {
            loop {
                if let LinkEvent::Message { peer, .. } = b.events.recv().await.unwrap() {
                    return assert_eq!(peer, id_a);
                }
            }
        })
        .await;
        ways.into_iter()
            .find(|way| *way != Way::Theirs)
            .expect("one of them has called")
    }
}

fn check_alone(open: Open, expected: Way) {
    alone(move || async move {
        let mut scene = open.scene().await;
        assert_eq!(scene.way().await, expected, "{open:?}");
        if expected == Way::Relay {
            assert!(dropped() > 0, "the firewall had nothing to do");
        }
        let [a, b] = &scene.nodes;
        let goes = |node: &Node, peer: &Node| status(node, peer.id()).relayed;
        within(async {
            while [goes(a, b), goes(b, a)] != [expected == Way::Relay; 2] {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    });
}

#[test]
fn remembered_addresses_alone_are_enough() {
    let open = Open {
        known: true,
        ..Open::NONE
    };
    check_alone(open, Way::Known);
}

#[test]
fn the_local_network_alone_is_enough() {
    let open = Open {
        lan: true,
        ..Open::NONE
    };
    check_alone(open, Way::Lan);
}

#[test]
fn the_dht_alone_is_enough() {
    let open = Open {
        dht: true,
        ..Open::NONE
    };
    check_alone(open, Way::Dht);
}

#[test]
fn a_relay_alone_is_enough() {
    let open = Open {
        relay: true,
        ..Open::NONE
    };
    check_alone(open, Way::Relay);
}

#[test]
fn no_way_is_missed_when_it_is_gone() {
    let all = Open::ALL;
    for open in [
        all,
        Open {
            known: false,
            ..all
        },
        Open { lan: false, ..all },
        Open { dht: false, ..all },
        Open {
            relay: false,
            ..all
        },
    ] {
        alone(move || async move {
            let mut scene = open.scene().await;
            scene.way().await;
        });
    }
}

#[test]
fn without_any_way_the_error_says_where_was_looked() {
    alone(|| async {
        let scene = Open::NONE.scene().await;
        let [a, b] = &scene.nodes;
        let said = fault(a, b.id()).await;
        let stale = format!("{}:{STALE_PORT}", ip(2));
        for part in [b.id().short().as_str(), &stale, "is it running"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
    });
}

/// A ticket of node 1 that says where it was once.
fn stale_ticket(relays: Vec<String>) -> proto::ticket::Ticket {
    let invitation = identity::Invitation {
        commons: crate::common::commons().id(),
        addrs: vec![format!("{}:{STALE_PORT}", ip(1))],
        relays,
        not_after_s: crate::common::now_s() + 3600,
        nonce: [8; 16],
        uses_max: None,
    };
    identity::issue_ticket(&key(1), invitation).unwrap()
}

fn lan() -> WaysConfig {
    WaysConfig {
        lan: true,
        ..WaysConfig::default()
    }
}

#[test]
fn a_ticket_alone_is_enough() {
    alone(|| async {
        let a = Node::run(
            bind(1, WaysConfig::default()).await,
            key(1),
            standing(1, Vec::new()),
        );
        let b = bind(2, WaysConfig::default()).await;
        let ticket = ticket(&a.key, crate::common::commons().id(), &a.net.addrs(), None);
        within(b.join(&ticket, "b")).await.unwrap();
    });
}

#[test]
fn a_stale_ticket_leads_to_an_introducer_on_the_local_network() {
    alone(|| async {
        let _a = Node::run(bind(1, lan()).await, key(1), standing(1, Vec::new()));
        let b = bind(2, lan()).await;
        let joined = within(b.join(&stale_ticket(Vec::new()), "b"))
            .await
            .unwrap();
        assert_eq!(joined.introducer.id, key(1).id());
    });
}

#[test]
fn a_stale_ticket_leads_to_an_introducer_in_the_dht() {
    alone(|| async {
        let dht = Testnet::new(5).await.unwrap();
        let ways = || WaysConfig {
            dht: Some(DhtConfig {
                bootstrap: dht.bootstrap.clone(),
                public: false,
            }),
            ..WaysConfig::default()
        };
        let _a = Node::run(bind(1, ways()).await, key(1), standing(1, Vec::new()));
        let b = bind(2, ways()).await;
        within(async {
            // A moment passes until what node 1 says has reached the DHT.
            while let Err(error) = b.join(&stale_ticket(Vec::new()), "b").await {
                let JoinError::Dial(DialError::NotFound { ways, .. }) = error else {
                    panic!("{error}");
                };
                assert_eq!(ways, "in the DHT");
            }
        })
        .await;
    });
}

#[test]
fn a_ticket_leads_to_an_introducer_behind_a_relay() {
    alone(|| async {
        let relay = relay().await;
        cut(1, 2);
        let net = bind(1, WaysConfig::default()).await;
        let mut a = Node::run(net, key(1), standing(1, vec![relay.member()]));
        linked(&mut a, relay.id()).await;
        let relays = within(async {
            loop {
                match a.member().relays {
                    Some(relays) => return relays,
                    None => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
        assert_eq!(relays, [format!("{}:{RELAY_PORT}", ip(3))]);
        let b = bind(2, WaysConfig::default()).await;
        // Where it is, as well: the firewall is what makes the relay needed.
        let mut ticket = stale_ticket(relays);
        let addrs = a.net.addrs().iter().map(ToString::to_string).collect();
        let invitation = identity::Invitation {
            commons: ticket.commons,
            addrs,
            relays: ticket.relays.take().unwrap(),
            not_after_s: ticket.not_after_s,
            nonce: [9; 16],
            uses_max: None,
        };
        let ticket = identity::issue_ticket(&key(1), invitation).unwrap();
        within(b.join(&ticket, "b")).await.unwrap();
        assert!(dropped() > 0, "the firewall had nothing to do");
    });
}

#[test]
fn an_introducer_that_is_nowhere_is_named_with_the_ways_that_were_tried() {
    alone(|| async {
        let nowhere = bind(2, WaysConfig::default()).await;
        let error = nowhere
            .join(&stale_ticket(Vec::new()), "b")
            .await
            .unwrap_err();
        assert!(!error.to_string().contains("not found"), "{error}");
        let listening = bind(3, lan()).await;
        let error = within(listening.join(&stale_ticket(Vec::new()), "b"))
            .await
            .unwrap_err();
        let stale = format!("{}:{STALE_PORT}", ip(1));
        for part in [stale.as_str(), "not found on the local network either"] {
            assert!(
                error.to_string().contains(part),
                "{part:?} is not in: {error}"
            );
        }
    });
}

#[test]
fn a_relay_that_dies_is_noticed_and_the_error_names_it() {
    alone(|| async {
        let open = Open {
            relay: true,
            ..Open::NONE
        };
        let mut scene = open.scene().await;
        assert_eq!(scene.way().await, Way::Relay);
        cut_tcp(3);
        let [a, b] = &mut scene.nodes;
        let id = b.id();
        within(async {
            loop {
                if let LinkEvent::Lost { peer, .. } = a.events.recv().await.unwrap()
                    && peer == id
                {
                    return;
                }
            }
        })
        .await;
        let said = within(async {
            loop {
                let said = fault(a, id).await;
                if said.contains("the relay") {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(
            said.contains(&format!("the relay {}:{RELAY_PORT}", ip(3))),
            "{said}"
        );
    });
}

#[test]
fn a_liar_on_the_local_network_cannot_keep_two_members_apart() {
    alone(|| async {
        let liar = Raw::at(&format!("{}:0", ip(4)), key(4).to_bytes()).await;
        liar.endpoint.set_alpns(vec![ALPN_LINK.to_vec()]);
        let _announced = announce(1, liar.endpoint.bound_sockets()[0]);
        // Node 1 is there, and does not take calls yet.
        let a = bind(1, WaysConfig::default()).await;
        let known = vec![member(1, &a)];
        let mut b = Node::run(bind(2, lan()).await, key(2), standing(2, known));
        let call = within(liar.endpoint.accept()).await.unwrap();
        assert!(
            call.await.is_err(),
            "who answers has another key than who was called"
        );
        let mut a = Node::run(a, key(1), standing(1, Vec::new()));
        assert_eq!(linked(&mut b, a.id()).await, Way::Known);
        linked(&mut a, b.id()).await;
    });
}

/// Announces that node `n` is at `at`.
fn announce(n: u8, at: SocketAddr) -> swarm_discovery::DropGuard {
    use data_encoding::BASE32_NOPAD;
    let lower = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
    let commons = crate::common::commons().id();
    let hash = blake3::derive_key("myzel lan service v1", &commons.0);
    let IpAddr::V4(interface) = at.ip() else {
        panic!("an IPv4 address");
    };
    let service = format!("mz-{}", &lower(&hash)[..12]);
    swarm_discovery::Discoverer::new_interactive(service, lower(&key(n).id().0))
        .with_ip_class(swarm_discovery::IpClass::V4Only)
        .with_multicast_interfaces_v4(vec![interface])
        .with_addrs(at.port(), [at.ip()])
        .spawn(&tokio::runtime::Handle::current())
        .unwrap()
}
