//! `GET /metrics`: counters and gauges in Prometheus' text format 0.0.4.

use crate::backend::Backend;
use crate::routes::App;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that is watched, with its label sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// `[a-z_]+`, with the unit last; counters end with `_total`.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// How it moves.
    pub kind: FamilyKind,
    /// Labels and value of each.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only up, from 0 at the start of the process.
    Counter,
    /// Up and down.
    Gauge,
}

impl Family {
    /// A number without labels.
    #[must_use]
    pub fn plain(name: &'static str, help: &'static str, kind: FamilyKind, value: f64) -> Self {
        Self {
            name,
            help,
            kind,
            samples: vec![(Vec::new(), value)],
        }
    }

    fn write(&self, out: &mut String) {
        let kind = match self.kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
        };
        let _ = writeln!(out, "# HELP {} {}", self.name, self.help);
        let _ = writeln!(out, "# TYPE {} {kind}", self.name);
        for (labels, value) in &self.samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let braces = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(out, "{}{braces} {value}", self.name);
        }
    }
}

fn escaped(label: &str) -> String {
    label
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

/// What the face counts itself.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    refused: AtomicU64,
    began: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

impl Tally {
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn began(&self, prompt_tokens: u32) {
        self.began.fetch_add(1, Ordering::Relaxed);
        let tokens = prompt_tokens.into();
        self.prompt_tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, completion_tokens: u32) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let tokens = completion_tokens.into();
        self.completion_tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn families(&self, open: usize) -> Vec<Family> {
        let counter = |name, help, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed) as f64;
            Family::plain(name, help, FamilyKind::Counter, value)
        };
        vec![
            Family::plain(
                "myzel_api_requests_open",
                "Requests that are being answered.",
                FamilyKind::Gauge,
                open as f64,
            ),
            counter(
                "myzel_api_requests_refused_total",
                "Requests that were answered with an error before an answer began.",
                &self.refused,
            ),
            counter(
                "myzel_api_answers_begun_total",
                "Answers that began, each with one or more choices.",
                &self.began,
            ),
            counter(
                "myzel_api_choices_ended_total",
                "Choices that came to their end.",
                &self.ended,
            ),
            counter(
                "myzel_api_answers_failed_total",
                "Answers that broke off with an error.",
                &self.failed,
            ),
            counter(
                "myzel_api_prompt_tokens_total",
                "Tokens of the prompts of answers that began.",
                &self.prompt_tokens,
            ),
            counter(
                "myzel_api_completion_tokens_total",
                "Tokens of choices that ended.",
                &self.completion_tokens,
            ),
        ]
    }
}

/// All of it.
pub(crate) async fn metrics<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let mut text = String::new();
    let own = app.tally.families(app.places.held_total());
    for family in own.iter().chain(&app.backend.metrics()) {
        family.write(&mut text);
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_kinds_are_told() {
        let family = Family {
            name: "a_bytes",
            help: "What it is.",
            kind: FamilyKind::Gauge,
            samples: vec![
                (vec![("m", "x\"\\\n".into()), ("n", "1".into())], 2.5),
                (vec![], 1e9),
            ],
        };
        let mut text = String::new();
        family.write(&mut text);
        let expected = "# HELP a_bytes What it is.\n# TYPE a_bytes gauge\n\
                        a_bytes{m=\"x\\\"\\\\\\n\",n=\"1\"} 2.5\na_bytes 1000000000\n";
        assert_eq!(text, expected);
    }
}
