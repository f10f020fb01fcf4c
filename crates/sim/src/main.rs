//! Runs worlds: one seed, many seeds, or growing ones.

mod growth;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use sim::scenes::{SCENES, Scene, THOUSAND};
use std::io::{self, Write};

/// A whole commons in one process, from a seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed of a scene, twice, and hold the two histories against each other.
    Seed {
        /// The seed.
        seed: u64,
        /// The scene: pair, quiet, churn, cut, liars, eclipse, exodus, rush, herd, or thousand.
        #[arg(long, default_value = "churn")]
        scene: String,
    },
    /// Run many seeds of all scenes. Ends with status 1 when anything did not hold.
    Campaign {
        /// Seeds of each scene.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// One scene only.
        #[arg(long)]
        scene: Option<String>,
    },
    /// Measure traffic and state from 10 to 5,000 nodes, and write docs/swarm-growth.md and .svg.
    Growth,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Seed { seed, scene } => one(&named(&scene)?, seed),
        Command::Campaign {
            seeds,
            first,
            scene,
        } => campaign(first..first + seeds, scene),
        Command::Growth => growth::run(),
    }
}

fn named(name: &str) -> Result<Scene> {
    Scene::named(name).with_context(|| format!("there is no scene {name:?}"))
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("standard output is closed")
}

fn one(scene: &Scene, seed: u64) -> Result<()> {
    let (first, second) = (scene.run(seed), scene.run(seed));
    say(&first.to_string())?;
    if first.history != second.history {
        bail!(
            "seed {seed} had two histories: {} and {}",
            first.history,
            second.history
        );
    }
    if !first.holds() {
        bail!("seed {seed} of {} has faults", scene.name);
    }
    Ok(())
}

fn campaign(seeds: std::ops::Range<u64>, scene: Option<String>) -> Result<()> {
    let scenes = match scene {
        Some(name) => vec![named(&name)?],
        None => SCENES.into_iter().chain([THOUSAND]).collect(),
    };
    let mut bad = Vec::new();
    for seed in seeds {
        for scene in &scenes {
            let outcome = scene.run(seed);
            say(&outcome.to_string())?;
            if !outcome.holds() {
                bad.push(format!("{} {seed}", scene.name));
            }
        }
    }
    if bad.is_empty() {
        say("all held")
    } else {
        bail!("faults in: {}", bad.join(", "))
    }
}
