//! What the tests share: nodes as real processes, questions over HTTP, networks and disks of their own.

pub(crate) mod http;
pub(crate) mod hub;
pub(crate) mod models;
pub(crate) mod netns;
pub(crate) mod node;
pub(crate) mod processes;
pub(crate) mod wait;
