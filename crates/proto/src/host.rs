//! The pipe between a node and its engine-host.
//!
//! Both ends are the same binary, so the messages need no compatibility between versions. Every [`Call`] carries a
//! number; replies carry it back and may come in another order. A [`Task::Run`] with a burst answers once a token.

mod load;
mod texts;

pub use load::{KvType, LoadSpec, Memory, Part, Role};
pub use texts::{
    GRAMMAR_BYTES_MAX, Gbnf, Grammar, LOGIT_BIAS_MAX, Logprobs, Probable, Prompt, ReadReply, Steer,
    TOP_LOGPROBS_MAX, Tokenize,
};

use crate::codec::Wire;
use crate::ids::{SessionId, ShareScope};
use crate::model::Sampling;
use minicbor::{CborLen, Decode, Encode};
use serde::{Deserialize, Serialize};

/// The most sessions that one engine-host holds at once.
pub const SESSIONS_MAX: u32 = 64;
/// The longest text that one call may carry, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// The most adapters that one engine-host holds, and that one session uses.
pub const ADAPTERS_MAX: usize = 8;
/// The largest adapter file, in bytes.
pub const ADAPTER_BYTES_MAX: u64 = 1 << 30;
/// The strongest that an adapter may be used, either way.
pub const ADAPTER_SCALE_MAX: f32 = 16.0;
/// The longest name of an adapter, in bytes.
pub const ADAPTER_NAME_BYTES_MAX: usize = 64;

/// The most texts of one [`Task::Embed`].
pub const EMBED_TEXTS_MAX: usize = 32;
/// The most tokens of one of its texts; a model that knows fewer positions takes fewer.
pub const EMBED_TOKENS_MAX: u32 = 2_048;

/// The most tokens that are guessed at once: a step of so many rows and one more costs at most a few steps of one row.
pub const GUESSES_MAX: usize = 8;

/// The furthest that positions may be stretched beyond what a model was trained for, as a factor.
pub const ROPE_SCALE_MAX: f32 = 32.0;

/// One message from the node.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Call {
    /// Chosen by the node; comes back in every answer.
    #[n(0)]
    pub id: u64,
    /// What to do.
    #[n(1)]
    pub task: Task,
}

impl Wire for Call {
    const WHAT: &'static str = "engine call";
    const BYTES_MAX: usize = TEXT_BYTES_MAX + 4096;
}

/// What the engine-host can do.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
pub enum Task {
    /// Load; the first call, and only once in a process.
    #[n(0)]
    Load(#[n(0)] LoadSpec),
    /// Text to tokens. Answer: [`Answer::Tokens`].
    #[n(1)]
    Tokenize(#[n(0)] Tokenize),
    /// A conversation, as JSON text, to the model's prompt. Answer: [`Answer::Prompt`].
    #[n(2)]
    Render(#[n(0)] String),
    /// Compute. Answer: as [`Run::output`] says.
    #[n(3)]
    Run(#[n(0)] Run),
    /// Cut a session's caches to a length. Answer: [`Answer::Done`].
    #[n(4)]
    Trim(#[n(0)] Trim),
    /// Forget a session, stop its burst, free its caches. Answer: [`Answer::Done`].
    #[n(5)]
    Drop(#[n(0)] SessionId),
    /// Answer: [`Answer::Stats`].
    #[n(6)]
    Stats,
    /// Load a LoRA adapter for a whole model. Answer: [`Answer::Done`].
    #[n(7)]
    LoadAdapter(#[n(0)] LoadAdapter),
    /// Forget the adapter of this name; refused while a session uses it. Answer: [`Answer::Done`].
    #[n(8)]
    UnloadAdapter(#[n(0)] String),
    /// The embeddings of texts as tokens, at most [`EMBED_TEXTS_MAX`] of [`EMBED_TOKENS_MAX`], of a whole model. Answer:
    /// [`Answer::Rows`], one row of length 1 a text, pooled as the model's file says and else by their mean.
    #[n(9)]
    Embed(#[n(0)] Vec<Vec<i32>>),
    /// What the model wrote, taken apart into content, reasoning and tool calls. Answer: [`Answer::Text`], JSON.
    #[n(10)]
    Read(#[n(0)] ReadReply),
    /// How the tokens of a session are chosen beyond [`Sampling`]; before its first run. Answer: [`Answer::Done`].
    #[n(11)]
    Steer(#[n(0)] Steer),
    /// Tokens to bytes, control tokens as their names. Answer: [`Answer::Pieces`], one piece a token.
    #[n(12)]
    Detokenize(#[n(0)] Vec<i32>),
    /// The embedding of one text from the activations that enter a model's tail, a row a token, in the payload, as a
    /// whole model makes it from tokens; in several calls where they do not fit into one. Answer: [`Answer::Done`], and to
    /// the last call [`Answer::Rows`], one row of length 1.
    #[n(13)]
    EmbedRows(#[n(0)] EmbedRows),
    /// What loading a specification would take, found out by going through it without reading a weight; instead of
    /// [`Task::Load`]. Its files need no more than their headers: the rest may be a hole. Answer: [`Answer::Memory`].
    #[n(14)]
    Estimate(#[n(0)] LoadSpec),
}

/// Rows of a text that is to be embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct EmbedRows {
    /// The text, by the session that its rows were computed in; dropping that forgets them.
    #[n(0)]
    pub session: SessionId,
    /// Whether these are its last rows.
    #[n(1)]
    pub last: bool,
}

/// Load an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct LoadAdapter {
    /// What it is called from now on, at most [`ADAPTER_NAME_BYTES_MAX`].
    #[n(0)]
    pub name: String,
    /// The name of a file directly in [`LoadSpec::adapters_dir`], at most [`ADAPTER_BYTES_MAX`] large.
    #[n(1)]
    pub file: String,
}

/// An adapter in use.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct AdapterUse {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// How strongly; 1 is as it was trained, at most [`ADAPTER_SCALE_MAX`] either way.
    #[n(1)]
    pub scale: f32,
}

/// Compute rows of a session.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Run {
    /// The session; the first run at position 0 opens it.
    #[n(0)]
    pub session: SessionId,
    /// Which part.
    #[n(1)]
    pub role: Role,
    /// The position of the first row; must be the length of the session's cache in that part.
    #[n(2)]
    pub position: u32,
    /// The tokens, for a part that takes tokens; else empty, and the payload holds f32 rows.
    #[n(3)]
    pub tokens: Vec<i32>,
    /// What is wanted.
    #[n(4)]
    pub output: Output,
    /// [`Role::Whole`] at position 0: the session may begin with what other sessions of the same scope have computed,
    /// and leaves its own behind for them. `None` shares nothing.
    #[n(5)]
    pub scope: Option<ShareScope>,
    /// [`Role::Whole`]: the adapters to compute with, at most [`ADAPTERS_MAX`], each once; all runs of a session
    /// name the same ones.
    #[n(6)]
    pub adapters: Vec<AdapterUse>,
    /// [`Role::Tail`] with [`Output::Token`]: the tokens of all rows but the first, at most [`GUESSES_MAX`], which were guessed.
    /// What is drawn behind the first row is answered, and behind each further one as long as the guess was right; the rows of
    /// wrong guesses are taken back, in the head's cache too.
    #[n(7)]
    pub guesses: Vec<i32>,
}

/// What a run is to answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
pub enum Output {
    /// Only the caches matter. Answer: [`Answer::Done`].
    #[n(0)]
    Nothing,
    /// The activations of every row. Answer: [`Answer::Rows`].
    #[n(1)]
    Rows,
    /// The logits of every row, for tests and audits. Answer: [`Answer::Rows`].
    #[n(2)]
    Logits,
    /// A token drawn from the last row, and what follows from it. Answer: [`Answer::Token`].
    #[n(3)]
    Token(#[n(0)] Draw),
}

/// How a token is drawn, and how the engine goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Draw {
    /// How.
    #[n(0)]
    pub sampling: Sampling,
    /// [`Role::Whole`]: how many tokens to draw one after the other, each fed back at once; at least 1. The burst ends
    /// early at an end-of-generation token, at the end of the cache, or when the session is dropped.
    /// [`Role::Tail`]: 1.
    #[n(1)]
    pub burst: u32,
    /// [`Role::Tail`] only: run the head on the drawn token in the same step and answer its activations too, unless
    /// the token ends the generation.
    #[n(2)]
    pub then_head: bool,
}

/// Cut caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Trim {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Positions that stay.
    #[n(1)]
    pub length: u32,
}

/// One message from the engine-host.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Reply {
    /// The call that it answers.
    #[n(0)]
    pub id: u64,
    /// Whether more answers to that call follow.
    #[n(1)]
    pub more: bool,
    /// The answer.
    #[n(2)]
    pub answer: Answer,
}

impl Wire for Reply {
    const WHAT: &'static str = "engine reply";
    const BYTES_MAX: usize = TEXT_BYTES_MAX + 4096;
}

/// What the engine-host answers.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
pub enum Answer {
    /// Loaded.
    #[n(0)]
    Loaded(#[n(0)] Box<Loaded>),
    /// The tokens of a text.
    #[n(1)]
    Tokens(#[n(0)] Vec<i32>),
    /// Text.
    #[n(2)]
    Text(#[n(0)] String),
    /// `rows` rows of f32 values in the payload.
    #[n(3)]
    Rows(#[n(0)] u32),
    /// A token; the payload holds the head's activations if they were asked for: of the last one, where guesses were right.
    #[n(4)]
    Token(#[n(0)] Drawn),
    /// Done.
    #[n(5)]
    Done,
    /// Figures.
    #[n(6)]
    Stats(#[n(0)] Stats),
    /// Not done. The session's caches are as they were before the call.
    #[n(7)]
    Failed(#[n(0)] Failed),
    /// A prompt.
    #[n(8)]
    Prompt(#[n(0)] Box<Prompt>),
    /// Bytes of tokens.
    #[n(9)]
    Pieces(#[n(0)] Vec<minicbor::bytes::ByteVec>),
    /// Memory that loading takes.
    #[n(10)]
    Memory(#[n(0)] Memory),
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Loaded {
    /// `general.architecture`.
    #[n(0)]
    pub architecture: String,
    /// Numbers in an activation row.
    #[n(1)]
    pub embedding_length: u32,
    /// Numbers in a row of logits; 1 in a middle stage.
    #[n(2)]
    pub vocabulary: u32,
    /// Positions of each session's cache.
    #[n(3)]
    pub positions_max: u32,
    /// Positions that the model was trained for.
    #[n(4)]
    pub positions_trained: u32,
    /// Engine and build options, and how far positions are stretched, for [`crate::ring::Contract::build`].
    #[n(5)]
    pub build: String,
    /// CPU features in use, for [`crate::ring::Contract::cpu_class`].
    #[n(6)]
    pub cpu_class: String,
    /// The type of cache entries, for [`crate::ring::Contract::kv_type`].
    #[n(7)]
    pub kv_type: String,
    /// Whether flash attention is on.
    #[n(8)]
    pub flash_attention: bool,
    /// How far the process has locked itself up.
    #[n(9)]
    pub sandbox: Sandbox,
    /// Sessions at once: as many as were asked for, or fewer where [`LoadSpec::kv_bytes_max`] has no room for them.
    #[n(10)]
    pub sessions_max: u32,
}

/// How far an engine-host has given up what it does not need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, CborLen, Serialize, Deserialize)]
#[cbor(map)]
pub struct Sandbox {
    /// In one word.
    #[n(0)]
    pub level: SandboxLevel,
    /// What is missing for [`SandboxLevel::Full`], for people; empty when nothing is.
    #[n(1)]
    pub missing: Vec<String>,
}

/// The levels of [`Sandbox`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, CborLen, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxLevel {
    /// No file but the model's can be opened, and no system call but those for computing does anything.
    #[n(0)]
    Full,
    /// A part of that.
    #[n(1)]
    Partial,
    /// A process of its own with resource limits, and no more.
    #[default]
    #[n(2)]
    ProcessOnly,
}

impl std::fmt::Display for SandboxLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::ProcessOnly => "process-only",
        })
    }
}

/// A drawn token.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Drawn {
    /// The token.
    #[n(0)]
    pub token: i32,
    /// The position at which it stands.
    #[n(1)]
    pub position: u32,
    /// Its text: bytes, since a character may be spread over several tokens. Empty for control tokens.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub piece: Vec<u8>,
    /// Whether it ends the generation.
    #[n(3)]
    pub end: bool,
    /// Probabilities, where [`Steer::logprobs`] asks for them.
    #[n(4)]
    pub logprobs: Option<Box<Logprobs>>,
    /// With the first token of a run: how many of the run's rows were taken over from earlier sessions instead of being
    /// computed; else 0.
    #[n(5)]
    pub reused: u32,
}

/// Figures of an engine-host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Stats {
    /// Open sessions.
    #[n(0)]
    pub sessions: u32,
    /// Threads of the newest step.
    #[n(1)]
    pub threads: u32,
    /// Rows computed in steps with more than one row a session.
    #[n(2)]
    pub prefill_rows: u64,
    /// Microseconds spent on them.
    #[n(3)]
    pub prefill_us: u64,
    /// Rows computed one by one.
    #[n(4)]
    pub decode_rows: u64,
    /// Microseconds spent on them.
    #[n(5)]
    pub decode_us: u64,
    /// Resident memory of the process in bytes.
    #[n(6)]
    pub resident_bytes: u64,
    /// Rows of prompts that were taken over from earlier sessions instead of being computed.
    #[n(7)]
    pub reused_rows: u64,
    /// Tokens that were drafted, and how many of them were right.
    #[n(8)]
    pub drafted: u64,
    /// Drafted tokens that were right.
    #[n(9)]
    pub accepted: u64,
    /// Calls that wait for their turn.
    #[n(10)]
    pub waiting: u32,
    /// Rows computed in steps of their own, one row each: what a lone request's tokens take.
    #[n(11)]
    pub alone_rows: u64,
    /// Microseconds spent on them.
    #[n(12)]
    pub alone_us: u64,
}

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen, thiserror::Error)]
#[cbor(map)]
#[error("{detail}")]
pub struct Failed {
    /// The closed reason.
    #[n(0)]
    pub code: FailCode,
    /// For people.
    #[n(1)]
    pub detail: String,
}

/// Closed reasons of [`Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
pub enum FailCode {
    /// The call does not fit the model or the session: a bug of the caller, or a peer's bad frame.
    #[n(0)]
    BadCall,
    /// No free session, or no free cache cell.
    #[n(1)]
    NoRoom,
    /// The model's file cannot be loaded.
    #[n(2)]
    Unloadable,
    /// The model family cannot do this.
    #[n(3)]
    Unsupported,
    /// The computation failed.
    #[n(4)]
    Compute,
}
