//! The limits of the transport. What both sides must agree on is in `proto`.

use proto::member::{HEARTBEAT_MS, MEMBERS_MAX, SUSPECT_MS};
use proto::packet::PAYLOAD_BYTES_MAX;
use proto::ticket::{RELAYS_MAX, TICKET_ADDRS_MAX};

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
/// Of these, those that one host may have; a host is an IPv4 address or an IPv6 /64.
pub const STRANGERS_PER_HOST_MAX: usize = 16;
/// From so many strangers on, a caller has to show that it is at the address that it calls from (RFC 9000, 8.1.2).
pub const STRANGERS_CALM: usize = 16;
/// Incoming connections of one host at once, after a rest.
pub const CALLS_PER_HOST_BURST: u32 = 256;
/// Incoming connections of one host, each second.
pub const CALLS_PER_HOST_PER_S: f64 = 4.0;
/// Newcomers of one host at once, after a rest: a classroom.
pub const JOINS_PER_HOST_BURST: u32 = 48;
/// Newcomers of one host, each second: 30 a minute.
pub const JOINS_PER_HOST_PER_S: f64 = 0.5;
/// Hosts that are told apart at the door; the rest shares one host's rights.
pub const HOSTS_MAX: usize = 4_096;
/// From an incoming connection's first packet to the end of its first message, in milliseconds.
pub const HELLO_MS: u64 = 5_000;
/// From the first packet of a call to the answer, in milliseconds.
pub const DIAL_MS: u64 = 4_000;
/// How long the stage that was called may think about a hop, in milliseconds.
pub const HOP_WELCOME_MS: u64 = 10_000;
/// How long a member that is doubted may take to give a sign of life, in milliseconds, beside [`DOUBT_LAPS`] of the usual
/// round trip and as many of the longest lately. On a busy machine a link's task waits for its turn; that is in the longest.
pub const DOUBT_MS: u64 = 200;
/// Round trips that it may take beside.
pub const DOUBT_LAPS: u32 = 2;
/// A timer of ours that fires so much too late shows that this node itself had no turn, in milliseconds; then the member has
/// as much time again.
pub const OWN_DELAY_MS: u64 = 20;
/// How long a refusal may take to reach the caller before the connection is closed, in milliseconds.
pub const LINGER_MS: u64 = 1_000;
/// The first pause between two calls to a member, in milliseconds; each further one is twice as long.
pub const REDIAL_MIN_MS: u64 = 250;
/// The longest pause between two calls to a member, in milliseconds.
pub const REDIAL_MAX_MS: u64 = 5_000;
/// After how many failed calls a member that we know only by hearsay is forgotten.
pub const HEARSAY_DIALS_MAX: u32 = 8;
/// How often a node looks whether its own addresses are still the same, in milliseconds.
pub const PRESENCE_MS: u64 = 1_000;
/// How long a newcomer listens on the local network for its introducer, in milliseconds.
pub const LAN_WAIT_MS: u64 = 3_000;
/// Nodes of the local network that are remembered.
pub const LAN_MEMBERS_MAX: usize = 512;
/// How long one question to the DHT may take, in milliseconds.
pub const DHT_FIND_MS: u64 = 10_000;
/// Questions to the DHT at once.
pub const DHT_LOOKUPS_MAX: usize = 4;
/// The pause between the first two questions about the same member, in milliseconds; each further one is twice as long.
pub const DHT_ASK_PAUSE_MIN_MS: u64 = 10_000;
/// The longest pause between two questions about the same member, in milliseconds.
pub const DHT_ASK_PAUSE_MAX_MS: u64 = 15 * 60_000;
/// Members of whom is remembered when the DHT was asked.
pub const DHT_ASKED_MAX: usize = 1_024;
/// How often a node looks whether the DHT has to be told something new, in milliseconds.
pub const DHT_LOOK_MS: u64 = 30_000;
/// How often the DHT is told the same again, in milliseconds: its nodes forget after two hours.
pub const DHT_RETELL_MS: u64 = 45 * 60_000;
/// Relays that are used; those of further members are not.
pub const RELAYS_KNOWN_MAX: usize = 16;
/// Connections to the relay that a node offers.
pub const RELAY_CLIENTS_MAX: usize = 128;
/// Of these, those that are not known as members.
pub const RELAY_GUESTS_MAX: usize = 8;
/// How long somebody who is not known as a member may use the relay, in milliseconds.
pub const RELAY_GUEST_MS: u64 = 30_000;
/// How often is looked for guests whose time is over, in milliseconds.
pub const RELAY_SWEEP_MS: u64 = 5_000;
/// Bytes that one client of the relay may send each second: 16 Mbit/s.
pub const RELAY_BYTES_PER_S: u32 = 2 << 20;
/// Bytes that one client of the relay may send at once, after a rest.
pub const RELAY_BYTES_BURST: u32 = 4 << 20;
/// Messages waiting to be written on one link.
pub const OUTBOX_MAX: usize = 256;
/// Messages that a member may say on a link at once, after a rest.
pub const LINK_MESSAGES_BURST: u32 = 4_000;
/// Messages that a member may say on a link, each second. An acknowledgement a token and session is the most that rings need.
pub const LINK_MESSAGES_PER_S: u32 = 1_000;
/// Bytes that a member may say on a link at once, after a rest: the list of all members several times over.
pub const LINK_BYTES_BURST: u32 = 8 << 20;
/// Bytes that a member may say on a link, each second.
pub const LINK_BYTES_PER_S: u32 = 2 << 20;
/// For how long a member that says more is only slowed down, in milliseconds; then its link ends.
pub const FLOOD_MS: u64 = 8_000;
/// For how long a member whose link ended for that gets no new one, in milliseconds.
pub const FLOOD_PENANCE_MS: u64 = 60_000;
/// Events waiting for the node.
pub const EVENTS_MAX: usize = 1_024;
/// How long a provider of blocks whose answer broke off may take to say why, in milliseconds.
pub const LAST_WORD_MS: u64 = 250;
/// Incoming hops waiting for the node.
pub const INCOMING_HOPS_MAX: usize = 16;
/// Incoming hops open at once.
pub const HOPS_MAX: usize = 128;
/// Members in one message; several messages tell of more.
pub const MEMBERS_PER_MESSAGE: usize = 64;
/// How long the other side may wait until it confirms a lone packet, in milliseconds.
pub const ACK_DELAY_MS: u64 = 5;
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
const _: () = assert!(STRANGERS_PER_HOST_MAX * 4 <= STRANGERS_MAX);
const _: () =
    assert!(LINK_BYTES_BURST as usize >= 8 * <proto::ring::Link as proto::codec::Wire>::BYTES_MAX);
const _: () = assert!(HEARTBEAT_MS < SUSPECT_MS && KEEP_ALIVE_MS < IDLE_MS as u64);
/// The most bytes that a member's own fields take in CBOR: addresses of 64, a name of 4 a character, key and framing.
const MEMBER_BYTES_MAX: usize =
    (TICKET_ADDRS_MAX + RELAYS_MAX) * 64 + proto::member::NAME_CHARS_MAX * 4 + 128;
const _: () = assert!(
    MEMBERS_PER_MESSAGE * MEMBER_BYTES_MAX + 64
        <= <proto::ring::Link as proto::codec::Wire>::BYTES_MAX
);
const _: () = assert!(MEMBERS_PER_MESSAGE <= MEMBERS_MAX);

/// Connections at once on which members ask for blocks of models.
pub const BLOB_CONNECTIONS_MAX: usize = 32;
/// Of them, connections of one member.
pub const BLOB_CONNECTIONS_PER_PEER_MAX: usize = 2;
/// Requests for blocks that a member may have open on one connection.
pub const BLOB_STREAMS_MAX: u32 = 4;
/// Requests for blocks that are answered at once; others wait.
pub const UPLOADS_MAX: usize = 16;
/// The longest request for a block, in bytes. The protocol allows 1 MiB, full of ranges that take quadratic time.
pub const BLOB_REQUEST_BYTES_MAX: usize = 1_024;
/// Bytes of a block that are written, and counted against the limits of uploads, at once.
pub const PIECE_BYTES: usize = 64 << 10;
/// Pieces that were read from the disk and wait to be written, in one answer.
pub const PIECES_MAX: usize = 4;
/// How long a member may take none of the bytes it asked for, in milliseconds.
pub const UPLOAD_STUCK_MS: u64 = 10_000;
/// What may be uploaded at once after a pause, however low the limit, in bytes.
pub const UPLOAD_BURST_BYTES: u64 = 1 << 20;
/// Members that blocks are fetched from at once.
pub const PROVIDERS_MAX: usize = 16;
/// Parts of blocks that are asked for at once of one member: the next is on its way when one has come.
pub const PARTS_PER_PROVIDER: usize = 3;
/// Nothing came for so long of what a member was asked for: it is left, in milliseconds.
pub const STALL_MS: u64 = 5_000;
/// Nothing came for so long: somebody who is idle asks another for the same part, in milliseconds.
pub const QUIET_MS: u64 = 1_000;
/// How often a fetch looks at its providers, in milliseconds.
pub const FETCH_TICK_MS: u64 = 100;
/// After how many failures in a row a provider is given up.
pub const PROVIDER_STRIKES_MAX: u32 = 3;
/// The pause before a provider is called again, in milliseconds; twice as long each time.
pub const RECALL_MS: u64 = 500;
/// How long a member may take to say what it holds of a model, in milliseconds.
pub const ASK_MS: u64 = 10_000;

const _: () = assert!(PARTS_PER_PROVIDER <= BLOB_STREAMS_MAX as usize);
const _: () = assert!(
    2 * BLOB_CONNECTIONS_PER_PEER_MAX * BLOB_STREAMS_MAX as usize <= UPLOADS_MAX,
    "nobody can take more than half of the turns"
);
const _: () = assert!(PIECE_BYTES as u64 <= UPLOAD_BURST_BYTES && QUIET_MS < STALL_MS);
/// What a fetch holds in memory at most: every part on its way is verified piece by piece, and written when it is whole.
const _: () = assert!(
    PROVIDERS_MAX as u64 * PARTS_PER_PROVIDER as u64 * proto::manifest::PART_BYTES <= 64 << 20
);
