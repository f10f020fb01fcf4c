//! `myzel up`: start and end of everything.
//!
//! The order matters to whoever waits: first what can fail at once and cheaply (settings, data directory, ports, ticket),
//! then what takes time (model, engine), and `ready` only after the node has answered a question of its own.

use crate::cli::progress::{Bar, say};
use crate::config::{API_ADDR, SESSIONS, STARTER, Settings};
use crate::control::{Control, ControlFile, TicketRequest, fresh_token};
use crate::data::Data;
use crate::dispatch::Dispatch;
use crate::home::{EngineSettings, Home};
use crate::requests::{Requests, card};
use crate::ring::{Coordinator, Plan};
use crate::stage::{Stages, header};
use crate::status::{Answers, ModelStatus, RingStatus};
use crate::{config, control, quarantine, standing};
use anyhow::{Context, bail};
use api::{ApiConfig, Backend, ChatMessage, Conversation, GenerateEvent, GenerateRequest, Prompt};
use engine::{Launch, Ward};
use net::{BindError, Doorkeeper, Links, Net, NetConfig, Standing, Started};
use proto::gguf::cuttable;
use proto::host::{KvType, Role, SESSIONS_MAX};
use proto::ids::NodeId;
use proto::member::Member;
use proto::ticket::Ticket;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use store::models::Model;
use store::reference::Reference;
use store::stages::{StageRequest, Stages as StageFiles};
use store::state::TicketUse;
use swarm::split::Split;
use tokio::net::TcpListener;
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
    /// What answers.
    pub requests: Arc<Requests>,
    /// What it hosts for others.
    pub stages: Stages,
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
            state: "impossible".to_owned(),
            why: self.impossible.clone(),
            ring: None,
            head: None,
            tail: None,
            stages: Vec::new(),
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
        started = start(&up, &bound, &stop) => started.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    let running = match started {
        Ok(Some(running)) => running,
        ended => {
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

/// What can fail at once, and what a node then has before anything computes.
struct Ground {
    data: Data,
    listener: TcpListener,
    net: Net,
    standing: Standing,
}

/// Takes the data directory, both ports, and the node's place in its commons.
async fn take_ground(up: &Up, bound: &OnceLock<Net>) -> anyhow::Result<Ground> {
    let ticket = up.join.as_deref().map(Ticket::from_text).transpose()?;
    let data = Data::open(&up.data_dir, up.catalogue.as_deref())?;
    let listener = listen(&up.settings).await?;
    let net = bind(&up.settings, &data).await?;
    let net = bound.get_or_init(|| net).clone();
    let name = up.settings.name.clone().unwrap_or_else(host_name);
    if let Some(ticket) = &ticket {
        say(&format!("joining the commons {} …", ticket.commons.short()));
    }
    let standing = standing::take(&data, &net, ticket.as_ref(), &name).await?;
    Ok(Ground {
        data,
        listener,
        net,
        standing,
    })
}

/// Checks what can be checked before anything is opened; returns the sessions.
fn check_settings(settings: &Settings) -> anyhow::Result<u32> {
    let sessions_max = settings.sessions.unwrap_or(SESSIONS);
    if !(1..=SESSIONS_MAX).contains(&sessions_max) {
        bail!("--sessions {sessions_max} is out of range: 1 to {SESSIONS_MAX}");
    }
    if settings.threads == Some(0) || settings.context == Some(0) {
        bail!("--threads and --context must be at least 1; leave them out for the default");
    }
    Ok(sessions_max)
}

fn engine_settings(
    settings: &Settings,
    sessions_max: u32,
    data: &Data,
) -> anyhow::Result<EngineSettings> {
    Ok(EngineSettings {
        launch: launch()?,
        numerics: settings.numerics(),
        positions_max: settings.context.unwrap_or(0),
        sessions_max,
        kv: settings.kv.map_or(KvType::F16, KvType::from),
        rope_scale: settings.rope_scale,
        kv_bytes_max: settings.kv_memory.map(|size| size.0),
        threads: settings.threads,
        allow_unsandboxed: settings.allow_unsandboxed.unwrap_or(false),
        ward: quarantine::ward(&data.state)?,
    })
}

/// The whole model here. Where it does not fit and a ring was asked for, the node waits for the ring instead.
async fn whole(
    engine: &EngineSettings,
    model: &Model,
    split: bool,
) -> anyhow::Result<Option<Home>> {
    say(&format!("loading {} …", model.name));
    match Home::start(engine, model).await {
        Ok(home) => Ok(Some(home)),
        Err(error) if split => {
            say(&format!(
                "the whole model is not loaded here ({error}); waiting for the ring"
            ));
            Ok(None)
        }
        Err(error) => Err(error).context("the model cannot be loaded"),
    }
}

/// Everything up to a node that can be asked.
///
/// The endpoint is left in `bound`, for whoever gives up on the way.
async fn start(
    up: &Up,
    bound: &OnceLock<Net>,
    stop: &CancellationToken,
) -> anyhow::Result<Running> {
    let sessions_max = check_settings(&up.settings)?;
    let ground = take_ground(up, bound).await?;
    let engine = engine_settings(&up.settings, sessions_max, &ground.data)?;
    let model = model_to_try(&ground.data, &up.settings, &engine.ward).await?;
    let header = header(&model.path)?;
    let (split, impossible) = split(up.settings.split, &header);
    if let Some(why) = &impossible {
        say(&format!("the model runs whole on this node: {why}"));
    }
    let files = StageFiles::open(&ground.data.dir.root().join("stages"))?;
    let ends = match &split {
        Some(split) => Some(ends(&files, &model, split).await?),
        None => None,
    };
    let home = whole(&engine, &model, split.is_some()).await?;
    let Ground {
        data,
        listener,
        net,
        standing,
    } = ground;
    let started = admit(&net, &data, &standing);
    let links = started.links.clone();
    let membership = standing.membership.clone();
    let ring = split.zip(ends).map(|(split, (head, tail))| {
        let (net, links, membership) = (net.clone(), links.clone(), membership.clone());
        let (engine, model) = (engine.clone(), model.clone());
        let plan = Plan {
            net,
            links,
            membership,
            engine,
            model,
            split,
            head,
            tail,
        };
        Arc::new(Coordinator::start(plan))
    });
    let reach = (net.clone(), links.clone());
    let sources = (data.models.clone(), model.clone());
    let stages = Stages::new(reach, membership, engine.clone(), sources, files);
    let tasks = TaskTracker::new();
    dispatch(&tasks, stop, &stages, ring.clone(), &data, started);
    let (sessions, created_s) = (engine.sessions_max, standing::now_s());
    let status = model_status(&model, header.layers(), &engine);
    let models = data.models.clone();
    let card = card(&models, &model, &header, created_s);
    let node = Arc::new(Node {
        model: status,
        net,
        links,
        standing,
        requests: Arc::new(Requests::new((model, card), models, home, ring, sessions)),
        stages,
        allow_unsandboxed: engine.allow_unsandboxed,
        ward: engine.ward,
        ready: OnceLock::new(),
        impossible,
        split: up.settings.split,
        api: listener.local_addr()?,
        data,
    });
    open_api(node, listener, &up.settings, stop, tasks)
}

fn model_status(model: &Model, layers: u32, engine: &EngineSettings) -> ModelStatus {
    ModelStatus {
        name: model.name.clone(),
        blake3: model.blake3,
        bytes: model.bytes,
        layers,
        numerics: engine.numerics,
        context: None,
        sessions_max: engine.sessions_max,
        sessions: 0,
    }
}

async fn listen(settings: &Settings) -> anyhow::Result<TcpListener> {
    let addr = match settings.api {
        Some(addr) => addr,
        None => API_ADDR.parse().expect("the default is an address"),
    };
    match TcpListener::bind(addr).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {} of {} is taken by another program (another node?); choose another one with \
             --api {}:PORT",
            addr.port(),
            addr.ip(),
            addr.ip()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on {addr}; see --api")),
    }
}

async fn bind(settings: &Settings, data: &Data) -> Result<Net, BindError> {
    Net::bind(NetConfig {
        bind: settings.listen,
        ..NetConfig::new(data.key.clone())
    })
    .await
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() {
        "node".to_owned()
    } else {
        name.trim().to_owned()
    }
}

/// This binary, in its other role.
fn launch() -> anyhow::Result<Launch> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(Launch {
        program,
        args: vec!["engine-host".to_owned()],
    })
}

/// The model that was asked for, unless it is quarantined.
async fn model_to_try(data: &Data, settings: &Settings, ward: &Ward) -> anyhow::Result<Model> {
    let model = model(data, settings).await?;
    match ward.why(model.blake3) {
        Some(why) => bail!(why),
        None => Ok(model),
    }
}

/// The model that was asked for; the one of the catalogue is fetched if it is not here.
async fn model(data: &Data, settings: &Settings) -> anyhow::Result<Model> {
    let name = settings.model.as_deref().unwrap_or(STARTER);
    let wanted: Reference = name.parse()?;
    let bar = Bar::new();
    if let Reference::Path(_) = wanted {
        return Ok(data.models.resolve(&wanted, bar.clone()).await?);
    }
    match data.models.show(&wanted) {
        Ok(_) => Ok(data.models.resolve(&wanted, bar.clone()).await?),
        Err(_) => {
            say(&format!("fetching {name}: it is not on this machine yet …"));
            let pulled = data.models.pull(&wanted, None, bar.clone()).await?;
            bar.finish();
            Ok(pulled.model)
        }
    }
}

/// Which layers go where; or why the model cannot be spread.
fn split(wanted: Option<u32>, header: &proto::gguf::Header) -> (Option<Split>, Option<String>) {
    let Some(remote) = wanted else {
        return (None, None);
    };
    let cut = cuttable(header).map_err(|error| error.to_string());
    match cut.and_then(|()| {
        swarm::split::split(header.layers(), remote, output_layers(header))
            .map_err(|error| error.to_string())
    }) {
        Ok(split) => (Some(split), None),
        Err(why) => (None, Some(why)),
    }
}

/// How many layers cost as much as the output head does: a row multiplies with each weight of either once.
fn output_layers(header: &proto::gguf::Header) -> u32 {
    let weights = |tensor: &proto::gguf::Tensor| tensor.dims.iter().product::<u64>();
    let tied = || header.tensor("token_embd.weight");
    let output = header.tensor("output.weight").or_else(tied);
    let in_layers = header
        .tensors()
        .iter()
        .filter(|t| t.name.starts_with("blk."));
    let layer = in_layers.map(weights).sum::<u64>() / u64::from(header.layers().max(1));
    let heads = (output.map_or(0, weights) + layer / 2) / layer.max(1);
    u32::try_from(heads).unwrap_or(u32::MAX)
}

/// The stage files that stay here.
async fn ends(
    files: &StageFiles,
    model: &Model,
    split: &Split,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let get = |role, layers| {
        let (source, model) = (model.path.clone(), model.blake3);
        files.get(StageRequest {
            source,
            model,
            role,
            layers,
        })
    };
    Ok((
        get(Role::Head, split.head).await?,
        get(Role::Tail, split.tail).await?,
    ))
}

/// Lets members in from now on.
fn admit(net: &Net, data: &Data, standing: &Standing) -> Started {
    let state = data.state.clone();
    let spend = move |ticket: &Ticket, newcomer: NodeId| {
        let known = state
            .members::<Member>()
            .is_ok_and(|m| m.iter().any(|(id, _)| *id == newcomer));
        known
            || matches!(
                state.use_ticket(&ticket.nonce, ticket.uses_max),
                Ok(TicketUse::Counted)
            )
    };
    let (commons, membership) = (standing.commons, standing.membership.clone());
    let door = Doorkeeper::new(data.key.clone(), commons, membership, spend);
    net.start(standing.clone(), Arc::new(door))
}

fn dispatch(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    stages: &Stages,
    ring: Option<Arc<Coordinator>>,
    data: &Data,
    started: Started,
) {
    let dispatch = Dispatch {
        stages: stages.clone(),
        ring,
        state: data.state.clone(),
        tasks: tasks.clone(),
    };
    tasks.spawn(dispatch.run(started.events, started.hops, stop.clone()));
}

fn open_api(
    node: Arc<Node>,
    listener: TcpListener,
    settings: &Settings,
    stop: &CancellationToken,
    tasks: TaskTracker,
) -> anyhow::Result<Running> {
    let token = fresh_token();
    let config = ApiConfig {
        allowed_hosts: settings.allow_host.clone(),
        keys: config::keys(settings.keys.as_deref(), &token)?,
        shutdown: stop.clone(),
        ..ApiConfig::default()
    };
    let router = api::router(node.requests.clone(), config.clone())
        .merge(control::router(node.clone(), &token));
    let control = Control {
        api: node.api,
        pid: std::process::id(),
        token,
    };
    let file = control.write(node.data.dir.root())?;
    let api = tokio::spawn(api::serve(listener, router, config));
    Ok(Running {
        node,
        tasks,
        api,
        _control: file,
    })
}

impl Running {
    /// Asks the first question, says `ready`, and waits for the end.
    async fn serve(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let asked = tokio::select! {
            asked = self.first_answer() => asked,
            () = stop.cancelled() => return Ok(()),
        };
        asked.context("the node cannot answer its own question")?;
        let ticket = self.node.ticket(TicketRequest {
            life_s: None,
            uses: None,
        })?;
        self.node.ready.get_or_init(Instant::now);
        crate::cli::print_line(&format!(
            "ready {} ticket {}",
            self.node.url(),
            ticket.ticket
        ))?;
        stop.cancelled().await;
        Ok(())
    }

    async fn first_answer(&self) -> anyhow::Result<()> {
        if let (Answers::Nowhere, Some(ring)) =
            (self.node.requests.answers(), self.node.ring_status())
        {
            let ticket = self
                .node
                .ticket(TicketRequest {
                    life_s: None,
                    uses: None,
                })?
                .ticket;
            say(&format!(
                "waiting for {} other nodes; let them join with: {ticket}",
                ring.split
            ));
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
