//! How good the planner is: beside the best of all rings there are, and beside splitting by memory, as others do.

use anyhow::Context;
use proto::ids::NodeId;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;
use swarm::plan::{Candidate, Delays, Goal, Question, Shape, plan};

const GIB: u64 = 1 << 30;
/// Swarms that are compared with exhaustive search.
const SWARMS: u64 = 1_000;
/// Layers of their model, and nodes beside home: as many as can be searched through.
const LAYERS: u32 = 8;
const OTHERS: usize = 4;

/// A swarm where machines and links differ by an order of magnitude; distances are those of points on a plane.
struct Swarm {
    shape: Shape,
    home: Candidate,
    others: Vec<Candidate>,
    ways_ms: Vec<Vec<f64>>,
}

struct Dice(ChaCha8Rng);

impl Dice {
    /// A number between, each as likely.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.0.next_u64() as f64 / u64::MAX as f64)
    }

    fn candidate(&mut self, n: usize, layers: u32) -> Candidate {
        let room = self.between(2.0, f64::from(layers) * 0.7) as u64;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        Candidate {
            id: NodeId(id),
            memory_bytes: GIB * (1 + room),
            layer_ms: 10f64.powf(self.between(-0.5, 0.5)),
            on_disk: Vec::new(),
            relayed: false,
        }
    }
}

impl Swarm {
    fn new(seed: u64, layers: u32, others: usize) -> Self {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
        let home = dice.candidate(0, layers);
        let candidates: Vec<_> = (1..=others).map(|n| dice.candidate(n, layers)).collect();
        let spread = 10f64.powf(dice.between(-0.5, 1.5));
        let points: Vec<_> = (0..=others)
            .map(|_| (dice.between(0.0, spread), dice.between(0.0, spread)))
            .collect();
        let way = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).hypot(a.1 - b.1);
        let ways_ms = points
            .iter()
            .map(|from| points.iter().map(|to| way(from, to)).collect())
            .collect();
        Self {
            shape: Shape {
                layers,
                layer_bytes: GIB,
                ends_bytes: 0,
                engine_bytes: GIB,
                output_layers: 0.0,
            },
            home,
            others: candidates,
            ways_ms,
        }
    }

    /// What the planner's ring costs a token, in milliseconds, and how long it thought; `None` without a ring.
    fn planned(&self) -> (Option<f64>, f64) {
        let delays = Delays::new(self.others.len(), |from, to| self.ways_ms[from][to]);
        let question = Question {
            shape: self.shape,
            home: &self.home,
            others: &self.others,
            delays: &delays,
            hop_ms: 0.0,
            goal: Goal::Latency,
        };
        let begun = Instant::now();
        let plan = plan(&question).ok();
        let took_ms = begun.elapsed().as_secs_f64() * 1_000.0;
        let ring = plan.filter(|plan| !plan.stages.is_empty());
        (ring.map(|plan| plan.forecast.token_ms()), took_ms)
    }

    fn node(&self, at: usize) -> &Candidate {
        match at.checked_sub(1) {
            None => &self.home,
            Some(other) => &self.others[other],
        }
    }

    /// Layers that fit on a node; home is 0.
    fn room(&self, at: usize) -> u32 {
        let free = self
            .node(at)
            .memory_bytes
            .saturating_sub(self.shape.engine_bytes);
        u32::try_from(free / self.shape.layer_bytes)
            .unwrap_or(u32::MAX)
            .min(self.shape.layers)
    }

    /// What a ring costs a token, in milliseconds: nodes in order, home first, each with its layers.
    fn cost(&self, ring: &[(usize, u32)]) -> f64 {
        let compute: f64 = ring
            .iter()
            .map(|&(at, layers)| self.node(at).layer_ms * f64::from(layers))
            .sum();
        let next = ring.iter().cycle().skip(1);
        let ways = ring
            .iter()
            .zip(next)
            .map(|((from, _), (to, _))| self.ways_ms[*from][*to]);
        compute + ways.sum::<f64>()
    }

    /// The least cost of all rings there are.
    fn best(&self) -> Option<f64> {
        let mut best: Option<f64> = None;
        let mut open: Vec<Vec<(usize, u32)>> =
            (2..=self.room(0)).map(|layers| vec![(0, layers)]).collect();
        while let Some(ring) = open.pop() {
            let placed: u32 = ring.iter().map(|(_, layers)| layers).sum();
            if placed == self.shape.layers {
                let cost = self.cost(&ring);
                best = Some(best.map_or(cost, |best| best.min(cost)));
                continue;
            }
            for next in (1..=self.others.len()).filter(|next| ring.iter().all(|(at, _)| at != next))
            {
                for layers in 1..=self
                    .room(next)
                    .min(self.shape.layers.saturating_sub(placed))
                {
                    open.push([&ring[..], &[(next, layers)]].concat());
                }
            }
        }
        best
    }

    /// The cost of giving every node a share by its memory, in the order in which they joined.
    fn by_memory(&self) -> Option<f64> {
        let rooms: Vec<u32> = (0..=self.others.len()).map(|at| self.room(at)).collect();
        let all: u32 = rooms.iter().sum();
        let layers = self.shape.layers;
        if all < layers || rooms[0] < 2 {
            return None;
        }
        let share = |room: u32| f64::from(room) * f64::from(layers) / f64::from(all);
        let mut ring: Vec<(usize, u32)> = rooms
            .iter()
            .enumerate()
            .map(|(at, room)| {
                (
                    at,
                    (share(*room) as u32).max(u32::from(at == 0) * 2).min(*room),
                )
            })
            .collect();
        // What rounding left over goes where the share was cut the most; what home had to have comes from the largest.
        loop {
            let placed: u32 = ring.iter().map(|(_, layers)| layers).sum();
            if placed == layers {
                break;
            }
            let rest = |&(at, has): &(usize, u32)| share(rooms[at]) - f64::from(has);
            if placed < layers {
                let free = ring.iter_mut().filter(|(at, has)| *has < rooms[*at]);
                free.max_by(|a, b| rest(a).total_cmp(&rest(b)))?.1 += 1;
            } else {
                let others = ring.iter_mut().filter(|(at, has)| *at > 0 && *has > 0);
                others.min_by(|a, b| rest(a).total_cmp(&rest(b)))?.1 -= 1;
            }
        }
        ring.retain(|(at, has)| *at == 0 || *has > 0);
        Some(self.cost(&ring))
    }
}

/// Ratios in ascending order.
fn sorted(mut ratios: Vec<f64>) -> Vec<f64> {
    ratios.sort_by(f64::total_cmp);
    ratios
}

fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// The median and the longest of so many plans over so many candidates, in milliseconds.
fn thinking_ms(candidates: usize, layers: u32, plans: u64) -> (f64, f64) {
    let took = (0..plans).map(|seed| Swarm::new(seed, layers, candidates).planned().1);
    let took = sorted(took.collect());
    (at(&took, 0.5), at(&took, 1.0))
}

/// Writes the page.
///
/// # Errors
///
/// When it cannot be written.
pub(crate) fn run(repository: &Path) -> anyhow::Result<bool> {
    let path = repository.join("docs/planner.md");
    std::fs::write(&path, page()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// The page about the planner.
///
/// # Panics
///
/// When the planner finds no ring where there is one, or one that cannot be.
fn page() -> String {
    let (mut planned, mut by_memory) = (Vec::new(), Vec::new());
    for seed in 0..SWARMS {
        let swarm = Swarm::new(seed, LAYERS, OTHERS);
        if swarm.room(0) >= LAYERS {
            continue;
        }
        let (found, best) = (swarm.planned().0, swarm.best());
        assert_eq!(found.is_some(), best.is_some(), "seed {seed}");
        if let (Some(found), Some(best)) = (found, best) {
            assert!(
                found >= best * (1.0 - 1e-9),
                "seed {seed}: better than the best"
            );
            planned.push(found / best);
            by_memory.extend(swarm.by_memory().map(|cost| cost / best));
        }
    }
    let (planned, by_memory) = (sorted(planned), sorted(by_memory));
    let mut page = String::from(
        "# The planner\n\nWritten by `cargo xtask planner`. Swarms are random, with the seeds 0 to 999: five nodes, machines \
         and distances that differ by an order of magnitude, a model of 8 layers that fits nowhere whole. The cost of a \
         ring is the time of one token: computing and one lap. Exhaustive search goes through every order of every set of \
         nodes with every number of layers for each.\n\n",
    );
    let _ = writeln!(
        page,
        "| cost against the best ring there is | rings | median | 95 % | worst |\n| --- | --- | --- | --- | --- |"
    );
    for (name, ratios) in [
        ("Myzel's planner", &planned),
        ("layers in proportion to memory, as peers do", &by_memory),
    ] {
        let _ = writeln!(
            page,
            "| {name} | {} | {:.3} | {:.3} | {:.3} |",
            ratios.len(),
            at(ratios, 0.5),
            at(ratios, 0.95),
            at(ratios, 1.0)
        );
    }
    page.push_str(
        "\nUp to 5 % may be given away on purpose: for fewer nodes, layers that are on disk, direct ways.\n\n\
         | candidates | layers | thinking, median ms | longest ms |\n| --- | --- | --- | --- |\n",
    );
    for (candidates, layers, plans) in [
        (4, 32, 40),
        (12, 80, 40),
        (50, 80, 20),
        (200, 80, 20),
        (1_000, 80, 5),
    ] {
        let (median, longest) = thinking_ms(candidates, layers, plans);
        let _ = writeln!(
            page,
            "| {candidates} | {layers} | {median:.2} | {longest:.2} |"
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_by_memory_is_worse_and_never_better_than_the_best() {
        let mut worse = 0;
        for seed in 0..60 {
            let swarm = Swarm::new(seed, LAYERS, OTHERS);
            if let (Some(by_memory), Some(best)) = (swarm.by_memory(), swarm.best()) {
                assert!(by_memory >= best * (1.0 - 1e-9), "seed {seed}");
                worse += u32::from(by_memory > best * 1.05);
            }
        }
        assert!(worse > 20, "{worse}");
    }
}
