//! Layers that this node hosts for other coordinators.
//!
//! # Story
//!
//! [`Stages`] keeps a task for each ring that asked for a stage here. The task cuts the layers, or fetches them and says how
//! far it is; it loads them, compares contracts, calls the stage behind it, tells the coordinator, and then feeds a `swarm::stage` machine ([`serve`]). It ends when the
//! coordinator closes the ring or is lost, and everything that it held goes with it: engine-host, caches, hops.

mod refusal;
mod serve;
mod told;
mod warm;

use crate::content::{Content, ContentError};
use crate::home::EngineSettings;
use crate::memory::{Budget, Reserved};
use crate::ring::form::contract;
use crate::rooms::Rooms;
use crate::sandbox;
use crate::scales::Scales;
use crate::status::HostingStatus;
use engine::{EngineError, Supervisor};
use net::{HopReceiver, HopSender, IncomingHop, Links, Net};
use proto::gguf::Header;
use proto::host::{KvType, Loaded, Part, Role, SESSIONS_MAX};
use proto::ids::{Hash, NodeId, RingId};
use proto::member::Membership;
use proto::model::{LAYERS_MAX, LayerRange};
use proto::ring::{Contract, HopHello, LinkBody, OpenRing, RefusalCode, RingReady, STAGES_MAX};
use refusal::{Refusal, refusal, refuse};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use store::models::{Model, Models};
use store::stages::{StageRequest, Stages as StageFiles};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use told::Told;
use tracing::{info, warn};
use warm::{InUse, Warm};

/// Rings that may have a stage here at once.
pub const HOSTED_MAX: usize = 8;
/// Messages that may wait for a ring's task; a coordinator that sends more is cut off.
const INPUTS_MAX: usize = 256;
/// How long a hop may be early: its ring is not known here yet.
const EARLY_HOP_MAX: Duration = Duration::from_secs(5);
/// How often an early hop looks whether its ring is known.
const EARLY_HOP_POLL: Duration = Duration::from_millis(20);

/// What a ring's task is told.
#[derive(Debug)]
enum Input {
    /// The stage before wants to send.
    Hop(IncomingHop),
    /// The coordinator says something about a session.
    Control(LinkBody),
}

#[derive(Debug)]
struct Hosted {
    coordinator: NodeId,
    status: HostingStatus,
    inputs: mpsc::Sender<Input>,
    stop: CancellationToken,
    /// Once it loads.
    engine: Option<StageEngine>,
}

/// What every stage needs.
#[derive(Debug)]
struct Needs {
    net: Net,
    links: Links,
    membership: Membership,
    engine: EngineSettings,
    models: Models,
    content: Content,
    /// The model that this node itself runs, once it has one; it may be outside the store.
    own: Arc<OnceLock<Model>>,
    files: StageFiles,
    rooms: Rooms,
    budget: Budget,
    warm: Arc<Warm>,
}

/// A stage's engine, for those who measure.
#[derive(Debug, Clone)]
pub struct StageEngine {
    /// Of which model.
    pub model: Hash,
    /// How many layers it has.
    pub layers: u32,
    /// The engine.
    pub engine: Arc<Supervisor>,
}

/// The stages that this node hosts. Clones share them.
#[derive(Debug, Clone)]
pub struct Stages {
    needs: Arc<Needs>,
    hosted: Arc<Mutex<HashMap<RingId, Hosted>>>,
    tasks: TaskTracker,
}

impl Stages {
    /// Ready to host.
    #[must_use]
    pub fn new(
        (net, links): (Net, Links),
        membership: Membership,
        engine: EngineSettings,
        (models, own, content): (Models, Arc<OnceLock<Model>>, Content),
        files: StageFiles,
        (rooms, budget): (Rooms, Budget),
    ) -> Self {
        let needs = Arc::new(Needs {
            net,
            links,
            membership,
            engine,
            models,
            content,
            own,
            files,
            rooms,
            budget,
            warm: Arc::default(),
        });
        Self {
            needs,
            hosted: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    fn hosted(&self) -> std::sync::MutexGuard<'_, HashMap<RingId, Hosted>> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is hosted, for status.
    #[must_use]
    pub fn status(&self) -> Vec<HostingStatus> {
        self.hosted()
            .values()
            .map(|hosted| hosted.status.clone())
            .collect()
    }

    /// The engines of what is hosted.
    #[must_use]
    pub fn engines(&self) -> Vec<StageEngine> {
        let hosted = self.hosted();
        hosted
            .values()
            .filter_map(|hosted| hosted.engine.clone())
            .collect()
    }

    fn note_engine(&self, ring: RingId, engine: StageEngine) {
        if let Some(hosted) = self.hosted().get_mut(&ring) {
            hosted.engine = Some(engine);
        }
    }

    /// A coordinator asks for a stage. Answers it when the stage is loaded, or why it is not.
    pub fn open(&self, coordinator: NodeId, open: OpenRing) {
        let ring = open.ring;
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let stop = CancellationToken::new();
        let status = HostingStatus {
            ring,
            coordinator,
            stage: open.stage,
            layers: open.contract.layers,
            model: open.model_name.clone(),
        };
        {
            let mut hosted = self.hosted();
            if hosted.len() >= HOSTED_MAX || hosted.contains_key(&ring) {
                drop(hosted);
                let detail = format!("{HOSTED_MAX} rings have a stage here already");
                return refuse(
                    &self.needs.links,
                    coordinator,
                    ring,
                    RefusalCode::NoRoom,
                    &detail,
                );
            }
            let stop = stop.clone();
            hosted.insert(
                ring,
                Hosted {
                    coordinator,
                    status,
                    inputs,
                    stop,
                    engine: None,
                },
            );
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let work = this.host(coordinator, open, inbox);
            let ended = tokio::select! {
                ended = work => ended,
                () = stop.cancelled() => Ok(()),
            };
            this.hosted().remove(&ring);
            if let Err(refusal) = ended {
                warn!(ring = %ring.short(), detail = %refusal.detail, "a stage is not hosted");
                refuse(
                    &this.needs.links,
                    coordinator,
                    ring,
                    refusal.code,
                    &refusal.detail,
                );
            }
        });
    }

    /// A coordinator says something about a session of its ring. Others are not heard.
    pub fn control(&self, peer: NodeId, ring: RingId, body: LinkBody) {
        let mut hosted = self.hosted();
        let Some(stage) = hosted.get(&ring).filter(|stage| stage.coordinator == peer) else {
            return;
        };
        if stage.inputs.try_send(Input::Control(body)).is_err() {
            warn!(ring = %ring.short(), "a coordinator says more than a stage can take in");
            if let Some(stage) = hosted.remove(&ring) {
                stage.stop.cancel();
            }
        }
    }

    /// A coordinator closes its ring.
    pub fn close(&self, peer: NodeId, ring: RingId) {
        let hosted = self.hosted();
        if let Some(stage) = hosted.get(&ring).filter(|stage| stage.coordinator == peer) {
            stage.stop.cancel();
        }
    }

    /// Waits until what this coordinator has closed has let go of its engine and its memory.
    async fn closed_by(&self, coordinator: NodeId) {
        let closing = || {
            let hosted = self.hosted();
            let mut stages = hosted.values();
            stages.any(|stage| stage.coordinator == coordinator && stage.stop.is_cancelled())
        };
        while closing() {
            tokio::time::sleep(EARLY_HOP_POLL).await;
        }
    }

    /// The link to a member is lost: what it coordinated ends.
    pub fn lost(&self, peer: NodeId) {
        for stage in self
            .hosted()
            .values()
            .filter(|stage| stage.coordinator == peer)
        {
            stage.stop.cancel();
        }
    }

    /// A stage before one of ours wants to send. It may be a little early.
    pub async fn hop(&self, hop: IncomingHop) {
        let deadline = Instant::now() + EARLY_HOP_MAX;
        loop {
            let inputs = self
                .hosted()
                .get(&hop.hello.ring)
                .map(|hosted| hosted.inputs.clone());
            match inputs {
                Some(inputs) => {
                    // A task that has just ended refuses by dropping the hop.
                    let _ = inputs.try_send(Input::Hop(hop));
                    return;
                }
                None if Instant::now() < deadline => tokio::time::sleep(EARLY_HOP_POLL).await,
                None => return hop.refuse(RefusalCode::UnknownSession).await,
            }
        }
    }

    /// Ends every stage.
    pub async fn shut_down(&self) {
        self.needs.warm.close();
        for stage in self.hosted().values() {
            stage.stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A stage that has loaded.
struct Prepared {
    /// What this node computes.
    mine: Contract,
    engine: Arc<Supervisor>,
    /// To the next stage.
    hop: HopSender,
    /// Goes back when the stage ends.
    _in_use: InUse,
}

impl Stages {
    /// Hosts a stage from loading to its end.
    async fn host(
        &self,
        coordinator: NodeId,
        open: OpenRing,
        mut inbox: mpsc::Receiver<Input>,
    ) -> Result<(), Refusal> {
        let begun = Instant::now();
        let (needs, layers) = (&self.needs, open.contract.layers);
        check(&open)?;
        let serves = needs.rooms.serves(coordinator);
        serves.map_err(|why| refusal(RefusalCode::OtherRoom, why))?;
        // A coordinator whose link is lost by now will not miss it.
        let _ = needs
            .links
            .send(coordinator, LinkBody::RingLoading(open.ring));
        self.closed_by(coordinator).await;
        let prepare = needs.prepare(coordinator, &open);
        let Some((prepared, early)) = beside(prepare, &mut inbox, &open).await? else {
            return Ok(());
        };
        let measured = StageEngine {
            model: open.contract.model,
            layers: layers.len(),
            engine: prepared.engine.clone(),
        };
        self.note_engine(open.ring, measured);
        let load_ms = begun.elapsed().as_millis() as u64;
        let ready = RingReady {
            ring: open.ring,
            contract: prepared.mine,
            load_ms,
        };
        info!(ring = %open.ring.short(), stage = open.stage, %layers, load_ms, "a stage is hosted");
        needs
            .links
            .send(coordinator, LinkBody::RingReady(ready))
            .map_err(|error| refusal(RefusalCode::EngineFailed, error))?;
        let links = needs.links.clone();
        let hops = (early, prepared.hop);
        serve::Serve::new(links, coordinator, &open, prepared.engine, hops)?
            .run(inbox)
            .await
    }
}

/// Loads a stage, and meanwhile takes the hop from the stage before: that one may be ready long before this one, and would
/// not wait. `None` when the node ends.
async fn beside(
    prepare: impl Future<Output = Result<Prepared, Refusal>>,
    inbox: &mut mpsc::Receiver<Input>,
    open: &OpenRing,
) -> Result<Option<(Prepared, Option<HopReceiver>)>, Refusal> {
    let mut early = None;
    let mut prepare = std::pin::pin!(prepare);
    loop {
        let input = tokio::select! {
            prepared = &mut prepare => return Ok(Some((prepared?, early))),
            input = inbox.recv() => input,
        };
        match input {
            Some(Input::Hop(hop)) => early = serve::admit(hop, open).await.or(early),
            // No session is open that could be meant.
            Some(Input::Control(_)) => {}
            None => return Ok(None),
        }
    }
}

impl Needs {
    /// Everything up to a stage that can serve.
    async fn prepare(&self, coordinator: NodeId, open: &OpenRing) -> Result<Prepared, Refusal> {
        let (model, file) = self.stage_file(coordinator, open).await?;
        let (engine, memory) = match Warm::take(&self.warm, open) {
            Some(loaded) => loaded,
            None => {
                let memory = self.reserve(open, &file).await?;
                (Arc::new(self.load(open, &model, &file)), memory)
            }
        };
        let host = engine.ready().await?;
        self.check_sandbox(host.loaded())?;
        let (layers, numerics) = (open.contract.layers, open.contract.numerics);
        let mine = contract(model.blake3, layers, numerics, host.loaded());
        compare(&mine, open, host.loaded())?;
        let hop = self.call_successor(open).await?;
        Ok(Prepared {
            mine,
            hop,
            engine: engine.clone(),
            _in_use: InUse::new(&self.warm, open, engine, memory),
        })
    }

    /// Takes the memory that a stage will need, of what this node gives.
    async fn reserve(&self, open: &OpenRing, file: &Path) -> Result<Option<Reserved>, Refusal> {
        let engine = self.settings(open);
        let scales = Scales {
            engine: &engine,
            models: &self.models,
            model: open.contract.model,
        };
        let slice = (Role::Middle, open.contract.layers);
        let file = async { Ok::<_, EngineError>(vec![file]) };
        match scales.weigh(&[slice], file).await {
            Ok(memory) => {
                let bytes = memory.total_bytes();
                let reserved = self.budget.reserve(bytes).or_else(|_| {
                    self.warm.clear();
                    self.budget.reserve(bytes)
                });
                Ok(Some(
                    reserved.map_err(|error| refusal(RefusalCode::NoRoom, error))?,
                ))
            }
            Err(error @ EngineError::Failed(_)) => Err(error.into()),
            // A file that processes die of is counted where it is loaded.
            Err(_) => Ok(None),
        }
    }

    /// The file of a stage: cut from the model, where that is here, else composed from blocks that other members have.
    async fn stage_file(
        &self,
        coordinator: NodeId,
        open: &OpenRing,
    ) -> Result<(Model, PathBuf), Refusal> {
        let (root, layers) = (open.contract.model, open.contract.layers);
        let (role, unusable) = (Role::Middle, |error| {
            refusal(RefusalCode::ModelUnusable, error)
        });
        if let Some(model) = self.find(root).await {
            let request = StageRequest {
                source: model.path.clone(),
                model: model.blake3,
                role,
                layers,
            };
            let file = self.files.get(request).await.map_err(unusable)?;
            return Ok((model, file));
        }
        let told = Told::new(self.links.clone(), coordinator, open.ring);
        let file = self.content.stage(root, role, layers, &told).await;
        let file = file.map_err(|error| missing(open, &error))?;
        let model = Model {
            path: file.clone(),
            blake3: root,
            name: open.model_name.clone(),
            bytes: 0,
            licence: None,
            sampling: None,
        };
        Ok((model, file))
    }

    /// The whole model, if it is here.
    async fn find(&self, root: Hash) -> Option<Model> {
        if let Some(own) = self.own.get().filter(|own| own.blake3 == root) {
            return Some(own.clone());
        }
        let models = self.models.clone();
        let found = tokio::task::spawn_blocking(move || models.find_by_hash(root));
        found.await.ok().flatten()
    }

    /// Strangers are served by an engine that is locked up, or by the owner's own decision.
    fn check_sandbox(&self, loaded: &Loaded) -> Result<(), Refusal> {
        match sandbox::hosting_refused(&loaded.sandbox, self.engine.allow_unsandboxed) {
            Some(why) => Err(refusal(RefusalCode::Unsandboxed, why)),
            None => Ok(()),
        }
    }

    fn load(&self, open: &OpenRing, model: &Model, file: &Path) -> Supervisor {
        let parts = vec![Part::of(Role::Middle, file)];
        self.settings(open).start(model, parts, 1)
    }

    /// The engine's settings for a stage.
    fn settings(&self, open: &OpenRing) -> EngineSettings {
        EngineSettings {
            numerics: open.contract.numerics,
            positions_max: open.positions_max,
            sessions_max: open.sessions_max,
            // A type that is not known here is found by comparing contracts.
            kv: KvType::named(&open.contract.kv_type).unwrap_or_default(),
            ..self.engine.clone()
        }
    }

    async fn call_successor(&self, open: &OpenRing) -> Result<HopSender, Refusal> {
        let membership = self.membership.clone();
        let hello = HopHello {
            ring: open.ring,
            from_stage: open.stage,
            membership,
        };
        let called = self.net.dial_hop(&open.successor, &hello).await;
        called.map_err(|error| refusal(RefusalCode::SuccessorLost, error))
    }
}

fn missing(open: &OpenRing, error: &ContentError) -> Refusal {
    let (name, root) = (&open.model_name, open.contract.model);
    match error {
        ContentError::Nobody { .. } => {
            let detail = format!(
                "the model {name:?} (BLAKE3 {}) is neither on this node nor on one that it is linked to; fetch it \
                 there with: myzel model pull {name}",
                root.short()
            );
            refusal(RefusalCode::ModelMissing, detail)
        }
        error => refusal(RefusalCode::ModelUnusable, error),
    }
}

/// Checks the numbers of a request before anything is done for it.
fn check(open: &OpenRing) -> Result<(), Refusal> {
    let LayerRange { first, end } = open.contract.layers;
    let sane = first < end
        && end <= LAYERS_MAX
        && (1..=STAGES_MAX).contains(&open.stages)
        && (1..=open.stages).contains(&open.stage)
        && (1..=SESSIONS_MAX).contains(&open.sessions_max)
        && open.positions_max > 0;
    if sane {
        Ok(())
    } else {
        Err(refusal(RefusalCode::BadShape, "the request makes no sense"))
    }
}

fn compare(mine: &Contract, open: &OpenRing, loaded: &Loaded) -> Result<(), Refusal> {
    if let Some(what) = mine.conflict(&open.contract) {
        let detail = format!("this node differs in: {what}; run the same version of Myzel on both");
        return Err(refusal(RefusalCode::ContractMismatch, detail));
    }
    if loaded.positions_max < open.positions_max {
        return Err(refusal(
            RefusalCode::NoRoom,
            "the context does not fit here",
        ));
    }
    if loaded.sessions_max < open.sessions_max {
        let detail = format!(
            "{} requests at once are asked for, and this node's memory for caches (--kv-memory) has room for {}",
            open.sessions_max, loaded.sessions_max
        );
        return Err(refusal(RefusalCode::NoRoom, detail));
    }
    Ok(())
}

/// The header of a model file that was verified or preflighted before.
///
/// # Errors
///
/// When the file cannot be read or is not a model.
pub fn header(path: &Path) -> anyhow::Result<Header> {
    let file = std::fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Header::read(std::io::BufReader::new(file), bytes)?)
}
