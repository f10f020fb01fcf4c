//! llama.cpp in a process of its own.
//!
//! # Story
//!
//! A node starts this crate's [`run`] in a child process of the same binary, with one end of a socket pair as standard
//! input. It is the only crate that calls C. When native code aborts, the child dies, the node sees the pipe
//! close and starts another; a native fault never takes the node down.
//!
//! One thread does everything but ggml's own workers' part and texts. Between steps it takes what calls have come ([`pipe`],
//! [`inbox`]), gathers runs that fit into one step ([`schedule`]), computes the step ([`engine`], over [`parts`] and the safe
//! wrappers in [`llama`]) and writes the replies ([`serve`]). So no other thread is woken between a call and its computation.
//! What has to do with texts alone (templates, tokenizing, reading replies) is done by a second thread ([`chat`]), to which
//! calls are handed on even within a step; a third compiles grammars ([`steer`]).
//! What earlier prompts left in the caches is used again ([`prefix`]), and a session that decodes alone guesses ahead ([`swarm::draft`]).
//! How much is set up is worked out in [`extent`]; LoRA adapters come and go in [`adapters`].
//!
//! It ends when the pipe closes, when the parent dies (`PR_SET_PDEATHSIG`), or by abort.
//!
//! Before it loads, while it still has one thread, it locks itself up ([`sandbox`]): llama.cpp parses what strangers made.
//!
//! *Invariant:* no file, socket or clock of the node is reachable from here except the model files named in
//! [`proto::host::LoadSpec`] and the pipe. On Linux the kernel keeps it so from the load on.

pub mod adapters;
pub mod chat;
mod engine;
pub mod extent;
mod figures;
mod inbox;
pub mod llama;
pub mod parts;
mod pipe;
mod prefix;
pub mod sandbox;
mod schedule;
mod serve;
mod steer;
mod threads;

pub use serve::run;
