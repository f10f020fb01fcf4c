//! What passes between a node and its engine-host about texts: prompts, replies, and what a reply must look like.

use crate::ids::SessionId;
use minicbor::{CborLen, Decode, Encode};

/// The most tokens in [`Steer::logit_bias`]; OpenAI's limit.
pub const LOGIT_BIAS_MAX: usize = 1_024;
/// The most in [`Steer::logprobs`]; OpenAI's limit.
pub const TOP_LOGPROBS_MAX: u32 = 20;
/// The longest grammar or schema, in bytes.
pub const GRAMMAR_BYTES_MAX: usize = 1 << 20;

/// Text to tokens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Tokenize {
    /// The text.
    #[n(0)]
    pub text: String,
    /// Whether the model's begin-of-text token is put in front, where the model wants one.
    #[n(1)]
    pub add_special: bool,
    /// Whether control tokens are recognised in the text: only in text that we rendered ourselves.
    #[n(2)]
    pub parse_special: bool,
}

/// What the model wrote, to be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct ReadReply {
    /// [`Prompt::syntax`] of the prompt that it answers.
    #[n(0)]
    pub syntax: String,
    /// All of it so far, control tokens of the syntax included.
    #[n(1)]
    pub text: String,
    /// Whether more may follow.
    #[n(2)]
    pub partial: bool,
}

/// A prompt that the engine made of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Prompt {
    /// What the model computes. Control tokens in texts of the conversation are plain text here.
    #[n(0)]
    pub tokens: Vec<i32>,
    /// The same as text, for people.
    #[n(1)]
    pub text: String,
    /// What binds the reply, where the conversation asks for it: tools that must be called, a schema.
    #[n(2)]
    pub grammar: Option<Grammar>,
    /// How the reply is to be taken apart with [`super::Task::Read`]; `None` when all of it is content.
    #[n(3)]
    pub syntax: Option<String>,
    /// Texts that end the reply, beside those of the request.
    #[n(4)]
    pub stops: Vec<String>,
}

/// How the tokens of a session are chosen beyond [`crate::model::Sampling`].
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Steer {
    /// The session; [`super::Task::Drop`] forgets this too.
    #[n(0)]
    pub session: SessionId,
    /// What the reply must look like.
    #[n(1)]
    pub grammar: Option<Grammar>,
    /// Added to the logits of tokens, at most [`LOGIT_BIAS_MAX`] of them; −∞ forbids one.
    #[n(2)]
    pub logit_bias: Vec<(i32, f32)>,
    /// Taken off the logit of every token that the reply has already; −2 to 2.
    #[n(3)]
    pub presence_penalty: f32,
    /// Taken off once for each time; −2 to 2.
    #[n(4)]
    pub frequency_penalty: f32,
    /// How many of the most probable tokens are named beside the drawn one, at most [`TOP_LOGPROBS_MAX`]; `None`
    /// computes no probabilities.
    #[n(5)]
    pub logprobs: Option<u32>,
    /// Whether control tokens are written into [`super::Drawn::piece`] by their names, for [`super::Task::Read`].
    #[n(6)]
    pub show_control: bool,
    /// Tokens that the reply has already, where it goes on after a break; they are the end of the first run's tokens.
    #[n(7)]
    pub drawn: Vec<i32>,
}

/// What a reply must look like.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, CborLen)]
pub enum Grammar {
    /// One JSON object.
    #[n(0)]
    Json,
    /// JSON that fits a schema, given as JSON.
    #[n(1)]
    Schema(#[n(0)] String),
    /// llama.cpp's notation, as its chat templates make it.
    #[n(2)]
    Gbnf(#[n(0)] Gbnf),
    /// llguidance's Lark notation.
    #[n(3)]
    Lark(#[n(0)] String),
}

/// A grammar in llama.cpp's notation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Gbnf {
    /// The rules.
    #[n(0)]
    pub rules: String,
    /// ECMAScript regular expressions. Without any, and without [`Self::trigger_tokens`], the reply is bound from its
    /// beginning; else it is free until one of them is found in it, and bound from the first capture on (without a
    /// capture, from the match on).
    #[n(1)]
    pub triggers: Vec<String>,
    /// Tokens from which on the reply is bound, as further triggers.
    #[n(2)]
    pub trigger_tokens: Vec<i32>,
    /// What the prompt ends with and the rules begin with.
    #[n(3)]
    pub prefix: String,
    /// What begins reasoning, in which triggers count for nothing; empty where there is none.
    #[n(4)]
    pub thinking_start: String,
    /// What ends it.
    #[n(5)]
    pub thinking_ends: Vec<String>,
}

/// How probable a drawn token was, before temperature, limits and bias.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Logprobs {
    /// The natural logarithm of its probability.
    #[n(0)]
    pub drawn: f32,
    /// The most probable tokens, best first.
    #[n(1)]
    pub top: Vec<Probable>,
}

/// A token that might have been drawn.
#[derive(Debug, Clone, PartialEq, Encode, Decode, CborLen)]
#[cbor(map)]
pub struct Probable {
    /// The token.
    #[n(0)]
    pub token: i32,
    /// Its text, as in [`super::Drawn::piece`], control tokens by their names.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub piece: Vec<u8>,
    /// The natural logarithm of its probability.
    #[n(2)]
    pub logprob: f32,
}
