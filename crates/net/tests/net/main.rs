//! Real endpoints on loopback: joining, links, hops, and those who do not behave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bind;
mod common;
mod hops;
mod joining;
mod killed;
mod links;
mod strangers;
