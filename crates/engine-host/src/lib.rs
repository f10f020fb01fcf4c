//! llama.cpp in a process of its own.
//!
//! # Story
//!
//! A node starts this crate's [`run`] in a child process of the same binary, with one end of a socket pair as standard
//! input. It is the only crate that calls C. When native code aborts, the child dies, the node sees the pipe
//! close and starts another; a native fault never takes the node down.
//!
//! Data flows in one line. A reader thread turns the pipe's bytes into [`proto::host::Call`]s and puts them into a bounded
//! queue ([`pipe`]). The main thread ([`serve`]) owns everything of llama.cpp: it takes what is queued, gathers
//! runs that fit into one step ([`schedule`]), computes the step ([`parts`], over the safe wrappers in [`llama`]) and writes the
//! replies. Nothing else touches a model, so there are no locks.
//!
//! It ends when the pipe closes, when the parent dies (`PR_SET_PDEATHSIG`), or by abort.
//!
//! *Invariant:* no file, socket or clock of the node is reachable from here except the model files named in
//! [`proto::host::LoadSpec`] and the pipe.

pub mod llama;
pub mod parts;
mod pipe;
mod schedule;
mod serve;
mod threads;

pub use serve::run;
