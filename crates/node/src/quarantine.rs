//! The record of models that engine-hosts died with: kept in the node's state, shown to its owner, lifted by its owner.

use crate::status::QuarantineStatus;
use anyhow::bail;
use engine::Ward;
use proto::disk::ModelDeaths;
use proto::ids::Hash;
use std::sync::Arc;
use store::state::{State, StateError};

/// The ward of a running node, which goes on from what its state kept.
///
/// # Errors
///
/// When the state cannot be read.
pub fn ward(state: &Arc<State>) -> Result<Arc<Ward>, StateError> {
    let kept = state.deaths()?;
    let state = state.clone();
    let keep = move |model, record: Option<&ModelDeaths>| {
        // A record that is lost costs another death, not the node.
        if let Err(error) = state.set_deaths(model, record) {
            tracing::warn!(%error, "a model's deaths are not remembered");
        }
    };
    Ok(Arc::new(Ward::new(kept, Box::new(keep))))
}

/// The quarantined among these records, for people.
#[must_use]
pub fn status(records: Vec<(Hash, ModelDeaths)>) -> Vec<QuarantineStatus> {
    let shown = |(model, record): (Hash, ModelDeaths)| {
        Some(QuarantineStatus {
            model,
            since_s: record.quarantined_s?,
            why: engine::why(model, &record),
            name: record.name,
        })
    };
    records.into_iter().filter_map(shown).collect()
}

/// The quarantined model that a person names: by its name, by the BLAKE3 of its file, or by the beginning of that.
///
/// # Errors
///
/// When there is none, or more than one.
pub fn find(quarantined: &[QuarantineStatus], wanted: &str) -> anyhow::Result<Hash> {
    let fits = |held: &&QuarantineStatus| {
        held.name == wanted || (wanted.len() >= 8 && held.model.to_string().starts_with(wanted))
    };
    let mut found = quarantined.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(held), None) => Ok(held.model),
        (None, _) => bail!("no model {wanted} is quarantined; see: myzel model list"),
        _ => bail!(
            "more than one quarantined model is called {wanted}; name its BLAKE3, see: myzel status --json"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(byte: u8, name: &str) -> (Hash, ModelDeaths) {
        let record = ModelDeaths {
            name: name.to_owned(),
            quarantined_s: Some(1),
            ..ModelDeaths::default()
        };
        (Hash([byte; 32]), record)
    }

    #[test]
    fn a_model_is_found_by_name_and_by_hash_and_only_when_it_is_the_only_one() {
        let free = (Hash([4; 32]), ModelDeaths::default());
        let held = status(vec![held(1, "a"), held(2, "b"), held(3, "b"), free]);
        assert_eq!(held.len(), 3);
        let check = |wanted: &str, expected: Option<u8>| {
            let found = find(&held, wanted).ok();
            assert_eq!(found, expected.map(|byte| Hash([byte; 32])), "{wanted}");
        };
        check("a", Some(1));
        check("b", None);
        check("c", None);
        check(&Hash([3; 32]).to_string(), Some(3));
        check(&Hash([3; 32]).to_string()[..8], Some(3));
        check("0", None);
        check(&Hash([4; 32]).to_string(), None);
    }
}
