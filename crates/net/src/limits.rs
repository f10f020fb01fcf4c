//! The limits of the transport. What both sides must agree on is in `proto`.

use proto::member::{HEARTBEAT_MS, MEMBERS_MAX, SUSPECT_MS};
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ticket::TICKET_ADDRS_MAX;

/// Bytes that may wait to be read on one connection of a member.
///
/// Not more, because noq 1.4 ends a connection with "too many gaps in stream buffer" when more than 2,048 pieces wait,
/// even if there is no gap (<https://github.com/quinn-rs/quinn/issues/2809>). A piece is one datagram, or less where
/// lost ones were sent again. A payload may be larger: it is taken off the stream while it arrives.
pub const WINDOW_BYTES: u32 = 3 << 19;
/// Bytes written on one connection that the other side has not confirmed yet; writing waits beyond.
pub const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that may wait to be read on one connection before its other side has proven anything.
pub const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// Streams that the other side may have open on one connection: a link is one, a hop is one.
pub const STREAMS_MAX: u32 = 1;
/// Incoming connections at once that have not proven anything yet.
pub const STRANGERS_MAX: usize = 64;
/// From an incoming connection's first packet to the end of its first message, in milliseconds.
pub const HELLO_MS: u64 = 5_000;
/// From the first packet of a call to the answer, in milliseconds.
pub const DIAL_MS: u64 = 4_000;
/// How long the stage that was called may think about a hop, in milliseconds.
pub const HOP_WELCOME_MS: u64 = 10_000;
/// How long a refusal may take to reach the caller before the connection is closed, in milliseconds.
pub const LINGER_MS: u64 = 1_000;
/// The first pause between two calls to a member, in milliseconds; each further one is twice as long.
pub const REDIAL_MIN_MS: u64 = 250;
/// The longest pause between two calls to a member, in milliseconds.
pub const REDIAL_MAX_MS: u64 = 5_000;
/// After how many failed calls a member that we know only by hearsay is forgotten.
pub const HEARSAY_DIALS_MAX: u32 = 8;
/// Messages waiting to be written on one link.
pub const OUTBOX_MAX: usize = 256;
/// Events waiting for the node.
pub const EVENTS_MAX: usize = 1_024;
/// Incoming hops waiting for the node.
pub const INCOMING_HOPS_MAX: usize = 16;
/// Incoming hops open at once.
pub const HOPS_MAX: usize = 128;
/// Members in one message; several messages tell of more.
pub const MEMBERS_PER_MESSAGE: usize = 64;
/// QUIC closes a connection on which nothing arrives for this long, in milliseconds. Links notice much earlier.
pub const IDLE_MS: u32 = 10_000;
/// QUIC sends something on a connection at least this often, in milliseconds.
pub const KEEP_ALIVE_MS: u64 = 2_000;
/// How long the endpoint may take to say goodbye, in milliseconds.
pub const CLOSE_MS: u64 = 500;
/// How long the endpoint may take to learn its own addresses, in milliseconds.
pub const ADDRS_MS: u64 = 1_000;

/// Pieces after which noq gives up, and how small they may be on average before that happens in a full window.
const NOQ_PIECES_MAX: u32 = 2_048;
const PIECE_BYTES_MIN: u32 = 800;
const _: () = assert!(WINDOW_BYTES / PIECE_BYTES_MIN < NOQ_PIECES_MAX);
const _: () = assert!(SEND_WINDOW_BYTES as usize >= PAYLOAD_BYTES_MAX);
const _: () = assert!(
    SUSPECT_MS < IDLE_MS as u64,
    "heartbeats notice before QUIC does"
);
const _: () = assert!(HEARTBEAT_MS < SUSPECT_MS && KEEP_ALIVE_MS < IDLE_MS as u64);
/// The most bytes that a member's own fields take in CBOR: addresses of 64, a name of 4 a character, key and framing.
const MEMBER_BYTES_MAX: usize = TICKET_ADDRS_MAX * 64 + proto::member::NAME_CHARS_MAX * 4 + 128;
const _: () = assert!(
    MEMBERS_PER_MESSAGE * MEMBER_BYTES_MAX + 64
        <= <proto::ring::Link as proto::codec::Wire>::BYTES_MAX
);
const _: () = assert!(MEMBERS_PER_MESSAGE <= MEMBERS_MAX);
