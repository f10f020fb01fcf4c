//! A fake engine: layers that mix numbers, with caches that notice gaps and repetitions.

use crate::rng::mix;
use bytes::Bytes;
use proto::host::Drawn;
use proto::model::{LayerRange, Sampling};
use proto::packet::{f32_from_bytes, f32_to_bytes};
use swarm::sampler::sample;

/// Numbers in a row: four times 16 bits of one hash.
pub(crate) const EMBEDDING_LENGTH: u32 = 4;
const VOCABULARY: u64 = 48;
/// This token ends an answer.
const END: i32 = 0;

/// Some layers, and one session's caches of them.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    layers: LayerRange,
    /// For each layer, the mix of all rows up to each position.
    caches: Vec<Vec<u64>>,
}

impl Part {
    pub(crate) fn new(layers: LayerRange) -> Self {
        Self {
            layers,
            caches: vec![Vec::new(); layers.len() as usize],
        }
    }

    pub(crate) fn layers(&self) -> LayerRange {
        self.layers
    }

    /// Whether the first `rows` of the caches hold what those of the whole model hold. A whole that is empty has nothing to compare
    /// with.
    pub(crate) fn is_begun_as(&self, whole: &Self, rows: u32) -> bool {
        let of_whole = &whole.caches[(self.layers.first - whole.layers.first) as usize..];
        let same = |(mine, all): (&Vec<u64>, &Vec<u64>)| {
            all.is_empty() || all.starts_with(&mine[..mine.len().min(rows as usize)])
        };
        self.caches.iter().zip(of_whole).all(same)
    }

    pub(crate) fn length(&self) -> u32 {
        self.caches[0].len() as u32
    }

    pub(crate) fn trim(&mut self, length: u32) -> Result<(), String> {
        if length > self.length() {
            return Err(format!(
                "a cache of {} was trimmed to {length}",
                self.length()
            ));
        }
        self.caches
            .iter_mut()
            .for_each(|cache| cache.truncate(length as usize));
        Ok(())
    }

    /// Runs rows through the layers; they must begin where the cache ends.
    pub(crate) fn run(&mut self, position: u32, rows: &[u64]) -> Result<Vec<u64>, String> {
        if position != self.length() {
            let (length, layers) = (self.length(), self.layers);
            return Err(format!(
                "layers {layers}: rows at {position}, the cache ends at {length}"
            ));
        }
        let mut rows = rows.to_vec();
        for (layer, cache) in (u64::from(self.layers.first)..).zip(&mut self.caches) {
            for row in &mut rows {
                let before = cache.last().copied().unwrap_or(layer);
                cache.push(mix(before, *row));
                *row = mix(cache[cache.len() - 1], layer);
            }
        }
        Ok(rows)
    }
}

pub(crate) fn embed(tokens: &[i32]) -> Vec<u64> {
    tokens.iter().map(|&token| mix(7, token as u64)).collect()
}

/// The token that a text of this habit has at `position`, most of the time: it says the same again after so many.
pub(crate) fn habit_at(habit: u32, position: u32) -> i32 {
    1 + (position % habit) as i32
}

/// Draws the token at `position` from the row before it; a text of a habit goes on as it does, with few exceptions.
pub(crate) fn draw(row: u64, sampling: &Sampling, position: u32, habit: u32) -> Drawn {
    let logits = (0..VOCABULARY).map(|id| (mix(row, id) & 0xFF) as f32 / 50.0);
    let drawn =
        sample(&logits.collect::<Vec<_>>(), sampling, position).expect("the logits are numbers");
    let token = match habit > 0 && !mix(row, u64::MAX).is_multiple_of(12) {
        true => habit_at(habit, position),
        false => drawn,
    };
    Drawn {
        token,
        position,
        piece: Vec::new(),
        end: token == END,
        logprobs: None,
        reused: 0,
    }
}

pub(crate) fn to_bytes(rows: &[u64]) -> Bytes {
    let values = rows
        .iter()
        .flat_map(|row| [0, 16, 32, 48].map(|bit| (row >> bit & 0xFFFF) as f32));
    f32_to_bytes(&values.collect::<Vec<_>>()).into()
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    let values = f32_from_bytes(bytes).expect("stages check the size");
    let (rows, _) = values.as_chunks::<4>();
    let row = |row: &[f32; 4]| {
        row.iter()
            .rev()
            .fold(0, |row, &value| row << 16 | value as u64)
    };
    rows.iter().map(row).collect()
}

#[test]
fn rows_survive_the_wire() {
    let rows = [0, 1, u64::MAX, 0x0123_4567_89AB_CDEF];
    assert_eq!(from_bytes(&to_bytes(&rows)), rows);
}

#[test]
fn a_cache_notices_what_is_not_its_turn() {
    let mut part = Part::new(LayerRange { first: 1, end: 3 });
    part.run(0, &[1, 2]).unwrap();
    assert!(part.clone().run(1, &[2]).is_err(), "a repetition");
    assert!(part.clone().run(3, &[3]).is_err(), "a gap");
    assert!(part.trim(3).is_err());
    let straight = part.run(2, &[3]).unwrap();
    part.trim(0).unwrap();
    part.run(0, &[1, 2]).unwrap();
    assert_eq!(part.run(2, &[3]).unwrap(), straight);
}
