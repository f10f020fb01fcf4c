//! Those who say too much, come too often, or come as many.

use crate::common::{Node, Raw, bind_at, close_code, hello, key, membership, packet, within};
use iroh::endpoint::Connection;
use net::EndReason;
use net::limits::{CALLS_PER_HOST_BURST, JOINS_PER_HOST_BURST};
use proto::close::CloseCode;
use proto::member::{ALPN_LINK, Hello, JoinRefusal, Member, Welcome};
use proto::ring::Link;
use proto::ticket::Ticket;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Says messages of a kind that nobody knows, as fast as they are taken. Returns with the end of the link.
async fn flood(connection: Connection, mut send: iroh::endpoint::SendStream) {
    let some = packet(&Link { body: None }).repeat(1000);
    while send.write_all(&some).await.is_ok() {}
    connection.closed().await;
}

#[tokio::test]
async fn a_member_that_floods_is_slowed_then_cut_off_and_has_to_wait() {
    let mut a = Node::start(2, Vec::new()).await;
    let raw = Raw::bind(3).await;
    let first = packet(&hello(3, Some(membership(3)), None));
    let mut stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.read::<Welcome>().await.refused, None);
    a.up(key(3).id()).await;
    let connection = stream.connection.clone();
    within(flood(stream.connection, stream.send)).await;
    assert_eq!(close_code(&connection).await, Some(CloseCode::Flooding));
    assert_eq!(a.lost(key(3).id()).await, EndReason::Flooding);
    // It calls again, and is told to wait. Others are not.
    let stream = raw.say(&a.member(), ALPN_LINK, &first).await;
    assert_eq!(stream.close_code().await, Some(CloseCode::Flooding));
    let mut b = Node::start(4, vec![a.member()]).await;
    b.up(a.id()).await;
    a.up(b.id()).await;
}

/// How a newcomer fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Joined,
    Refused(JoinRefusal),
    /// Not even a connection.
    Unheard,
}

/// How long one of the thousand tries to be heard.
const TRY: Duration = Duration::from_secs(2);

/// A newcomer with a key of its own, from 127.0.0.1.
async fn newcomer(n: u32, to: Member, ticket: Ticket) -> Fate {
    let mut seed = [77; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    let raw = Raw::with_seed(seed).await;
    let id = identity::NodeKey::from_bytes(seed).id();
    let first = hello(1, None, Some(ticket));
    let member = Member {
        id,
        ..first.member.clone()
    };
    let first = packet(&Hello { member, ..first });
    let told = tokio::time::timeout(TRY, raw.ask(&to, &first)).await;
    match told {
        Ok(Some(Welcome {
            refused: Some(why), ..
        })) => Fate::Refused(why),
        Ok(Some(Welcome { yours: Some(_), .. })) => Fate::Joined,
        _ => Fate::Unheard,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_keys_of_one_host_come_at_the_doors_rate_and_others_are_not_kept_waiting() {
    let a = Node::start(2, Vec::new()).await;
    let (ticket, to) = (a.ticket(None), a.member());
    let (mut keys, at_once) = (JoinSet::new(), Arc::new(Semaphore::new(64)));
    for n in 0..1000 {
        let (ticket, to, at_once) = (ticket.clone(), to.clone(), at_once.clone());
        keys.spawn(async move {
            let _turn = at_once.acquire_owned().await.unwrap();
            newcomer(n, to, ticket).await
        });
    }
    let began = std::time::Instant::now();
    // While they come, an honest newcomer from elsewhere does, too.
    let mut fates = Vec::new();
    while fates.len() < 500 {
        fates.push(keys.join_next().await.unwrap().unwrap());
    }
    let net = bind_at(3, "127.0.0.2:0").await;
    within(net.join(&ticket, "honest")).await.unwrap();
    assert!(!keys.is_empty(), "the others were through before it came");
    fates.extend(keys.join_all().await);
    let seconds = u32::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let count = |fate| fates.iter().filter(|f| **f == fate).count() as u32;
    let joined = count(Fate::Joined);
    let too_many = count(Fate::Refused(JoinRefusal::TooMany));
    let unheard = count(Fate::Unheard);
    assert_eq!(joined + too_many + unheard, 1000, "{fates:?}");
    assert!(
        joined > 0 && joined <= JOINS_PER_HOST_BURST + seconds,
        "{joined}"
    );
    assert!(too_many > 0, "nobody was told why");
    let heard = joined + too_many;
    assert!(heard <= CALLS_PER_HOST_BURST + 4 * seconds, "{heard}");
}
