//! What the commands that start servers stand on: `bench` and `token-time`, which measure, and `soak`, which lets run.
//!
//! [`product`] finds the binary and the model. [`process`] starts a server with a log and a data directory of its
//! own; [`started`] knows every process and ends each by its own number, whether the run succeeds, fails or is
//! interrupted. [`http`] and [`events`] are the client, [`ask`](mod@ask) asks with a clock beside it, [`heard`] keeps
//! every token of an answer, [`tree`] and
//! [`memory`] read what the system says of processes. [`machine`], [`stats`] and [`table`] are for pages of figures.
//! Nothing here knows what is measured.

pub(crate) mod ask;
pub(crate) mod events;
pub(crate) mod heard;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod product;
pub(crate) mod started;
pub(crate) mod stats;
pub(crate) mod table;
pub(crate) mod tree;

use std::io::{self, Write};

/// Bytes of a MiB.
pub(crate) const MIB: f64 = (1u64 << 20) as f64;

/// Tells the person who waits; when nobody reads there is nobody to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
