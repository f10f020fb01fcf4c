//! The task per known member: dial, run the link, pause, dial again.

use super::live::{self, Wire};
use super::table::{Phase, Turn};
use super::{Mesh, PeerState};
use crate::dial::{self, DialError, Greeted};
use crate::end;
use crate::limits::{REDIAL_MAX_MS, REDIAL_MIN_MS};
use proto::close::CloseCode;
use proto::ids::NodeId;
use proto::member::Member;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keeps a link to `peer` for as long as it is known and the node runs.
pub(super) async fn keep_linked(mesh: Arc<Mesh>, peer: NodeId, phase: Phase) {
    tokio::select! {
        () = mesh.core.stop.cancelled() => {}
        () = dial_for_ever(&mesh, peer, phase) => tracing::debug!(peer = %peer.short(), "forgotten"),
    }
}

async fn dial_for_ever(mesh: &Arc<Mesh>, peer: NodeId, mut phase: Phase) {
    let mut pause = Duration::from_millis(REDIAL_MIN_MS);
    while phase
        .wait_for(|state| *state != PeerState::Up)
        .await
        .is_ok()
    {
        let began = Instant::now();
        let member = mesh.table().begin_dial(peer);
        if let Some(member) = member
            && !dial_once(mesh, &member, &mut phase).await
        {
            return;
        }
        // A link that lived for a while was a good one: the next pause is short again.
        if began.elapsed() > 2 * Duration::from_millis(REDIAL_MAX_MS) {
            pause = Duration::from_millis(REDIAL_MIN_MS);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(REDIAL_MAX_MS));
    }
}

/// One call and, if it comes through, the whole life of its link. False when the member is forgotten.
async fn dial_once(mesh: &Arc<Mesh>, member: &Member, phase: &mut Phase) -> bool {
    let crossed = async {
        // An incoming call took the place. If the peer is forgotten instead, the call goes on to its own end.
        if phase
            .wait_for(|state| *state == PeerState::Up)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        biased;
        () = crossed => return true,
        outcome = Box::pin(greet(mesh, member)) => outcome,
    };
    match outcome {
        Ok(greeted) => {
            run(mesh, greeted).await;
            true
        }
        Err(error) => {
            tracing::debug!(peer = %member.id.short(), %error, "call failed");
            mesh.table().dial_failed(member.id, error.to_string())
        }
    }
}

async fn greet(mesh: &Mesh, member: &Member) -> Result<Greeted, DialError> {
    let standing = &mesh.standing;
    let addrs = member.socket_addrs().unwrap_or_default();
    let hello = dial::hello(
        &mesh.core,
        &standing.name,
        Some(standing.membership.clone()),
        None,
    );
    dial::greet(&mesh.core, member.id, &addrs, &hello, standing.commons).await
}

async fn run(mesh: &Arc<Mesh>, greeted: Greeted) {
    let Greeted {
        connection,
        send,
        reader,
        member,
        ..
    } = greeted;
    mesh.learn(&member, true);
    loop {
        let turn = mesh.table().claim_for_own_call(member.id);
        match turn {
            Turn::Taken(place) => {
                let wire = Wire {
                    connection,
                    send,
                    reader,
                };
                return live::run(mesh, wire, member, place).await;
            }
            Turn::Wait(mut phase, state) => drop(phase.wait_for(|now| *now != state).await),
            Turn::Duplicate | Turn::Full => {
                return end::close(&connection, CloseCode::Duplicate, "");
            }
        }
    }
}
