//! End to end: real `myzel` processes, asked over HTTP and by the command line, alone and as rings, whole and broken.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod one_node;
mod support;
