//! The seed's random choices (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).

/// Mixes two numbers into one.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(29) ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[derive(Debug, Clone)]
pub(crate) struct Rng {
    seed: u64,
    step: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: mix(seed, 1),
            step: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.step += 1;
        mix(self.seed, self.step)
    }

    /// 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
