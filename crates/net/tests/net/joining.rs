//! Tickets: what they open, and what opens nothing.

use crate::common::{
    Node, bind, commons, doorkeeper, hello, key, membership, now_s, standing, ticket, within,
};
use identity::{CommonsKey, TicketFault, check_membership, extend, found};
use net::{Admission, DialError, JoinError, Joined, Net, Standing, Verdict};
use proto::ids::NodeId;
use proto::member::{Hello, JoinRefusal, Membership};
use proto::ticket::Ticket;
use std::sync::Arc;

async fn join(n: u8, ticket: &Ticket) -> (Net, Result<Joined, JoinError>) {
    let net = bind(n).await;
    let joined = within(net.join(ticket, &format!("node {n}"))).await;
    (net, joined)
}

fn refusal(result: Result<Joined, JoinError>) -> JoinRefusal {
    match result.unwrap_err() {
        JoinError::Dial(DialError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other}"),
    }
}

#[tokio::test]
async fn a_newcomer_joins_and_is_linked() {
    let mut a = Node::start(2, Vec::new()).await;
    let (net, joined) = join(3, &a.ticket(None)).await;
    let Joined {
        commons: id,
        membership,
        introducer,
    } = joined.unwrap();
    assert_eq!(id, commons().id());
    assert_eq!(
        (introducer.id, introducer.name.as_str()),
        (a.id(), "node 2")
    );
    assert_eq!(check_membership(&membership, id, key(3).id()), Ok(()));
    let standing = Standing {
        membership,
        known: vec![introducer],
        ..standing(3, Vec::new())
    };
    let mut b = Node::run(net, key(3), standing);
    assert_eq!(b.up(a.id()).await.name, "node 2");
    assert_eq!(
        a.up(b.id()).await.name,
        "node 3",
        "joining itself makes no link"
    );
}

#[tokio::test]
async fn a_used_up_ticket_is_refused_and_the_same_newcomer_may_try_again() {
    let a = Node::start(2, Vec::new()).await;
    let once = a.ticket(Some(1));
    join(3, &once).await.1.unwrap();
    join(3, &once).await.1.unwrap();
    assert_eq!(refusal(join(4, &once).await.1), JoinRefusal::UsedUp);
}

#[tokio::test]
async fn a_ticket_that_proves_nothing_calls_nobody() {
    let a = Node::start(2, Vec::new()).await;
    let mut garbled = a.ticket(None);
    garbled.signature[9] ^= 1;
    let mut expired = a.ticket(None);
    expired.not_after_s = 1;
    let invitation = identity::Invitation {
        commons: expired.commons,
        addrs: expired.addrs.clone(),
        relays: Vec::new(),
        not_after_s: 1,
        nonce: expired.nonce,
        uses_max: None,
    };
    let late = identity::issue_ticket(&key(2), invitation).unwrap();
    for (ticket, fault) in [
        (garbled, "genuine"),
        (expired, "genuine"),
        (late, "expired"),
    ] {
        let error = join(3, &ticket).await.1.unwrap_err();
        assert!(matches!(error, JoinError::Ticket(_)), "{error}");
        assert!(error.to_string().contains(fault), "{error}");
    }
    let (net, _) = join(3, &a.ticket(None)).await;
    let own = ticket(&key(3), commons().id(), &net.addrs(), None);
    assert!(matches!(
        net.join(&own, "").await,
        Err(JoinError::OwnTicket)
    ));
}

#[tokio::test]
async fn an_introducer_of_another_commons_is_refused_by_the_newcomer() {
    // The introducer signed a ticket for our commons and lives in another: it refuses, as its policy says.
    let other = CommonsKey::from_bytes([99; 32]);
    let elsewhere = Standing {
        commons: other.id(),
        membership: found(&other, key(2).id(), now_s()),
        ..standing(2, Vec::new())
    };
    let a = Node::run(bind(2).await, key(2), elsewhere);
    assert_eq!(
        refusal(join(3, &a.ticket(None)).await.1),
        JoinRefusal::OtherCommons
    );
}

/// Says the same to everybody.
struct Always(Verdict);

impl Admission for Always {
    fn admit(&self, _: NodeId, _: &Hello, _: u64) -> Verdict {
        self.0.clone()
    }
}

#[tokio::test]
async fn a_stranger_that_poses_as_introducer_is_found_out() {
    let forged = Membership {
        chain: membership(9).chain,
    };
    let posing = Standing {
        membership: forged,
        ..standing(2, Vec::new())
    };
    let policy = Arc::new(Always(Verdict::Newcomer(membership(3))));
    let a = Node::run_with(bind(2).await, key(2), posing, policy);
    let error = join(3, &a.ticket(None)).await.1.unwrap_err();
    assert!(
        matches!(error, JoinError::Dial(DialError::Stranger { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_proof_that_proves_nothing_is_found_out() {
    for (verdict, name) in [
        (Verdict::Newcomer(membership(9)), "somebody else's"),
        (Verdict::Newcomer(Membership { chain: Vec::new() }), "empty"),
    ] {
        let policy = Arc::new(Always(verdict));
        let a = Node::run_with(bind(2).await, key(2), standing(2, Vec::new()), policy);
        let error = join(3, &a.ticket(None)).await.1.unwrap_err();
        assert!(
            matches!(error, JoinError::BadProof { .. }),
            "{name}: {error}"
        );
        within(a.net.close()).await;
    }
}

#[tokio::test]
async fn an_introducer_that_does_not_answer_is_named_with_the_addresses_tried() {
    // Bound and never started: packets arrive, nobody answers them.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ticket = ticket(&key(2), commons().id(), &[mute], None);
    let error = join(3, &ticket).await.1.unwrap_err();
    assert!(matches!(error, JoinError::Dial(_)), "{error}");
    for part in [mute.to_string(), key(2).id().short()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    let ticket = self::ticket(&key(2), commons().id(), &[], None);
    let error = join(3, &ticket).await.1.unwrap_err();
    assert!(
        matches!(error, JoinError::Dial(DialError::NoAddress { .. })),
        "{error}"
    );
}

/// Node 3 calls node 2's doorkeeper with `hello`.
fn check_policy(name: &str, hello: &Hello, expected: Verdict) {
    let policy = doorkeeper(key(2), &standing(2, Vec::new()));
    assert_eq!(
        policy.admit(key(3).id(), hello, now_s()),
        expected,
        "{name}"
    );
}

#[test]
fn the_doorkeeper_tells_every_case_apart() {
    use JoinRefusal::*;
    let genuine = || ticket(&key(2), commons().id(), &[], None);
    let other = CommonsKey::from_bytes([99; 32]);
    let theirs = found(&other, key(3).id(), now_s());
    let with_ticket = |ticket: Ticket| hello(3, None, Some(ticket));
    let with_proof = |proof: Membership| hello(3, Some(proof), None);
    let refused = Verdict::Refused;

    check_policy("a member", &with_proof(membership(3)), Verdict::Member);
    check_policy("nothing", &hello(3, None, None), refused(NothingShown));
    check_policy(
        "another's proof",
        &with_proof(membership(4)),
        refused(NotGenuine),
    );
    check_policy(
        "another commons' proof",
        &with_proof(theirs),
        refused(OtherCommons),
    );
    let other_commons = ticket(&key(2), other.id(), &[], None);
    check_policy(
        "another commons' ticket",
        &with_ticket(other_commons),
        refused(OtherCommons),
    );
    let replayed = ticket(&key(4), commons().id(), &[], None);
    check_policy(
        "another's ticket",
        &with_ticket(replayed),
        refused(NotGenuine),
    );
    let forged = Ticket {
        not_after_s: u64::MAX,
        ..genuine()
    };
    check_policy("longer life", &with_ticket(forged), refused(NotGenuine));
    let spent = ticket(&key(2), commons().id(), &[], Some(0));
    check_policy("no use left", &with_ticket(spent), refused(UsedUp));
    let mut forged = membership(3);
    forged.chain[0].signature[0] ^= 1;
    let both = hello(3, Some(forged), Some(genuine()));
    check_policy("a forged proof beside a ticket", &both, refused(NotGenuine));
}

#[test]
fn the_doorkeeper_minds_the_clock_and_the_length_of_its_own_chain() {
    let policy = doorkeeper(key(2), &standing(2, Vec::new()));
    let shown = hello(3, None, Some(ticket(&key(2), commons().id(), &[], None)));
    assert!(matches!(
        policy.admit(key(3).id(), &shown, now_s()),
        Verdict::Newcomer(_)
    ));
    let late = now_s() + 7200;
    let verdict = policy.admit(key(3).id(), &shown, late);
    assert_eq!(verdict, Verdict::Refused(JoinRefusal::Expired));
    assert!(
        TicketFault::Expired {
            not_after_s: 1,
            now_s: 2
        }
        .to_string()
        .contains("1 s ago")
    );

    let far = (11..18).fold(membership(10), |proof, n| {
        extend(&proof, &key(n - 1), commons().id(), key(n).id(), now_s()).unwrap()
    });
    let standing = Standing {
        membership: far,
        ..standing(17, Vec::new())
    };
    let shown = hello(3, None, Some(ticket(&key(17), commons().id(), &[], None)));
    let verdict = doorkeeper(key(17), &standing).admit(key(3).id(), &shown, now_s());
    assert_eq!(verdict, Verdict::Refused(JoinRefusal::ChainFull));
}
