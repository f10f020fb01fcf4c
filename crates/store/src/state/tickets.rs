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
mod tests {
    use super::super::format::Step;
    use super::*;
    use std::path::PathBuf;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        (dir, path)
    }

    fn record(issued_s: u64, not_after_s: u64) -> TicketRecord {
        TicketRecord {
            issued_s,
            not_after_s,
            uses_max: Some(1),
            revoked_s: None,
        }
    }

    #[test]
    fn tickets_are_counted_over_restarts() {
        let (_dir, path) = fresh();
        for (nonce, uses_max, allowed) in [
            (1, Some(1), 1),
            (2, Some(3), 3),
            (3, None, 5),
            (4, Some(0), 0),
        ] {
            let mut counted = 0;
            for _ in 0..5 {
                let state = State::open(&path).unwrap();
                let used = state.use_ticket(TicketId([nonce; 16]), uses_max).unwrap();
                counted += usize::from(used == TicketUse::Counted);
            }
            assert_eq!(counted, allowed, "ticket {nonce}");
        }
    }

    #[test]
    fn a_ticket_used_by_many_at_once_is_counted_exactly() {
        let (_dir, path) = fresh();
        let state = State::open(&path).unwrap();
        let counted: usize = std::thread::scope(|scope| {
            let id = TicketId([9; 16]);
            let state = &state;
            let use_it = move || state.use_ticket(id, Some(3)).unwrap() == TicketUse::Counted;
            let uses: Vec<_> = (0..8).map(|_| scope.spawn(use_it)).collect();
            uses.into_iter()
                .map(|u| usize::from(u.join().unwrap()))
                .sum()
        });
        assert_eq!(counted, 3);
    }

    #[test]
    fn a_revoked_ticket_stays_revoked_and_others_are_not_touched() {
        let (_dir, path) = fresh();
        let (a, b, old) = (TicketId([1; 16]), TicketId([2; 16]), TicketId([3; 16]));
        let state = State::open(&path).unwrap();
        state.issue_ticket(a, &record(10, 100)).unwrap();
        state.issue_ticket(b, &record(11, 100)).unwrap();
        assert_eq!(state.use_ticket(a, Some(9)).unwrap(), TicketUse::Counted);
        let revoked = state.revoke_ticket(a, None, 50).unwrap().unwrap();
        assert_eq!(revoked.revoked_s, Some(50));
        // The first time counts, and one that nobody knows is not there to be revoked.
        let again = state.revoke_ticket(a, None, 60).unwrap().unwrap();
        assert_eq!(again.revoked_s, Some(50));
        assert_eq!(state.revoke_ticket(old, None, 50).unwrap(), None);
        state
            .revoke_ticket(old, Some(record(0, 100)), 50)
            .unwrap()
            .unwrap();
        drop(state);
        let state = State::open(&path).unwrap();
        for (id, expected) in [
            (a, TicketUse::Revoked),
            (old, TicketUse::Revoked),
            (b, TicketUse::Counted),
        ] {
            assert_eq!(state.use_ticket(id, Some(9)).unwrap(), expected, "{id}");
        }
        let listed: Vec<_> = state
            .tickets()
            .unwrap()
            .into_iter()
            .map(|t| (t.id, t.uses, t.record.revoked_s))
            .collect();
        let expected = [(b, 1, None), (a, 1, Some(50)), (old, 0, Some(50))];
        assert_eq!(listed, expected);
    }

    #[test]
    fn tickets_whose_life_is_long_over_are_forgotten() {
        let (_dir, path) = fresh();
        let state = State::open(&path).unwrap();
        let (ended, lives) = (TicketId([1; 16]), TicketId([2; 16]));
        state.issue_ticket(ended, &record(0, 100)).unwrap();
        state.use_ticket(ended, Some(1)).unwrap();
        state.issue_ticket(lives, &record(1, 101)).unwrap();
        let now_s = 101 + ENDED_KEPT_S;
        let new = TicketId([3; 16]);
        state.issue_ticket(new, &record(now_s, now_s + 9)).unwrap();
        let ids: Vec<_> = state.tickets().unwrap().iter().map(|t| t.id).collect();
        assert_eq!(ids, [new, lives]);
    }

    #[test]
    fn only_so_many_are_kept() {
        let (_dir, path) = fresh();
        let state = State::open(&path).unwrap();
        let bytes = codec::to_vec(&record(1, 9));
        let fill = state.write(|tx| {
            let mut issued = tx.open_table(ISSUED)?;
            for n in 0..TICKETS_KEPT_MAX {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&n.to_le_bytes());
                issued.insert(&id, bytes.as_slice())?;
            }
            Ok(())
        });
        fill.unwrap();
        let error = state.issue_ticket(TicketId([9; 16]), &record(2, 9));
        let error = error.unwrap_err();
        assert!(matches!(error, StateError::Full { .. }), "{error}");
    }

    #[test]
    fn a_damaged_record_lets_nobody_in() {
        let (_dir, path) = fresh();
        let state = State::open(&path).unwrap();
        let id = TicketId([1; 16]);
        let damage = state.write(|tx| {
            tx.open_table(ISSUED)?.insert(&id.0, [0xff].as_slice())?;
            Ok(())
        });
        damage.unwrap();
        let error = state.use_ticket(id, None).unwrap_err().to_string();
        assert!(error.contains("record of a ticket"), "{error}");
        assert!(state.revoke_ticket(id, None, 1).is_err());
    }

    #[test]
    fn a_file_of_the_second_format_gets_the_table() {
        let (_dir, path) = fresh();
        let nothing: [Step; 1] = [|_| Ok(())];
        let old = State::open_with(&path, &nothing).unwrap();
        old.write(|tx| Ok(tx.delete_table(ISSUED)?)).unwrap();
        assert!(
            old.tickets().is_err(),
            "the second format has no such table"
        );
        drop(old);
        assert_eq!(State::open(&path).unwrap().tickets().unwrap(), []);
    }
}
