//! The mind of a swarm: who is there, who computes what, what a stage takes and refuses, what a coordinator does next, how
//! a token is drawn.
//!
//! # Story
//!
//! A node knows the others by their ads, which [`members::Members`] holds against what was measured. A request runs
//! through a ring: the coordinator's head, one or more remote stages, the coordinator's tail. Each
//! remote node owns one [`stage::Stage`] a ring, the coordinator one [`session::Session`] a request. Both are pure
//! machines: they are told what happened and when, and answer with effects, in the order in which these are to be
//! carried out. They do no input or output, read no clock and ask nobody for randomness, so the node and a simulated
//! network run the very same code.
//!
//! ```text
//!            Session ── Run head ──> engine          Stage ── Compute ──> engine
//!   request ───┤ ├──── Forward ───> stage 1           │ ├──── Forward ──> next stage, or the coordinator
//!   tokens <───┘ └──── Tell ──────> any stage         │ └──── Tell ─────> coordinator
//! ```
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`members`] | whose ads count, who is there, how fast everybody is, and why somebody is not used |
//! | [`split`](mod@split) | which layers go to which stage under `--split N` |
//! | [`plan`](mod@plan) | which nodes compute which layers, by measured speeds, delays and memory |
//! | [`session`] | one request at its coordinator: from the prompt to the last token, or to an honest fault |
//! | [`stage`] | one remote stage for many sessions: take, repeat, refuse, trim, forget |
//! | [`shadow`] | what standbys are fed, so that a takeover is a short replay |
//! | [`spill`] | where retained outputs go that memory has no room for |
//! | [`frame`] | the shape that a frame of activations must have, and how rows are cut into frames |
//! | [`sampler`] | (seed, position, logits) to a token |
//! | [`draft`] | which tokens are guessed to follow, and whether that pays |
//!
//! The crate owns no task. A session ends with exactly one [`session::Effect::Finish`] or [`session::Effect::Fail`]
//! and is deaf afterwards; a stage ends when its ring is closed and the node lets go of it.
//!
//! *Invariant:* nothing here grows without a named limit; maps are ordered, so that equal inputs give equal outputs.

pub mod draft;
pub mod frame;
pub mod members;
pub mod plan;
mod retained;
pub mod sampler;
pub mod session;
pub mod shadow;
pub mod spill;
pub mod split;
pub mod stage;
