//! A run in parts: what was measured so far, in a file below `target`, until all of it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::RTTS_MS;
use super::forecast::Forecasts;
use super::ring::{Figures, Layers, Ring};
use crate::rig::started::Started;

/// The file, below the repository.
const KEPT: &str = "target/token-time.json";

/// A part of a run: one ring, at all of its distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub(super) enum Part {
    /// Times over one remote stage
    #[value(name = "ring-1")]
    Ring1,
    /// Times over two remote stages
    #[value(name = "ring-2")]
    Ring2,
    /// Forecasts for one remote stage
    #[value(name = "forecast-1")]
    Forecast1,
    /// Forecasts for two remote stages
    #[value(name = "forecast-2")]
    Forecast2,
    /// Forecasts for one remote stage over loopback
    #[value(name = "loopback-1")]
    Loopback1,
    /// Forecasts for two remote stages over loopback
    #[value(name = "loopback-2")]
    Loopback2,
}

impl Part {
    /// All of them, as the page has them.
    pub(super) const ALL: [Self; 6] = [
        Self::Ring1,
        Self::Ring2,
        Self::Loopback1,
        Self::Forecast1,
        Self::Loopback2,
        Self::Forecast2,
    ];

    /// Remote stages, and who says which layers they have.
    pub(super) fn ring(self) -> (u32, Layers) {
        match self {
            Self::Ring1 => (1, Layers::Asked),
            Self::Ring2 => (2, Layers::Asked),
            Self::Forecast1 => (1, Layers::Planned),
            Self::Forecast2 => (2, Layers::Planned),
            Self::Loopback1 => (1, Layers::Together),
            Self::Loopback2 => (2, Layers::Together),
        }
    }
}

/// What was measured of one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    revision: String,
    rounds: usize,
    figures: BTreeMap<Part, Figures>,
    forecasts: BTreeMap<Part, Forecasts>,
}

impl Measured {
    /// Nothing yet.
    pub(super) fn new(revision: &str, rounds: usize) -> Self {
        Self {
            revision: revision.to_owned(),
            rounds,
            figures: BTreeMap::new(),
            forecasts: BTreeMap::new(),
        }
    }

    /// What runs of this revision and of so many rounds have kept.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub(super) fn read(root: &Path, revision: &str, rounds: usize) -> Result<Self> {
        let nothing = Self::new(revision, rounds);
        let path = kept(root);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(nothing),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // What another version of this program kept is of no use.
        let before = serde_json::from_str::<Self>(&text).ok();
        let same = before.filter(|it| it.revision == revision && it.rounds == rounds);
        Ok(same.unwrap_or(nothing))
    }

    /// Keeps what was measured.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let path = kept(root);
        let text = serde_json::to_string_pretty(self)?;
        let dir = path.parent().context("a file is in a directory")?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Measures a part on a ring that is up.
    ///
    /// # Errors
    ///
    /// When a link is not as asked, a node fails, or the run is interrupted.
    pub(super) fn add(&mut self, part: Part, ring: Ring, started: &Started) -> Result<()> {
        let (split, layers) = part.ring();
        let far = || [0].into_iter().chain(RTTS_MS).map(Some).collect();
        let rtts: Vec<Option<u32>> = match layers {
            Layers::Asked => {
                let figures = ring.measure(started, self.rounds)?;
                self.figures.insert(part, figures);
                return Ok(());
            }
            Layers::Planned => far(),
            Layers::Together => vec![None],
        };
        let forecasts = Forecasts::measure(&ring, started, (split, self.rounds), &rtts)?;
        self.forecasts.insert(part, forecasts);
        Ok(())
    }

    /// Parts that were not measured.
    pub(super) fn missing(&self) -> Vec<Part> {
        let there =
            |part: &Part| self.figures.contains_key(part) || self.forecasts.contains_key(part);
        Part::ALL.into_iter().filter(|part| !there(part)).collect()
    }

    /// Whether every ring that was measured keeps the limit, and every forecast came true.
    pub(super) fn holds(&self) -> bool {
        let kept = self.figures.values().all(Figures::keeps_the_limit);
        kept && self.forecasts.values().all(Forecasts::hold)
    }

    /// Times, in the order of the page.
    pub(super) fn figures(&self) -> Vec<Figures> {
        let figures = Part::ALL.iter().filter_map(|part| self.figures.get(part));
        figures.cloned().collect()
    }

    /// Forecasts, in the order of the page.
    pub(super) fn forecasts(&self) -> Vec<Forecasts> {
        let all = Part::ALL.iter();
        let forecasts = all.filter_map(|part| self.forecasts.get(part));
        forecasts.cloned().collect()
    }
}

fn kept(root: &Path) -> PathBuf {
    root.join(KEPT)
}

#[cfg(test)]
mod tests {
    use super::super::forecast::tests::forecasts;
    use super::super::ring::tests::figures;
    use super::*;

    #[test]
    fn parts_are_kept_for_the_same_revision_and_rounds_alone() {
        let root = tempfile::tempdir().unwrap();
        let read = |revision, rounds| Measured::read(root.path(), revision, rounds).unwrap();
        let mut measured = read("abc", 3);
        assert_eq!(measured.missing(), Part::ALL);
        measured.figures.insert(Part::Ring2, figures(41.0, 170.0));
        assert!(measured.holds());
        measured.forecasts.insert(Part::Loopback1, forecasts());
        assert!(!measured.holds(), "a forecast did not come true");
        measured.write(root.path()).unwrap();
        assert_eq!(read("abc", 3), measured);
        assert_eq!(measured.missing().len(), 4);
        assert_eq!(
            (measured.figures().len(), measured.forecasts().len()),
            (1, 1)
        );
        for other in [read("abd", 3), read("abc", 4)] {
            assert_eq!(other.missing(), Part::ALL);
        }
        std::fs::write(kept(root.path()), "{").unwrap();
        assert_eq!(read("abc", 3).missing(), Part::ALL);
    }
}
