//! Tickets that this node issued: until when, how often each was used, and which were taken back.

use super::{ISSUED, State, StateError, TICKETS};
use proto::codec::{self, DecodeError};
use proto::disk::TicketRecord;
use proto::ids::TicketId;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

/// The most tickets on record.
pub const TICKETS_KEPT_MAX: u64 = 4096;
/// For how long a ticket stays on record when its life is over, in seconds: clocks may be set back by less than that.
const ENDED_KEPT_S: u64 = 24 * 3600;

/// Whether a ticket may be used once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketUse {
    /// It may, and this use is counted.
    Counted,
    /// It was used as often as it may be.
    UsedUp,
    /// It was taken back.
    Revoked,
}

/// A ticket on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuedTicket {
    /// Its name.
    pub id: TicketId,
    /// What is kept of it.
    pub record: TicketRecord,
    /// How many machines have joined with it.
    pub uses: u32,
}

impl State {
    /// Puts a new ticket on record, and forgets those whose life is long over.
    ///
    /// # Errors
    ///
    /// [`StateError::Full`] beyond [`TICKETS_KEPT_MAX`], [`StateError::Undecodable`], [`StateError::Failed`].
    pub fn issue_ticket(&self, id: TicketId, record: &TicketRecord) -> Result<(), StateError> {
        let ended: Vec<TicketId> = self
            .tickets()?
            .iter()
            .filter(|old| old.record.not_after_s.saturating_add(ENDED_KEPT_S) < record.issued_s)
            .map(|old| old.id)
            .collect();
        let kept = self.write(|tx| {
            forget(tx, &ended)?;
            let mut issued = tx.open_table(ISSUED)?;
            let room = issued.len()? < TICKETS_KEPT_MAX;
            if room {
                issued.insert(&id.0, codec::to_vec(record).as_slice())?;
            }
            Ok(room)
        })?;
        let full = || StateError::Full {
            path: self.path.clone(),
            what: "tickets",
            max: TICKETS_KEPT_MAX,
        };
        if kept { Ok(()) } else { Err(full()) }
    }

    /// The tickets on record, the newest first.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when a record is damaged, [`StateError::Failed`].
    pub fn tickets(&self) -> Result<Vec<IssuedTicket>, StateError> {
        let rows = self.read(|tx| {
            let (issued, uses) = (tx.open_table(ISSUED)?, tx.open_table(TICKETS)?);
            let rows = issued.iter()?.map(|row| {
                let (id, bytes) = row?;
                let uses = uses.get(id.value())?.map_or(0, |v| v.value());
                Ok((TicketId(*id.value()), bytes.value().to_vec(), uses))
            });
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let mut tickets = rows
            .into_iter()
            .map(|(id, bytes, uses)| {
                let record = self.decode(&bytes)?;
                Ok(IssuedTicket { id, record, uses })
            })
            .collect::<Result<Vec<_>, StateError>>()?;
        tickets.sort_by_key(|ticket| (std::cmp::Reverse(ticket.record.issued_s), ticket.id));
        Ok(tickets)
    }

    /// Takes a ticket back at `now_s` (seconds since 1970 UTC): nobody joins with it any more. One that is not on
    /// record, since an older build issued it, is put there as `unknown`. Returns the record; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when its record is damaged, [`StateError::Failed`].
    pub fn revoke_ticket(
        &self,
        id: TicketId,
        unknown: Option<TicketRecord>,
        now_s: u64,
    ) -> Result<Option<TicketRecord>, StateError> {
        let revoked = self.write(|tx| {
            let mut issued = tx.open_table(ISSUED)?;
            let found = issued.get(&id.0)?.map(|v| decode(v.value()));
            let record = match found.transpose() {
                Ok(found) => found.or(unknown),
                Err(error) => return Ok(Err(error)),
            };
            let record = record.map(|record| TicketRecord {
                revoked_s: record.revoked_s.or(Some(now_s)),
                ..record
            });
            if let Some(record) = &record {
                issued.insert(&id.0, codec::to_vec(record).as_slice())?;
            }
            Ok(Ok(record))
        })?;
        revoked.map_err(|source| self.undecodable(source))
    }

    /// Counts a use of a ticket of ours, unless it is used up or revoked. Of callers at once, no more than `uses_max`
    /// succeed. A ticket that is not on record may be used: an older build issued it.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when its record is damaged, [`StateError::Failed`] when the use cannot be made durable.
    pub fn use_ticket(&self, id: TicketId, uses_max: Option<u32>) -> Result<TicketUse, StateError> {
        if self.ticket_revoked(id)? {
            return Ok(TicketUse::Revoked);
        }
        self.write(|tx| {
            let mut tickets = tx.open_table(TICKETS)?;
            let used = tickets.get(&id.0)?.map_or(0, |v| v.value());
            if uses_max.is_some_and(|max| used >= max) {
                return Ok(TicketUse::UsedUp);
            }
            tickets.insert(&id.0, used.saturating_add(1))?;
            Ok(TicketUse::Counted)
        })
    }

    /// Whether a ticket of ours was taken back.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when its record is damaged, [`StateError::Failed`].
    pub fn ticket_revoked(&self, id: TicketId) -> Result<bool, StateError> {
        let found = self.read(|tx| {
            let issued = tx.open_table(ISSUED)?;
            Ok(issued.get(&id.0)?.map(|v| decode(v.value())))
        })?;
        let record = found
            .transpose()
            .map_err(|source| self.undecodable(source))?;
        Ok(record.is_some_and(|record| record.revoked_s.is_some()))
    }
}

fn decode(bytes: &[u8]) -> Result<TicketRecord, DecodeError> {
    codec::from_slice(bytes)
}

fn forget(tx: &WriteTransaction, ended: &[TicketId]) -> Result<(), redb::Error> {
    let (mut issued, mut uses) = (tx.open_table(ISSUED)?, tx.open_table(TICKETS)?);
    for id in ended {
        issued.remove(&id.0)?;
        uses.remove(&id.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
