//! The task per known member: dial, run the link, pause, dial again.

use super::live::{self, Wire};
use super::table::{Phase, Turn};
use super::{LinkEvent, Mesh, PeerState};
use crate::dial::{self, DialError, Greeted};
use crate::end;
use crate::limits::{REDIAL_MAX_MS, REDIAL_MIN_MS};
use crate::ways::Places;
use proto::close::CloseCode;
use proto::ids::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A link that lived this long was a good one: the pause before the next call is short again.
const STEADY: Duration = Duration::from_millis(2 * REDIAL_MAX_MS);

/// Keeps a link to `peer` for as long as it is known and the node runs.
pub(super) async fn keep_linked(mesh: Arc<Mesh>, peer: NodeId, mut phase: Phase) {
    let mut pause = Pause::default();
    loop {
        let greeted = tokio::select! {
            () = mesh.core.stop.cancelled() => return,
            greeted = Box::pin(next_link(&mesh, peer, &mut phase, &mut pause)) => greeted,
        };
        let Some(greeted) = greeted else {
            return tracing::debug!(peer = %peer.short(), "forgotten");
        };
        let began = Instant::now();
        run(&mesh, greeted).await;
        pause.after(began.elapsed());
    }
}

/// The time between two calls.
#[derive(Debug, Default)]
struct Pause(Duration);

impl Pause {
    async fn rest(&mut self) {
        tokio::time::sleep(self.0).await;
        let (min, max) = (REDIAL_MIN_MS, REDIAL_MAX_MS);
        self.0 = (self.0 * 2).clamp(Duration::from_millis(min), Duration::from_millis(max));
    }

    fn after(&mut self, life: Duration) {
        if life >= STEADY {
            self.0 = Duration::from_millis(REDIAL_MIN_MS);
        }
    }
}

/// Calls until a call comes through; `None` when the member is forgotten.
async fn next_link(
    mesh: &Arc<Mesh>,
    peer: NodeId,
    phase: &mut Phase,
    pause: &mut Pause,
) -> Option<Greeted> {
    loop {
        let began = Instant::now();
        phase.wait_for(|state| *state != PeerState::Up).await.ok()?;
        pause.after(began.elapsed());
        pause.rest().await;
        let Some(places) = mesh.table().begin_dial(peer) else {
            continue;
        };
        match dial(mesh, peer, &places, phase).await {
            None => {}
            Some(Ok(greeted)) => return Some(greeted),
            Some(Err(error)) => {
                tracing::debug!(peer = %peer.short(), %error, "call failed");
                let known = mesh.table().dial_failed(peer, error.to_string());
                if error.is_absence() {
                    mesh.emit(LinkEvent::Unreached { peer }).await;
                }
                if !known {
                    return None;
                }
            }
        }
    }
}

/// One call; `None` when an incoming one took the place meanwhile.
async fn dial(
    mesh: &Mesh,
    peer: NodeId,
    places: &Places,
    phase: &mut Phase,
) -> Option<Result<Greeted, DialError>> {
    let crossed = async {
        if phase
            .wait_for(|state| *state == PeerState::Up)
            .await
            .is_err()
        {
            // Forgotten; the call goes on to its own end.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = crossed => None,
        outcome = Box::pin(greet(mesh, peer, places)) => Some(outcome),
    }
}

async fn greet(mesh: &Mesh, peer: NodeId, places: &Places) -> Result<Greeted, DialError> {
    let standing = &mesh.standing;
    let hello = dial::hello(
        &mesh.core,
        &standing.name,
        Some(standing.membership.clone()),
        None,
    );
    dial::reach(&mesh.core, peer, places, &hello, standing.commons).await
}

async fn run(mesh: &Arc<Mesh>, greeted: Greeted) {
    let Greeted {
        connection,
        send,
        reader,
        member,
        way,
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
                    way,
                };
                return live::run(mesh, wire, member, place).await;
            }
            Turn::Wait(mut phase, state) => drop(phase.wait_for(|now| *now != state).await),
            Turn::Duplicate | Turn::Full | Turn::Barred => {
                return end::close(&connection, CloseCode::Duplicate, "");
            }
        }
    }
}
