//! `myzel ask`: one question, the answer streams to the terminal.

use super::show::{client, not_there, reachable};
use crate::control::Control;
use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;

/// The longest question that is read from standard input, in bytes.
const QUESTION_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The question; `-` reads it from standard input
    question: String,
    /// A system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 takes the most probable token
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Keep the most probable tokens that reach this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep this many of the most probable tokens
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keys the random numbers: the same seed gives the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The most tokens of the answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
}

pub(super) async fn ask(data_dir: &Path, args: AskArgs) -> anyhow::Result<()> {
    let control = Control::read(data_dir)?;
    let base = format!("http://{}", reachable(control.api));
    let client = client()?;
    let models = client.get(format!("{base}/v1/models"));
    let models = models.bearer_auth(&control.token).send().await;
    let models: Value = models
        .with_context(|| not_there(data_dir, &control))?
        .json()
        .await?;
    let model = models["data"][0]["id"]
        .as_str()
        .context("the node has no model")?;
    let body = body(model, args)?;
    let reply = client
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(&control.token)
        .json(&body)
        .send()
        .await;
    let reply = reply.with_context(|| not_there(data_dir, &control))?;
    if !reply.status().is_success() {
        let text = reply.text().await?;
        let error: Value = serde_json::from_str(&text).unwrap_or_default();
        bail!("{}", error["error"]["message"].as_str().unwrap_or(&text));
    }
    print_stream(reply).await
}

fn body(model: &str, args: AskArgs) -> anyhow::Result<Value> {
    let mut question = args.question;
    if question == "-" {
        question = String::new();
        let stdin = std::io::stdin().lock();
        stdin
            .take(QUESTION_BYTES_MAX + 1)
            .read_to_string(&mut question)?;
        if question.len() as u64 > QUESTION_BYTES_MAX {
            bail!("the question is longer than {QUESTION_BYTES_MAX} bytes");
        }
    }
    let mut messages = Vec::new();
    if let Some(system) = args.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.push(json!({"role": "user", "content": question}));
    let mut body = json!({"model": model, "messages": messages, "stream": true});
    let optional = [
        ("temperature", args.temperature.map(Value::from)),
        ("top_p", args.top_p.map(Value::from)),
        ("top_k", args.top_k.map(Value::from)),
        ("seed", args.seed.map(Value::from)),
        ("max_tokens", args.max_tokens.map(Value::from)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    Ok(body)
}

/// Prints what an event stream (HTML standard, section 9.2) of completion chunks brings.
async fn print_stream(reply: reqwest::Response) -> anyhow::Result<()> {
    let mut stream = reply.bytes_stream();
    let mut buffer = Vec::new();
    let mut out = std::io::stdout();
    while let Some(bytes) = stream.next().await {
        buffer.extend_from_slice(&bytes.context("the node broke off in the middle of the answer")?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim_end().strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                writeln!(out)?;
                return Ok(());
            }
            let event: Value = serde_json::from_str(data)?;
            if let Some(message) = event["error"]["message"].as_str() {
                writeln!(out)?;
                bail!("{message}");
            }
            if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
                write!(out, "{text}")?;
                out.flush()?;
            }
        }
    }
    bail!("the answer broke off: the node closed the connection")
}
