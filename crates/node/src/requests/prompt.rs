//! What the engine is to compute, from what the client sent.

use super::{Requests, refused};
use api::{Conversation, Fault, GenerateRequest, Prompt};
use engine::Host;
use proto::host::{self, Steer, Tokenize};
use proto::ids::SessionId;
use proto::journal::AnswerPlan;

impl Requests {
    /// The prompt as tokens, and what it asks of the reply.
    pub(super) async fn prompt(&self, host: &Host, prompt: Prompt) -> Result<host::Prompt, Fault> {
        let prompt = match prompt {
            Prompt::Chat(conversation) => render(host, &conversation).await?,
            Prompt::Text(text) => host::Prompt {
                tokens: tokens(host, text, (true, true), "prompt").await?,
                ..host::Prompt::default()
            },
            Prompt::Tokens(tokens) => host::Prompt {
                tokens: known(host, tokens, "prompt")?,
                ..host::Prompt::default()
            },
        };
        let (count, context) = (prompt.tokens.len() as u32, host.loaded().positions_max);
        // The last position is for the first token of the answer.
        if count >= context {
            return Err(Fault::context_exceeded(count, context));
        }
        if count == 0 {
            return Err(Fault::invalid(
                "prompt",
                "the prompt has no token to go on from",
            ));
        }
        Ok(prompt)
    }
}

/// A conversation as the model's prompt.
pub(super) async fn render(
    host: &Host,
    conversation: &Conversation,
) -> Result<host::Prompt, Fault> {
    let json = serde_json::to_string(conversation).map_err(|e| Fault::internal(e.to_string()))?;
    let rendered = host.render(json).await;
    rendered.map_err(|error| refused(error, "messages"))
}

/// The tokens of a text; whether those that begin every text are added, and whether control tokens are recognised;
/// `param` is the field that it came from.
pub(super) async fn tokens(
    host: &Host,
    text: String,
    (add_special, parse_special): (bool, bool),
    param: &str,
) -> Result<Vec<i32>, Fault> {
    let tokenize = Tokenize {
        text,
        add_special,
        parse_special,
    };
    let tokens = host.tokenize(tokenize).await;
    tokens.map_err(|error| refused(error, param))
}

/// Tokens that a client sent, once it is sure that the model has them all.
pub(super) fn known(host: &Host, tokens: Vec<i32>, param: &str) -> Result<Vec<i32>, Fault> {
    let vocabulary = host.loaded().vocabulary;
    let known = |token: &i32| u32::try_from(*token).is_ok_and(|token| token < vocabulary);
    match tokens.iter().find(|token| !known(token)) {
        None => Ok(tokens),
        Some(token) => Err(Fault::invalid(
            param,
            format!("{token} is no token of this model, which has {vocabulary}"),
        )),
    }
}

/// How the reply's tokens are chosen beyond the settings that every request has; `None` where nothing was asked.
pub(super) fn steer(request: &GenerateRequest, plan: &AnswerPlan, drawn: &[i32]) -> Option<Steer> {
    let plain = plan.grammar.is_none()
        && plan.syntax.is_none()
        && request.logit_bias.is_empty()
        && request.presence_penalty == 0.0
        && request.frequency_penalty == 0.0
        && request.logprobs.is_none();
    (!plain).then(|| Steer {
        session: SessionId(rand::random()),
        grammar: plan.grammar.clone(),
        logit_bias: request.logit_bias.clone(),
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logprobs: request.logprobs,
        show_control: plan.syntax.is_some(),
        drawn: drawn.to_vec(),
    })
}
