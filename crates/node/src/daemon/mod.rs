//! `myzel up`: start and end of everything.
//!
//! The order matters to whoever waits: first what can fail at once and cheaply (settings, data directory, ports, ticket),
//! then what takes time (model, engine), and `ready` only after the node has answered a question of its own.

mod model;
mod start;
mod wires;

use crate::cli::progress::say;
use crate::config::Settings;
use crate::content::{Content, Outline};
use crate::control::ControlFile;
use crate::data::Data;
use crate::home::EngineSettings;
use crate::memory::Budget;
use crate::requests::Requests;
use crate::rooms::Rooms;
use crate::roster::Roster;
use crate::stage::Stages;
use crate::status::{Answers, ModelStatus, RingStatus};
use crate::streams::Streams;
use crate::tickets::TicketRequest;
use anyhow::{Context, bail};
use api::{Backend, ChatMessage, Conversation, GenerateEvent, GenerateRequest, Prompt};
use engine::Ward;
use net::{Links, Net, Standing};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use store::stages::Stages as StageFiles;
use swarm::plan::Goal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the end of a node may take; whatever is left then is cut off.
const SHUTDOWN_MAX: Duration = Duration::from_millis(1_500);
/// How often a node without the whole model looks whether its ring is up.
const RING_POLL: Duration = Duration::from_millis(250);
/// What a node asks itself before it calls itself ready.
const FIRST_QUESTION: &str = "Say hello.";
/// How many tokens of an answer are proof enough.
const FIRST_ANSWER_TOKENS: u32 = 4;

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Up {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// A catalogue that adds to the built-in one.
    pub catalogue: Option<PathBuf>,
    /// The ticket to join with.
    pub join: Option<String>,
    /// Everything else.
    pub settings: Settings,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its disk.
    pub data: Data,
    /// Its endpoint for other nodes.
    pub net: Net,
    /// Its links.
    pub links: Links,
    /// What it is in its commons.
    pub standing: Standing,
    /// Its model.
    pub model: ModelStatus,
    /// The model's file.
    pub model_path: PathBuf,
    /// What keeps that file, where it is no more than an outline of a model that is not here whole.
    pub outline: Option<Outline>,
    /// The work of the model's output head, in layers.
    pub output_layers: u32,
    /// What answers.
    pub requests: Arc<Requests>,
    /// Its streams on disk, unless its owner wants none.
    pub streams: Option<Streams>,
    /// What it hosts for others.
    pub stages: Stages,
    /// Models that are handed on and fetched.
    pub content: Content,
    /// The other members.
    pub roster: Roster,
    /// Memory for engines.
    pub budget: Budget,
    /// Who may see requests.
    pub rooms: Rooms,
    /// Where stages are cut.
    pub files: StageFiles,
    /// What is planned for.
    pub goal: Goal,
    /// How engines are set up.
    pub engine: EngineSettings,
    /// The record of models that engine-hosts died with.
    pub ward: Arc<Ward>,
    /// Whether others are served though the engine is not fully locked up.
    pub allow_unsandboxed: bool,
    /// Since when it is ready.
    pub ready: OnceLock<Instant>,
    /// Why a ring that was asked for is impossible with this model.
    impossible: Option<String>,
    split: Option<u32>,
    api: std::net::SocketAddr,
}

impl Node {
    /// The OpenAI-compatible endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.api)
    }

    /// How the ring stands, where one was asked for.
    #[must_use]
    pub fn ring_status(&self) -> Option<RingStatus> {
        if let Some(ring) = self.requests.ring() {
            return Some(ring.status());
        }
        Some(RingStatus {
            split: self.split?,
            planned: false,
            predicted_token_ms: None,
            state: "impossible".to_owned(),
            why: self.impossible.clone(),
            ring: None,
            head: None,
            tail: None,
            stages: Vec::new(),
            standbys: Vec::new(),
            guessed: 0,
            guessed_right: 0,
        })
    }
}

/// Runs a node until `stop` fires.
///
/// # Errors
///
/// Whatever keeps it from starting, with cause and next step.
pub async fn run(up: Up, stop: CancellationToken) -> anyhow::Result<()> {
    let bound = OnceLock::new();
    let started = tokio::select! {
        started = start::start(&up, &bound, &stop) => started.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    let running = match started {
        Ok(Some(running)) => running,
        ended => {
            stop.cancel();
            // Whoever was called meanwhile is told that nobody is here any more.
            if let Some(net) = bound.get() {
                net.close().await;
            }
            return ended.map(drop);
        }
    };
    let served = running.serve(&stop).await;
    if tokio::time::timeout(SHUTDOWN_MAX, running.end(&stop))
        .await
        .is_err()
    {
        tracing::warn!("something did not end in time and is cut off");
    }
    served
}

struct Running {
    node: Arc<Node>,
    tasks: TaskTracker,
    api: tokio::task::JoinHandle<std::io::Result<()>>,
    _control: ControlFile,
}

impl Running {
    /// Asks the first question, says `ready`, and waits for the end.
    async fn serve(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let ticket = self.node.ticket(TicketRequest::default())?.ticket;
        let asked = tokio::select! {
            asked = self.first_answer(&ticket) => asked,
            () = stop.cancelled() => return Ok(()),
        };
        asked.context("the node cannot answer its own question")?;
        self.node.ready.get_or_init(Instant::now);
        crate::cli::print_line(&format!("ready {} ticket {ticket}", self.node.url()))?;
        stop.cancelled().await;
        Ok(())
    }

    async fn first_answer(&self, ticket: &str) -> anyhow::Result<()> {
        if let (Answers::Nowhere, Some(ring)) =
            (self.node.requests.answers(), self.node.ring_status())
        {
            say(&if ring.planned {
                format!("waiting for other nodes to share the model; let them join with: {ticket}")
            } else {
                let others = ring.split;
                format!("waiting for {others} other nodes; let them join with: {ticket}")
            });
            while self.node.requests.answers() == Answers::Nowhere {
                tokio::time::sleep(RING_POLL).await;
            }
        }
        let models = self.node.requests.models();
        // A model that was not made for conversations goes on with any text.
        let prompt = if models.iter().any(|card| card.template.is_some()) {
            Prompt::Chat(Box::new(Conversation {
                messages: vec![ChatMessage::new(api::Role::User, FIRST_QUESTION)],
                ..Conversation::default()
            }))
        } else {
            Prompt::Text(FIRST_QUESTION.to_owned())
        };
        let request = GenerateRequest {
            model: self.node.model.name.clone(),
            prompt,
            temperature: Some(0.0),
            seed: Some(0),
            max_tokens: Some(FIRST_ANSWER_TOKENS),
            ..GenerateRequest::default()
        };
        let mut generation = self.node.requests.generate(request).await?;
        loop {
            match generation.events.recv().await {
                Some(GenerateEvent::Token { .. }) => {}
                Some(GenerateEvent::Finished { .. }) => return Ok(()),
                Some(GenerateEvent::Failed(fault)) => return Err(fault.into()),
                None => bail!("the answer broke off"),
            }
        }
    }

    async fn end(self, stop: &CancellationToken) {
        stop.cancel();
        self.node.requests.shut_down().await;
        self.node.stages.shut_down().await;
        self.node.net.close().await;
        self.tasks.close();
        self.tasks.wait().await;
        if let Ok(Err(error)) = self.api.await {
            tracing::warn!(%error, "the HTTP face ended with an error");
        }
    }
}
