//! What stands behind the face: the trait that the node implements.

use crate::fault::Fault;
use std::future::Future;
use tokio::sync::mpsc;

/// A source of answers.
pub trait Backend: Send + Sync + 'static {
    /// The models that can be asked now.
    fn models(&self) -> Vec<ModelCard>;

    /// Whether the node can answer.
    fn health(&self) -> Health;

    /// Begins an answer.
    ///
    /// Returns as soon as the prompt is tokenised and the request has its place, before the prompt is computed; what
    /// goes wrong later is a [`GenerateEvent::Failed`]. Dropping the future, or later the receiver in the
    /// [`Generation`], cancels: the implementation watches `Sender::closed`, not only failed sends.
    ///
    /// # Errors
    ///
    /// A [`Fault`], which goes to the client as it is: no such model, prompt longer than the context, no room, …
    fn generate(
        &self,
        request: GenerateRequest,
    ) -> impl Future<Output = Result<Generation, Fault>> + Send;
}

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// Its name in requests.
    pub id: String,
    /// Since when it is there, in seconds since 1970 UTC.
    pub created: u64,
    /// Who provides it.
    pub owned_by: String,
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
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// [`ModelCard::id`].
    pub model: String,
    /// The conversation; at least one message.
    pub messages: Vec<ChatMessage>,
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
    /// Who asks.
    pub caller: Caller,
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

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who sets the rules; OpenAI's newer name `developer` means the same.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name in chat templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
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
    },
    /// The end.
    Finished {
        /// Why.
        reason: Finish,
    },
    /// The answer cannot be completed.
    Failed(Fault),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model was done, or a stop string came.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}
