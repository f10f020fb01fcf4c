//! Incoming connections: what a stranger may do, and how it becomes a peer.

use super::live::{self, Wire};
use super::table::{Place, Turn};
use super::{Mesh, PeerState};
use crate::admission::Verdict;
use crate::door::{Guest, Host, Knock};
use crate::end::{self, EndReason};
use crate::endpoint::now_s;
use crate::limits::{HELLO_MS, LINGER_MS};
use crate::packets::{self, PacketReader, ReadFault};
use crate::ways::{Places, Way};
use crate::{blobs, dial, hop, transport};
use iroh::endpoint::{Connection, Incoming, IncomingAddr, SendStream};
use proto::close::CloseCode;
use proto::codec::Wire as Structure;
use proto::ids::NodeId;
use proto::manifest::ALPN_MODEL;
use proto::member::{ALPN_HOP, Hello, JoinRefusal, Member, Membership, Welcome};
use proto::ring::PROTOCOL_VERSION;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection that led to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerFault {
    #[error("no connection came about: {0}")]
    Handshake(Box<dyn std::error::Error + Send + Sync>),
    #[error("the first message took longer than {HELLO_MS} ms")]
    TooSlow,
    #[error("{0}")]
    Ended(EndReason),
    #[error("turned away: {0}")]
    Refused(JoinRefusal),
    #[error("the hop was turned away: {0}")]
    HopRefused(proto::ring::RefusalCode),
    #[error("{0}")]
    NotServed(blobs::Refusal),
}

impl From<EndReason> for AnswerFault {
    fn from(reason: EndReason) -> Self {
        Self::Ended(reason)
    }
}

/// Takes connections until the node stops.
pub(super) async fn accept_all(mesh: Arc<Mesh>) {
    loop {
        let incoming = tokio::select! {
            () = mesh.core.stop.cancelled() => return,
            incoming = mesh.core.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        if let Some((incoming, guest)) = open(&mesh, incoming) {
            mesh.core.tasks.spawn(run(mesh.clone(), incoming, guest));
        }
    }
}

/// Opens the door to a call, or leaves it closed.
fn open(mesh: &Mesh, incoming: Incoming) -> Option<(Incoming, Guest)> {
    let (host, shown) = match incoming.remote_addr() {
        IncomingAddr::Ip(addr) => (Host::of(addr), incoming.remote_addr_validated()),
        // A relay has asked its client for a proof of its key already.
        _ => (Host::Relayed, true),
    };
    match mesh.door.knock(host, shown, Instant::now()) {
        Knock::In(guest) => return Some((incoming, guest)),
        // Not even an answer is worth a packet: the caller will try again by itself.
        Knock::Crowded => incoming.ignore(),
        Knock::TooFast => incoming.refuse(),
        Knock::ShowYourself => {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "a caller is not asked for its address");
            }
        }
    }
    None
}

/// A member whose call is to become a link.
struct Admitted {
    wire: Wire,
    member: Member,
    place: Place,
}

async fn run(mesh: Arc<Mesh>, incoming: Incoming, guest: Guest) {
    let outcome = tokio::select! {
        () = mesh.core.stop.cancelled() => return,
        outcome = Box::pin(answer(&mesh, incoming, guest)) => outcome,
    };
    match outcome {
        Ok(Some(Admitted {
            wire,
            member,
            place,
        })) => live::run(&mesh, wire, member, place).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "incoming connection"),
    }
}

/// A stranger's first message and the streams it came on.
pub(crate) struct Greeting<T> {
    pub(crate) peer: NodeId,
    pub(crate) first: T,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) reader: PacketReader,
    /// One of the places for strangers; given back when the peer has proven itself.
    pub(crate) guest: Guest,
}

async fn answer(
    mesh: &Arc<Mesh>,
    incoming: Incoming,
    guest: Guest,
) -> Result<Option<Admitted>, AnswerFault> {
    let arrived = Instant::now();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(HELLO_MS);
    let connection = tokio::time::timeout_at(deadline, incoming)
        .await
        .map_err(|_| AnswerFault::TooSlow)?
        .map_err(|error| AnswerFault::Handshake(error.into()))?;
    match connection.alpn() {
        blobs::ALPN_BLOBS => blobs::answer(mesh, connection, guest).await.map(|()| None),
        ALPN_HOP => {
            let greeting = listen(connection, guest, deadline).await?;
            hop::answer(mesh, greeting).await.map(|()| None)
        }
        ALPN_MODEL => {
            let greeting = listen(connection, guest, deadline).await?;
            blobs::answer_question(mesh, greeting).await.map(|()| None)
        }
        _ => {
            let greeting = listen(connection, guest, deadline).await?;
            answer_link(mesh, greeting, arrived).await
        }
    }
}

/// Reads the first message on the first stream.
async fn listen<T: Structure>(
    connection: Connection,
    guest: Guest,
    deadline: tokio::time::Instant,
) -> Result<Greeting<T>, AnswerFault> {
    let first = async {
        let (send, recv) = connection.accept_bi().await.map_err(EndReason::from)?;
        let mut reader = PacketReader::new(recv);
        let (first, _) = reader.next::<T>(0).await?.ok_or(ReadFault::Truncated)?;
        Ok::<_, EndReason>((first, send, reader))
    };
    let peer = NodeId(*connection.remote_id().as_bytes());
    match tokio::time::timeout_at(deadline, first).await {
        Ok(Ok((first, send, reader))) => Ok(Greeting {
            peer,
            first,
            connection,
            send,
            reader,
            guest,
        }),
        Ok(Err(reason)) => {
            end::close(&connection, reason.code(), &reason.to_string());
            Err(reason.into())
        }
        Err(_) => {
            end::close(&connection, CloseCode::TooSlow, "no first message");
            Err(AnswerFault::TooSlow)
        }
    }
}

async fn answer_link(
    mesh: &Arc<Mesh>,
    greeting: Greeting<Hello>,
    arrived: Instant,
) -> Result<Option<Admitted>, AnswerFault> {
    if let Err(detail) = dial::vet(&greeting.first.member, Some(greeting.peer)) {
        let reason = EndReason::Malformed { detail };
        end::close(&greeting.connection, reason.code(), &reason.to_string());
        return Err(reason.into());
    }
    if let Some(refusal) = at_once(&greeting) {
        return refuse(greeting, refusal).await;
    }
    match judge(mesh, &greeting).await {
        Verdict::Member => admit(mesh, greeting, arrived).await,
        Verdict::Newcomer(yours) => {
            tracing::info!(peer = %greeting.peer.short(), name = greeting.first.member.name, "a new member");
            let welcome = welcome(mesh, Some(yours));
            say_last(greeting.connection, greeting.send, &welcome).await;
            Ok(None)
        }
        Verdict::Refused(refusal) => refuse(greeting, refusal).await,
    }
}

/// Why a caller is turned away before its signatures are worth a look.
fn at_once(greeting: &Greeting<Hello>) -> Option<JoinRefusal> {
    let hello = &greeting.first;
    if hello.oldest.is_some_and(|oldest| oldest > PROTOCOL_VERSION) {
        return Some(JoinRefusal::TooNew);
    }
    let newcomer = hello.membership.is_none();
    (newcomer && !greeting.guest.may_join(Instant::now())).then_some(JoinRefusal::TooMany)
}

/// Asks the policy, which may check signatures and write to disk, on a thread for such things.
async fn judge(mesh: &Mesh, greeting: &Greeting<Hello>) -> Verdict {
    let (admission, peer) = (mesh.admission.clone(), greeting.peer);
    let hello = greeting.first.clone();
    tokio::task::spawn_blocking(move || admission.admit(peer, &hello, now_s()))
        .await
        .unwrap_or(Verdict::Refused(JoinRefusal::Full))
}

async fn admit(
    mesh: &Arc<Mesh>,
    greeting: Greeting<Hello>,
    arrived: Instant,
) -> Result<Option<Admitted>, AnswerFault> {
    mesh.learn(&greeting.first.member, true);
    let place = match claim(mesh, greeting.peer, arrived).await {
        Claim::Place(place) => place,
        Claim::Duplicate => {
            end::close(&greeting.connection, CloseCode::Duplicate, "");
            return Ok(None);
        }
        Claim::Full => return refuse(greeting, JoinRefusal::Full).await,
        Claim::Again => {
            // Whoever calls anew has started anew or was cut off: its other connections are as dead as the link was. The
            // new call goes with them, since iroh would keep the dead path (module `open`); the caller calls once more.
            let reason = EndReason::Replaced;
            mesh.core.end_hops(Some(greeting.peer), &reason);
            mesh.core.open.end(greeting.peer, &reason);
            end::close(&greeting.connection, reason.code(), "");
            return Ok(None);
        }
        Claim::Barred => {
            end::close(&greeting.connection, CloseCode::Flooding, "wait a minute");
            return Ok(None);
        }
    };
    let Greeting {
        first,
        connection,
        mut send,
        reader,
        guest,
        ..
    } = greeting;
    drop(guest);
    transport::trust(&connection);
    if let Err(error) = packets::write_head(&mut send, &welcome(mesh, None)).await {
        let reason = EndReason::from(error);
        mesh.table().release(&place, reason.to_string());
        return Err(reason.into());
    }
    // Whoever calls is where no other address is known to be.
    let way = Places::default().way(&connection, Way::Theirs);
    let wire = Wire {
        connection,
        send,
        reader,
        way,
    };
    Ok(Some(Admitted {
        wire,
        member: first.member,
        place,
    }))
}

enum Claim {
    Place(Place),
    Duplicate,
    Barred,
    /// A dead link was in its place.
    Again,
    Full,
}

/// Waits for the turn of a member's call.
async fn claim(mesh: &Mesh, peer: NodeId, arrived: Instant) -> Claim {
    let mut replaces = false;
    loop {
        let turn = mesh.table().claim_for_their_call(peer, arrived);
        match turn {
            Turn::Taken(place) if replaces => {
                mesh.table()
                    .release(&place, EndReason::Replaced.to_string());
                return Claim::Again;
            }
            Turn::Taken(place) => return Claim::Place(place),
            Turn::Wait(mut phase, state) => {
                replaces |= state == PeerState::Up;
                drop(phase.wait_for(|now| *now != state).await);
            }
            Turn::Duplicate => return Claim::Duplicate,
            Turn::Barred => return Claim::Barred,
            Turn::Full => return Claim::Full,
        }
    }
}

fn welcome(mesh: &Mesh, yours: Option<Membership>) -> Welcome {
    Welcome {
        member: Some(mesh.this_member()),
        membership: Some(mesh.standing.membership.clone()),
        yours,
        refused: None,
    }
}

async fn refuse(
    greeting: Greeting<Hello>,
    refusal: JoinRefusal,
) -> Result<Option<Admitted>, AnswerFault> {
    let welcome = Welcome {
        member: None,
        membership: None,
        yours: None,
        refused: Some(refusal),
    };
    say_last(greeting.connection, greeting.send, &welcome).await;
    Err(AnswerFault::Refused(refusal))
}

/// Says a last word and gives it a moment to arrive: closing a QUIC connection discards what is still on its way.
pub(crate) async fn say_last<T: Structure>(connection: Connection, mut send: SendStream, word: &T) {
    let said = async {
        packets::write_head(&mut send, word).await.ok()?;
        send.finish().ok()?;
        connection.closed().await;
        Some(())
    };
    let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), said).await;
    end::close(&connection, CloseCode::Refused, "");
}
