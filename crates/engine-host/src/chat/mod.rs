//! Conversations to prompts, and replies back to messages.
//!
//! # Story
//!
//! A conversation comes as JSON and is checked ([`conversation`]). llama.cpp renders it with the model's own template and says
//! what binds a reply that calls tools, and how it is to be taken apart; all of that is behind a small shim of C++ ([`shim`]).
//! Templates that know no tools are found out once, when the model is loaded, and get our own way of calling them ([`own`],
//! [`reader`]). Schemas of tools are bounded before they become grammars ([`schema`]), and texts of control tokens in the
//! conversation stay texts ([`marks`]). [`render`] ties it together; [`desk`] does the work beside the engine's steps.
//!
//! *Invariant:* tools that a caller sends are in the prompt, or an error says why not.

mod conversation;
mod desk;
mod grammar;
mod marks;
mod own;
mod reader;
mod render;
mod schema;
mod shim;
mod syntax;
mod template;

pub use desk::Desk;
pub use grammar::GbnfGrammar;
pub use render::Chat;
pub use template::Nature;

use proto::host::{FailCode, Failed};
use serde::{Deserialize, Serialize};

/// What a model said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its words.
    pub content: String,
    /// What it thought before.
    pub reasoning: String,
    /// The tools that it calls.
    pub tool_calls: Vec<Call>,
}

/// A call of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// As the model named it; most name none.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// JSON as the model wrote it; unfinished while it writes.
    pub arguments: String,
}

/// Why a conversation was not rendered, or a reply not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The conversation has not the right shape.
    #[error("{0}")]
    Shape(String),
    /// A tool cannot be used.
    #[error("the tool {name} cannot be used: {why}")]
    Tool {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The model has no template.
    #[error("the model has no chat template; send a prompt in the model's own format instead")]
    NoTemplate,
    /// The template cannot do this.
    #[error("the model's chat template cannot be used for this conversation: {0}")]
    Template(String),
    /// The text cannot become tokens.
    #[error("the prompt cannot be turned into tokens: {0}")]
    Tokens(#[from] crate::llama::TextError),
}

impl From<ChatError> for Failed {
    fn from(error: ChatError) -> Self {
        let code = match error {
            ChatError::Shape(_) | ChatError::Tool { .. } => FailCode::BadCall,
            _ => FailCode::Unsupported,
        };
        Self {
            code,
            detail: error.to_string(),
        }
    }
}
