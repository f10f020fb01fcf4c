//! `myzel ticket` and `myzel status`.

use super::print_line;
use crate::control::{Control, TicketReply};
use crate::status::{Answers, Status};
use anyhow::{Context, bail};
use clap::Args;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// How long a node may take to answer a command.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct TicketArgs {
    /// How long the ticket lives, in hours [default: a week]
    #[arg(long, value_name = "HOURS")]
    hours: Option<f64>,
    /// How many machines may join with it [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn ticket(data_dir: &Path, args: &TicketArgs) -> anyhow::Result<()> {
    let mut query = Vec::new();
    if let Some(hours) = args.hours {
        if !(hours > 0.0 && hours <= 24.0 * 366.0) {
            bail!("--hours {hours} is out of range: more than 0, at most a year");
        }
        query.push(("life_s", ((hours * 3600.0).ceil() as u64).to_string()));
    }
    if let Some(uses) = args.uses {
        query.push(("uses", uses.to_string()));
    }
    let query: Vec<String> = query.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    let path = format!("/myzel/ticket?{}", query.join("&"));
    let text = ask_node(data_dir, reqwest::Method::POST, &path).await?;
    let reply: TicketReply = serde_json::from_str(&text)?;
    Ok(print_line(if args.json { text.trim() } else { &reply.ticket })?)
}

pub(super) async fn status(data_dir: &Path, args: &StatusArgs) -> anyhow::Result<()> {
    let text = ask_node(data_dir, reqwest::Method::GET, "/myzel/status").await?;
    let status: Status = serde_json::from_str(&text)?;
    let shown =
        if args.json { serde_json::to_string_pretty(&status)? } else { for_people(&status) };
    Ok(print_line(shown.trim_end())?)
}

/// Asks a route of the running node.
async fn ask_node(data_dir: &Path, method: reqwest::Method, path: &str) -> anyhow::Result<String> {
    let control = Control::read(data_dir)?;
    let url = format!("http://{}{path}", reachable(control.api));
    let client = client()?;
    let sent = client.request(method, url).bearer_auth(&control.token).timeout(ANSWER_MAX).send();
    let reply = sent.await.with_context(|| not_there(data_dir, &control))?;
    let ok = reply.status().is_success();
    let text = reply.text().await?;
    if !ok {
        bail!("the node refused: {text}");
    }
    Ok(text)
}

/// An HTTP client that calls no proxy: the node is on this machine.
pub(super) fn client() -> anyhow::Result<reqwest::Client> {
    // Only plain HTTP is spoken, but a client cannot be made without a provider; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// Where to call a node that listens everywhere.
pub(super) fn reachable(addr: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

pub(super) fn not_there(data_dir: &Path, control: &Control) -> String {
    format!(
        "the node of {} (process {}) does not answer at {}; if it crashed, start it again with: myzel up",
        data_dir.display(),
        control.pid,
        control.api
    )
}

/// The status as a page of text.
fn for_people(status: &Status) -> String {
    let mut out = String::new();
    let model = &status.model;
    let where_to = match status.answers {
        Answers::Home => "whole on this node".to_owned(),
        Answers::Ring => "over the ring".to_owned(),
        Answers::Nowhere => "nowhere at the moment".to_owned(),
    };
    let context = model.context.map_or("?".to_owned(), |context| context.to_string());
    let mut line = |text: String| {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("node      {} \"{}\"", status.node.short(), status.name));
    line(format!("commons   {}", status.commons.short()));
    line(format!("endpoint  {}", status.api));
    line(format!(
        "model     {} ({}, {} layers, context {context}), answered {where_to}",
        model.name, model.numerics, model.layers
    ));
    line(format!("requests  {} of {} places taken", model.sessions, model.sessions_max));
    line(format!(
        "rates     {:.1} tokens/s, first token {} ms (newest answer); {} requests, {} failed, {} tokens; {} threads, engine {} MB",
        status.rates.decode_tokens_per_s,
        status.rates.first_token_ms,
        status.rates.requests,
        status.rates.failed,
        status.rates.tokens,
        status.rates.threads,
        status.rates.engine_bytes / 1_000_000,
    ));
    if let Some(ring) = &status.ring {
        line(format!("ring      {} ({} remote stages asked for)", ring.state, ring.split));
        if let Some(why) = &ring.why {
            line(format!("          {why}"));
        }
        if let (Some(head), Some(tail)) = (ring.head, ring.tail) {
            line(format!("          head, layers {head}, and tail, layers {tail}, on this node"));
        }
        for stage in &ring.stages {
            let class = if stage.same_class { "" } else { ", another CPU class: bits may differ" };
            line(format!(
                "          stage {}, layers {}, on {} \"{}\" (loaded in {} ms{class})",
                stage.stage,
                stage.layers,
                stage.node.short(),
                stage.name,
                stage.load_ms
            ));
        }
    }
    for hosted in &status.hosting {
        line(format!(
            "hosting   layers {} of {} as stage {} for {}",
            hosted.layers,
            hosted.model,
            hosted.stage,
            hosted.coordinator.short()
        ));
    }
    for node in &status.nodes {
        let rtt = node.rtt_ms.map_or(String::new(), |ms| format!(", {ms:.1} ms"));
        let why = node.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        let (id, name) = (node.node.short(), &node.name);
        line(format!("member    {id} \"{name}\" {} for {} s{rtt}{why}", node.state, node.since_s));
    }
    out
}
