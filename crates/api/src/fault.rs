//! Errors as clients see them.
//!
//! Shape: `{"error": {"message", "type", "param", "code"}}`, all four always present, as the schema `Error` of OpenAI's
//! API description wants. Programs go by `code`, which is stable; `message` says the cause and the next step.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt::Display;

/// When to come back after [`Fault::overloaded`], in seconds.
pub const OVERLOADED_RETRY_S: u32 = 2;
/// When to come back after [`Fault::not_ready`] and [`Fault::shutting_down`], in seconds.
pub const NOT_READY_RETRY_S: u32 = 5;

/// `type` of errors that the client can mend.
const INVALID_REQUEST: &str = "invalid_request_error";
/// `type` of errors that the client cannot mend.
const SERVER: &str = "server_error";

/// An error for the client, in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The HTTP status, as long as no answer has begun.
    pub status: u16,
    /// OpenAI's coarse class, `type` in JSON.
    pub kind: &'static str,
    /// The stable key.
    pub code: &'static str,
    /// For people: the cause and the next step.
    pub message: String,
    /// The field of the request that is to blame, such as `messages[1].content`.
    pub param: Option<String>,
    /// When to come back, in seconds, as the header `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// The tokens of a prompt that is too long, and those of the context; `n_prompt_tokens` and `n_ctx` in JSON, as
    /// llama-server has them.
    pub exceeded: Option<(u32, u32)>,
}

impl Fault {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: String) -> Self {
        Self {
            status: status.as_u16(),
            kind,
            code,
            message,
            param: None,
            retry_after_s: None,
            exceeded: None,
        }
    }

    /// A request that is wrong as a whole: 400.
    #[must_use]
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            code,
            message.into(),
        )
    }

    /// A field with a wrong value: 400 `invalid_value`.
    #[must_use]
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", message).about(param)
    }

    /// A field that is missing: 400 `missing_required_parameter`.
    #[must_use]
    pub fn missing(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("missing_required_parameter", message).about(param)
    }

    /// A field that would change the answer in a way that this server cannot: 400 `unsupported_parameter`.
    #[must_use]
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).about(param)
    }

    /// A prompt longer than the context, in tokens: 400 `context_length_exceeded`. Nothing is ever cut off silently.
    #[must_use]
    pub fn context_exceeded(prompt_tokens: u32, context_tokens: u32) -> Self {
        // By "prompt is too long", LangChain knows what it is.
        let message = format!(
            "the prompt is too long: it has {prompt_tokens} tokens, and the model's context here holds \
             {context_tokens} including the answer; shorten the messages"
        );
        Self {
            exceeded: Some((prompt_tokens, context_tokens)),
            ..Self::bad_request("context_length_exceeded", message).about("messages")
        }
    }

    /// A model that is not here: 404 `model_not_found`.
    #[must_use]
    pub fn model_not_found(model: &str) -> Self {
        let message =
            format!("the model '{model}' is not here; GET /v1/models lists those that are");
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "model_not_found",
            message,
        )
        .about("model")
    }

    /// No stream to resume: 404 `stream_not_found`.
    #[must_use]
    pub fn stream_not_found() -> Self {
        let message = "there is no such stream for this key: it never was one, it has been read to its end, its client was away for too \
                       long, or its journal is gone (see the node's log); ask again from the beginning";
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "stream_not_found",
            message.to_owned(),
        )
    }

    /// A stream that somebody else has resumed: 409 `stream_taken`.
    #[must_use]
    pub fn stream_taken() -> Self {
        let message = "the stream was resumed by another client and goes on there";
        let status = StatusCode::CONFLICT;
        Self::new(status, INVALID_REQUEST, "stream_taken", message.to_owned())
    }

    /// A stream that this node cannot go on with as it now is: 409 `stream_stale`. The message says what has changed.
    #[must_use]
    pub fn stream_stale(message: impl Into<String>) -> Self {
        let status = StatusCode::CONFLICT;
        Self::new(status, INVALID_REQUEST, "stream_stale", message.into())
    }

    /// No route: 404 `unknown_url`.
    #[must_use]
    pub fn unknown_url(method: impl Display, path: &str) -> Self {
        let message = format!("there is no {method} {path}; GET / lists what there is");
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            "unknown_url",
            message,
        )
    }

    /// A route, but not for this method: 405 `method_not_allowed`.
    #[must_use]
    pub fn method_not_allowed(method: impl Display, path: &str) -> Self {
        let message =
            format!("{path} does not take {method}; the header Allow names what it takes");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, INVALID_REQUEST, "method_not_allowed", message)
    }

    /// A body that came too slowly: 408 `request_timeout`.
    #[must_use]
    pub fn request_timeout(wait_s: u64) -> Self {
        let message = format!("the body did not arrive within {wait_s} s; send the request again");
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            INVALID_REQUEST,
            "request_timeout",
            message,
        )
    }

    /// A body that is too large: 413 `body_too_large`.
    #[must_use]
    pub fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("the body has more than {bytes_max} bytes; shorten the messages");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID_REQUEST,
            "body_too_large",
            message,
        )
    }

    /// A key that is missing or unknown: 401 `invalid_api_key`.
    #[must_use]
    pub fn unauthorized() -> Self {
        let message = "this node wants a key: send one of its keys as 'Authorization: Bearer KEY' or 'x-api-key: KEY'";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            "invalid_api_key",
            message.to_owned(),
        )
    }

    /// An answer that is not what its schema wants: 500 `schema_violation`. `why` says where.
    #[must_use]
    pub fn schema_violation(why: impl Display) -> Self {
        let message = format!("the model's answer does not fit the schema: {why}; ask again");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "schema_violation",
            message,
        )
    }

    /// Arguments of a tool that are no JSON object, in a dialect that wants one: 500 `arguments_unreadable`.
    #[must_use]
    pub fn arguments_unreadable(tool: &str) -> Self {
        let message =
            format!("the model called '{tool}' with arguments that are no JSON object; ask again");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "arguments_unreadable",
            message,
        )
    }

    /// A `Host` or `Origin` that is not ours: 403.
    #[must_use]
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            code,
            message.into(),
        )
    }

    /// No room for another request: 503 `overloaded`, come back in [`OVERLOADED_RETRY_S`].
    #[must_use]
    pub fn overloaded(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, SERVER, "overloaded", message.into()).retry_after(OVERLOADED_RETRY_S)
    }

    /// Not able to answer yet: 503 `not_ready`, come back in [`NOT_READY_RETRY_S`].
    #[must_use]
    pub fn not_ready(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, SERVER, "not_ready", message.into()).retry_after(NOT_READY_RETRY_S)
    }

    /// A model that is not tried again until the owner of the node says so: 503 `model_quarantined`. Coming back soon is
    /// no use.
    #[must_use]
    pub fn quarantined(message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, SERVER, "model_quarantined", message.into())
    }

    /// The node ends: 503 `shutting_down`, come back in [`NOT_READY_RETRY_S`].
    #[must_use]
    pub fn shutting_down() -> Self {
        let message = "the node is shutting down; ask again when it is back".to_owned();
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER,
            "shutting_down",
            message,
        )
        .retry_after(NOT_READY_RETRY_S)
    }

    /// A peer that the answer needs is gone: 502 `peer_lost`. The message names the peer and what it held.
    #[must_use]
    pub fn peer_lost(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, SERVER, "peer_lost", message.into())
    }

    /// Our own failure: 500 `internal_error`.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "internal_error",
            message.into(),
        )
    }

    /// Names the field that is to blame.
    #[must_use]
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when to come back, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The body: `{"error": {…}}`.
    #[must_use]
    pub fn body(&self) -> impl Serialize + '_ {
        ErrorBody {
            error: ErrorObject {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
                n_prompt_tokens: self.exceeded.map(|(prompt, _)| prompt),
                n_ctx: self.exceeded.map(|(_, context)| context),
            },
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u32>,
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For the dialects in which errors look otherwise.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_status_code_and_shape() {
        for (fault, status, code, retry) in [
            (
                Fault::context_exceeded(5000, 2048),
                400,
                "context_length_exceeded",
                None,
            ),
            (Fault::model_not_found("m"), 404, "model_not_found", None),
            (Fault::overloaded("full"), 503, "overloaded", Some("2")),
            (Fault::not_ready("loading"), 503, "not_ready", Some("5")),
            (Fault::shutting_down(), 503, "shutting_down", Some("5")),
            (Fault::peer_lost("b is gone"), 502, "peer_lost", None),
            (Fault::internal("a bug"), 500, "internal_error", None),
            (
                Fault::schema_violation("at 'a'"),
                500,
                "schema_violation",
                None,
            ),
            (Fault::stream_not_found(), 404, "stream_not_found", None),
            (Fault::stream_taken(), 409, "stream_taken", None),
            (Fault::stream_stale("it has"), 409, "stream_stale", None),
            (Fault::unauthorized(), 401, "invalid_api_key", None),
        ] {
            let json = serde_json::to_value(fault.body()).unwrap();
            assert_eq!(json["error"]["code"], code);
            let fields = if fault.exceeded.is_some() { 6 } else { 4 };
            assert_eq!(json["error"].as_object().unwrap().len(), fields, "{json}");
            assert_eq!(json["error"]["message"], fault.to_string());
            let response = fault.into_response();
            assert_eq!(response.status(), status, "{code}");
            let header = response
                .headers()
                .get(header::RETRY_AFTER)
                .map(|v| v.to_str().unwrap());
            assert_eq!(header, retry, "{code}");
        }
    }

    #[test]
    fn a_prompt_too_long_names_both_numbers() {
        let fault = Fault::context_exceeded(5000, 2048);
        assert!(
            fault.message.contains("5000") && fault.message.contains("2048"),
            "{fault}"
        );
        assert_eq!(fault.param.as_deref(), Some("messages"));
        let json = serde_json::to_value(fault.body()).unwrap();
        let numbers = (&json["error"]["n_prompt_tokens"], &json["error"]["n_ctx"]);
        assert_eq!(numbers, (&5000.into(), &2048.into()));
    }
}
