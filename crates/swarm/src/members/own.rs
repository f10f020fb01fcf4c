//! What this node measured itself. It counts before anything that others say.

use super::limits::MEASURED_MAX;
use proto::ad::{AD_LINKS_MAX, AD_SPEEDS_MAX, Measured, Speed};
use proto::ids::{Hash, NodeId};
use std::collections::BTreeMap;

/// What was measured of one member.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    pub(super) rtt_us: Option<u32>,
    pub(super) bytes_per_s: Option<u64>,
    /// Whether the newest link goes through a relay.
    pub(super) relayed: Option<bool>,
    /// Per model, the newest last; at most [`AD_SPEEDS_MAX`].
    stages: Vec<Speed>,
    updated_ms: u64,
}

impl Own {
    /// What a layer of a model took.
    pub(super) fn layer_us(&self, model: Hash) -> Option<u32> {
        let stage = self.stages.iter().find(|stage| stage.model == model);
        stage.map(|stage| stage.layer_us)
    }

    /// All that was measured of it as a stage.
    pub(super) fn stages(&self) -> &[Speed] {
        &self.stages
    }
}

/// What was measured, by member.
#[derive(Debug, Default)]
pub(super) struct Measurements(BTreeMap<NodeId, Own>);

impl Measurements {
    pub(super) fn get(&self, node: NodeId) -> Option<&Own> {
        self.0.get(&node)
    }

    /// The place for a member's values; in a full table the oldest ones go.
    fn of(&mut self, node: NodeId, mono_ms: u64) -> &mut Own {
        if self.0.len() >= MEASURED_MAX && !self.0.contains_key(&node) {
            let oldest = self.0.iter().min_by_key(|(_, own)| own.updated_ms);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.0.remove(&oldest);
            }
        }
        let own = self.0.entry(node).or_default();
        own.updated_ms = mono_ms;
        own
    }

    pub(super) fn rtt(&mut self, node: NodeId, rtt_us: u32, mono_ms: u64) {
        let own = self.of(node, mono_ms);
        own.rtt_us = Some(smooth(own.rtt_us.map(u64::from), rtt_us.into()) as u32);
    }

    pub(super) fn way(&mut self, node: NodeId, relayed: bool, mono_ms: u64) {
        self.of(node, mono_ms).relayed = Some(relayed);
    }

    pub(super) fn bandwidth(&mut self, node: NodeId, bytes_per_s: u64, mono_ms: u64) {
        let own = self.of(node, mono_ms);
        own.bytes_per_s = Some(smooth(own.bytes_per_s, bytes_per_s));
    }

    pub(super) fn layer(&mut self, node: NodeId, speed: Speed, mono_ms: u64) {
        let own = self.of(node, mono_ms);
        let before = own.layer_us(speed.model).map(u64::from);
        let layer_us = smooth(before, speed.layer_us.into()) as u32;
        own.stages.retain(|stage| stage.model != speed.model);
        if own.stages.len() >= AD_SPEEDS_MAX {
            own.stages.remove(0);
        }
        own.stages.push(Speed { layer_us, ..speed });
    }

    /// What we tell others of members that are there: the newest values, by key.
    pub(super) fn tell(&self, there: impl Fn(NodeId) -> bool) -> Vec<Measured> {
        let here = self.0.iter().filter(|(node, _)| there(**node));
        let told = here.filter_map(|(node, own)| {
            let measured = Measured {
                node: *node,
                rtt_us: own.rtt_us?,
                bytes_per_s: own.bytes_per_s,
                stage: own.stages.last().copied(),
            };
            Some((own.updated_ms, measured))
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|(updated_ms, _)| std::cmp::Reverse(*updated_ms));
        told.truncate(AD_LINKS_MAX);
        told.sort_by_key(|(_, measured)| measured.node);
        told.into_iter().map(|(_, measured)| measured).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A quarter of the new value, three of the old one.
fn smooth(old: Option<u64>, new: u64) -> u64 {
    old.map_or(new, |old| old - old / 4 + new / 4)
}
