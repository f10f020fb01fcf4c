//! Keeps true what this node offers to others: memory that is free, speeds as measured, models on disk, addresses.

use crate::content::Content;
use crate::daemon::Node;
use crate::placement::HOP_MS;
use engine::Host;
use proto::ad::{
    AD_HELD_MAX, AD_RANGES_MAX, AD_RELAYS_MAX, AD_SPEEDS_MAX, AD_TEXT_BYTES_MAX, Held, Room, Speed,
};
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::models::Models;
use swarm::members::{Ask, Event};
use tokio_util::sync::CancellationToken;

/// How often what is offered is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Tokens of a lone request after which a speed is believed.
const ROWS_MIN: u64 = 8;
/// By how much a speed must change to be told.
const CHANGE_MIN: f64 = 0.1;

/// Looks, and tells, until the node ends.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut herald = Herald::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => herald.look(&node).await,
        }
    }
}

/// What was seen before.
#[derive(Debug, Default)]
struct Herald {
    counters: Counters,
    /// Microseconds a layer, by model.
    speeds: BTreeMap<Hash, u32>,
    /// Layers, by model on disk; none where the file cannot be read.
    layers: BTreeMap<Hash, Option<u32>>,
}

/// Rows of lone requests and their microseconds, by engine, when a speed was last made of them.
#[derive(Debug, Default)]
struct Counters(BTreeMap<u64, (u64, u64)>);

impl Counters {
    /// What one row took since the last time, in microseconds, once there were enough of them.
    fn row_us(&mut self, engine: u64, (rows, us): (u64, u64)) -> Option<f64> {
        let before = self.0.entry(engine).or_default();
        let new = (rows.saturating_sub(before.0), us.saturating_sub(before.1));
        if new.0 < ROWS_MIN {
            return None;
        }
        *before = (rows, us);
        Some(new.1 as f64 / new.0 as f64)
    }

    /// Forgets all other engines: they are gone.
    fn keep(&mut self, there: &BTreeSet<u64>) {
        self.0.retain(|engine, _| there.contains(engine));
    }
}

impl Herald {
    async fn look(&mut self, node: &Node) {
        self.measure(node).await;
        let held = self.held(node).await;
        let speeds = self.speeds.iter().take(AD_SPEEDS_MAX);
        let speeds = speeds.map(|(&model, &layer_us)| Speed { model, layer_us });
        let speeds: Vec<Speed> = speeds.collect();
        let addrs = node.net.addrs().iter().map(ToString::to_string).collect();
        let memory_bytes = node.budget.free_bytes();
        let class = node.requests.host().ok();
        let class = class.map(|host| cpu_class(&host.loaded().cpu_class));
        let relay = node.links.relay().map(|at| at.to_string());
        let mut relays = node.links.this_member().relays.unwrap_or_default();
        relays.truncate(AD_RELAYS_MAX);
        let tell = |offer: &mut swarm::members::Offer| {
            offer.relay = relay;
            offer.relays = relays;
            offer.held = held;
            offer.speeds = speeds;
            offer.addrs = addrs;
            offer.memory_bytes = memory_bytes;
            offer.cpu_class = class.unwrap_or_else(|| offer.cpu_class.clone());
        };
        node.roster.offer(tell).await;
    }

    /// Reads the counters of every engine of this node.
    async fn measure(&mut self, node: &Node) {
        let mut there = BTreeSet::new();
        if let Some((host, layers)) = node.requests.engine_here(node.model.layers) {
            let beside = f64::from(node.output_layers);
            let work = f64::from(layers) + beside;
            there.insert(host.serial());
            self.count(&host, node.model.blake3, work).await;
        }
        self.weigh_laps(node).await;
        for stage in node.stages.engines() {
            if let Ok(host) = stage.engine.host() {
                there.insert(host.serial());
                self.count(&host, stage.model, f64::from(stage.layers))
                    .await;
            }
        }
        self.counters.keep(&there);
    }

    /// What the stages of our ring took together, shared out as was expected of each.
    async fn weigh_laps(&self, node: &Node) {
        let Some(ring) = node.requests.ring().and_then(|ring| ring.up()) else {
            return;
        };
        let Some(lap_ms) = ring.laps.take_ms() else {
            return;
        };
        let me = node.net.id();
        let hosts: Vec<NodeId> = ring.stages.iter().map(|stage| stage.member.id).collect();
        let lap = [&[me][..], &hosts, &[me]].concat();
        let ways_ms: f64 = lap
            .windows(2)
            .map(|pair| node.roster.rtt_us(pair[0], pair[1]).value as f64 / 2_000.0 + HOP_MS)
            .sum();
        let ask = Ask {
            room: Room::Square,
            model: node.model.blake3,
            layer_bytes: 0,
            build: None,
        };
        let seen = node.roster.view(&ask);
        let believed = |host: &NodeId| seen.iter().find(|seen| seen.node == *host);
        let expected: Vec<f64> = ring
            .stages
            .iter()
            .filter_map(|stage| {
                let layers = f64::from(stage.ready.contract.layers.len());
                Some(believed(&stage.member.id)?.layer_us.value as f64 * layers)
            })
            .collect();
        let expected_us: f64 = expected.iter().sum();
        if expected.len() < ring.stages.len() || expected_us <= 0.0 {
            return;
        }
        let factor = (lap_ms - ways_ms).max(0.0) * 1_000.0 / expected_us;
        for (stage, expected) in ring.stages.iter().zip(expected) {
            let layers = f64::from(stage.ready.contract.layers.len().max(1));
            let speed = Speed {
                model: node.model.blake3,
                layer_us: (expected / layers * factor).clamp(1.0, f64::from(u32::MAX)) as u32,
            };
            let node_id = stage.member.id;
            node.roster
                .tell(Event::LayerTime {
                    node: node_id,
                    speed,
                })
                .await;
        }
    }

    async fn count(&mut self, host: &Arc<Host>, model: Hash, layers: f64) {
        let Ok(stats) = host.stats().await else {
            return;
        };
        let read = (stats.alone_rows, stats.alone_us);
        let Some(row_us) = self.counters.row_us(host.serial(), read) else {
            return;
        };
        let layer_us = row_us / layers.max(1.0);
        let known = self.speeds.entry(model).or_default();
        if (layer_us - f64::from(*known)).abs() > f64::from(*known) * CHANGE_MIN {
            *known = layer_us.round().clamp(1.0, f64::from(u32::MAX)) as u32;
        }
    }

    /// Models on disk, whole and in part. Reads the disk, and so away from the async workers.
    async fn held(&mut self, node: &Node) -> Vec<Held> {
        let (models, content) = (node.data.models.clone(), node.content.clone());
        let own = (node.model.blake3, node.model_path.clone());
        let own = node.outline.is_none().then_some(own);
        let mut layers = std::mem::take(&mut self.layers);
        let read = tokio::task::spawn_blocking(move || {
            let held = on_disk(&models, &content, own, &mut layers);
            (held, layers)
        });
        // A look that panicked is one without models; its headers are read anew.
        let (held, layers) = read.await.unwrap_or_default();
        self.layers = layers;
        held
    }
}

fn on_disk(
    models: &Models,
    content: &Content,
    own: Option<(Hash, PathBuf)>,
    layers: &mut BTreeMap<Hash, Option<u32>>,
) -> Vec<Held> {
    let stored = models.list().models.into_iter();
    let stored = stored.map(|stored| (stored.record.blake3, stored.path));
    let mut all: BTreeMap<Hash, _> = stored.collect();
    all.extend(own);
    let mut held = Vec::new();
    for (model, path) in all.into_iter().take(AD_HELD_MAX) {
        let read = || {
            crate::stage::header(&path)
                .ok()
                .map(|header| header.layers())
        };
        if let Some(end) = *layers.entry(model).or_insert_with(read) {
            held.push(Held {
                model,
                manifest: content.manifest(model),
                layers: vec![LayerRange { first: 0, end }],
                whole: true,
            });
        }
    }
    for (model, mut layers) in content.parts() {
        layers.truncate(AD_RANGES_MAX);
        if held.len() < AD_HELD_MAX && held.iter().all(|held| held.model != model) {
            held.push(Held {
                model,
                manifest: content.manifest(model),
                layers,
                whole: false,
            });
        }
    }
    held
}

/// A CPU class in few characters: equal ones have equal names.
#[must_use]
pub fn cpu_class(class: &str) -> String {
    let architecture = class.split(' ').next().unwrap_or_default();
    format!("{architecture} {}", Hash::of(class.as_bytes()).short())
}

/// An engine's build in at most [`AD_TEXT_BYTES_MAX`] bytes: equal ones have equal names.
#[must_use]
pub fn build_name(build: &str) -> String {
    if build.len() <= AD_TEXT_BYTES_MAX {
        return build.to_owned();
    }
    let engine: String = build.chars().take_while(|c| *c != ',').take(32).collect();
    format!("{engine} {}", Hash::of(build.as_bytes()).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_a_name_that_fits_into_an_ad_and_is_no_others() {
        use engine_host::llama::build;
        let scales = [None, Some(2.0), Some(2.5), Some(1.234_567_8)];
        let names = scales.map(|scale| build_name(&build(scale)));
        assert_eq!(names[0], build(None), "readable as long as it fits");
        assert!(names.iter().all(|name| name.len() <= AD_TEXT_BYTES_MAX));
        let different: BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), scales.len(), "{names:?}");
    }

    #[test]
    fn each_engine_is_counted_for_itself_and_forgotten_when_it_is_gone() {
        let mut counters = Counters::default();
        assert_eq!(counters.row_us(1, (ROWS_MIN - 1, 70)), None, "too few");
        assert_eq!(counters.row_us(1, (10, 1_000)), Some(100.0));
        assert_eq!(counters.row_us(1, (10, 1_000)), None, "nothing new");
        // A later engine may have counted more than the one before; none of that is the other's.
        assert_eq!(counters.row_us(2, (20, 4_000)), Some(200.0));
        assert_eq!(counters.row_us(1, (20, 4_000)), Some(300.0));
        counters.keep(&BTreeSet::from([2]));
        assert_eq!(counters.0.keys().copied().collect::<Vec<_>>(), [2]);
    }
}
