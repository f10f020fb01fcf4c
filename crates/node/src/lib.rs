//! The `myzel` binary: configuration, wiring, command line, shutdown.
//!
//! # Story
//!
//! This is the one crate that knows everybody. `myzel up` ([`daemon`]) takes the data directory, finds out who it is
//! ([`standing`]), resolves the model, binds its two faces (HTTP and QUIC), and starts the parts below. It prints
//! `ready` only after it has answered a question of its own.
//!
//! ```text
//! client ──HTTP──> api ──> requests ──┬──> home: the whole model in one engine-host
//!                                     └──> ring: head ─> peers ─> tail, a swarm::session machine a request
//! peers ──links──> dispatch ──┬──> ring  (I am the coordinator: stages are ready, failed, lost)
//!        ──hops───>           └──> stage (I host layers for others: a swarm::stage machine a ring)
//! ```
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`daemon`] | start and end of everything |
//! | [`dispatch`] | one task that reads what links and hops bring, and hands it on |
//! | [`requests`] | prompt, limits, and the path of one answer |
//! | [`home`] | the whole model on this machine |
//! | [`streams`] | journals of streamed answers, by which they outlive clients and this node |
//! | [`roster`], [`gossip`](mod@gossip), [`herald`] | the members of the commons, how they hear of each other, and what this node tells of itself |
//! | [`placement`], [`plan`](mod@plan), [`scales`], [`memory`] | what a model needs, who could give it, and what the planner makes of that |
//! | [`content`] | models handed on to other members, block by block, and fetched from them |
//! | [`rooms`] | who may see a request, and for whom this node computes |
//! | [`ring`] | the coordinator's side of a ring: forming it, a task a session, knowing when it broke |
//! | [`stage`] | the other side: layers hosted for a coordinator, a task a ring |
//! | [`quarantine`] | models that engine-hosts died with: kept, shown, released |
//! | [`sandbox`] | what a node may do whose engine is not fully locked up |
//! | [`tickets`] | invitations: issued, counted, taken back |
//! | [`control`] | what `myzel status` and `myzel ticket` ask of a running node |
//! | [`cli`], [`config`] | words and settings |
//!
//! Every task is started by the [`daemon`] or by something that it owns, and ends with the shutdown token or when its
//! owner is dropped. Engine-hosts end with their supervisors.

pub mod cli;
pub mod config;
pub mod content;
pub mod control;
pub mod daemon;
pub mod data;
pub mod dispatch;
pub mod gossip;
pub mod herald;
pub mod home;
pub mod memory;
pub mod placement;
pub mod plan;
pub mod quarantine;
mod remembered;
pub mod requests;
pub mod ring;
pub mod rooms;
pub mod roster;
pub mod sandbox;
pub mod scales;
pub mod spare;
pub mod stage;
pub mod standing;
pub mod status;
pub mod streams;
pub mod tickets;
