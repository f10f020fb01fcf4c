//! Models that engine-hosts die with, and when to stop trying them.
//!
//! A model that brings its engine-host down again and again is damaged, too large, or made to do that. After
//! [`DEATHS_MAX`] deaths within [`DEATHS_WINDOW_S`] it is quarantined: it is not tried again until its owner releases it.
//! Stages count for the model that they are cut from.
//!
//! A death counts when the process ended by itself while it loaded or while a call waited for its answer, however it
//! ended: by abort, by the kernel for want of memory, by a person. It does not count when nobody waited, when
//! the process was asked to end (SIGTERM, SIGINT, SIGHUP), when it ended itself because a caller's text takes too much
//! (SIGXCPU), or when the node itself ended it.

use proto::disk::{DEATH_TEXT_BYTES_MAX, DEATHS_KEPT_MAX, ModelDeaths};
use proto::ids::Hash;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// So many deaths within [`DEATHS_WINDOW_S`] are too many.
pub const DEATHS_MAX: usize = 3;
/// The time in which deaths are counted, in seconds.
pub const DEATHS_WINDOW_S: u64 = 600;

const _: () = assert!(DEATHS_MAX <= DEATHS_KEPT_MAX);

/// Makes a change durable; `None` forgets the model.
pub type Keep = Box<dyn Fn(Hash, Option<&ModelDeaths>) + Send + Sync>;

/// The record of all models of a node.
pub struct Ward {
    deaths: Mutex<BTreeMap<Hash, ModelDeaths>>,
    keep: Keep,
    /// Counts releases, to wake who waits for one.
    releases: watch::Sender<u64>,
}

impl fmt::Debug for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ward")
            .field("deaths", &self.deaths())
            .finish_non_exhaustive()
    }
}

impl Ward {
    /// Goes on from what was kept before.
    #[must_use]
    pub fn new(kept: impl IntoIterator<Item = (Hash, ModelDeaths)>, keep: Keep) -> Self {
        Self {
            deaths: Mutex::new(kept.into_iter().collect()),
            keep,
            releases: watch::Sender::new(0),
        }
    }

    fn deaths(&self) -> MutexGuard<'_, BTreeMap<Hash, ModelDeaths>> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an engine-host died with a model.
    fn died(&self, model: Hash, name: &str, why: &str, now_s: u64) {
        let mut deaths = self.deaths();
        let old = |time: &u64| now_s.saturating_sub(*time) > DEATHS_WINDOW_S;
        // Whoever has been well for long is forgotten, so the record stays short.
        deaths.retain(|other, record| {
            let stays = *other == model
                || record.quarantined_s.is_some()
                || !record.times_s.iter().all(old);
            if !stays {
                (self.keep)(*other, None);
            }
            stays
        });
        let record = deaths.entry(model).or_default();
        record.name = cut(name);
        record.newest = cut(why);
        record.times_s.retain(|time| !old(time));
        record.times_s.push(now_s);
        let surplus = record.times_s.len().saturating_sub(DEATHS_KEPT_MAX);
        record.times_s.drain(..surplus);
        if record.times_s.len() >= DEATHS_MAX {
            record.quarantined_s.get_or_insert(now_s);
        }
        (self.keep)(model, Some(record));
    }

    /// Why a model is quarantined, with the next step; `None` when it is not.
    #[must_use]
    pub fn why(&self, model: Hash) -> Option<String> {
        let deaths = self.deaths();
        let record = deaths.get(&model)?;
        record.quarantined_s?;
        Some(why(model, record))
    }

    /// The quarantined models.
    #[must_use]
    pub fn quarantined(&self) -> Vec<(Hash, ModelDeaths)> {
        let deaths = self.deaths();
        let held = deaths
            .iter()
            .filter(|(_, record)| record.quarantined_s.is_some());
        held.map(|(model, record)| (*model, record.clone()))
            .collect()
    }

    /// Forgets a model's deaths, so that it is tried again; whether it was quarantined.
    pub fn release(&self, model: Hash) -> bool {
        let record = self.deaths().remove(&model);
        (self.keep)(model, None);
        self.releases.send_modify(|count| *count += 1);
        record.is_some_and(|record| record.quarantined_s.is_some())
    }
}

/// Why a model with this record is quarantined, with the next step.
#[must_use]
pub fn why(model: Hash, record: &ModelDeaths) -> String {
    let ModelDeaths {
        name,
        newest,
        times_s,
        ..
    } = record;
    format!(
        "the model {name} (BLAKE3 {}) is quarantined: {} engine processes died with it within {} minutes, the last one so: \
         {newest}. Use another model; or, once the cause is gone, release it with: myzel model release {model}",
        model.short(),
        times_s.len(),
        DEATHS_WINDOW_S / 60,
    )
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(DEATH_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The model of one engine-host, in its ward.
#[derive(Debug, Clone)]
pub struct Patient {
    /// BLAKE3 of the model, also for its stages.
    pub model: Hash,
    /// What people call it.
    pub name: String,
    /// The record.
    pub ward: Arc<Ward>,
}

impl Patient {
    pub(crate) fn died(&self, why: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.map_or(0, |now| now.as_secs());
        self.ward.died(self.model, &self.name, why, now_s);
    }

    pub(crate) fn quarantined(&self) -> Option<String> {
        self.ward.why(self.model)
    }

    /// Waits until the model is not quarantined.
    pub(crate) async fn released(&self) {
        let mut releases = self.ward.releases.subscribe();
        // The ward lives as long as we hold it, so nothing ends this but a release.
        let _ = releases.wait_for(|_| self.quarantined().is_none()).await;
    }
}

#[cfg(test)]
mod tests;
