//! Which models engine-hosts died with.

use super::{DEATHS, State, StateError};
use proto::codec;
use proto::disk::ModelDeaths;
use proto::ids::Hash;
use redb::ReadableTable;

impl State {
    /// The deaths on record, by the hash of the model.
    ///
    /// # Errors
    ///
    /// [`StateError::Undecodable`] when a record is damaged, [`StateError::Failed`].
    pub fn deaths(&self) -> Result<Vec<(Hash, ModelDeaths)>, StateError> {
        let rows = self.read(|tx| {
            let deaths = tx.open_table(DEATHS)?;
            let rows = deaths.iter()?.map(|row| {
                let (model, bytes) = row?;
                Ok((Hash(*model.value()), bytes.value().to_vec()))
            });
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.into_iter()
            .map(|(model, bytes)| Ok((model, self.decode(&bytes)?)))
            .collect()
    }

    /// Keeps what is on record about a model; `None` forgets it.
    ///
    /// # Errors
    ///
    /// [`StateError::Failed`] when it cannot be made durable.
    pub fn set_deaths(&self, model: Hash, deaths: Option<&ModelDeaths>) -> Result<(), StateError> {
        let bytes = deaths.map(codec::to_vec);
        self.write(|tx| {
            let mut table = tx.open_table(DEATHS)?;
            match &bytes {
                Some(bytes) => table.insert(&model.0, bytes.as_slice())?,
                None => table.remove(&model.0)?,
            };
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Step;
    use super::*;

    #[test]
    fn deaths_survive_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let record = ModelDeaths {
            name: "m".to_owned(),
            times_s: vec![5],
            newest: "SIGABRT".to_owned(),
            quarantined_s: Some(6),
        };
        let state = State::open(&path).unwrap();
        state.set_deaths(Hash([1; 32]), Some(&record)).unwrap();
        drop(state);
        let state = State::open(&path).unwrap();
        assert_eq!(state.deaths().unwrap(), [(Hash([1; 32]), record)]);
        state.set_deaths(Hash([1; 32]), None).unwrap();
        state.set_deaths(Hash([2; 32]), None).unwrap();
        assert_eq!(state.deaths().unwrap(), []);
    }

    #[test]
    fn a_file_of_the_first_format_gets_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let steps: [Step; 0] = [];
        let old = State::open_with(&path, &steps).unwrap();
        old.write(|tx| Ok(tx.delete_table(DEATHS)?)).unwrap();
        assert!(old.deaths().is_err(), "the first format has no such table");
        drop(old);
        assert_eq!(State::open(&path).unwrap().deaths().unwrap(), []);
    }
}
