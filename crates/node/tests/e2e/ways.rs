//! Ways to other members, as the settings open and close them. Each way by itself is tested in `net`.

use crate::support::models::small;
use crate::support::netns::Machines;
use crate::support::node::{Node, Setup, says};
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
