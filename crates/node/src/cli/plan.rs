//! `myzel plan`.

use super::{print_line, show};
use crate::plan::{ChoiceReport, MemberReport, PlanReport};
use clap::Args;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// A model that is on this machine [default: the one that the node runs]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Plan for many requests at once, and not for the next token of one
    #[arg(long)]
    throughput: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn plan(data_dir: &Path, args: &PlanArgs) -> anyhow::Result<()> {
    let mut path = format!("/myzel/plan?throughput={}", args.throughput);
    if let Some(model) = &args.model {
        let encoded: String = model.bytes().map(escaped).collect();
        path = format!("{path}&model={encoded}");
    }
    let text = show::ask_node(data_dir, reqwest::Method::GET, &path).await?;
    if args.json {
        return Ok(print_line(text.trim())?);
    }
    let report: PlanReport = serde_json::from_str(&text)?;
    Ok(print_line(&for_people(&report))?)
}

/// A byte of a name in a query (RFC 3986, section 2.1).
fn escaped(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn for_people(report: &PlanReport) -> String {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let mut lines = vec![
        format!(
            "model     {} ({} layers of {:.1} MB, {:.1} MB for embedding and output, {:.1} MB for each engine)",
            report.model,
            report.layers,
            mb(report.layer_bytes),
            mb(report.ends_bytes),
            mb(report.engine_bytes)
        ),
        format!(
            "here      {:.0} MB free, {:.3} ms a layer",
            mb(report.home.memory_bytes),
            report.home.layer_ms
        ),
    ];
    lines.extend(report.members.iter().map(member_line));
    match (&report.choice, &report.why) {
        (Some(choice), _) => lines.extend(choice_lines(choice, report.layers)),
        (None, why) => lines.push(format!(
            "no plan   {}",
            why.as_deref().unwrap_or("no reason given")
        )),
    }
    lines.join("\n")
}

fn member_line(member: &MemberReport) -> String {
    let part = member
        .layers
        .map_or("no layers".to_owned(), |layers| format!("layers {layers}"));
    let why = member
        .why
        .as_ref()
        .map_or(String::new(), |why| format!(": {why}"));
    format!(
        "member    {} \"{}\" {part} ({:.0} MB, {:.3} ms a layer {}, {:.1} ms away {}){why}",
        member.node.short(),
        member.name,
        member.memory_bytes as f64 / 1e6,
        member.layer_ms,
        member.layer_known,
        member.rtt_ms,
        member.rtt_known
    )
}

fn choice_lines(choice: &ChoiceReport, layers: u32) -> Vec<String> {
    let place = if choice.stages == 0 {
        format!("plan      whole on this node: all {layers} layers")
    } else {
        format!(
            "plan      {} layers here, the rest on {} other nodes, which fetch {} layers first",
            choice.home_layers, choice.stages, choice.fetch_layers
        )
    };
    let speed = format!(
        "expected  {:.1} ms a token ({:.1} computing, {:.1} on the way): {:.1} tokens/s; with many requests {:.1} tokens/s",
        choice.token_ms,
        choice.compute_ms,
        choice.lap_ms,
        1_000.0 / choice.token_ms.max(f64::EPSILON),
        1_000.0 / choice.pace_ms.max(f64::EPSILON)
    );
    vec![place, speed]
}
