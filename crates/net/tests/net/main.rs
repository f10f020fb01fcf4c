//! Real endpoints on loopback: joining, links, hops, and those who do not behave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bind;
mod blobs;
mod common;
mod content;
mod hops;
mod joining;
mod killed;
mod limits;
mod links;
#[cfg(target_os = "linux")]
mod netns;
mod newer;
mod shelf;
mod strangers;
#[cfg(target_os = "linux")]
mod ways;
