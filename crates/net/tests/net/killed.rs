//! A peer that is killed: no goodbye reaches us, only silence.

use crate::common::{Node, bind, hop_hello, key, standing, within};
use net::{EndReason, LinkEvent, Standing};
use proto::member::Membership;
use proto::ticket::Ticket;
use std::process::{Child, Command};

const TICKET_VAR: &str = "MYZEL_TEST_TICKET";

/// Kills the child however the test ends.
struct Doomed(Child);

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test of its own: the process that the test below kills.
#[tokio::test]
#[ignore = "runs as the child of a_killed_peer_is_lost_with_its_hops"]
async fn child() {
    let Ok(text) = std::env::var(TICKET_VAR) else {
        return;
    };
    let ticket = Ticket::from_text(&text).unwrap();
    let net = bind(3).await;
    let joined = net.join(&ticket, "doomed").await.unwrap();
    let member = joined.introducer.clone();
    let proof: Membership = joined.membership;
    let standing = Standing {
        membership: proof.clone(),
        known: vec![joined.introducer],
        ..standing(3, Vec::new())
    };
    let mut node = Node::run(net, key(3), standing);
    node.up(member.id).await;
    let hello = proto::ring::HopHello {
        membership: proof,
        ..hop_hello(3)
    };
    let _hop = node.net.dial_hop(&member, &hello).await.unwrap();
    loop {
        node.events.recv().await;
    }
}

#[tokio::test]
async fn a_killed_peer_is_lost_with_its_hops() {
    let mut a = Node::start(2, Vec::new()).await;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--ignored"])
        .env(TICKET_VAR, a.ticket(None).to_text())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Doomed(child);
    let peer = a.up(key(3).id()).await.id;
    let mut hop = within(a.hops.recv()).await.unwrap().accept().await.unwrap();
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let LinkEvent::Silent {
        peer: silent,
        silent_ms,
    } = a.event().await
    else {
        panic!("not silent");
    };
    assert_eq!(silent, peer);
    assert_eq!(a.lost(peer).await, EndReason::Silent { silent_ms });
    // The hop was closed on this side with the link, long before QUIC would have given it up.
    assert_eq!(
        within(hop.recv()).await.unwrap_err(),
        EndReason::Silent { silent_ms }
    );
}
