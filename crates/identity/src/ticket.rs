//! Issuing and checking tickets.

use crate::keys::{Issuer, NodeKey, verifies};
use proto::codec::DecodeError;
use proto::ids::{CommonsId, NodeId};
use proto::ticket::Ticket;

/// What a ticket is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The commons.
    pub commons: CommonsId,
    /// Where the introducer is reached: `ip:port` texts, at most [`proto::ticket::TICKET_ADDRS_MAX`].
    pub addrs: Vec<String>,
    /// Relays through which the introducer is reached: `ip:port` texts, at most [`proto::ticket::RELAYS_MAX`].
    pub relays: Vec<String>,
    /// When it ends, in seconds since 1970 UTC.
    pub not_after_s: u64,
    /// 16 random bytes.
    pub nonce: [u8; 16],
    /// How many machines may join with it; `None` is no limit within its life.
    pub uses_max: Option<u32>,
}

/// What the checker of a ticket knows beforehand. A newcomer knows nothing; an introducer knows both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    /// The commons that the ticket must be for.
    pub commons: Option<CommonsId>,
    /// The node that must have issued it.
    pub introducer: Option<NodeId>,
}

/// Why a ticket is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketFault {
    /// The signature is not the introducer's.
    #[error("the ticket is not genuine or was damaged; copy it again, whole, or ask for a new one")]
    BadSignature,
    /// Its life is over.
    #[error("the ticket expired {} s ago; ask for a new one with `myzel ticket`", now_s - not_after_s)]
    Expired {
        /// When it ended, in seconds since 1970 UTC.
        not_after_s: u64,
        /// The time it was checked at, in seconds since 1970 UTC.
        now_s: u64,
    },
    /// It is for another commons than the one expected.
    #[error("the ticket is for the commons {}, not for {}", commons.short(), expected.short())]
    OtherCommons {
        /// The commons it is for.
        commons: CommonsId,
        /// The one expected.
        expected: CommonsId,
    },
    /// Another node than the one expected issued it.
    #[error("the ticket was issued by the node {}, not by {}", introducer.short(), expected.short())]
    OtherIntroducer {
        /// Who issued it.
        introducer: NodeId,
        /// Who was expected.
        expected: NodeId,
    },
}

/// Signs a ticket.
///
/// # Errors
///
/// [`DecodeError::Invalid`] when an address or a relay of `invitation` is not `ip:port` or there are too many: nobody could
/// read the ticket.
pub fn issue_ticket(introducer: &NodeKey, invitation: Invitation) -> Result<Ticket, DecodeError> {
    let Invitation {
        commons,
        addrs,
        relays,
        not_after_s,
        nonce,
        uses_max,
    } = invitation;
    let mut ticket = Ticket {
        commons,
        introducer: introducer.id(),
        addrs,
        not_after_s,
        nonce,
        uses_max,
        signature: [0; 64],
        relays: (!relays.is_empty()).then_some(relays),
    };
    ticket.socket_addrs()?;
    ticket.relay_addrs()?;
    ticket.signature = introducer.sign(&ticket.signed_bytes());
    Ok(ticket)
}

/// Checks a ticket at the time `now_s` (seconds since 1970 UTC). Its last second still counts.
///
/// How often it was used is not known here: the introducer counts.
///
/// # Errors
///
/// [`TicketFault`]; a signature that is not genuine is reported before anything the ticket claims.
pub fn check_ticket(ticket: &Ticket, now_s: u64, expected: Expected) -> Result<(), TicketFault> {
    if !verifies(
        &ticket.introducer.0,
        &ticket.signed_bytes(),
        &ticket.signature,
    ) {
        return Err(TicketFault::BadSignature);
    }
    if let Some(expected) = expected
        .commons
        .filter(|commons| *commons != ticket.commons)
    {
        return Err(TicketFault::OtherCommons {
            commons: ticket.commons,
            expected,
        });
    }
    if let Some(expected) = expected
        .introducer
        .filter(|node| *node != ticket.introducer)
    {
        return Err(TicketFault::OtherIntroducer {
            introducer: ticket.introducer,
            expected,
        });
    }
    if now_s > ticket.not_after_s {
        return Err(TicketFault::Expired {
            not_after_s: ticket.not_after_s,
            now_s,
        });
    }
    Ok(())
}
