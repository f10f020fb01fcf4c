//! End to end: real `myzel` processes, asked over HTTP and by the command line, alone and as rings, whole and broken.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bad_models;
mod bad_requests;
mod bad_starts;
mod broken_engines;
mod broken_peers;
mod crowd;
mod dialects;
mod disk_full;
mod ends;
mod model_commands;
mod namespaces;
mod newcomer;
mod one_node;
mod openai_client;
mod planned;
mod quarantine;
mod ring;
mod rooms;
mod sandbox;
mod streams;
mod support;
mod takeover;
mod tickets;
mod ways;
