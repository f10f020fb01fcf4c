//! `myzel model …`.

use super::progress::Bar;
use super::{print_line, show};
use crate::status::QuarantineStatus;
use crate::{data, quarantine};
use clap::Subcommand;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use store::data_dir::DataDir;
use store::models::{Models, Stored};
use store::reference::Reference;
use store::state::State;

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// Fetch a model; an interrupted pull goes on where it was
    #[command(after_help = "\
Examples:
  myzel model pull smollm2-135m-instruct
  myzel model pull hf:owner/repo/file.gguf
  myzel model pull ./file.gguf --name mine")]
    Pull {
        /// A name of the catalogue, hf:owner/repo/file.gguf[@revision], or a path
        model: String,
        /// What a file without a catalogue entry is to be called
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the models here, and those that can be fetched
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show everything about a model
    Show {
        /// Its name, or the BLAKE3 of its file
        model: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hash a model's file again and compare
    Verify {
        /// Its name, or the BLAKE3 of its file
        model: String,
    },
    /// Try a quarantined model again
    #[command(after_help = "Examples:\n  myzel model release mine")]
    Release {
        /// Its name, or the BLAKE3 of its file
        model: String,
    },
    /// Remove a model
    Rm {
        /// Its name, or the BLAKE3 of its file
        model: String,
    },
}

pub(super) async fn run(
    data_dir: &Path,
    catalogue: Option<&Path>,
    command: ModelCommand,
) -> anyhow::Result<()> {
    let dir = DataDir::open(data_dir)?;
    // A running node has the state open; hashes of files outside the store are then not remembered.
    let state = State::open(&dir.state()).ok().map(Arc::new);
    let models = data::models(&dir, catalogue, state.clone())?;
    match command {
        ModelCommand::Pull { model, name, json } => {
            let bar = Bar::new();
            let pulled = models
                .pull(&model.parse()?, name.as_deref(), bar.clone())
                .await;
            bar.finish();
            let pulled = pulled?;
            let model = &pulled.model;
            let line = json!({
                "name": model.name, "path": model.path, "bytes": model.bytes,
                "blake3": model.blake3, "fresh": pulled.fresh,
            });
            let how = if pulled.fresh {
                "fetched"
            } else {
                "is here already"
            };
            let text = format!("{} {how}: {}", model.name, model.path.display());
            Ok(print_line(&if json { line.to_string() } else { text })?)
        }
        ModelCommand::List { json } => {
            let held = quarantined(data_dir, state.as_deref()).await;
            list(&models, &held, json)
        }
        ModelCommand::Release { model } => release(data_dir, state.as_deref(), &model).await,
        ModelCommand::Show { model, json } => show_one(&models, &model.parse()?, json),
        ModelCommand::Verify { model } => {
            let bar = Bar::new();
            let verified = models.verify(&model.parse()?, bar.clone()).await;
            bar.finish();
            verified?;
            Ok(print_line(&format!(
                "{model}: size, SHA-256 and BLAKE3 are as recorded"
            ))?)
        }
        ModelCommand::Rm { model } => {
            let removed = models.rm(&model.parse()?)?;
            Ok(print_line(&format!("removed {}", removed.record.name))?)
        }
    }
}

fn describe(stored: &Stored) -> serde_json::Value {
    let record = &stored.record;
    json!({
        "name": record.name, "bytes": record.bytes, "sha256": record.sha256,
        "blake3": record.blake3, "licence": record.licence, "source": record.source,
        "added_s": record.added_s, "path": stored.path, "shared": stored.shared,
    })
}

/// The quarantined models, from the state or, while a node has it, from that node.
async fn quarantined(data_dir: &Path, state: Option<&State>) -> Vec<QuarantineStatus> {
    match state {
        Some(state) => state.deaths().map(quarantine::status).unwrap_or_default(),
        None => show::status_of(data_dir)
            .await
            .map_or_else(|_| Vec::new(), |status| status.quarantine),
    }
}

async fn release(data_dir: &Path, state: Option<&State>, wanted: &str) -> anyhow::Result<()> {
    let held = quarantined(data_dir, state).await;
    let model = quarantine::find(&held, wanted)?;
    match state {
        Some(state) => state.set_deaths(model, None)?,
        None => {
            let path = format!("/myzel/release?model={model}");
            show::ask_node(data_dir, reqwest::Method::POST, &path).await?;
        }
    }
    Ok(print_line(&format!(
        "released {wanted}: it is tried again"
    ))?)
}

fn list(models: &Models, held: &[QuarantineStatus], json: bool) -> anyhow::Result<()> {
    let listing = models.list();
    let here: Vec<_> = listing.models.iter().map(describe).collect();
    let fetchable: Vec<_> = models
        .catalogue()
        .model
        .iter()
        .filter(|entry| {
            !listing
                .models
                .iter()
                .any(|m| m.record.blake3 == entry.blake3)
        })
        .collect();
    if json {
        let broken: Vec<String> = listing.broken.iter().map(ToString::to_string).collect();
        let all = json!({
            "models": here, "catalogue": fetchable, "broken": broken, "quarantine": held,
        });
        return Ok(print_line(&all.to_string())?);
    }
    for stored in &listing.models {
        let (record, whose) = (&stored.record, if stored.shared { " (shared)" } else { "" });
        print_line(&format!(
            "{:<32} {:>6} MB  here{whose}",
            record.name,
            record.bytes / 1_000_000
        ))?;
    }
    for entry in fetchable {
        let (name, mb) = (&entry.name, entry.bytes / 1_000_000);
        print_line(&format!(
            "{name:<32} {mb:>6} MB  fetch with: myzel model pull {name}"
        ))?;
    }
    for held in held {
        print_line(&format!("quarantined: {}", held.why))?;
    }
    for broken in &listing.broken {
        print_line(&format!("broken: {broken}"))?;
    }
    Ok(())
}

fn show_one(models: &Models, wanted: &Reference, json: bool) -> anyhow::Result<()> {
    let shown = describe(&models.show(wanted)?);
    if json {
        return Ok(print_line(&shown.to_string())?);
    }
    for (key, value) in shown.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        print_line(&format!("{key:<8} {text}"))?;
    }
    Ok(())
}
