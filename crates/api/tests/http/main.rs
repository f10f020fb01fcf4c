//! The face over real connections: what clients read, what they are refused, how answers end early.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, but not what they call"
)]

mod answers;
mod anthropic;
mod bodies;
mod chat;
mod completions;
mod doors;
mod endings;
mod ollama;
mod refusals;
mod responses;
mod server;
mod streams;
