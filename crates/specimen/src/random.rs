//! Numbers from a seed, and tensors filled with them.

use crate::shape::{Fill, SpecimenTensor};
use proto::gguf::TensorType;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), one stream per tensor.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream with this number under this seed.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let mut stream = Self {
            state: seed ^ number.wrapping_mul(0xd134_2543_de82_ef95),
        };
        stream.next();
        stream
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly spread over -1 to 1.
    fn even(&mut self) -> f32 {
        let bits = u16::try_from(self.next() >> 48).expect("16 bits remain");
        f32::from(bits) / 32_768.0 - 1.0
    }

    /// About normal with deviation 1: the sum of three even numbers, each of variance 1/3.
    fn normal(&mut self) -> f32 {
        self.even() + self.even() + self.even()
    }
}

/// Bytes of one 16-bit scale: 2^-9 for 8-bit weights, 2^-5 for 4-bit weights; both give a deviation near 0.15.
const SCALE_Q8_0: [u8; 2] = [0x00, 0x18];
const SCALE_Q4_0: [u8; 2] = [0x00, 0x28];

/// Appends a tensor's data.
pub fn fill(file: &mut Vec<u8>, tensor: &SpecimenTensor, kind: TensorType, stream: &mut Stream) {
    let elements: u64 = tensor.dims.iter().product();
    match kind {
        TensorType::F32 => (0..elements).for_each(|index| {
            file.extend(number(tensor.fill, index, stream).to_le_bytes());
        }),
        TensorType::Q8_0 => blocks::<4>(file, elements, SCALE_Q8_0, stream, |word| word),
        TensorType::Q4_0 => blocks::<2>(file, elements, SCALE_Q4_0, stream, centred),
        other => unreachable!("specimens have no weights of type {other}"),
    }
}

fn number(fill: Fill, index: u64, stream: &mut Stream) -> f32 {
    match fill {
        Fill::Matrix(scale) => scale * stream.normal(),
        Fill::Norm => 1.0 + 0.1 * stream.normal(),
        Fill::Decay => -1.0 - 0.1 * stream.normal(),
        // Rising from 1, as published frequency factors do.
        Fill::Factors => 1.0 + 0.25 * f32::from(u16::try_from(index).unwrap_or(u16::MAX)),
    }
}

/// Blocks of 32 numbers: a scale, then random words.
fn blocks<const WORDS: usize>(
    file: &mut Vec<u8>,
    elements: u64,
    scale: [u8; 2],
    stream: &mut Stream,
    shape: fn(u64) -> u64,
) {
    for _ in 0..elements / 32 {
        file.extend(scale);
        for _ in 0..WORDS {
            file.extend(shape(stream.next()).to_le_bytes());
        }
    }
}

/// 4-bit weights stand for -8 to 7; those of -8 become 0, or all numbers together would lean to one side.
fn centred(word: u64) -> u64 {
    (0..64)
        .step_by(4)
        .fold(word, |word, shift| match (word >> shift) & 0xf {
            0 => word | (8 << shift),
            _ => word,
        })
}
