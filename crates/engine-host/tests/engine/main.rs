//! The engine against its contract, on the starter model and on tiny models of every family.
//!
//! These tests load models in this process, as an engine-host does; `./test` fetches the starter model before.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod chat;
mod contract;
mod extent;
mod grammar;
mod stages;
mod support;
mod templates;
