//! Keeps true what this node offers to others: memory that is free, speeds as measured, models on disk, addresses.

use crate::content::Content;
use crate::daemon::Node;
use crate::placement::HOP_MS;
use engine::Host;
use proto::ad::{AD_HELD_MAX, AD_RANGES_MAX, AD_SPEEDS_MAX, Held, Room, Speed};
use proto::ids::{Hash, NodeId};
use proto::model::LayerRange;
use std::collections::BTreeMap;
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
    /// Rows of lone requests and microseconds, by engine.
    counted: BTreeMap<usize, (u64, u64)>,
    /// Microseconds a layer, by model.
    speeds: BTreeMap<Hash, u32>,
    /// Layers, by model on disk; none where the file cannot be read.
    layers: BTreeMap<Hash, Option<u32>>,
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
        let tell = |offer: &mut swarm::members::Offer| {
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
        if let Some((host, layers)) = node.requests.engine_here(node.model.layers) {
            let beside = f64::from(node.output_layers);
            let work = f64::from(layers) + beside;
            self.count(&host, node.model.blake3, work).await;
        }
        self.weigh_laps(node).await;
        for stage in node.stages.engines() {
            if let Ok(host) = stage.engine.host() {
                self.count(&host, stage.model, f64::from(stage.layers))
                    .await;
            }
        }
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
        let key = Arc::as_ptr(host).addr();
        let before = self.counted.entry(key).or_default();
        if stats.alone_rows < before.0 {
            // Another engine has taken the place of the one before.
            *before = (0, 0);
        }
        let (rows, us) = (
            stats.alone_rows.saturating_sub(before.0),
            stats.alone_us.saturating_sub(before.1),
        );
        if rows < ROWS_MIN {
            return;
        }
        *before = (stats.alone_rows, stats.alone_us);
        let layer_us = us as f64 / rows as f64 / layers.max(1.0);
        let known = self.speeds.entry(model).or_default();
        if (layer_us - f64::from(*known)).abs() > f64::from(*known) * CHANGE_MIN {
            *known = layer_us.round().clamp(1.0, f64::from(u32::MAX)) as u32;
        }
    }

    /// Models on disk, whole and in part. Reads the disk, and so away from the async workers.
    async fn held(&mut self, node: &Node) -> Vec<Held> {
        let (models, content) = (node.data.models.clone(), node.content.clone());
        let own = (node.model.blake3, node.model_path.clone());
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
    own: (Hash, PathBuf),
    layers: &mut BTreeMap<Hash, Option<u32>>,
) -> Vec<Held> {
    let stored = models.list().models.into_iter();
    let stored = stored.map(|stored| (stored.record.blake3, stored.path));
    let mut all: BTreeMap<Hash, _> = stored.collect();
    all.insert(own.0, own.1);
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
                manifest: None,
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
                manifest: None,
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
