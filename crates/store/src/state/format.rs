//! The version of a state file, and the way up from older ones.
//!
//! A change of the tables' meaning appends one function to [`STEPS`] that rewrites the tables in place. All steps that
//! an old file needs run in one transaction: it comes out at the newest format or stays as it was.

use super::{State, StateError};
use redb::{TableDefinition, WriteTransaction};

/// From one format to the next.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// `STEPS[n]` lifts format n + 1 to n + 2. Format 1 is the first.
pub(super) const STEPS: &[Step] = &[add_deaths, add_issued];

/// Format 2 has a table of deaths.
fn add_deaths(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(super::DEATHS)?;
    Ok(())
}

/// Format 3 has a table of tickets issued.
fn add_issued(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(super::ISSUED)?;
    Ok(())
}

const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("format");
const VERSION: &str = "version";

/// The format that a chain of steps leads to.
pub(super) fn newest(steps: &[Step]) -> u32 {
    1 + u32::try_from(steps.len()).expect("a chain of steps is written by hand")
}

pub(super) fn set_version(tx: &WriteTransaction, version: u32) -> Result<(), redb::Error> {
    tx.open_table(FORMAT)?.insert(VERSION, version)?;
    Ok(())
}

/// Brings a state file to the newest format.
///
/// # Errors
///
/// [`StateError::TooNew`], [`StateError::Damaged`] when it does not say its format, or what a step failed with.
pub(super) fn lift(state: &State, steps: &[Step]) -> Result<(), StateError> {
    let path = || state.path.clone();
    let damaged = |source: Box<redb::Error>| StateError::Damaged {
        path: path(),
        source,
    };
    let read = |tx: &redb::ReadTransaction| -> Result<Option<u32>, redb::Error> {
        Ok(tx.open_table(FORMAT)?.get(VERSION)?.map(|v| v.value()))
    };
    let found = state.read(read).map_err(|error| match error {
        StateError::Failed { source, .. } => damaged(source),
        error => error,
    })?;
    let found = found.unwrap_or(0);
    let known = newest(steps);
    if found == 0 {
        let why = "it does not say its format".to_owned();
        return Err(damaged(Box::new(redb::Error::Corrupted(why))));
    }
    if found > known {
        return Err(StateError::TooNew {
            path: state.path.clone(),
            found,
            known,
        });
    }
    if found == known {
        return Ok(());
    }
    tracing::info!(path = %state.path.display(), from = found, to = known, "lifting the state file");
    state.write(|tx| {
        steps[found as usize - 1..]
            .iter()
            .try_for_each(|step| step(tx))?;
        set_version(tx, known)
    })
}
