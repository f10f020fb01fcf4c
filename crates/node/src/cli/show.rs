//! `myzel status`, and asking a running node.

use super::print_line;
use crate::content::FetchStatus;
use crate::control::Control;
use crate::status::{
    Answers, HostingStatus, JournalStatus, NodeStatus, RingStatus, SandboxStatus, StageStatus,
    Status,
};
use anyhow::{Context, bail};
use clap::Args;
use std::path::Path;
use std::time::Duration;

/// How long a node may take to answer a command.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(data_dir: &Path, args: &StatusArgs) -> anyhow::Result<()> {
    let status = status_of(data_dir).await?;
    let shown = if args.json {
        serde_json::to_string_pretty(&status)?
    } else {
        for_people(&status)
    };
    Ok(print_line(shown.trim_end())?)
}

/// The status of the running node.
pub(super) async fn status_of(data_dir: &Path) -> anyhow::Result<Status> {
    let text = ask_node(data_dir, reqwest::Method::GET, "/myzel/status").await?;
    Ok(serde_json::from_str(&text)?)
}

/// Asks a route of the running node.
pub(super) async fn ask_node(
    data_dir: &Path,
    method: reqwest::Method,
    path: &str,
) -> anyhow::Result<String> {
    let control = Control::read(data_dir)?;
    let url = format!("http://{}{path}", reachable(control.api));
    let client = client()?;
    let sent = client
        .request(method, url)
        .bearer_auth(&control.token)
        .timeout(ANSWER_MAX)
        .send();
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
    let mut lines = node_lines(status);
    lines.extend(sandbox_lines(&status.sandbox));
    let held = status.quarantine.iter();
    lines.extend(held.map(|held| format!("held      {}", held.why)));
    lines.extend(status.ring.iter().flat_map(ring_lines));
    lines.extend(status.hosting.iter().map(|hosted| {
        let HostingStatus {
            layers,
            model,
            stage,
            coordinator,
            ..
        } = hosted;
        format!(
            "hosting   layers {layers} of {model} as stage {stage} for {}",
            coordinator.short()
        )
    }));
    lines.extend(status.fetches.iter().map(fetch_line));
    lines.extend(status.nodes.iter().map(member_line));
    lines.join("\n")
}

fn node_lines(status: &Status) -> Vec<String> {
    let (model, rates) = (&status.model, &status.rates);
    let place = match status.answers {
        Answers::Home => "whole on this node",
        Answers::Ring => "over the ring",
        Answers::Nowhere => "nowhere at the moment",
    };
    let context = model
        .context
        .map_or("?".to_owned(), |context| context.to_string());
    let mut lines = vec![
        format!("node      {} \"{}\"", status.node.short(), status.name),
        format!("commons   {}", status.commons.short()),
        format!("endpoint  {}", status.api),
        format!(
            "model     {} ({}, {} layers, context {context}), answered {place}",
            model.name, model.numerics, model.layers
        ),
        format!(
            "requests  {} of {} places taken",
            model.sessions, model.sessions_max
        ),
        format!(
            "rates     {:.1} tokens/s, first token {} ms (newest answer); {} requests, {} failed, {} tokens",
            rates.decode_tokens_per_s,
            rates.first_token_ms,
            rates.requests,
            rates.failed,
            rates.tokens,
        ),
        format!(
            "engine    {} threads, {} MB",
            rates.threads,
            rates.engine_bytes / 1_000_000
        ),
    ];
    lines.extend(status.journal.as_ref().map(journal_line));
    lines.extend(
        status
            .relays
            .iter()
            .map(|relay| format!("relay     {relay}")),
    );
    lines
}

fn journal_line(journal: &JournalStatus) -> String {
    let JournalStatus {
        streams,
        bytes,
        without,
        why,
    } = journal;
    let why = why.as_ref().map_or(String::new(), |why| {
        format!("; {without} answers went without, the newest since {why}")
    });
    format!("journal   {streams} streams can be resumed, {bytes} bytes on disk{why}")
}

fn sandbox_lines(sandbox: &SandboxStatus) -> Vec<String> {
    let Some(level) = sandbox.level else {
        return Vec::new();
    };
    let owner = match sandbox.allow_unsandboxed {
        true => " (its owner lets it serve others without a full one)",
        false => "",
    };
    let mut lines = vec![format!("sandbox   {level}{owner}")];
    lines.extend(
        sandbox
            .missing
            .iter()
            .map(|what| format!("          missing: {what}")),
    );
    lines.extend(
        sandbox
            .hosting_refused
            .iter()
            .map(|why| format!("          {why}")),
    );
    lines
}

fn ring_lines(ring: &RingStatus) -> Vec<String> {
    let whose = match ring.planned {
        true => "chosen by the planner",
        false => "asked for",
    };
    let mut lines = vec![format!(
        "ring      {} ({} remote stages {whose})",
        ring.state, ring.split
    )];
    let predicted = ring.predicted_token_ms.iter();
    lines.extend(predicted.map(|ms| format!("          {ms:.1} ms a token were expected")));
    lines.extend(ring.why.iter().map(|why| format!("          {why}")));
    if let (Some(head), Some(tail)) = (ring.head, ring.tail) {
        lines.push(format!(
            "          head, layers {head}, and tail, layers {tail}, on this node"
        ));
    }
    lines.extend(ring.stages.iter().map(|stage| {
        let StageStatus { stage, node, name, layers, load_ms, same_class } = stage;
        let class = if *same_class { "" } else { ", another CPU class: bits may differ" };
        let node = node.short();
        format!(
            "          stage {stage}, layers {layers}, on {node} \"{name}\" (loaded in {load_ms} ms{class})"
        )
    }));
    lines
}

fn fetch_line(fetch: &FetchStatus) -> String {
    let from = fetch.providers.iter().map(|provider| {
        let why = provider.why.as_ref();
        let why = why.map_or(String::new(), |why| format!(", {why}"));
        format!("{} ({} bytes{why})", provider.node.short(), provider.bytes)
    });
    format!(
        "fetched   {}: {} bytes in {} ms from {}",
        fetch.what,
        fetch.bytes,
        fetch.took_ms,
        from.collect::<Vec<_>>().join(", ")
    )
}

fn member_line(node: &NodeStatus) -> String {
    let rtt = node
        .rtt_ms
        .map_or(String::new(), |ms| format!(", {ms:.1} ms"));
    let way = match node.way.as_deref() {
        Some("lan") => ", found on the local network",
        Some("dht") => ", found in the DHT",
        Some("relay") => ", over a relay",
        _ => "",
    };
    let why = node
        .why
        .as_ref()
        .map_or(String::new(), |why| format!(": {why}"));
    let NodeStatus {
        name,
        state,
        since_s,
        ..
    } = node;
    let offer = node.offer.as_ref().map_or(String::new(), |offer| {
        let why = offer.why_not.as_ref();
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        format!("; offers {} MB{why}", offer.memory_bytes / 1_000_000)
    });
    format!(
        "member    {} \"{name}\" {state} for {since_s} s{rtt}{way}{why}{offer}",
        node.node.short()
    )
}
