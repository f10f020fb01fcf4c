//! Calling: the handshake of a link from the caller's side, and joining.

use crate::end::{self, EndReason};
use crate::endpoint::{Core, Net, now_s};
use crate::limits::DIAL_MS;
use crate::packets::{self, PacketReader};
use crate::transport;
use crate::ways::{Places, Way};
use identity::{Expected, MembershipFault, TicketFault, check_membership, check_ticket};
use iroh::endpoint::{Connection, SendStream};
use proto::close::CloseCode;
use proto::codec::DecodeError;
use proto::ids::{CommonsId, NodeId};
use proto::member::{ALPN_LINK, Hello, JoinRefusal, Member, Membership, NAME_CHARS_MAX, Welcome};
use proto::ring::{PROTOCOL_OLDEST, PROTOCOL_VERSION};
use proto::ticket::Ticket;
use std::error::Error;
use std::time::Duration;

/// A call that led to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name is no public key.
    #[error("{peer} is not the id of a node")]
    NotAKey {
        /// What was to be called.
        peer: NodeId,
        /// Why it is not one.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No address is worth a try from here.
    #[error("the node {} gave no address that can be reached from here (it gave: {addrs})", peer.short())]
    NoAddress {
        /// Who was to be called.
        peer: NodeId,
        /// The addresses that it gave.
        addrs: String,
    },
    /// Nobody answered.
    #[error(
        "the node {} did not answer at {addrs} within {DIAL_MS} ms; is it running, and may UDP pass?",
        peer.short()
    )]
    TimedOut {
        /// Who was called.
        peer: NodeId,
        /// The addresses that were tried.
        addrs: String,
    },
    /// The call failed.
    #[error("cannot reach the node {} at {addrs}: {source}", peer.short())]
    Unreachable {
        /// Who was called.
        peer: NodeId,
        /// The addresses that were tried.
        addrs: String,
        /// What QUIC says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody answered, and the other ways led nowhere either.
    #[error("{source}; it was not found {ways} either")]
    NotFound {
        /// What came of calling it where it was known to be.
        source: Box<DialError>,
        /// Where else was looked.
        ways: String,
    },
    /// The node answered, and turned us away.
    #[error("the node {} refused: {refusal}", peer.short())]
    Refused {
        /// Who refused.
        peer: NodeId,
        /// Why.
        refusal: JoinRefusal,
    },
    /// The node answered, and turned us away for a reason that a newer build knows.
    #[error(
        "the node {} refused for a reason that this build does not know; it is newer, so update myzel here",
        peer.short()
    )]
    RefusedAnew {
        /// Who refused.
        peer: NodeId,
    },
    /// The node answered, and is not a member itself.
    #[error("the node {} answered but is not a member of the commons: {source}", peer.short())]
    Stranger {
        /// Who answered.
        peer: NodeId,
        /// What is wrong with its proof.
        source: MembershipFault,
    },
    /// The connection ended before the answer.
    #[error("the node {} hung up: {reason}", peer.short())]
    Ended {
        /// Who was called.
        peer: NodeId,
        /// Why it ended.
        reason: EndReason,
    },
}

impl DialError {
    /// Whether nobody of that name is there, so that looking elsewhere makes sense.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NoAddress { .. } | Self::TimedOut { .. } | Self::Unreachable { .. }
        )
    }
}

/// Joining did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The ticket is not valid; nobody was called.
    #[error(transparent)]
    Ticket(#[from] TicketFault),
    /// The ticket's addresses cannot be read.
    #[error(transparent)]
    Addresses(#[from] DecodeError),
    /// The ticket is this node's own.
    #[error("this node issued the ticket itself; use it on another machine")]
    OwnTicket,
    /// The introducer could not be reached, or said no.
    #[error("cannot join: {0}")]
    Dial(#[from] DialError),
    /// The introducer let us in with a proof that proves nothing.
    #[error("the node {} gave a proof of membership that is not valid: {source}", introducer.short())]
    BadProof {
        /// Who gave it.
        introducer: NodeId,
        /// What is wrong with it.
        source: MembershipFault,
    },
}

/// What a newcomer has after joining. To be kept on disk: the ticket may be used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The commons.
    pub commons: CommonsId,
    /// The proof for this node.
    pub membership: Membership,
    /// Who let it in: the first member to call.
    pub introducer: Member,
}

impl Net {
    /// Joins the commons of `ticket` under the name `name`. Not a link yet: [`Net::start`] makes those.
    ///
    /// # Errors
    ///
    /// [`JoinError`], after [`DIAL_MS`] when nobody answers and no other way is open.
    pub async fn join(&self, ticket: &Ticket, name: &str) -> Result<Joined, JoinError> {
        check_ticket(ticket, now_s(), Expected::default())?;
        let peer = ticket.introducer;
        if peer == self.core.id {
            return Err(JoinError::OwnTicket);
        }
        ticket.socket_addrs()?;
        self.core.ways.open(&self.core, ticket.commons);
        let hello = hello(&self.core, name, None, Some(ticket.clone()));
        let greeted = find(&self.core, peer, &ticket.into(), &hello, ticket.commons).await?;
        tracing::info!(way = ?greeted.way, "joined");
        end::close(&greeted.connection, CloseCode::Done, "");
        let membership = greeted.yours.unwrap_or(Membership { chain: Vec::new() });
        check_membership(&membership, ticket.commons, self.core.id).map_err(|source| {
            JoinError::BadProof {
                introducer: peer,
                source,
            }
        })?;
        Ok(Joined {
            commons: ticket.commons,
            membership,
            introducer: greeted.member,
        })
    }
}

/// A link's connection behind its handshake, seen from the caller.
pub(crate) struct Greeted {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) reader: PacketReader,
    pub(crate) member: Member,
    pub(crate) yours: Option<Membership>,
    pub(crate) way: Way,
}

/// What this node says first.
pub(crate) fn hello(
    core: &Core,
    name: &str,
    membership: Option<Membership>,
    ticket: Option<Ticket>,
) -> Hello {
    Hello {
        version: PROTOCOL_VERSION,
        member: this_member(core, name),
        membership,
        ticket,
        oldest: Some(PROTOCOL_OLDEST),
    }
}

/// This node as others are to know it.
pub(crate) fn this_member(core: &Core, name: &str) -> Member {
    let home = core.ways.relays.home(&core.endpoint);
    Member {
        id: core.id,
        addrs: core.addrs().iter().map(ToString::to_string).collect(),
        name: name.chars().take(NAME_CHARS_MAX).collect(),
        relays: home.map(|at| vec![at.to_string()]),
    }
}

/// Calls a member where it is known to be or was seen on the local network, then, now and then, where the DHT says.
pub(crate) async fn reach(
    core: &Core,
    peer: NodeId,
    known: &Places,
    hello: &Hello,
    commons: CommonsId,
) -> Result<Greeted, DialError> {
    let error = match greet_near(core, peer, known, hello, commons).await {
        Ok(decided) => return decided,
        Err(absence) => absence,
    };
    let Some(found) = core.ways.in_dht(peer, false).await else {
        return Err(error);
    };
    greet(core, peer, (known, &found), Way::Dht, hello, commons).await
}

/// Calls an introducer that a newcomer cannot do without: waits for the other ways where the known one leads nowhere.
async fn find(
    core: &Core,
    peer: NodeId,
    known: &Places,
    hello: &Hello,
    commons: CommonsId,
) -> Result<Greeted, DialError> {
    let error = match greet_near(core, peer, known, hello, commons).await {
        Ok(decided) => return decided,
        Err(absence) => absence,
    };
    let ways = core.ways.names();
    if ways.is_empty() {
        return Err(error);
    }
    let meet =
        async |way, found: Places| match greet(core, peer, (known, &found), way, hello, commons)
            .await
        {
            Err(error) if error.is_absence() => None,
            decided => Some(decided),
        };
    let decided = core.ways.search(peer, meet).await;
    decided.unwrap_or_else(|| {
        Err(DialError::NotFound {
            source: Box::new(error),
            ways: ways.join(" or "),
        })
    })
}

/// Calls a member where it is known to be, and where the local network has seen it. The outer error is that nobody of that
/// name is there, so that other ways may lead further; everything else is decided.
async fn greet_near(
    core: &Core,
    peer: NodeId,
    known: &Places,
    hello: &Hello,
    commons: CommonsId,
) -> Result<Result<Greeted, DialError>, DialError> {
    let near = known.and(&core.ways.on_lan(peer));
    let greeted = match greet(core, peer, (known, &near), Way::Lan, hello, commons).await {
        // Somebody with another key at one address ends the call to all of them. Anybody may announce an address on the
        // local network, so the known ones are called once more without it.
        Err(DialError::Unreachable { .. }) if near != *known => {
            greet(core, peer, (known, known), Way::Known, hello, commons).await
        }
        decided => decided,
    };
    match greeted {
        Err(error) if error.is_absence() => Err(error),
        decided => Ok(decided),
    }
}

/// Calls `peer`, says `hello`, and checks that who answers belongs to `commons`. Those of its `places` that were not known
/// came by the way `found`.
async fn greet(
    core: &Core,
    peer: NodeId,
    (known, places): (&Places, &Places),
    found: Way,
    hello: &Hello,
    commons: CommonsId,
) -> Result<Greeted, DialError> {
    let call = Box::pin(greet_unbounded(core, peer, places, hello, commons));
    match tokio::time::timeout(Duration::from_millis(DIAL_MS), call).await {
        Ok(Ok(greeted)) => Ok(Greeted {
            way: known.way(&greeted.connection, found),
            ..greeted
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(DialError::TimedOut {
            peer,
            addrs: places.to_string(),
        }),
    }
}

async fn greet_unbounded(
    core: &Core,
    peer: NodeId,
    places: &Places,
    hello: &Hello,
    commons: CommonsId,
) -> Result<Greeted, DialError> {
    let connection = core.connect(peer, places, ALPN_LINK).await?;
    let ended = |reason: EndReason| DialError::Ended { peer, reason };
    let (mut send, recv) = connection.open_bi().await.map_err(|e| ended(e.into()))?;
    packets::write_head(&mut send, hello)
        .await
        .map_err(|e| ended(e.into()))?;
    let mut reader = PacketReader::new(recv);
    let welcome = match reader.next::<Welcome>(0).await {
        Ok(Some((welcome, _))) => welcome,
        Ok(None) => return Err(ended(EndReason::Finished)),
        Err(fault) => return Err(ended(fault.into())),
    };
    let (member, yours) = check_welcome(welcome, peer, commons).inspect_err(|error| {
        let code = match error {
            DialError::Refused { .. } | DialError::RefusedAnew { .. } => CloseCode::Done,
            _ => CloseCode::Refused,
        };
        end::close(&connection, code, "");
    })?;
    transport::trust(&connection);
    Ok(Greeted {
        connection,
        send,
        reader,
        member,
        yours,
        way: Way::Known,
    })
}

fn check_welcome(
    welcome: Welcome,
    peer: NodeId,
    commons: CommonsId,
) -> Result<(Member, Option<Membership>), DialError> {
    if let Some(refusal) = welcome.refused {
        return Err(DialError::Refused { peer, refusal });
    }
    let Some(membership) = welcome.membership else {
        return Err(DialError::RefusedAnew { peer });
    };
    check_membership(&membership, commons, peer)
        .map_err(|source| DialError::Stranger { peer, source })?;
    let member = welcome
        .member
        .ok_or_else(|| "no member in the welcome".to_owned());
    match member.and_then(|member| vet(&member, Some(peer)).map(|()| member)) {
        Ok(member) => Ok((member, welcome.yours)),
        Err(detail) => Err(DialError::Ended {
            peer,
            reason: EndReason::Malformed { detail },
        }),
    }
}

/// Checks what a peer says of a member, which must be `id` if that is given.
pub(crate) fn vet(member: &Member, id: Option<NodeId>) -> Result<(), String> {
    if id.is_some_and(|id| id != member.id) {
        return Err(format!("it calls itself {}", member.id.short()));
    }
    if member.name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("a name of more than {NAME_CHARS_MAX} characters"));
    }
    member
        .socket_addrs()
        .and_then(|_| member.relay_addrs())
        .map(drop)
        .map_err(|error| error.to_string())
}
