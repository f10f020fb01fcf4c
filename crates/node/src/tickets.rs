//! Tickets: issuing, listing and taking back, and counting them at the door.

use crate::daemon::Node;
use crate::data::Data;
use crate::standing::now_s;
use anyhow::{Context, bail};
use identity::Invitation;
use net::{Doorkeeper, Spent, Standing};
use proto::disk::TicketRecord;
use proto::ids::{NodeId, TicketId};
use proto::member::Member;
use proto::ticket::{TICKET_LIFE_S, Ticket};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::state::{IssuedTicket, State, TicketUse};

/// What a ticket is to be like.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct TicketRequest {
    /// Seconds that it lives; a week without.
    pub life_s: Option<u64>,
    /// How many machines may join with it; any number without.
    pub uses: Option<u32>,
}

/// A new ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    /// Its text.
    pub ticket: String,
    /// Its name, to revoke it by.
    pub id: TicketId,
    /// When it ends, in seconds since 1970 UTC.
    pub not_after_s: u64,
    /// How many machines may join with it.
    pub uses: Option<u32>,
}

/// A ticket on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketStatus {
    /// Its name.
    pub id: TicketId,
    /// In one word: `open`, `expired`, `used` or `revoked`.
    pub state: String,
    /// When it was issued, in seconds since 1970 UTC.
    pub issued_s: u64,
    /// When it ends, in seconds since 1970 UTC.
    pub not_after_s: u64,
    /// How many machines have joined with it.
    pub uses: u32,
    /// How many may.
    pub uses_max: Option<u32>,
}

impl Node {
    /// A new ticket with this node as introducer.
    ///
    /// # Errors
    ///
    /// When the node has no address that fits into a ticket, or the ticket cannot be put on record.
    pub fn ticket(&self, wanted: TicketRequest) -> anyhow::Result<TicketReply> {
        let issued_s = now_s();
        let not_after_s = issued_s.saturating_add(wanted.life_s.unwrap_or(TICKET_LIFE_S));
        let here = self.links.this_member();
        let invitation = Invitation {
            commons: self.standing.commons,
            addrs: here.addrs,
            relays: here.relays.unwrap_or_default(),
            not_after_s,
            nonce: crate::data::random(),
            uses_max: wanted.uses,
        };
        let ticket = identity::issue_ticket(&self.data.key, invitation)?;
        let record = TicketRecord {
            issued_s,
            ..record_of(&ticket)
        };
        self.data.state.issue_ticket(ticket.id(), &record)?;
        Ok(TicketReply {
            ticket: ticket.to_text(),
            id: ticket.id(),
            not_after_s,
            uses: wanted.uses,
        })
    }

    /// The tickets on record, the newest first.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn tickets(&self) -> anyhow::Result<Vec<TicketStatus>> {
        let now_s = now_s();
        let tickets = self.data.state.tickets()?;
        Ok(tickets.into_iter().map(|t| status(t, now_s)).collect())
    }

    /// Takes back the ticket with this name or text; whoever joined with it before stays.
    ///
    /// # Errors
    ///
    /// When it is not a ticket of this node.
    pub fn revoke(&self, which: &str) -> anyhow::Result<TicketStatus> {
        let (id, unknown) = match which.parse::<TicketId>() {
            Ok(id) => (id, None),
            Err(_) => {
                let ticket = Ticket::from_text(which).with_context(
                    || "neither the name of a ticket (see: myzel ticket list) nor a whole ticket",
                )?;
                if ticket.introducer != self.net.id() {
                    bail!(
                        "the node {} issued this ticket; revoke it there",
                        ticket.introducer.short()
                    );
                }
                (ticket.id(), Some(record_of(&ticket)))
            }
        };
        let state = &self.data.state;
        state
            .revoke_ticket(id, unknown, now_s())?
            .with_context(|| format!("this node has no ticket {id}; see: myzel ticket list"))?;
        let found = state.tickets()?.into_iter().find(|ticket| ticket.id == id);
        Ok(status(
            found.context("the ticket's record is gone")?,
            now_s(),
        ))
    }
}

fn record_of(ticket: &Ticket) -> TicketRecord {
    TicketRecord {
        issued_s: 0,
        not_after_s: ticket.not_after_s,
        uses_max: ticket.uses_max,
        revoked_s: None,
    }
}

fn status(ticket: IssuedTicket, now_s: u64) -> TicketStatus {
    let IssuedTicket { id, record, uses } = ticket;
    let state = if record.revoked_s.is_some() {
        "revoked"
    } else if now_s > record.not_after_s {
        "expired"
    } else if record.uses_max.is_some_and(|max| uses >= max) {
        "used"
    } else {
        "open"
    };
    TicketStatus {
        id,
        state: state.to_owned(),
        issued_s: record.issued_s,
        not_after_s: record.not_after_s,
        uses,
        uses_max: record.uses_max,
    }
}

/// Who lets members and newcomers in, counting tickets on disk.
#[must_use]
pub fn doorkeeper(data: &Data, standing: &Standing) -> Doorkeeper {
    let state = data.state.clone();
    let spend = move |ticket: &Ticket, newcomer: NodeId| spend(&state, ticket, newcomer);
    let (commons, membership) = (standing.commons, standing.membership.clone());
    Doorkeeper::new(data.key.clone(), commons, membership, spend)
}

fn spend(state: &Arc<State>, ticket: &Ticket, newcomer: NodeId) -> Spent {
    let id = ticket.id();
    let known = || {
        let members = state.members::<Member>();
        members.is_ok_and(|m| m.iter().any(|(id, _)| *id == newcomer))
    };
    // Who was let in before comes in again with the same ticket, unless that was taken back.
    match state.ticket_revoked(id) {
        Ok(false) if known() => return Spent::Counted,
        Ok(false) => {}
        Ok(true) => return Spent::Revoked,
        Err(error) => {
            tracing::warn!(%error, "a newcomer is turned away: its ticket cannot be looked up");
            return Spent::Unknown;
        }
    }
    match state.use_ticket(id, ticket.uses_max) {
        Ok(TicketUse::Counted) => Spent::Counted,
        Ok(TicketUse::UsedUp) => Spent::UsedUp,
        Ok(TicketUse::Revoked) => Spent::Revoked,
        Err(error) => {
            tracing::warn!(%error, "a newcomer is turned away: its ticket cannot be counted");
            Spent::Unknown
        }
    }
}
