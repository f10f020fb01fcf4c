//! Conversations to prompts, and replies back to messages.

mod grammar;
mod shim;

pub use grammar::GbnfGrammar;
