//! Pulls end to end: real pip, a real HTTP server that speaks the hub's protocol, real full disks.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is tests, their helpers too"
)]

mod blocks;
mod common;
mod disk_full;
mod hub;
mod local;
mod mutated;
mod outline;
mod pypi;
mod server;
mod slow_disk;
