//! The iroh transport: one endpoint, links to the other members, hops of a ring, blocks of models.
//!
//! # Story
//!
//! [`Net::bind`] opens a QUIC endpoint under the node's key: no relay but those of members, nothing that asks a vendor. A newcomer first calls [`Net::join`]: one short connection in which it shows a ticket and gets its
//! membership back. With a membership a node calls [`Net::start`], and from then on is part of the mesh:
//!
//! ```text
//!             ALPN_LINK, one bidirectional stream             ALPN_HOP, one bidirectional stream
//! caller  ── Hello ──────────────────────────> callee     caller ── HopHello ───────────────> callee
//!         <───────────────── Welcome/refusal ──                  <──────── HopWelcome ──────
//!         <═══ Link packets, both ways, for life ═══>            ══ Hop packets: head + payload ═══>
//! ```
//!
//! * **Links** ([`links`]). Every member that is known is called, again and again with back-off, until there is
//!   exactly one link to it. Both sides say a heartbeat every second; what else arrives goes to the node as
//!   [`LinkEvent`]s. Nothing heard for `SUSPECT_MS` means the link is lost: QUIC's own idle time-out is far slower.
//!   On link-up the two tell each other whom they know, so all who joined through one introducer end up in a mesh.
//! * **Hops** ([`hop`]). Activations travel on connections of their own, one per neighbour and ring, written straight
//!   from the caller's buffer. Slow readers slow the writer down through QUIC's flow control; nothing is queued here.
//! * **Blobs** ([`blobs`]). Models travel between members block by block, on connections of their own: asked for by
//!   content, verified while they stream, from several members at once, within limits.
//! * **Admission** ([`admission`]). QUIC proves who holds which node key. Whether that node belongs to the commons is
//!   decided by an [`Admission`] for callers and checked by the caller for whom it called.
//!
//! * **Ways** (`ways`). Tickets and remembered addresses come first. Members find each other again on the local network
//!   and in the BitTorrent DHT, and reach each other over relays that members offer.
//! * **Limits** (`door`, `links::meter`). What strangers may do is counted by the host that they come from; what a
//!   member says on a link is measured.
//!
//! # Tasks
//!
//! All tasks are tracked by the endpoint's `TaskTracker` and end with its `CancellationToken`: one accepts
//! connections; one tells where this node is when that changes, one tells it to the DHT, one is the relay for others, if it is to be; one per incoming connection reads its first message and then runs the link, if it becomes one; one per
//! known member dials and then runs the link. Hops run in the tasks of whoever holds their ends. [`Net::close`] ends
//! everything within a second and tells the peers; dropping the last [`Net`] ends the tasks without telling them.
//!
//! *Invariant:* before a caller has proven its membership it can make this node hold no more than
//! [`limits::STRANGER_WINDOW_BYTES`], for no longer than [`limits::HELLO_MS`], and only
//! [`limits::STRANGERS_MAX`] such callers exist at once.

pub mod admission;
pub mod blobs;
mod bucket;
mod dial;
mod door;
mod end;
mod endpoint;
mod floor;
pub mod hop;
pub mod limits;
pub mod links;
mod open;
mod packets;
mod transport;
mod ways;

pub use admission::{Admission, Doorkeeper, Spent, Verdict};
pub use dial::{DialError, JoinError, Joined};
pub use end::EndReason;
pub use endpoint::{BindError, Net, NetConfig};
pub use hop::{HopError, HopReceiver, HopSender, IncomingHop};
pub use links::{LinkEvent, Links, PeerState, PeerStatus, SendError, Standing, Started};
pub use transport::Congestion;
pub use ways::{DHT_BOOTSTRAP, DhtConfig, RelayOffer, Way, WaysConfig};
