//! A real engine-host under a supervisor: many sessions at once, shared prefixes, guesses, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adapters;
mod batching;
mod cache;
mod embeddings;
mod memory;
mod prefixes;
mod refusals;
mod speculation;
mod support;
