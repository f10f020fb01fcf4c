//! A link while it is up.
//!
//! Reading and writing are two futures in one task, so that a peer that does not read cannot keep us from noticing
//! that it fell silent. Time spent waiting for the node to take an event does not count as silence of the peer.

use super::meter::{Meter, Pace};
use super::table::{Place, Vitals};
use super::{LinkEvent, Mesh, encode};
use crate::end::{self, EndReason};
use crate::limits::{DOUBT_LAPS, DOUBT_MS, FLOOD_PENANCE_MS, MEMBERS_PER_MESSAGE, OWN_DELAY_MS};
use crate::packets::PacketReader;
use crate::ways::{Way, is_relayed};
use bytes::Bytes;
use iroh::endpoint::{Connection, SendStream};
use proto::ids::NodeId;
use proto::member::{HEARTBEAT_MS, Member, SUSPECT_MS};
use proto::ring::{Heartbeat, Link, LinkBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// A link's connection.
pub(super) struct Wire {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) reader: PacketReader,
    pub(super) way: Way,
}

/// Runs a link from its first to its last moment, and tells the node of both.
pub(super) async fn run(mesh: &Arc<Mesh>, wire: Wire, member: Member, mut place: Place) {
    let Wire {
        connection,
        send,
        mut reader,
        way,
    } = wire;
    let peer = place.peer;
    place.vitals.came(way);
    tracing::info!(peer = %peer.short(), name = member.name, ?way, "link up");
    mesh.use_relays(&member).await;
    mesh.emit(LinkEvent::Up { member }).await;
    let reason = tokio::select! {
        biased;
        () = mesh.core.stop.cancelled() => EndReason::Here,
        () = place.replaced.cancelled() => EndReason::Replaced,
        reason = write_all(mesh, send, &mut place.outbox) => reason,
        reason = read_all(mesh, &mut reader, peer, &place.own, &place.vitals) => reason,
        never = watch_way(&connection, &place.vitals) => match never {},
    };
    end::close(&connection, reason.code(), &reason.to_string());
    tracing::info!(peer = %peer.short(), %reason, "link lost");
    if matches!(reason, EndReason::Silent { .. }) {
        // Its hops are as dead as the link, and QUIC would notice much later.
        mesh.core.end_hops(Some(peer), &reason);
        mesh.core.open.end(peer, &reason);
    }
    mesh.emit(LinkEvent::Lost {
        peer,
        reason: reason.clone(),
    })
    .await;
    let mut table = mesh.table();
    if reason == EndReason::Flooding {
        table.bar(
            peer,
            Instant::now() + Duration::from_millis(FLOOD_PENANCE_MS),
        );
    }
    table.release(&place, reason.to_string());
}

/// Looks again and again whether a link goes over a relay: a direct way may be found, or lost.
async fn watch_way(connection: &Connection, vitals: &Vitals) -> Infallible {
    loop {
        vitals.goes(is_relayed(connection));
        tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS)).await;
    }
}

/// Writes who we know, heartbeats, and what the node says.
async fn write_all(
    mesh: &Mesh,
    mut send: SendStream,
    outbox: &mut mpsc::Receiver<Bytes>,
) -> EndReason {
    let members = mesh.table().members();
    for some in members.chunks(MEMBERS_PER_MESSAGE) {
        let message = own_message(LinkBody::Members(some.to_vec()));
        if let Err(error) = send.write_chunk(message).await {
            return error.into();
        }
    }
    let mut beat = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            _ = beat.tick() => heartbeat(mesh, None),
            message = outbox.recv() => match message {
                Some(message) => message,
                None => return EndReason::Here,
            },
        };
        if let Err(error) = send.write_chunk(message).await {
            return error.into();
        }
    }
}

/// A heartbeat. One without an echo asks for one with; that one is not answered.
fn heartbeat(mesh: &Mesh, echo_us: Option<u64>) -> Bytes {
    let incarnation = mesh.standing.incarnation;
    own_message(LinkBody::Heartbeat(Heartbeat {
        incarnation,
        sent_us: now_us(mesh),
        echo_us,
    }))
}

fn own_message(body: LinkBody) -> Bytes {
    encode(&body.into()).expect("members were vetted and are sent in small groups")
}

fn now_us(mesh: &Mesh) -> u64 {
    u64::try_from(mesh.began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Reads until the peer falls silent, leaves, says nonsense or too much.
async fn read_all(
    mesh: &Arc<Mesh>,
    reader: &mut PacketReader,
    peer: NodeId,
    own: &mpsc::Sender<Bytes>,
    vitals: &Vitals,
) -> EndReason {
    let mut meter = Meter::new(Instant::now());
    loop {
        let before = reader.taken();
        let doubted = || drop(own.try_send(heartbeat(mesh, None)));
        let body = match patiently(reader.next::<Link>(0), vitals, doubted).await {
            Ok(Ok(Some((link, _)))) => link.body,
            Ok(Ok(None)) => return EndReason::Finished,
            Ok(Err(fault)) => return fault.into(),
            Err(silent_ms) => {
                mesh.emit(LinkEvent::Silent { peer, silent_ms }).await;
                return EndReason::Silent { silent_ms };
            }
        };
        let bytes = usize::try_from(reader.taken() - before).unwrap_or(usize::MAX);
        match meter.heard(bytes, Instant::now()) {
            Pace::Go => {}
            Pace::Wait(wait) => tokio::time::sleep(wait).await,
            Pace::Flood => return EndReason::Flooding,
        }
        match body {
            None => {}
            Some(LinkBody::Heartbeat(beat)) => take_heartbeat(mesh, beat, own, vitals),
            Some(LinkBody::Members(members)) => mesh.heard_of(peer, &members).await,
            Some(body) => mesh.emit(LinkEvent::Message { peer, body }).await,
        }
    }
}

/// Waits for a sign of life: as long as it takes to miss three heartbeats, or much shorter once somebody doubts that there
/// is anybody, who is then asked. The error is for how long nothing came, in milliseconds.
async fn patiently<T>(
    sign: impl Future<Output = T>,
    vitals: &Vitals,
    ask: impl Fn(),
) -> Result<T, u64> {
    let begun = Instant::now();
    let mut patience = Duration::from_millis(SUSPECT_MS);
    let mut sign = std::pin::pin!(sign);
    loop {
        tokio::select! {
            biased;
            sign = &mut sign => return Ok(sign),
            () = vitals.doubted() => {
                ask();
                let more = Duration::from_millis(DOUBT_MS) + vitals.laps() * DOUBT_LAPS;
                patience = patience.min(begun.elapsed() + more);
            }
            () = tokio::time::sleep(patience.saturating_sub(begun.elapsed())) => {
                let late = begun.elapsed().saturating_sub(patience);
                if late < Duration::from_millis(OWN_DELAY_MS) {
                    return Err(begun.elapsed().as_millis() as u64);
                }
                // What came meanwhile may not have been read.
                patience = begun.elapsed() + late.min(Duration::from_millis(DOUBT_MS));
            }
        }
    }
}

fn take_heartbeat(mesh: &Mesh, beat: Heartbeat, own: &mpsc::Sender<Bytes>, vitals: &Vitals) {
    vitals.heard_incarnation(beat.incarnation);
    match beat.echo_us {
        // A full outbox means that the peer reads slowly; it will hear from us without this answer.
        None => drop(own.try_send(heartbeat(mesh, Some(beat.sent_us)))),
        Some(echo_us) => {
            if let Some(rtt_us) = now_us(mesh).checked_sub(echo_us) {
                vitals.measured(rtt_us);
            }
        }
    }
}
