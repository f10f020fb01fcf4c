//! The command line.

mod ask;
mod model;
mod plan;
pub mod progress;
mod show;
mod ticket;

use crate::config::Settings;
use crate::daemon::{self, Up};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const EXAMPLES: &str = "\
Examples:
  myzel up                             start a node; the endpoint is http://127.0.0.1:7717/v1
  myzel ticket                         invite another machine
  myzel up --join TICKET               join with the ticket, on that machine
  myzel up --split 1                   give the layers between first and last to one other node
  myzel ask \"Why is the sky blue?\"     ask the node that runs here
  myzel status                         nodes, stages, rates
  myzel --data-dir b up --api 127.0.0.1:7718   a second node on this machine";

/// Turns the computers that people already own into a public AI utility.
#[derive(Debug, Parser)]
#[command(name = "myzel", version, after_help = EXAMPLES)]
struct Cli {
    /// Where the node keeps everything [default: ~/.local/share/myzel]
    #[arg(long, env = "MYZEL_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// A catalogue of models in addition to the built-in one
    #[arg(long, env = "MYZEL_CATALOGUE", value_name = "FILE", global = true)]
    catalogue: Option<PathBuf>,
    /// What is logged to standard error: error, warn, info, debug or trace
    #[arg(
        long,
        env = "MYZEL_LOG",
        value_name = "LEVEL",
        default_value = "warn",
        global = true
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node; prints a line beginning with `ready` and stays in the foreground
    #[command(after_help = "\
Examples:
  myzel up
  myzel up --join myzel1ge3d…
  myzel up --split 2 --model path/to/model.gguf
  myzel --data-dir b up --api 127.0.0.1:7718 --threads 1")]
    Up(Box<UpArgs>),
    /// Invite another machine: print a ticket of the node that runs here
    #[command(after_help = "\
Examples:
  myzel ticket
  myzel ticket --qr
  myzel ticket --hours 1 --uses 1
  myzel ticket list
  myzel ticket revoke NAME")]
    Ticket(ticket::TicketArgs),
    /// Show nodes, stages and rates of the node that runs here
    #[command(after_help = "Examples:\n  myzel status\n  myzel status --json")]
    Status(show::StatusArgs),
    /// Explain which nodes would compute which layers of a model, and how fast that is expected to be
    #[command(after_help = "Examples:\n  myzel plan\n  myzel plan smollm2-135m-instruct --json")]
    Plan(plan::PlanArgs),
    /// Ask the node that runs here; the answer streams to standard output
    #[command(after_help = "\
Examples:
  myzel ask \"Why is the sky blue?\"
  myzel ask --temperature 0 --max-tokens 50 \"Name three rivers.\"
  cat letter.txt | myzel ask -")]
    Ask(ask::AskArgs),
    /// Fetch, list, show, verify and remove models
    Model {
        #[command(subcommand)]
        command: model::ModelCommand,
    },
    /// The other role of this binary; started by a node
    #[command(hide = true)]
    EngineHost {
        /// The process to end with
        parent: u32,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Join the commons of this ticket
    #[arg(long, env = "MYZEL_JOIN", value_name = "TICKET")]
    join: Option<String>,
    /// A file of settings [default: config.toml in the data directory]
    #[arg(long, env = "MYZEL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The program: parses, runs, and turns an error into a message with its causes.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("error: {}", explained(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes. Many messages quote their causes already; nothing is said twice.
fn explained(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::EngineHost { parent } = cli.command {
        return engine_host::run(parent).context("engine-host");
    }
    // A node that gives up on a call to a dead peer does not wait until QUIC has buried the call; iroh calls
    // that an error, and people have had ours already. `--log iroh::socket=error` shows it.
    // Likewise mDNS and the DHT where there is no network: members are then found by other ways, or named as missing.
    let quiet = "iroh::socket=off,swarm_discovery=off,n0_mainline=off,iroh_relay=off";
    let log = format!("{quiet},{}", cli.log);
    let filter = tracing_subscriber::EnvFilter::try_new(log)
        .with_context(|| format!("--log {:?} is not a level", cli.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let data_dir = match cli.data_dir {
        Some(dir) => dir,
        None => crate::config::user_data_dir()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => {
                let UpArgs {
                    join,
                    config,
                    settings,
                } = *args;
                let up = Up {
                    settings: settings.with_file(config.as_deref(), &data_dir)?,
                    data_dir,
                    catalogue: cli.catalogue,
                    join,
                };
                // The future of a whole node is large; it lives on the heap.
                Box::pin(daemon::run(up, stop_on_signals()?)).await
            }
            Command::Ticket(args) => ticket::run(&data_dir, &args).await,
            Command::Status(args) => show::status(&data_dir, &args).await,
            Command::Plan(args) => plan::plan(&data_dir, &args).await,
            Command::Ask(args) => ask::ask(&data_dir, args).await,
            Command::Model { command } => {
                model::run(&data_dir, cli.catalogue.as_deref(), command).await
            }
            Command::EngineHost { .. } => Ok(()),
        }
    });
    // Blocking work (hashing, copying) is not waited for: whoever asked for it is gone.
    runtime.shutdown_background();
    done
}

/// A token that fires at the first SIGINT or SIGTERM.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let fired = stop.clone();
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        fired.cancel();
    };
    // Ends with the process: its only work is to wait for a signal.
    let _wait = tokio::spawn(wait);
    Ok(stop)
}

/// Writes a line to standard output and flushes it; whoever reads a pipe wants it now.
///
/// # Errors
///
/// When nobody reads.
pub fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes a line to standard error; when nobody reads there, there is nobody to tell.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
