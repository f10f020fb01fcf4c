//! A whole commons in one process: 2 to 5,000 nodes on the machines that the real node runs, and a seed.
//!
//! # Story
//!
//! A [`world::World`] is a queue of events in the order of a simulated clock, and nodes that are told of them. Each node has
//! the real [`swarm::members::Members`] and the real gossip of iroh (`iroh_gossip::proto`: HyParView and Plumtree,
//! which is a pure machine too); requests are placed by the real [`mod@swarm::plan`]. What is made up is the rest: the
//! network between them ([`weather`]), their comings and goings ([`churn`]), and those who lie ([`liar`]).
//!
//! Everything follows from the seed. Each run hashes what happened, in order, so that two runs of one seed can be held
//! against each other; after each step the bounds of the node that was told are checked, and every few simulated seconds
//! all that must hold for the commons as a whole ([`check`]).
//!
//! | module | what it makes up |
//! | --- | --- |
//! | [`dice`] | every random choice |
//! | [`weather`] | distances, losses, partitions |
//! | [`churn`] | how long nodes stay and stay away |
//! | [`ads`] | keys, proofs, and ads that are signed and checked once |
//! | [`node`] | one node: what it is, what it has, what it says |
//! | [`liar`] | boaster, ghost, sybil, equivocator, replayer, eclipser, future-dater |
//! | [`setup`] | what a world is like when it begins |
//! | [`world`] | the clock, the queue, who comes and goes, and who says what |
//! | `wires` | gossip, links, and what is handed over on them |
//! | [`request`] | requests: planned, broken, planned again |
//! | [`ring`] | rings that stand, take memory, and move when that is worth it |
//! | [`scenes`] | the worlds that tests and campaigns run |
//!
//! *Limits of the model:* a request is not computed; its tokens pass by the times of its stages and of its lap. Lost
//! packets are late ones, as QUIC sends them again. Links cost their heartbeats, which are not simulated one by one.

pub mod ads;
pub mod check;
pub mod churn;
pub mod dice;
pub mod liar;
pub mod node;
mod queue;
pub mod request;
pub mod ring;
pub mod scenes;
pub mod setup;
pub mod weather;
mod wires;
pub mod world;
