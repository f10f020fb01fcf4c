//! From settings to a node that can be asked.

use super::wires::Wires;
use super::{Node, Running, Up, model};
use crate::cli::progress::say;
use crate::config::{API_ADDR, SESSIONS, Settings};
use crate::content::{Content, Cuts, Outline};
use crate::control::{Control, fresh_token};
use crate::data::Data;
use crate::herald;
use crate::home::{EngineSettings, Home};
use crate::memory::{Budget, Reserved, TooLittle};
use crate::placement::{self, Placement};
use crate::requests::{Requests, card};
use crate::ring::{Coordinator, Placing, Plan};
use crate::rooms::Rooms;
use crate::scales::Scales;
use crate::stage::header;
use crate::status::ModelStatus;
use crate::streams::Streams;
use crate::{config, control, quarantine, spare, standing};
use anyhow::{Context, bail};
use api::{ApiConfig, Journals};
use engine::{EngineError, Launch};
use net::{BindError, Net, NetConfig, Standing};
use proto::gguf::{Header, cuttable};
use proto::host::{GUESSES_MAX, KvType, Role, SESSIONS_MAX};
use proto::model::LayerRange;
use proto::ticket::Ticket;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use store::models::{Model, Models};
use store::stages::Stages as StageFiles;
use swarm::plan::{Goal, Shape};
use swarm::split::Split;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What can fail at once, and what a node then has before anything computes.
pub(super) struct Ground {
    pub(super) data: Data,
    pub(super) listener: TcpListener,
    pub(super) net: Net,
    pub(super) standing: Standing,
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
    let guesses_max = GUESSES_MAX as u32;
    if let Some(guesses) = settings.guesses.filter(|guesses| *guesses > guesses_max) {
        bail!("--guesses {guesses} is out of range: 0 to {guesses_max}");
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
        numerics: settings.numerics(settings.split.is_some()),
        positions_max: settings.context.unwrap_or(0),
        sessions_max,
        kv: settings.kv.map_or(KvType::F16, KvType::from),
        rope_scale: settings.rope_scale,
        kv_bytes_max: settings.kv_memory.map(|size| size.0),
        threads: settings.threads,
        guesses_max: settings.guesses.unwrap_or(GUESSES_MAX as u32),
        allow_unsandboxed: settings.allow_unsandboxed.unwrap_or(false),
        ward: quarantine::ward(&data.state)?,
    })
}

/// Where this node's own requests are computed.
struct Course {
    /// The whole model here; at least until a ring is up.
    home: Option<Home>,
    /// The layers of a ring that people asked for.
    asked: Option<Split>,
    /// What a ring needs that is to be planned, because the model does not fit here.
    planned: Option<Shape>,
    /// Why a ring that was asked for cannot be.
    impossible: Option<String>,
}

/// The model that runs, and all that is needed to run it.
struct Task<'a> {
    settings: &'a Settings,
    engine: &'a EngineSettings,
    models: &'a Models,
    files: &'a StageFiles,
    cuts: &'a Cuts,
    budget: &'a Budget,
    model: &'a Model,
    header: &'a Header,
}

impl Task<'_> {
    async fn course(&self) -> anyhow::Result<Course> {
        let (asked, impossible) = split(self.settings.split, self.header);
        if let Some(why) = &impossible {
            say(&format!("the model runs whole on this node: {why}"));
        }
        if let Some(split) = &asked {
            self.cut_ends(split).await?;
        }
        let fits = self.reserve().await;
        let course = Course {
            home: None,
            asked,
            planned: None,
            impossible,
        };
        match fits {
            Ok(reserved) => Ok(Course {
                home: self.whole(reserved, course.asked.is_some()).await?,
                ..course
            }),
            Err(why) if course.asked.is_some() => {
                say(&format!(
                    "the whole model is not loaded here ({why}); waiting for the ring"
                ));
                Ok(course)
            }
            Err(why) => Ok(Course {
                planned: Some(self.shape(&why).await?),
                ..course
            }),
        }
    }

    /// Takes the memory of the whole model, if the engine can say how much that is.
    async fn reserve(&self) -> Result<Option<Reserved>, TooLittle> {
        let scales = Scales {
            engine: self.engine,
            models: self.models,
            model: self.model.blake3,
        };
        let end = self.header.layers();
        let whole = (Role::Whole, LayerRange { first: 0, end });
        let file = async { Ok::<_, EngineError>(vec![&self.model.path]) };
        match scales.weigh(&[whole], file).await {
            Ok(memory) => self.budget.reserve(memory.total_bytes()).map(Some),
            // Loading says better what is wrong, and counts what dies of it.
            Err(_) => Ok(None),
        }
    }

    /// The whole model here. Where it cannot be loaded and a ring was asked for, the node waits for the ring instead.
    async fn whole(&self, reserved: Option<Reserved>, split: bool) -> anyhow::Result<Option<Home>> {
        say(&format!("loading {} …", self.model.name));
        match Home::start(self.engine, self.model, reserved).await {
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

    /// What a ring needs, for a model that does not fit here.
    async fn shape(&self, why: &TooLittle) -> anyhow::Result<Shape> {
        cuttable(self.header).map_err(|error| {
            anyhow::anyhow!(
                "{} does not fit on this node: {why}; and {error}",
                self.model.name
            )
        })?;
        say(&format!(
            "{} does not fit on this node ({why}); it will be shared with others",
            self.model.name
        ));
        let engine = EngineSettings {
            numerics: self.settings.numerics(true),
            ..self.engine.clone()
        };
        let store = (self.models, self.files);
        let shape = placement::shape(&engine, store, self.model, self.header).await;
        Ok(shape?)
    }

    /// Cuts the stages that stay here, so that whatever is in the way is said at once.
    async fn cut_ends(&self, split: &Split) -> anyhow::Result<()> {
        for (role, layers) in [(Role::Head, split.head), (Role::Tail, split.tail)] {
            self.cuts.get(role, layers).await?;
        }
        Ok(())
    }
}

/// Everything up to a node that can be asked.
///
/// The endpoint is left in `bound`, for whoever gives up on the way.
pub(super) async fn start(
    up: &Up,
    bound: &OnceLock<Net>,
    stop: &CancellationToken,
) -> anyhow::Result<Running> {
    let settings = &up.settings;
    let sessions_max = check_settings(settings)?;
    let ground = take_ground(up, bound).await?;
    let mut engine = engine_settings(settings, sessions_max, &ground.data)?;
    let files = StageFiles::open(&ground.data.dir.root().join("stages"))?;
    let budget = Budget::new(settings.memory.map(|size| size.0));
    let rooms = Rooms {
        room: settings.room(),
        serve: settings.serve(),
        circle: settings.circle.iter().copied().collect(),
    };
    // From here on others can be asked for what is missing, and layers be hosted for them.
    let upload = settings.upload.and_then(|size| NonZeroU64::new(size.0));
    let wires = Wires::lay(&ground, &engine, &files, (&rooms, &budget), upload, stop)?;
    let place = (&ground.data, &wires.content);
    let found = model::find(place, settings, (&engine, &budget)).await?;
    let (model, outline) = (found.model, found.outline);
    let header = header(&model.path)?;
    let cuts = match outline {
        None => Cuts::Whole(files.clone(), model.clone()),
        Some(_) => Cuts::Blocks(wires.content.clone(), model.blake3),
    };
    let task = Task {
        settings,
        engine: &engine,
        models: &ground.data.models,
        files: &files,
        cuts: &cuts,
        budget: &budget,
        model: &model,
        header: &header,
    };
    let course = task.course().await?;
    engine.numerics = settings.numerics(course.asked.is_some() || course.planned.is_some());
    let parts = Parts {
        ground,
        wires,
        engine,
        model,
        outline,
        header,
        cuts,
        files,
        budget,
        rooms,
    };
    parts.assemble(settings, course, stop).await
}

/// What a node is put together from.
struct Parts {
    ground: Ground,
    wires: Wires,
    engine: EngineSettings,
    model: Model,
    outline: Option<Outline>,
    header: Header,
    cuts: Cuts,
    files: StageFiles,
    budget: Budget,
    rooms: Rooms,
}

impl Parts {
    /// The coordinator of this node's ring, where it is to have one.
    fn coordinator(&self, course: &Course, goal: Goal) -> Option<Arc<Coordinator>> {
        let placing = match (&course.asked, course.planned) {
            (Some(split), _) => Placing::Asked(split.clone()),
            (None, Some(shape)) => Placing::Weighed(Placement::new(
                (self.model.clone(), shape),
                (self.rooms.room, goal),
                (self.ground.net.id(), self.wires.roster.clone()),
                (self.budget.clone(), 0),
            )),
            (None, None) => return None,
        };
        Some(Arc::new(Coordinator::start(Plan {
            net: self.ground.net.clone(),
            links: self.wires.links.clone(),
            membership: self.ground.standing.membership.clone(),
            engine: self.engine.clone(),
            model: self.model.clone(),
            rooms: self.rooms.clone(),
            placing,
            cuts: self.cuts.clone(),
        })))
    }

    /// What answers here.
    fn requests(&self, home: Option<Home>, ring: Option<Arc<Coordinator>>) -> Requests {
        let models = self.ground.data.models.clone();
        let card = card(&models, &self.model, &self.header, standing::now_s());
        let model = (self.model.clone(), card);
        let sessions_max = self.engine.sessions_max;
        Requests::new(model, models, home, ring, sessions_max, self.rooms.clone())
    }

    async fn assemble(
        self,
        settings: &Settings,
        course: Course,
        stop: &CancellationToken,
    ) -> anyhow::Result<Running> {
        let goal = settings.goal.map_or(Goal::default(), Goal::from);
        let ring = self.coordinator(&course, goal);
        let whole = self.outline.is_none().then(|| self.model.clone());
        self.wires.enter(whole.as_ref(), ring.clone()).await;
        let requests = self.requests(course.home, ring);
        let streams = streams(settings, &self.ground.data);
        let output_layers = placement::output_layers(&self.header);
        let (wires, ground, model) = (self.wires, self.ground, self.model);
        let (content, tasks) = (wires.content, wires.tasks);
        let node = Arc::new(Node {
            model: model_status(&model, self.header.layers(), &self.engine),
            model_path: model.path.clone(),
            outline: self.outline,
            output_layers,
            net: ground.net,
            links: wires.links,
            standing: ground.standing,
            requests: Arc::new(requests),
            streams,
            stages: wires.stages,
            content: content.clone(),
            roster: wires.roster,
            budget: self.budget,
            rooms: self.rooms,
            files: self.files,
            goal,
            allow_unsandboxed: self.engine.allow_unsandboxed,
            ward: self.engine.ward.clone(),
            engine: self.engine,
            ready: OnceLock::new(),
            impossible: course.impossible,
            split: settings.split,
            api: ground.listener.local_addr()?,
            data: ground.data,
        });
        tasks.spawn(herald::run(node.clone(), stop.clone()));
        tasks.spawn(spare::run(node.clone(), stop.clone()));
        if let Some(model) = whole {
            tasks.spawn(hand_on(content, model, stop.clone()));
        }
        open_api(node, ground.listener, settings, stop, tasks)
    }
}

/// The journals of streams, unless the owner wants none. A disk without room for them is no reason not to answer.
fn streams(settings: &Settings, data: &Data) -> Option<Streams> {
    let wanted = settings.journal.unwrap_or(true);
    let journals = wanted.then(|| data.journals())?;
    journals
        .inspect_err(|error| tracing::warn!(%error, "streams cannot be resumed: there is no place for their journals"))
        .ok()
        .map(Streams::new)
}

/// Offers the node's own model to other members, once its blocks are hashed.
async fn hand_on(content: Content, model: Model, stop: CancellationToken) {
    let handed = tokio::select! {
        () = stop.cancelled() => return,
        handed = content.hand_on(&model) => handed,
    };
    if let Err(error) = handed {
        tracing::warn!(model = model.name, %error, "the model is not handed on to other nodes");
    }
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
        ways: settings.ways(),
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

/// Which layers go where; or why the model cannot be spread.
fn split(wanted: Option<u32>, header: &proto::gguf::Header) -> (Option<Split>, Option<String>) {
    let Some(remote) = wanted else {
        return (None, None);
    };
    let cut = cuttable(header).map_err(|error| error.to_string());
    match cut.and_then(|()| {
        swarm::split::split(header.layers(), remote, placement::output_layers(header))
            .map_err(|error| error.to_string())
    }) {
        Ok(split) => (Some(split), None),
        Err(why) => (None, Some(why)),
    }
}

fn open_api(
    node: Arc<Node>,
    listener: TcpListener,
    settings: &Settings,
    stop: &CancellationToken,
    tasks: tokio_util::task::TaskTracker,
) -> anyhow::Result<Running> {
    let token = fresh_token();
    let config = ApiConfig {
        allowed_hosts: settings.allow_host.clone(),
        keys: config::keys(settings.keys.as_deref(), &token)?,
        journals: node
            .streams
            .clone()
            .map(|streams| Arc::new(streams) as Arc<dyn Journals>),
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
