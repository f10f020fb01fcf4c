//! Tickets that do not let anybody in.

use crate::support::models::small;
use crate::support::node::{Node, Setup, says};
use crate::support::wait::eventually;
use identity::{Invitation, NodeKey, issue_ticket};
use node::standing::now_s;
use node::tickets::{TicketReply, TicketStatus};
use proto::ticket::Ticket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Ground {
    _dir: tempfile::TempDir,
    model: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = small(dir.path());
        Self { _dir: dir, model }
    }

    fn node(&self, name: &str) -> Setup {
        Setup::new(name).model(&self.model)
    }

    /// What a newcomer with this ticket says.
    fn refused(&self, ticket: &str, parts: &[&str]) {
        says(
            &self.node("newcomer").arg("--join", ticket).refused(),
            parts,
        );
    }
}

/// The ticket with the character at `at` changed.
fn garbled(ticket: &str, at: usize) -> String {
    let mut text: Vec<u8> = ticket.bytes().collect();
    text[at] = if text[at] == b'a' { b'b' } else { b'a' };
    String::from_utf8(text).unwrap()
}

/// That nobody was let in meanwhile.
fn nobody_came(a: &Node) {
    assert_eq!(a.status().nodes, []);
}

#[tokio::test]
async fn garbled_and_forged_tickets() {
    let ground = Ground::new();
    let a = ground.node("a").up().await;
    let ticket = &a.ticket;
    let (damaged, genuine) = ("damaged", "not genuine or was damaged; copy it again");
    for (ticket, parts) in [
        ("hello".to_owned(), &["does not begin with \"myzel1\""][..]),
        (String::new(), &["ticket"]),
        (ticket[..ticket.len() / 2].to_owned(), &["ticket"]),
        (ticket.replace('a', "!"), &[damaged, "copy it again"]),
        ("myzel1".repeat(1000), &["6000", "2048"]),
        (garbled(ticket, 40), &[genuine]),
        (garbled(ticket, ticket.len() - 30), &[genuine]),
    ] {
        ground.refused(&ticket, parts);
    }

    let real = Ticket::from_text(ticket).unwrap();
    let longer = Ticket {
        not_after_s: real.not_after_s + 1,
        ..real.clone()
    };
    ground.refused(&longer.to_text(), &[genuine]);
    // A ticket that a stranger signed leads to somebody else than it names.
    let stranger = NodeKey::from_bytes([9; 32]);
    let (commons, addrs, nonce) = (real.commons, real.addrs.clone(), [1; 16]);
    let forged = Invitation {
        commons,
        addrs,
        relays: Vec::new(),
        not_after_s: now_s() + 60,
        nonce,
        uses_max: None,
    };
    let forged = issue_ticket(&stranger, forged).unwrap();
    ground.refused(
        &forged.to_text(),
        &["cannot join", &stranger.id().short(), &real.addrs[0]],
    );
    nobody_came(&a);
    // Nothing of this has harmed the real one.
    let b = ground.node("b").join(&a).up().await;
    a.status_when("b is linked", |status| {
        status.nodes.iter().any(|node| node.state == "up")
    })
    .await;
    drop(b);
}

#[tokio::test]
async fn expired_and_used_up_tickets() {
    let ground = Ground::new();
    let a = ground.node("a").up().await;
    let short = a.setup().cli(&["ticket", "--hours", "0.0003", "--json"]);
    let short: TicketReply = serde_json::from_str(&short).unwrap();
    assert!(short.not_after_s <= now_s() + 2, "{short:?}");
    eventually("the ticket's life is over", || async {
        (now_s() > short.not_after_s).then_some(())
    })
    .await;
    ground.refused(&short.ticket, &["expired", "myzel ticket"]);
    nobody_came(&a);

    let once = a.setup().cli(&["ticket", "--uses", "1"]);
    let b = ground.node("b").arg("--join", once.trim()).up().await;
    ground.refused(
        once.trim(),
        &["refused", "already used", "myzel ticket", &a.id().short()],
    );
    // Who was let in is a member, and needs the ticket no more.
    let b_setup = b.setup().clone();
    drop(b);
    let _b = b_setup.up().await;
    a.status_when(
        "b is linked again",
        |status| matches!(&status.nodes[..], [node] if node.state == "up" && node.name == "b"),
    )
    .await;
    for (hours, uses) in [("0", "1"), ("-1", "1"), ("99999", "1")] {
        let said = a
            .setup()
            .cli_fails(&["ticket", &format!("--hours={hours}"), "--uses", uses]);
        says(&said, &["--hours", "out of range"]);
    }
}

#[tokio::test]
async fn revoked_tickets() {
    let ground = Ground::new();
    let a = ground.node("a").up().await;
    let cli = |args: &[&str]| a.setup().cli(args);
    let list = || -> Vec<TicketStatus> {
        serde_json::from_str(&cli(&["ticket", "list", "--json"])).unwrap()
    };
    let new: TicketReply = serde_json::from_str(&cli(&["ticket", "--json"])).unwrap();
    let (name, first) = (
        new.id.to_string(),
        Ticket::from_text(&a.ticket).unwrap().id(),
    );
    let states: Vec<_> = list().into_iter().map(|t| (t.id, t.state)).collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&(first, "open".into())), "{states:?}");
    assert!(states.contains(&(new.id, "open".into())), "{states:?}");

    // In capitals, as a camera reads it from a QR code. Who was let in stays in.
    let b = ground.node("b").arg("--join", &new.ticket.to_uppercase());
    let b = b.up().await;
    says(
        &cli(&["ticket", "revoke", &name]),
        &[&name, "revoked", "1 of any number"],
    );
    ground.refused(&new.ticket, &["refused", "revoked", &a.id().short()]);
    a.status_when("b stays a member", |status| {
        status.nodes.iter().any(|node| node.state == "up")
    })
    .await;
    says(&cli(&["ticket", "revoke", &a.ticket]), &["revoked"]);
    ground.refused(&a.ticket, &["refused", "revoked"]);
    says(
        &cli(&["ticket", "list"]),
        &[&name, &first.to_string(), "revoked"],
    );
    assert!(list().iter().all(|ticket| ticket.state == "revoked"));

    let (issuer, unknown) = (b.id().short(), "07".repeat(16));
    for (which, parts) in [
        (b.ticket.as_str(), &[issuer.as_str(), "revoke it there"][..]),
        (unknown.as_str(), &["no ticket", "myzel ticket list"]),
        ("hello", &["neither the name", "begin"]),
        ("a&b", &["'&'"]),
    ] {
        says(&a.setup().cli_fails(&["ticket", "revoke", which]), parts);
    }
    let drawn = cli(&["ticket", "--qr"]);
    let lines: Vec<&str> = drawn.lines().collect();
    let (text, code) = lines.split_last().unwrap();
    Ticket::from_text(text).unwrap();
    assert!(code.len() > 20 && code.iter().all(|line| line.chars().count() > 40));
}

#[tokio::test]
async fn a_ticket_for_another_commons() {
    let ground = Ground::new();
    let (a, b) = (ground.node("a").up().await, ground.node("b").up().await);
    let theirs = Ticket::from_text(&a.ticket).unwrap().commons.short();
    let own = Ticket::from_text(&b.ticket).unwrap().commons.short();
    let b_setup = b.setup().clone();
    drop(b);
    let said = b_setup.clone().join(&a).refused();
    says(
        &said,
        &["belongs to the commons", &own, &theirs, "--data-dir"],
    );
    nobody_came(&a);
    let b = b_setup.up().await;
    assert_eq!(
        b.status().commons.short(),
        own,
        "nothing of its own is lost"
    );
}

#[tokio::test]
async fn an_introducer_that_is_gone() {
    let ground = Ground::new();
    let mut a = ground.node("a").up().await;
    let (id, addrs) = (a.id().short(), Ticket::from_text(&a.ticket).unwrap().addrs);
    a.kill9();
    let begun = Instant::now();
    let said = ground.node("newcomer").join(&a).refused();
    let took = begun.elapsed();
    says(
        &said,
        &[
            "cannot join",
            "did not answer",
            &id,
            &addrs[0],
            "is it running",
        ],
    );
    assert!(took <= Duration::from_secs(6), "the error took {took:?}");
}
