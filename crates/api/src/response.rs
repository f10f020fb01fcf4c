//! Writing answers: exact.
//!
//! The fields, their order and which of them are null rather than missing follow the objects `chat.completion`,
//! `chat.completion.chunk` and `model` of OpenAI's API description.

use crate::backend::{Finish, Health, HealthState, ModelCard};
use serde::{Serialize, Serializer};

/// What is the same in every object of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    /// `chatcmpl-…`, constant over a stream.
    pub(crate) id: String,
    /// When the answer began, in seconds since 1970 UTC.
    pub(crate) created: u64,
    /// The model that answers.
    pub(crate) model: String,
    /// [`Generation::fingerprint`](crate::Generation::fingerprint).
    pub(crate) system_fingerprint: Option<String>,
}

/// How many tokens an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// Of the prompt.
    pub(crate) prompt_tokens: u32,
    /// Of the answer.
    pub(crate) completion_tokens: u32,
    /// Both.
    pub(crate) total_tokens: u32,
}

impl Usage {
    /// Counts.
    pub(crate) fn new(prompt_tokens: u32, completion_tokens: u32) -> Self {
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens,
        }
    }
}

impl Serialize for Finish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
        })
    }
}

/// A whole answer, `chat.completion`.
pub(crate) fn completion<'a>(
    heading: &'a Heading,
    content: &'a str,
    finish: Finish,
    usage: Usage,
) -> impl Serialize + 'a {
    Completion {
        id: &heading.id,
        object: "chat.completion",
        created: heading.created,
        model: &heading.model,
        system_fingerprint: heading.system_fingerprint.as_deref(),
        choices: [Choice {
            index: 0,
            message: Message {
                role: "assistant",
                content,
                refusal: None,
            },
            logprobs: None,
            finish_reason: finish,
        }],
        usage,
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: [Choice<'a>; 1],
    usage: Usage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: Finish,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

/// One event of a stream, `chat.completion.chunk`.
#[derive(Debug, Serialize)]
pub(crate) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    choices: Vec<ChunkChoice>,
    /// Missing unless the client asked for counts; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Debug, Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<()>,
    finish_reason: Option<Finish>,
}

/// What a chunk adds.
#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Makes the chunks of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Chunks {
    pub(crate) heading: Heading,
    pub(crate) include_usage: bool,
}

impl Chunks {
    /// The first: who speaks.
    pub(crate) fn opening(&self) -> Chunk<'_> {
        self.choice(
            Delta {
                role: Some("assistant"),
                content: Some(String::new()),
            },
            None,
        )
    }

    /// Text.
    pub(crate) fn text(&self, text: String) -> Chunk<'_> {
        self.choice(
            Delta {
                role: None,
                content: Some(text),
            },
            None,
        )
    }

    /// The last with a choice: why it ends.
    pub(crate) fn finish(&self, reason: Finish) -> Chunk<'_> {
        self.choice(Delta::default(), Some(reason))
    }

    /// The counts, if the client asked for them.
    pub(crate) fn usage(&self, usage: Usage) -> Option<Chunk<'_>> {
        self.include_usage
            .then(|| self.chunk(Vec::new(), Some(usage)))
    }

    fn choice(&self, delta: Delta, finish_reason: Option<Finish>) -> Chunk<'_> {
        self.chunk(
            vec![ChunkChoice {
                index: 0,
                delta,
                logprobs: None,
                finish_reason,
            }],
            None,
        )
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Chunk<'_> {
        Chunk {
            id: &self.heading.id,
            object: "chat.completion.chunk",
            created: self.heading.created,
            model: &self.heading.model,
            system_fingerprint: self.heading.system_fingerprint.as_deref(),
            choices,
            usage: self.include_usage.then_some(usage),
        }
    }
}

/// `GET /v1/models`.
pub(crate) fn model_list(cards: Vec<ModelCard>) -> impl Serialize {
    ModelList {
        object: "list",
        data: cards.into_iter().map(model_entry).collect(),
    }
}

/// `GET /v1/models/{id}`.
pub(crate) fn model(card: ModelCard) -> impl Serialize {
    model_entry(card)
}

fn model_entry(card: ModelCard) -> ModelEntry {
    let ModelCard {
        id,
        created,
        owned_by,
    } = card;
    ModelEntry {
        id,
        object: "model",
        created,
        owned_by,
    }
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

#[derive(Serialize)]
struct ModelEntry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
}

/// `GET /health`.
pub(crate) fn health(health: Health) -> impl Serialize {
    let status = match health.state {
        HealthState::Ok => "ok",
        HealthState::Starting => "starting",
        HealthState::Degraded => "degraded",
    };
    HealthBody {
        status,
        reasons: health.reasons,
    }
}

#[derive(Serialize)]
struct HealthBody {
    status: &'static str,
    reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(fingerprint: Option<&str>) -> Heading {
        Heading {
            id: "chatcmpl-1".into(),
            created: 5,
            model: "m".into(),
            system_fingerprint: fingerprint.map(Into::into),
        }
    }

    #[track_caller]
    fn check(value: &impl Serialize, expected: &str) {
        assert_eq!(serde_json::to_string(value).unwrap(), expected);
    }

    #[test]
    fn a_whole_answer() {
        check(
            &completion(&heading(None), "hi", Finish::Stop, Usage::new(2, 3)),
            r#"{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#,
        );
    }

    #[test]
    fn chunks_without_counts() {
        let chunks = Chunks {
            heading: heading(None),
            include_usage: false,
        };
        check(
            &chunks.opening(),
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}"#,
        );
        check(
            &chunks.finish(Finish::Length),
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}"#,
        );
        assert!(chunks.usage(Usage::new(1, 1)).is_none());
    }

    #[test]
    fn chunks_with_counts_and_fingerprint() {
        let chunks = Chunks {
            heading: heading(Some("fp")),
            include_usage: true,
        };
        check(
            &chunks.text("hi".into()),
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        );
        check(
            &chunks.usage(Usage::new(1, 2)).unwrap(),
            r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m","system_fingerprint":"fp","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
        );
    }
}
