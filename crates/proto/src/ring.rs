//! What the members of a ring say to each other.
//!
//! Two kinds of stream. A *link* joins any two members and carries [`Link`]: heartbeats, and between coordinator and
//! stage the control of rings and sessions. A *hop* joins a stage to the next and carries [`Hop`]: sessions opening
//! and activations, in order. Frames name (session, epoch, position, chunk, stage, kind); the rules by which a stage
//! takes, repeats or refuses them are in `swarm::stage`.

mod goes_on;

pub use goes_on::{NewEpoch, Resume, Shadow};

use crate::ad::SignedAd;
use crate::codec::{self, Wire};
use crate::ids::{Hash, NodeId, RingId, SessionId};
use crate::member::{Member, Membership};
use crate::model::{LayerRange, Numerics, WireType};
use minicbor::{CborLen, Decode, Encode};

/// The version of link, hop and handshake that this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest version that this build still speaks.
pub const PROTOCOL_OLDEST: u32 = 1;
/// The most remote stages in one ring.
pub const STAGES_MAX: u32 = 64;
/// Rows of one prefill chunk; chunks lie on an absolute grid of this size.
pub const CHUNK_ROWS: u32 = 256;
/// How long a stage keeps a session that it hears nothing of, in milliseconds.
pub const LEASE_MS: u64 = 30_000;
/// How long a member keeps a stage that it was asked to stand by for, in milliseconds; coordinators ask again in time.
pub const STANDBY_MS: u64 = 30_000;
/// How much output a stage retains for one session, in bytes.
pub const RETAINED_BYTES_MAX: usize = 64 << 20;
/// The longest message of gossip, in bytes: an ad, and what the protocol puts around it.
pub const GOSSIP_BYTES_MAX: usize = SignedAd::BYTES_MAX + 1_024;
/// The most bytes of ads in one [`LinkBody::Ads`].
pub const ADS_BYTES_MAX: usize = 96 << 10;
/// The longest text that explains a failure, in bytes.
pub const DETAIL_BYTES_MAX: usize = 512;

/// Everything that fixes the bits a stage computes. Its hash is compared before a stage loads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Contract {
    /// BLAKE3 of the model's file.
    #[n(0)]
    pub model: Hash,
    /// The layers of the stage.
    #[n(1)]
    pub layers: LayerRange,
    /// Engine and its build options, as the engine-host reports them.
    #[n(2)]
    pub build: String,
    /// The CPU features that choose kernels. Machines that differ in it alone may work together, without
    /// a promise of equal bits.
    #[n(3)]
    pub cpu_class: String,
    /// The type of KV cache entries, in ggml's words.
    #[n(4)]
    pub kv_type: String,
    /// Whether flash attention is on.
    #[n(5)]
    pub flash_attention: bool,
    /// Rows of a prefill chunk.
    #[n(6)]
    pub chunk_rows: u32,
    /// The numerics mode.
    #[n(7)]
    pub numerics: Numerics,
    /// How activations are written.
    #[n(8)]
    pub wire: WireType,
}

impl Wire for Contract {
    const WHAT: &'static str = "stage contract";
    const BYTES_MAX: usize = 2048;
}

impl Contract {
    /// BLAKE3 over the CBOR of the contract.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&codec::to_vec(self))
    }

    /// The first thing in which `theirs` differs so that working together is refused, named for people.
    ///
    /// The CPU class is not such a thing.
    #[must_use]
    pub fn conflict(&self, theirs: &Self) -> Option<&'static str> {
        [
            ("model", self.model == theirs.model),
            ("layers", self.layers == theirs.layers),
            ("engine build", self.build == theirs.build),
            ("KV cache type", self.kv_type == theirs.kv_type),
            ("attention", self.flash_attention == theirs.flash_attention),
            ("chunk grid", self.chunk_rows == theirs.chunk_rows),
            ("numerics mode", self.numerics == theirs.numerics),
            ("wire type", self.wire == theirs.wire),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }
}

/// One message on a link. A body that this build does not know decodes as `None` and is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Link {
    /// What is said.
    #[n(0)]
    pub body: Option<LinkBody>,
}

impl Wire for Link {
    const WHAT: &'static str = "link message";
    const BYTES_MAX: usize = 128 << 10;
}

impl From<LinkBody> for Link {
    fn from(body: LinkBody) -> Self {
        Self { body: Some(body) }
    }
}

/// What members say on a link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum LinkBody {
    /// "I am alive", every [`crate::member::HEARTBEAT_MS`].
    #[n(0)]
    Heartbeat(#[n(0)] Heartbeat),
    /// The members that the sender knows.
    #[n(1)]
    Members(#[n(0)] Vec<Member>),
    /// Coordinator: load this stage.
    #[n(2)]
    OpenRing(#[n(0)] Box<OpenRing>),
    /// Stage: loaded, and connected to its successor.
    #[n(3)]
    RingReady(#[n(0)] RingReady),
    /// Stage: not loaded.
    #[n(4)]
    RingRefused(#[n(0)] RingRefused),
    /// Coordinator: unload.
    #[n(5)]
    CloseRing(#[n(0)] RingId),
    /// Coordinator: forget a session and free its KV cache.
    #[n(6)]
    CloseSession(#[n(0)] SessionRef),
    /// Coordinator: outputs below a position need not be retained any longer.
    #[n(7)]
    Ack(#[n(0)] Ack),
    /// Coordinator: from now on only frames of this epoch count; abort what is in flight and answer.
    #[n(8)]
    Epoch(#[n(0)] NewEpoch),
    /// Stage: where it stands, in answer to [`LinkBody::Epoch`].
    #[n(9)]
    EpochAnswer(#[n(0)] EpochAnswer),
    /// Stage: a session cannot go on here.
    #[n(10)]
    SessionFailed(#[n(0)] SessionFailed),
    /// Ads of members that the sender knows, its own first; at most [`ADS_BYTES_MAX`] of them.
    #[n(12)]
    Ads(#[n(0)] Vec<SignedAd>),
    /// A message of iroh-gossip's protocol (0.101) between neighbours, in postcard; at most [`GOSSIP_BYTES_MAX`]. Ads
    /// are what is told by it.
    #[n(13)]
    Gossip(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Stage: asked for and known, loading now. Said at once, so that a coordinator does not wait blindly.
    #[n(20)]
    RingLoading(#[n(0)] RingId),
    /// Stage: still fetching what it is to load. Whoever does not know this waits as long as for any other stage.
    #[n(21)]
    RingProgress(#[n(0)] RingProgress),
    /// Coordinator: all stages have answered an epoch; what this one keeps and sends on.
    #[n(22)]
    Resume(#[n(0)] Resume),
    /// Coordinator: load this stage of a ring that is up, and keep it for [`STANDBY_MS`], in case that its host is lost.
    #[n(23)]
    Standby(#[n(0)] Box<OpenRing>),
    /// Member: how it stands with a stage that it was to keep.
    #[n(24)]
    StandingBy(#[n(0)] StandingBy),
    /// Coordinator: feed whoever stands by for the next stage with what is retained here of a session.
    #[n(25)]
    Shadow(#[n(0)] Box<Shadow>),
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Heartbeat {
    /// Grows with every start of the node.
    #[n(0)]
    pub incarnation: u64,
    /// Echoed by the other side, to measure the round trip; microseconds on the sender's own clock.
    #[n(1)]
    pub sent_us: u64,
    /// The newest `sent_us` that the sender has seen of the other side.
    #[n(2)]
    pub echo_us: Option<u64>,
}

/// Load a stage.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct OpenRing {
    /// The ring's name from now on.
    #[n(0)]
    pub ring: RingId,
    /// Which remote stage the receiver becomes, from 1.
    #[n(1)]
    pub stage: u32,
    /// How many remote stages there are.
    #[n(2)]
    pub stages: u32,
    /// What the receiver is to compute, and how.
    #[n(3)]
    pub contract: Contract,
    /// Whom it passes its outputs to: the next stage, or the coordinator behind the last.
    #[n(4)]
    pub successor: Member,
    /// How many sessions may be open at once.
    #[n(5)]
    pub sessions_max: u32,
    /// Positions of each session's KV cache.
    #[n(6)]
    pub positions_max: u32,
    /// The model's name, for messages.
    #[n(7)]
    pub model_name: String,
    /// Who sends the stage its inputs: the stage before, or the coordinator before the first. No other member may.
    #[n(8)]
    pub predecessor: NodeId,
    /// The ring that this one goes on for. Who has a stage of it with the same contract keeps engine and sessions.
    #[n(9)]
    pub continues: Option<RingId>,
}

/// A stage is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct RingReady {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// The stage's own contract; equal hashes mean equal bits.
    #[n(1)]
    pub contract: Contract,
    /// How long loading took, in milliseconds.
    #[n(2)]
    pub load_ms: u64,
}

/// How it stands with a stage that is kept for the case that its host is lost.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct StandingBy {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// Its layers.
    #[n(1)]
    pub layers: LayerRange,
    /// Why it is not loaded, for people, at most [`DETAIL_BYTES_MAX`] bytes; `None` when it is.
    #[n(2)]
    pub refused: Option<String>,
}

/// How far a stage is with fetching its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct RingProgress {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// Bytes that are here and verified, of those that lacked when it began.
    #[n(1)]
    pub done_bytes: u64,
    /// Bytes that lacked when it began.
    #[n(2)]
    pub total_bytes: u64,
}

/// A stage is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct RingRefused {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// The closed reason; `None` is one that this build does not know.
    #[n(1)]
    pub code: Option<RefusalCode>,
    /// For people, at most [`DETAIL_BYTES_MAX`] bytes.
    #[n(2)]
    pub detail: String,
}

/// A session at an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct SessionRef {
    /// The ring.
    #[n(0)]
    pub ring: RingId,
    /// The session.
    #[n(1)]
    pub session: SessionId,
    /// The epoch.
    #[n(2)]
    pub epoch: u32,
}

/// Outputs below `position` need not be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Ack {
    /// Whose outputs.
    #[n(0)]
    pub at: SessionRef,
    /// The first position still needed.
    #[n(1)]
    pub position: u32,
}

/// Where a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct EpochAnswer {
    /// The session, at the new epoch.
    #[n(0)]
    pub at: SessionRef,
    /// Which stage answers, from 1.
    #[n(1)]
    pub stage: u32,
    /// Positions in its KV cache.
    #[n(2)]
    pub length: u32,
    /// BLAKE3 of the last row it took, where it is known. It is the output of the stage before at the same length.
    #[n(3)]
    pub input: Option<Hash>,
    /// BLAKE3 of the last row that came out, where it is retained.
    #[n(4)]
    pub output: Option<Hash>,
    /// The first position whose output it still retains.
    #[n(5)]
    pub retained_from: u32,
}

/// A session cannot go on at a stage.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct SessionFailed {
    /// The session and the epoch the stage knows.
    #[n(0)]
    pub at: SessionRef,
    /// Which stage speaks, from 1.
    #[n(1)]
    pub stage: u32,
    /// The closed reason; `None` is one that this build does not know.
    #[n(2)]
    pub code: Option<RefusalCode>,
    /// For people, at most [`DETAIL_BYTES_MAX`] bytes.
    #[n(3)]
    pub detail: String,
}

/// Why a stage refuses a ring, a session or a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen, thiserror::Error)]
pub enum RefusalCode {
    /// The contracts differ in more than the CPU class.
    #[error("the contracts differ")]
    #[n(0)]
    ContractMismatch,
    /// The node does not have the model's file.
    #[error("the model is not there")]
    #[n(1)]
    ModelMissing,
    /// The file is there and cannot be cut, loaded or read.
    #[error("the model cannot be used")]
    #[n(2)]
    ModelUnusable,
    /// No memory, or no free session.
    #[error("no room")]
    #[n(3)]
    NoRoom,
    /// No such session.
    #[error("unknown session")]
    #[n(4)]
    UnknownSession,
    /// The frame's epoch is older than the session's.
    #[error("old epoch")]
    #[n(5)]
    OldEpoch,
    /// The frame's epoch is newer than any that the coordinator announced to this stage.
    #[error("epoch not announced")]
    #[n(6)]
    UnknownEpoch,
    /// The frame's position lies behind the end of the stage's cache.
    #[error("a gap before the position")]
    #[n(7)]
    Gap,
    /// The position was computed before, from another input.
    #[error("another input for a position already computed")]
    #[n(8)]
    Conflict,
    /// The position was computed before, and its output is no longer retained.
    #[error("the output is no longer retained")]
    #[n(9)]
    Forgotten,
    /// The frame's shape does not fit the model or the session.
    #[error("wrong shape")]
    #[n(10)]
    BadShape,
    /// The engine failed.
    #[error("the engine failed")]
    #[n(11)]
    EngineFailed,
    /// The next stage cannot be reached.
    #[error("the next stage cannot be reached")]
    #[n(12)]
    SuccessorLost,
    /// The caller is not a member of the commons.
    #[error("not a member")]
    #[n(13)]
    NotAMember,
    /// The lease ran out.
    #[error("nothing was heard of the session for too long")]
    #[n(14)]
    LeaseExpired,
    /// The node's engine is not locked up, and its owner did not allow to serve others like that.
    #[error("no sandbox")]
    #[n(15)]
    Unsandboxed,
    /// The node does not compute for the coordinator's room.
    #[error("not served")]
    #[n(16)]
    OtherRoom,
}

/// The first packet on a hop, from the stage that called.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct HopHello {
    /// The ring that the hop belongs to.
    #[n(0)]
    pub ring: RingId,
    /// The stage that will send on it: 0 is the coordinator's head.
    #[n(1)]
    pub from_stage: u32,
    /// The caller's proof.
    #[n(2)]
    pub membership: Membership,
}

impl Wire for HopHello {
    const WHAT: &'static str = "hop hello";
    const BYTES_MAX: usize = 4 << 10;
}

/// The answer to [`HopHello`], before any activation flows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct HopWelcome {
    /// Why the hop is refused; `None` is a welcome.
    #[n(0)]
    pub refused: Option<RefusalCode>,
}

impl Wire for HopWelcome {
    const WHAT: &'static str = "hop welcome";
    const BYTES_MAX: usize = 64;
}

/// One packet on a hop. A body that this build does not know decodes as `None` and is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Hop {
    /// What is said.
    #[n(0)]
    pub body: Option<HopBody>,
}

impl Wire for Hop {
    const WHAT: &'static str = "hop frame";
    const BYTES_MAX: usize = 256;
}

impl From<HopBody> for Hop {
    fn from(body: HopBody) -> Self {
        Self { body: Some(body) }
    }
}

/// What a stage says to the next.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum HopBody {
    /// A session begins: every stage opens it and passes this on.
    #[n(0)]
    Open(#[n(0)] OpenSession),
    /// Activations; the payload is `rows` × embedding length numbers of the ring's wire type.
    #[n(1)]
    Rows(#[n(0)] Rows),
}

/// A session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct OpenSession {
    /// Its name.
    #[n(0)]
    pub session: SessionId,
    /// Its first epoch.
    #[n(1)]
    pub epoch: u32,
    /// The most positions that it will use.
    #[n(2)]
    pub positions_max: u32,
}

/// What a frame of activations belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Rows {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The epoch under which it was sent.
    #[n(1)]
    pub epoch: u32,
    /// The position of the first row.
    #[n(2)]
    pub position: u32,
    /// How many rows follow.
    #[n(3)]
    pub rows: u32,
    /// The chunk of the absolute grid that the first row lies in.
    #[n(4)]
    pub chunk: u32,
    /// The stage that computed the rows: 0 is the coordinator's head.
    #[n(5)]
    pub stage: u32,
    /// What the rows are for.
    #[n(6)]
    pub kind: RowsKind,
    /// How many of the last rows are of tokens that are only guessed, fewer than there are rows: the next frame may begin at
    /// any of them, and take its place and those of all behind it. 0 from a node that does not know this.
    #[cbor(n(7), skip_if = "is_none")]
    pub guessed: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What rows are for; deadlines depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum RowsKind {
    /// Part of the prompt; no token is drawn yet.
    #[n(0)]
    Prefill,
    /// The rows end with the position that the next token is drawn from.
    #[n(1)]
    Decode,
    /// Rebuilds a cache; what comes out is not wanted downstream.
    #[n(2)]
    Replay,
}
