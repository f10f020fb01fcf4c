//! Ways to other members, as the settings open and close them. Each way by itself is tested in `net`.

use crate::support::models::{STARTER_EMBEDDING, small};
use crate::support::netns::Machines;
use crate::support::node::{Node, Setup, says};
use n0_mainline::Testnet;
use node::status::NodeStatus;
use proto::ticket::Ticket;
use std::path::PathBuf;

/// Nodes with a small model on machines of their own.
struct Ground {
    _dir: tempfile::TempDir,
    model: PathBuf,
    machines: Machines,
}

impl Ground {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = small(dir.path());
        Self {
            _dir: dir,
            model,
            machines: Machines::new(count),
        }
    }

    /// A node on machine `n`, at a UDP port.
    fn node(&self, n: usize, port: u16) -> Setup {
        Setup::new(&format!("node {n}"))
            .model(&self.model)
            .inside(self.machines.name(n))
            .arg("--listen", &format!("10.77.0.{n}:{port}"))
    }
}

/// Waits for the link between two nodes; how it came about, from `a`'s side.
async fn way(a: &Node, b: &Node) -> String {
    let id = b.id();
    let up = |node: &NodeStatus| node.node == id && node.state == "up";
    let status = a
        .status_when("the two are linked", |status| status.nodes.iter().any(up))
        .await;
    let found = status.nodes.into_iter().find(up);
    found.and_then(|node| node.way).expect("a link has a way")
}

#[tokio::test]
async fn an_old_ticket_leads_in_over_the_local_network_unless_that_is_switched_off() {
    let ground = Ground::new(2);
    let with_lan = |setup: Setup| setup.env("MYZEL_LAN", "true");
    let a = with_lan(ground.node(1, 7001)).up().await;
    let ticket = a.ticket.clone();
    let moved = a.setup().clone().arg("--listen", "10.77.0.1:7002");
    drop(a);
    let a = moved.up().await;
    assert_eq!(
        Ticket::from_text(&ticket).unwrap().addrs,
        ["10.77.0.1:7001"]
    );

    let newcomer = |n| ground.node(n, 7001).arg("--join", &ticket);
    let said = newcomer(2).refused();
    says(&said, &["cannot join", "10.77.0.1:7001", "did not answer"]);
    assert!(!said.contains("local network"), "{said}");
    let b = with_lan(newcomer(2)).up().await;
    way(&b, &a).await;
}

#[tokio::test]
async fn a_node_behind_a_firewall_is_reached_over_the_relay_of_another_member() {
    let ground = Ground::new(3);
    let relay = "10.77.0.3:7003";
    let c = ground.node(3, 7001).arg("--relay", relay).up().await;
    ground.machines.separate(1, 2);
    let a = ground.node(1, 7001).join(&c).up().await;
    let b = ground.node(2, 7001).join(&c).up().await;
    let ways = [way(&a, &b).await, way(&b, &a).await];
    assert!(ways.contains(&"relay".to_owned()), "{ways:?}");
    assert!(ground.machines.dropped(1) + ground.machines.dropped(2) > 0);
    for node in [&a, &b, &c] {
        node.status_when("it is reached over the relay", |status| {
            status.relays == [relay]
        })
        .await;
    }
    let shown = a.setup().cli(&["status"]);
    says(&shown, &[&format!("relay     {relay}")]);
    // A newcomer from machine 2, with a ticket of the node on machine 1.
    let ticket = a.setup().cli(&["ticket"]);
    drop(b);
    let d = ground.node(2, 7004).arg("--join", ticket.trim()).up().await;
    way(&d, &a).await;
}

/// One greedy answer, asked from the node's own machine.
fn answer(node: &Node) -> String {
    let limits = ["ask", "--temperature", "0", "--max-tokens", "12"];
    node.setup()
        .cli(&[&limits[..], &["Name a river."]].concat())
}

#[tokio::test]
async fn a_ring_goes_over_a_relay_where_there_is_no_other_way() {
    let machines = Machines::new(3);
    let node = |n: usize| {
        let setup = Setup::new(&format!("node {n}")).inside(machines.name(n));
        setup.arg("--listen", &format!("10.77.0.{n}:7001")).exact()
    };
    let c = node(3).arg("--relay", "10.77.0.3:7003");
    let c = c.arg("--serve", "alone").up().await;
    machines.separate(1, 2);
    let b = node(2).join(&c).up().await;
    let alone = node(1).join(&c).up().await;
    let (setup, expected) = (alone.setup().clone(), answer(&alone));
    drop(alone);
    let a = setup.split(1).up().await;
    let status = a.ring_up().await;
    let stage = &status.ring.unwrap().stages[0];
    assert_eq!(stage.node, b.id(), "c serves nobody");
    let ways = [way(&a, &b).await, way(&b, &a).await];
    assert!(ways.contains(&"relay".to_owned()), "{ways:?}");
    let before = machines.received_bytes(3);
    assert_eq!(answer(&a), expected);
    assert!(machines.dropped(1) + machines.dropped(2) > 0);
    let rows = 12 * STARTER_EMBEDDING * 4;
    let passed = machines.received_bytes(3) - before;
    assert!(passed > 2 * rows, "{passed} bytes went past the relay");
}

/// A free UDP port of this machine.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_ticket_leads_in_over_the_dht_unless_that_is_switched_off() {
    let dht = Testnet::new(5).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let model = small(dir.path());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let node = |name: &str| {
        let setup = Setup::new(name).model(&model);
        setup.arg("--listen", &at(free_port()))
    };
    let with_dht = |setup: Setup| {
        let setup = setup.env("MYZEL_DHT", "true");
        setup.env("MYZEL_DHT_BOOTSTRAP", &dht.bootstrap.join(","))
    };
    let setup = with_dht(node("a"));
    let a = setup.up().await;
    let (ticket, old) = (a.ticket.clone(), a.setup().clone());
    drop(a);
    let a = old.arg("--listen", &at(free_port())).up().await;

    let said = node("b").arg("--join", &ticket).refused();
    says(&said, &["cannot join", "did not answer"]);
    assert!(!said.contains("in the DHT"), "{said}");
    let newcomer = with_dht(node("c")).arg("--join", &ticket);
    let c = loop {
        // A moment passes until what a says has reached the DHT.
        let mut c = newcomer.start();
        match c.ready_or_gone().await {
            None => break c,
            Some(said) => says(&said, &["in the DHT"]),
        }
    };
    let ways = [way(&a, &c).await, way(&c, &a).await];
    assert!(!ways.contains(&"lan".to_owned()), "{ways:?}");
}
