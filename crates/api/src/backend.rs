//! What stands behind the face: the trait that the node implements.

mod conversation;

pub use conversation::{ChatMessage, Conversation, Message, Role, Schema, ToolCall, ToolChoice};

use crate::fault::Fault;
use crate::metrics::Family;
use proto::journal::AnswerPlan;
use std::future::Future;
use tokio::sync::mpsc;

/// A source of answers. Every error is a [`Fault`], which goes to the client as it is: no such model, prompt longer
/// than the context, no room, …
pub trait Backend: Send + Sync + 'static {
    /// The models that can be asked now.
    fn models(&self) -> Vec<ModelCard>;

    /// Whether the node can answer.
    fn health(&self) -> Health;

    /// Counters and gauges of the node; those of the face are added to them.
    fn metrics(&self) -> Vec<Family>;

    /// Begins an answer.
    ///
    /// Returns as soon as the prompt is tokenised and the request has its place, before the prompt is computed; what
    /// goes wrong later is a [`GenerateEvent::Failed`]. Dropping the future, or later the receiver in the
    /// [`Generation`], cancels: the implementation watches `Sender::closed`, not only failed sends.
    ///
    /// # Errors
    ///
    /// A schema or tools that cannot be steered by are a [`Fault::invalid`] too.
    fn generate(
        &self,
        request: GenerateRequest,
    ) -> impl Future<Output = Result<Generation, Fault>> + Send;

    /// Takes an answer apart: `text` is all of it so far, `syntax` is its [`Generation::syntax`]. `partial` says that
    /// more may come, or that it was cut off.
    ///
    /// # Errors
    ///
    /// A text that the model's own syntax does not allow.
    fn read(
        &self,
        syntax: &str,
        text: &str,
        partial: bool,
    ) -> impl Future<Output = Result<Message, Fault>> + Send;

    /// Vectors for texts.
    ///
    /// # Errors
    ///
    /// A model that makes none, a text longer than its context, …
    fn embed(
        &self,
        request: EmbedRequest,
    ) -> impl Future<Output = Result<Embeddings, Fault>> + Send;

    /// The tokens of a text.
    ///
    /// # Errors
    ///
    /// See [`Backend`].
    fn tokenize(
        &self,
        request: TokenizeRequest,
    ) -> impl Future<Output = Result<Vec<Piece>, Fault>> + Send;

    /// The bytes of tokens.
    ///
    /// # Errors
    ///
    /// A number that is no token of the model's is a [`Fault::invalid`].
    fn detokenize(
        &self,
        model: String,
        tokens: Vec<i32>,
    ) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;

    /// What a conversation looks like to the model.
    ///
    /// # Errors
    ///
    /// See [`Backend`].
    fn render(
        &self,
        request: RenderRequest,
    ) -> impl Future<Output = Result<Rendered, Fault>> + Send;

    /// Fetches a model by its name in the node's catalogue. Dropping the receiver cancels; what was fetched stays.
    ///
    /// # Errors
    ///
    /// A name that the catalogue does not know.
    fn pull(
        &self,
        name: String,
    ) -> impl Future<Output = Result<mpsc::Receiver<PullEvent>, Fault>> + Send;
}

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelCard {
    /// Its name in requests.
    pub id: String,
    /// Since when it is there, in seconds since 1970 UTC.
    pub created: u64,
    /// Who provides it.
    pub owned_by: String,
    /// The most tokens of prompt and answer together.
    pub context_tokens: Option<u32>,
    /// How many weights it has.
    pub parameters: Option<u64>,
    /// The size of its file.
    pub file_bytes: Option<u64>,
    /// The hash of its file, in hex.
    pub sha256: Option<String>,
    /// Its family, as its file says: `llama`, `qwen3`, …
    pub architecture: Option<String>,
    /// How its weights are stored: `Q4_K_M`, …
    pub quantisation: Option<String>,
    /// Numbers in one of its embeddings.
    pub embedding_width: Option<u32>,
    /// Its chat template.
    pub template: Option<String>,
    /// Whether it is in memory.
    pub loaded: bool,
}

/// Whether a node can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub state: HealthState,
    /// Why it is not [`HealthState::Ok`]: cause and next step, one sentence each.
    pub reasons: Vec<String>,
}

/// Whether a node can answer, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// It can.
    Ok,
    /// Not yet.
    Starting,
    /// Something that it needs is missing.
    Degraded,
}

/// What is to be answered, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerateRequest {
    /// [`ModelCard::id`].
    pub model: String,
    /// Who asks.
    pub caller: Caller,
    /// Who may see it, at most; `None` is as the node is set up.
    pub room: Option<Room>,
    /// What the answer follows.
    pub prompt: Prompt,
    /// 0 to 2; 0 takes the most probable token. `None` is the model's default, here and below.
    pub temperature: Option<f32>,
    /// Above 0, at most 1; 1 keeps all tokens.
    pub top_p: Option<f32>,
    /// 0 keeps all tokens.
    pub top_k: Option<u32>,
    /// Keys the random numbers; `None` is a seed of the backend's choice.
    pub seed: Option<u64>,
    /// The most tokens to answer with, at least 1; `None` is as many as the context has room for.
    pub max_tokens: Option<u32>,
    /// What is added to the logits of tokens: -100 to 100.
    pub logit_bias: Vec<(i32, f32)>,
    /// -2 to 2; taken off the logits of tokens that the answer holds already.
    pub presence_penalty: f32,
    /// -2 to 2; the same, once for every time.
    pub frequency_penalty: f32,
    /// How many of the most probable tokens are wanted beside each token, with the logarithms of their probabilities;
    /// `Some(0)` is the token's own alone.
    pub logprobs: Option<u32>,
    /// An earlier answer to this very request that is to go on; its plan counts, and not what it was made of.
    pub resume: Option<Box<Resume>>,
}

/// An answer that goes on where it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// [`Generation::plan`] of the answer.
    pub plan: AnswerPlan,
    /// The tokens that it has.
    pub drawn: Vec<i32>,
}

/// What an answer follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Messages, which the model's template turns into text.
    Chat(Box<Conversation>),
    /// Text as the model is to see it, the names of control tokens included: whoever sends it makes the whole prompt.
    Text(String),
    /// Tokens of the model.
    Tokens(Vec<i32>),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// Who may see a request, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// The node's own machine.
    Alone,
    /// The peers that the node's owner named.
    Circle,
    /// Everybody whom the node works with.
    Square,
}

/// Who asks: the bearer key as it was sent; requests without one are all from the same caller. Never written to a log.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Caller(pub Option<String>);

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Caller(with a key)"
        } else {
            "Caller(without a key)"
        })
    }
}

/// An answer that is being made. Dropping it cancels.
#[derive(Debug)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// The name of the model that answers.
    pub model: String,
    /// What fixes the bits of the answer (model, build), as `system_fingerprint` in responses.
    pub fingerprint: Option<String>,
    /// What [`Backend::read`] takes this answer's text apart by; `None`: all of it is said to the user.
    pub syntax: Option<String>,
    /// Texts at which the template wants the answer to end; not part of it.
    pub stops: Vec<String>,
    /// All that fixes the answer, for [`Resume`]; `None` where it cannot go on after a break.
    pub plan: Option<Box<AnswerPlan>>,
    /// Tokens, then one [`GenerateEvent::Finished`] or [`GenerateEvent::Failed`]. The channel's capacity is how far the
    /// backend may run ahead of a slow client.
    pub events: mpsc::Receiver<GenerateEvent>,
}

/// One step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerateEvent {
    /// A token; the token that ends the generation is not one.
    Token {
        /// Its number in the vocabulary.
        id: i32,
        /// Its text: bytes, since a character may be spread over several tokens.
        piece: Vec<u8>,
        /// If [`GenerateRequest::logprobs`] asked.
        logprobs: Option<TokenLogprobs>,
        /// With the first token: how many tokens of the prompt were not computed anew, since an earlier prompt of the
        /// same caller began with them.
        reused: u32,
    },
    /// The end.
    Finished {
        /// Why.
        reason: Finish,
    },
    /// The answer cannot be completed.
    Failed(Fault),
}

/// How probable a token was: natural logarithms, before temperature and penalties.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenLogprobs {
    /// Of the token itself.
    pub logprob: f32,
    /// The most probable tokens, that one perhaps among them: number, bytes, logarithm.
    pub top: Vec<(i32, Vec<u8>, f32)>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model was done, or a stop string came.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

/// What vectors are wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// [`ModelCard::id`].
    pub model: String,
    /// Who asks.
    pub caller: Caller,
    /// See [`GenerateRequest::room`].
    pub room: Option<Room>,
    /// At least one.
    pub inputs: Vec<Input>,
}

/// A text, or its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// As text.
    Text(String),
    /// As tokens of the model.
    Tokens(Vec<i32>),
}

/// Vectors of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// The name of the model that made them.
    pub model: String,
    /// One for each input, each of length 1 (Euclidean).
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub prompt_tokens: u32,
}

/// What is to be turned into tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeRequest {
    /// [`ModelCard::id`].
    pub model: String,
    /// The text.
    pub text: String,
    /// Whether the tokens that begin (and end) every text of the model are added.
    pub add_special: bool,
    /// Whether the names of control tokens in the text become control tokens.
    pub parse_special: bool,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its number in the vocabulary.
    pub id: i32,
    /// Its text; not always whole characters.
    pub bytes: Vec<u8>,
}

/// What is to be turned into the model's own form.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderRequest {
    /// [`ModelCard::id`].
    pub model: String,
    /// What was said.
    pub conversation: Conversation,
}

/// A conversation as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// As text.
    pub text: String,
    /// How many tokens that is.
    pub tokens: u32,
}

/// How far the fetching of a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// Bytes have come.
    Fetching {
        /// The hash of the file, in hex, where it is known before.
        sha256: Option<String>,
        /// Bytes of the file.
        total: u64,
        /// Bytes that are here.
        completed: u64,
    },
    /// All are here and are compared with the hash.
    Verifying,
    /// It can be asked now.
    Done,
    /// It cannot.
    Failed(Fault),
}
