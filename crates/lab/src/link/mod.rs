//! Links between machines: what is asked ([`Shape`]), what it does to packets ([`wire`]), who carries them
//! ([`emulator`]), and whether it is so ([`calibrate`]).

pub(crate) mod calibrate;
pub(crate) mod emulator;
mod shape;
mod wire;

pub use calibrate::{DELAY_TOLERANCE, DELAY_TOLERANCE_SHARE, Measured, RATE_TOLERANCE_SHARE};
pub use shape::{QUEUE_BYTES, Shape};
pub use wire::Counts;
