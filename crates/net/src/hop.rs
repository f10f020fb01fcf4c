//! Hops: activations from one stage of a ring to the next.
//!
//! A hop is a connection of its own with one stream. The stage before calls ([`Net::dial_hop`]) and writes; the stage
//! behind accepts ([`IncomingHop`]) and reads. Who holds an end runs it; there is no task and no queue between the
//! caller's buffer and QUIC's. Dropping either end closes the connection.

use crate::dial::DialError;
use crate::end::{self, EndReason};
use crate::endpoint::{Core, Net};
use crate::limits::{HELLO_MS, HOP_WELCOME_MS, LINGER_MS};
use crate::links::{AnswerFault, Greeting, Mesh, say_last};
use crate::packets::{self, PacketReader};
use crate::transport;
use crate::ways::Places;
use bytes::Bytes;
use iroh::endpoint::{Connection, SendStream};
use proto::close::CloseCode;
use proto::codec::DecodeError;
use proto::ids::NodeId;
use proto::member::{ALPN_HOP, Member};
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ring::{Hop, HopBody, HopHello, HopWelcome, RefusalCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A hop did not come about.
#[derive(Debug, thiserror::Error)]
pub enum HopError {
    /// The addresses of the next stage cannot be read.
    #[error(transparent)]
    Addresses(#[from] DecodeError),
    /// The next stage could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The next stage was reached and said no.
    #[error("the node {} refused the hop: {code}", peer.short())]
    Refused {
        /// Who refused.
        peer: NodeId,
        /// Why.
        code: RefusalCode,
    },
    /// The next stage was reached and did not decide.
    #[error("the node {} did not answer a hop within {HOP_WELCOME_MS} ms", peer.short())]
    Undecided {
        /// Who was called.
        peer: NodeId,
    },
    /// The connection ended first.
    #[error("the hop to the node {} ended before it began: {reason}", peer.short())]
    Ended {
        /// Who was called.
        peer: NodeId,
        /// Why it ended.
        reason: EndReason,
    },
}

/// The writing end of a hop.
#[derive(Debug)]
pub struct HopSender {
    peer: NodeId,
    connection: Connection,
    send: SendStream,
    /// Keeps the other direction of the stream open; nothing comes on it.
    _reader: PacketReader,
    /// Whether a frame was begun and not finished.
    torn: bool,
    verdict: Arc<OnceLock<EndReason>>,
}

/// The reading end of a hop.
#[derive(Debug)]
pub struct HopReceiver {
    peer: NodeId,
    connection: Connection,
    reader: PacketReader,
    /// Keeps the other direction of the stream open; nothing goes on it.
    _send: SendStream,
    _slot: OwnedSemaphorePermit,
    verdict: Arc<OnceLock<EndReason>>,
}

/// A member that wants to send activations here. Dropping it refuses without a reason.
#[derive(Debug)]
pub struct IncomingHop {
    /// Who calls. Its membership is proven.
    pub peer: NodeId,
    /// What the hop is for.
    pub hello: HopHello,
    connection: Connection,
    send: SendStream,
    reader: PacketReader,
    slot: OwnedSemaphorePermit,
    core: Arc<Core>,
}

impl Net {
    /// Calls the next stage of a ring.
    ///
    /// # Errors
    ///
    /// [`HopError`], which names the peer.
    pub async fn dial_hop(&self, member: &Member, hello: &HopHello) -> Result<HopSender, HopError> {
        let peer = member.id;
        member.socket_addrs()?;
        let places = Places::from(member).and(&self.core.ways.on_lan(peer));
        let connection = self.core.connect(peer, &places, ALPN_HOP).await?;
        let wait = Duration::from_millis(HOP_WELCOME_MS);
        let (send, reader) = match tokio::time::timeout(wait, greet(&connection, peer, hello)).await
        {
            Ok(greeted) => greeted?,
            Err(_) => return Err(HopError::Undecided { peer }),
        };
        let verdict = self.core.remember_hop(peer, &connection);
        Ok(HopSender {
            peer,
            connection,
            send,
            _reader: reader,
            torn: false,
            verdict,
        })
    }
}

async fn greet(
    connection: &Connection,
    peer: NodeId,
    hello: &HopHello,
) -> Result<(SendStream, PacketReader), HopError> {
    let ended = |reason: EndReason| HopError::Ended { peer, reason };
    let (mut send, recv) = connection.open_bi().await.map_err(|e| ended(e.into()))?;
    packets::write_head(&mut send, hello)
        .await
        .map_err(|e| ended(e.into()))?;
    let mut reader = PacketReader::new(recv);
    match reader.next::<HopWelcome>(0).await {
        Ok(Some((HopWelcome { refused: None }, _))) => Ok((send, reader)),
        Ok(Some((
            HopWelcome {
                refused: Some(code),
            },
            _,
        ))) => Err(HopError::Refused { peer, code }),
        Ok(None) => Err(ended(EndReason::Finished)),
        Err(fault) => Err(ended(fault.into())),
    }
}

/// What this node decided about a hop, else what its connection says.
fn reason(verdict: &OnceLock<EndReason>, connection: impl Into<EndReason>) -> EndReason {
    verdict.get().cloned().unwrap_or_else(|| connection.into())
}

impl HopSender {
    /// The next stage.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Writes one frame; it leaves at once. Waits while the next stage reads slower than we write.
    ///
    /// Not to be dropped half-way: the frame would be torn, so the hop closes at the next call.
    ///
    /// # Errors
    ///
    /// Why the hop ended.
    ///
    /// # Panics
    ///
    /// When the payload is over [`PAYLOAD_BYTES_MAX`]: senders split before.
    pub async fn send(&mut self, body: HopBody, payload: Bytes) -> Result<(), EndReason> {
        if self.torn {
            end::close(&self.connection, CloseCode::Malformed, "a frame was torn");
            return Err(EndReason::Here);
        }
        self.torn = true;
        let written = packets::write(&mut self.send, &Hop::from(body), payload).await;
        match written {
            Ok(()) => {
                self.torn = false;
                Ok(())
            }
            // The reason why the connection is closed says more than that a write failed.
            Err(error) => Err(self
                .connection
                .close_reason()
                .map_or(error.into(), Into::into)),
        }
    }

    /// Ends the hop behind the last frame, once the next stage has all of them.
    pub async fn finish(mut self) {
        if self.send.finish().is_ok() {
            let wait = Duration::from_millis(LINGER_MS);
            let _ = tokio::time::timeout(wait, self.send.stopped()).await;
        }
        end::close(&self.connection, CloseCode::Done, "");
    }

    /// Waits until the hop has ended, and says why.
    pub async fn ended(&self) -> EndReason {
        reason(&self.verdict, self.connection.closed().await)
    }
}

impl HopReceiver {
    /// The stage before.
    #[must_use]
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The next frame. Bodies that this build does not know are skipped. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Why the hop ended; [`EndReason::Malformed`] closes it.
    pub async fn recv(&mut self) -> Result<(HopBody, Bytes), EndReason> {
        loop {
            match self.reader.next::<Hop>(PAYLOAD_BYTES_MAX).await {
                Ok(Some((Hop { body: Some(body) }, payload))) => return Ok((body, payload)),
                Ok(Some((Hop { body: None }, _))) => {}
                Ok(None) => return Err(EndReason::Finished),
                Err(fault) => {
                    let reason = reason(&self.verdict, fault);
                    if matches!(reason, EndReason::Malformed { .. }) {
                        end::close(&self.connection, CloseCode::Malformed, &reason.to_string());
                    }
                    return Err(reason);
                }
            }
        }
    }

    /// Waits until the hop has ended, and says why. Frames may still wait to be read.
    pub async fn ended(&self) -> EndReason {
        reason(&self.verdict, self.connection.closed().await)
    }
}

impl IncomingHop {
    /// Takes the hop.
    ///
    /// # Errors
    ///
    /// Why the hop ended before.
    pub async fn accept(mut self) -> Result<HopReceiver, EndReason> {
        transport::trust(&self.connection);
        packets::write_head(&mut self.send, &HopWelcome { refused: None }).await?;
        let verdict = self.core.remember_hop(self.peer, &self.connection);
        Ok(HopReceiver {
            verdict,
            peer: self.peer,
            connection: self.connection,
            reader: self.reader,
            _send: self.send,
            _slot: self.slot,
        })
    }

    /// Turns the caller away and tells it why; waits up to [`LINGER_MS`] for that to arrive.
    pub async fn refuse(self, code: RefusalCode) {
        say_last(
            self.connection,
            self.send,
            &HopWelcome {
                refused: Some(code),
            },
        )
        .await;
    }
}

/// Checks an incoming hop's caller, then hands the hop to the node.
pub(crate) async fn answer(mesh: &Mesh, greeting: Greeting<HopHello>) -> Result<(), AnswerFault> {
    let (commons, peer) = (mesh.standing.commons, greeting.peer);
    let membership = greeting.first.membership.clone();
    let proven = tokio::task::spawn_blocking(move || {
        identity::check_membership(&membership, commons, peer).is_ok()
    });
    let slot = mesh.hop_slots.clone().try_acquire_owned();
    let (code, greeting) = match (proven.await, slot) {
        (Ok(true), Ok(slot)) => match offer(mesh, greeting, slot).await {
            Ok(()) => return Ok(()),
            Err(hop) => {
                hop.refuse(RefusalCode::NoRoom).await;
                return Err(AnswerFault::HopRefused(RefusalCode::NoRoom));
            }
        },
        (Ok(true), Err(_)) => (RefusalCode::NoRoom, greeting),
        _ => (RefusalCode::NotAMember, greeting),
    };
    say_last(
        greeting.connection,
        greeting.send,
        &HopWelcome {
            refused: Some(code),
        },
    )
    .await;
    Err(AnswerFault::HopRefused(code))
}

/// Gives the hop to the node, or back if the node does not take it in time.
async fn offer(
    mesh: &Mesh,
    greeting: Greeting<HopHello>,
    slot: OwnedSemaphorePermit,
) -> Result<(), Box<IncomingHop>> {
    let Greeting {
        peer,
        first,
        connection,
        send,
        reader,
        guest,
    } = greeting;
    let core = mesh.core.clone();
    let hop = IncomingHop {
        peer,
        hello: first,
        connection,
        send,
        reader,
        slot,
        core,
    };
    drop(guest);
    let wait = Duration::from_millis(HELLO_MS);
    match mesh.hops.send_timeout(hop, wait).await {
        Ok(()) => Ok(()),
        Err(error) => Err(Box::new(match error {
            tokio::sync::mpsc::error::SendTimeoutError::Timeout(hop)
            | tokio::sync::mpsc::error::SendTimeoutError::Closed(hop) => hop,
        })),
    }
}
