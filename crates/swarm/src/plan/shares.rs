//! How many layers each host of a ring computes.

use super::{Candidate, Forecast, Goal, Question};
use crate::split::KEPT_LAYERS;
use std::collections::BTreeMap;

/// What one host may and must take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Host {
    /// What one row takes through one layer.
    layer_ms: f64,
    /// What it computes for each token beside its layers.
    beside_ms: f64,
    /// Layers that it takes at least, and at most.
    least: u32,
    pub(super) most: u32,
}

impl Host {
    /// The coordinator: first and last layer are its own, and the output head.
    pub(super) fn home(question: &Question<'_>) -> Self {
        let (home, shape) = (question.home, question.shape);
        Self {
            layer_ms: home.layer_ms,
            beside_ms: home.layer_ms * shape.output_layers,
            least: 2 * KEPT_LAYERS,
            most: room(question, home, shape.ends_bytes),
        }
    }

    /// A remote stage.
    pub(super) fn remote(question: &Question<'_>, candidate: usize) -> Self {
        let candidate = &question.others[candidate];
        Self {
            layer_ms: candidate.layer_ms,
            beside_ms: 0.0,
            least: 1,
            most: room(question, candidate, 0),
        }
    }

    /// One token through so many layers here.
    pub(super) fn ms(&self, layers: u32) -> f64 {
        f64::from(layers) * self.layer_ms + self.beside_ms
    }
}

/// Layers that fit beside what an engine takes anyway.
fn room(question: &Question<'_>, candidate: &Candidate, beside_bytes: u64) -> u32 {
    let shape = question.shape;
    let taken = shape.engine_bytes.saturating_add(beside_bytes);
    let free = candidate.memory_bytes.saturating_sub(taken);
    let fit = free.checked_div(shape.layer_bytes).unwrap_or(u64::MAX);
    u32::try_from(fit).unwrap_or(u32::MAX).min(shape.layers)
}

/// Layers of everybody in a ring, and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shares {
    /// Layers at home.
    pub(super) home: u32,
    /// Layers of each candidate.
    pub(super) remote: BTreeMap<usize, u32>,
    compute_ms: f64,
    pace_ms: f64,
}

impl Shares {
    /// The best shares for the goal; `None` when the model does not fit, or has not one layer for everybody.
    pub(super) fn of(question: &Question<'_>, remote: &[usize]) -> Option<Self> {
        let others = remote
            .iter()
            .map(|&candidate| Host::remote(question, candidate));
        let hosts: Vec<Host> = [Host::home(question)].into_iter().chain(others).collect();
        let layers = match question.goal {
            Goal::Latency => pour(&hosts, question.shape.layers),
            Goal::Throughput => level(&hosts, question.shape.layers),
        }?;
        let each = || {
            hosts
                .iter()
                .zip(&layers)
                .map(|(host, layers)| host.ms(*layers))
        };
        Some(Self {
            home: layers[0],
            remote: remote
                .iter()
                .copied()
                .zip(layers[1..].iter().copied())
                .collect(),
            compute_ms: each().sum(),
            pace_ms: each().fold(0.0, f64::max),
        })
    }

    pub(super) fn forecast(&self, lap_ms: f64) -> Forecast {
        Forecast {
            compute_ms: self.compute_ms,
            lap_ms,
            pace_ms: self.pace_ms,
        }
    }
}

/// What every host takes at least, and the layers that are left then.
fn least(hosts: &[Host], layers: u32) -> Option<(Vec<u32>, u32)> {
    let fits = hosts.iter().all(|host| host.least <= host.most);
    let shares: Vec<u32> = hosts.iter().map(|host| host.least).collect();
    let left = layers.checked_sub(shares.iter().sum());
    left.filter(|_| fits).map(|left| (shares, left))
}

/// All that is left to the fastest, as far as it has room, then to the next: the least sum.
fn pour(hosts: &[Host], layers: u32) -> Option<Vec<u32>> {
    let (mut shares, mut left) = least(hosts, layers)?;
    let mut by_speed: Vec<usize> = (0..hosts.len()).collect();
    by_speed.sort_by(|&a, &b| hosts[a].layer_ms.total_cmp(&hosts[b].layer_ms));
    for at in by_speed {
        let more = left.min(hosts[at].most - shares[at]);
        shares[at] += more;
        left -= more;
    }
    (left == 0).then_some(shares)
}

/// Layer by layer to whoever is done first with one more, as water fills a vessel: the least maximum.
fn level(hosts: &[Host], layers: u32) -> Option<Vec<u32>> {
    let (mut shares, left) = least(hosts, layers)?;
    for _ in 0..left {
        let free = (0..hosts.len()).filter(|&at| shares[at] < hosts[at].most);
        let done = |at: usize| hosts[at].ms(shares[at] + 1);
        let first = free.min_by(|&a, &b| done(a).total_cmp(&done(b)))?;
        shares[first] += 1;
    }
    Some(shares)
}
