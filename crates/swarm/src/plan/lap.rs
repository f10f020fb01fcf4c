//! The order of a ring: the shortest lap from home through every stage and back.

use super::Delays;

/// Home among the nodes of [`Delays`].
const HOME: usize = 0;

/// The shortest laps through every set of a few candidates, by dynamic programming (Held and Karp, "A dynamic
/// programming approach to sequencing problems", 1962): the shortest way through a set that ends at one of its members
/// extends the shortest way through the set without it.
#[derive(Debug)]
pub(super) struct Laps<'a> {
    delays: &'a Delays,
    candidates: &'a [usize],
    /// For each set, the shortest way from home through it, by its last member.
    ways_ms: Vec<f64>,
}

impl<'a> Laps<'a> {
    /// Laps through sets of these candidates, of which there are at most [`super::WEIGHED_MAX`].
    pub(super) fn new(delays: &'a Delays, candidates: &'a [usize]) -> Self {
        let count = candidates.len();
        let mut laps = Self {
            delays,
            candidates,
            ways_ms: vec![f64::INFINITY; count << count],
        };
        for set in 1..1_u32 << count {
            for last in laps.inside(set) {
                let way = laps.arrive(set, last).1;
                laps.ways_ms[set as usize * count + last] = way;
            }
        }
        laps
    }

    fn inside(&self, set: u32) -> impl Iterator<Item = usize> + use<> {
        (0..self.candidates.len()).filter(move |at| set & (1 << at) != 0)
    }

    fn way(&self, set: u32, last: usize) -> f64 {
        self.ways_ms[set as usize * self.candidates.len() + last]
    }

    fn ms(&self, from: usize, to: usize) -> f64 {
        self.delays
            .ms(self.candidates[from] + 1, self.candidates[to] + 1)
    }

    /// The best last but one on a way through a set that ends at `last`, and what the way takes.
    fn arrive(&self, set: u32, last: usize) -> (Option<usize>, f64) {
        let before = set & !(1 << last);
        if before == 0 {
            return (None, self.delays.ms(HOME, self.candidates[last] + 1));
        }
        let ways = self.inside(before);
        let ways = ways.map(|from| (Some(from), self.way(before, from) + self.ms(from, last)));
        ways.min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("the set is not empty")
    }

    /// The last member on the shortest lap through a set, and what the lap takes.
    fn closed(&self, set: u32) -> (usize, f64) {
        let home = |last: usize| self.delays.ms(self.candidates[last] + 1, HOME);
        let laps = self
            .inside(set)
            .map(|last| (last, self.way(set, last) + home(last)));
        laps.min_by(|a, b| a.1.total_cmp(&b.1))
            .expect("sets of a ring are not empty")
    }

    /// The shortest lap through a set that is not empty, in milliseconds.
    pub(super) fn shortest(&self, set: u32) -> f64 {
        self.closed(set).1
    }

    /// The candidates of a set in the order of its shortest lap.
    pub(super) fn order(&self, set: u32) -> Vec<usize> {
        let (mut set, mut last) = (set, Some(self.closed(set).0));
        let mut order = Vec::new();
        while let Some(at) = last {
            order.push(self.candidates[at]);
            last = self.arrive(set, at).0;
            set &= !(1 << at);
        }
        order.reverse();
        order
    }
}

/// One lap from home through these candidates in this order, in milliseconds.
pub(super) fn cycle_ms(delays: &Delays, ring: &[usize]) -> f64 {
    let nodes = || ring.iter().map(|candidate| candidate + 1);
    let (from, to) = ([HOME].into_iter().chain(nodes()), nodes().chain([HOME]));
    from.zip(to).map(|(from, to)| delays.ms(from, to)).sum()
}

/// Shortens a lap by turning parts of it round as long as that helps (2-opt; Croes, "A method for solving
/// traveling-salesman problems", 1958).
pub(super) fn rounded(delays: &Delays, mut ring: Vec<usize>) -> Vec<usize> {
    let mut best_ms = cycle_ms(delays, &ring);
    let mut better = true;
    while better {
        better = false;
        for first in 0..ring.len() {
            for end in first + 2..=ring.len() {
                ring[first..end].reverse();
                let ms = cycle_ms(delays, &ring);
                if ms < best_ms * (1.0 - 1e-9) {
                    (best_ms, better) = (ms, true);
                } else {
                    ring[first..end].reverse();
                }
            }
        }
    }
    ring
}

/// Where a candidate lengthens a lap the least, and by how much, in milliseconds.
pub(super) fn detour(delays: &Delays, ring: &[usize], candidate: usize) -> (usize, f64) {
    let node = |at: usize| ring.get(at).map_or(HOME, |candidate| candidate + 1);
    let new = candidate + 1;
    let detours = (0..=ring.len()).map(|at| {
        let (from, to) = (if at == 0 { HOME } else { node(at - 1) }, node(at));
        (
            at,
            delays.ms(from, new) + delays.ms(new, to) - delays.ms(from, to),
        )
    });
    detours
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .expect("a lap can be left somewhere")
}
