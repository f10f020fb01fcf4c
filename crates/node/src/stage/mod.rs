//! Layers that this node hosts for other coordinators.
//!
//! # Story
//!
//! [`Stages`] keeps a task for each ring that asked for a stage here. The task cuts the layers, or fetches them and says how
//! far it is; it loads them, compares contracts, calls the stage behind it, tells the coordinator, and then feeds a `swarm::stage` machine ([`serve`]). It ends when the
//! coordinator closes the ring or is lost, and everything that it held goes with it: engine-host, caches, hops.

pub(crate) mod feeder;
mod hosted;
mod neighbour;
mod prepare;
mod refusal;
mod serve;
mod shadow;
mod spill;
mod standby;
mod told;
mod warm;

use crate::content::Content;
use crate::home::EngineSettings;
use crate::memory::Budget;
use crate::rooms::Rooms;
use crate::status::HostingStatus;
use engine::Supervisor;
use hosted::{Hosted, Shelf};
use neighbour::Inlet;
use net::{IncomingHop, Links, Net};
use prepare::Prepared;
use proto::gguf::Header;
use proto::host::SESSIONS_MAX;
use proto::ids::{Hash, NodeId, RingId};
use proto::member::Membership;
use proto::model::{LAYERS_MAX, LayerRange};
use proto::ring::{LinkBody, OpenRing, RefusalCode, RingReady, STAGES_MAX};
use refusal::{Refusal, refusal, refuse};
use standby::Errands;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use store::models::{Model, Models};
use store::stages::Stages as StageFiles;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use warm::Warm;

/// Rings that may have a stage here at once.
pub const HOSTED_MAX: usize = 8;
/// Messages that may wait for a ring's task; a coordinator that sends more is cut off.
const INPUTS_MAX: usize = 256;
/// Stages that are loaded beforehand at once; others wait.
const STANDBY_LOADS_MAX: usize = 2;
/// How long a hop may be early: its ring is not known here yet.
const EARLY_HOP_MAX: Duration = Duration::from_secs(5);
/// How often an early hop looks whether its ring is known.
const EARLY_HOP_POLL: Duration = Duration::from_millis(20);

/// What a ring's task is told.
#[derive(Debug)]
enum Input {
    /// The stage before wants to send.
    Hop(IncomingHop),
    /// So does one that is hosted on this node, too.
    Inlet(Inlet),
    /// The coordinator says something about a session.
    Control(LinkBody),
    /// The ring goes on as another one.
    Move(Box<OpenRing>),
    /// A coordinator wants this to be kept a while longer, for this ring.
    Keep(Box<OpenRing>),
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
    /// Where what stages retain is put that memory has no room for.
    spill: PathBuf,
    rooms: Rooms,
    budget: Budget,
    warm: Arc<Warm>,
    hosted: Arc<Mutex<Shelf>>,
    tasks: TaskTracker,
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
    /// Loads of stages that are to be kept.
    loads: Arc<Semaphore>,
    errands: Errands,
    stop: CancellationToken,
}

impl Needs {
    /// Runs a stage's task until it ends or is stopped. The coordinator is told why it ended by itself.
    fn spawn(
        self: &Arc<Self>,
        (coordinator, ring): (NodeId, RingId),
        (serial, stop): (u64, CancellationToken),
        work: impl Future<Output = Result<(), Refusal>> + Send + 'static,
    ) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = work => ended,
                () = stop.cancelled() => Ok(()),
            };
            let ring = this
                .hosted()
                .take(serial)
                .map_or(ring, |hosted| hosted.ring());
            if let Err(refusal) = ended {
                warn!(ring = %ring.short(), detail = %refusal.detail, "a stage is not hosted");
                refuse(
                    &this.links,
                    coordinator,
                    ring,
                    refusal.code,
                    &refusal.detail,
                );
            }
        });
    }

    /// Waits until those of these stages that were stopped have let go of their engines and their memory.
    async fn closed(&self, of: impl Fn(&Hosted) -> bool) {
        let closing = || {
            let hosted = self.hosted();
            hosted
                .iter()
                .any(|stage| of(stage) && stage.stop.is_cancelled())
        };
        while closing() {
            tokio::time::sleep(EARLY_HOP_POLL).await;
        }
    }

    fn hosted(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stages {
    /// Ready to host.
    #[must_use]
    pub fn new(
        (net, links): (Net, Links),
        membership: Membership,
        engine: EngineSettings,
        (models, own, content): (Models, Arc<OnceLock<Model>>, Content),
        (files, spill): (StageFiles, PathBuf),
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
            spill,
            rooms,
            budget,
            warm: Arc::default(),
            hosted: Arc::default(),
            tasks: TaskTracker::new(),
        });
        Self {
            needs,
            loads: Arc::new(Semaphore::new(STANDBY_LOADS_MAX)),
            errands: Errands::default(),
            stop: CancellationToken::new(),
        }
    }

    fn hosted(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.needs.hosted()
    }

    /// What is hosted, for status.
    #[must_use]
    pub fn status(&self) -> Vec<HostingStatus> {
        let hosted = self.hosted();
        let serving = hosted.iter().filter(|hosted| !hosted.is_shadow());
        serving.map(Hosted::status).collect()
    }

    /// The engines of what is hosted.
    #[must_use]
    pub fn engines(&self) -> Vec<StageEngine> {
        let hosted = self.hosted();
        let engines = hosted.iter().filter_map(|hosted| hosted.engine.clone());
        engines.collect()
    }

    /// A coordinator asks for a stage. Answers it when the stage is loaded, or why it is not. One of its rings that goes on
    /// as this one keeps what it has.
    pub fn open(&self, coordinator: NodeId, open: OpenRing) {
        let ring = open.ring;
        if self.hosted().moves(coordinator, &open) {
            return;
        }
        // Its engine is what is asked for.
        self.hosted().stop_shadows(Some((coordinator, &open)));
        let (inputs, inbox) = mpsc::channel(INPUTS_MAX);
        let hosted = Hosted::new(coordinator, &open, inputs);
        let (stop, sessions) = (hosted.stop.clone(), hosted.sessions.clone());
        let Some(serial) = self.hosted().put(hosted) else {
            let detail = format!("{HOSTED_MAX} rings have a stage here already");
            let links = &self.needs.links;
            return refuse(links, coordinator, ring, RefusalCode::NoRoom, &detail);
        };
        let this = self.clone();
        let work = async move {
            this.host(coordinator, open, (serial, sessions), inbox)
                .await
        };
        self.needs.spawn((coordinator, ring), (serial, stop), work);
    }

    /// A coordinator says something about a session of its ring. Others are not heard.
    pub fn control(&self, peer: NodeId, ring: RingId, body: &LinkBody) {
        for stage in self.hosted().iter().filter(|stage| stage.is_of(peer, ring)) {
            if stage.inputs.try_send(Input::Control(body.clone())).is_err() {
                warn!(ring = %ring.short(), "a coordinator says more than a stage can take in");
                stage.stop.cancel();
            }
        }
    }

    /// A coordinator closes its ring.
    pub fn close(&self, peer: NodeId, ring: RingId) {
        let hosted = self.hosted();
        let of_it = hosted.iter().filter(|stage| stage.is_of(peer, ring));
        of_it.for_each(|stage| stage.stop.cancel());
    }

    /// The link to a member is lost: what it coordinated ends.
    pub fn lost(&self, peer: NodeId) {
        let hosted = self.hosted();
        let of_it = hosted.iter().filter(|stage| stage.coordinator == peer);
        of_it.for_each(|stage| stage.stop.cancel());
        self.needs.warm.lost(peer);
    }

    /// A stage before one of ours wants to send. It may be a little early.
    pub async fn hop(&self, hop: IncomingHop) {
        let deadline = Instant::now() + EARLY_HOP_MAX;
        loop {
            let (ring, stage) = (hop.hello.ring, hop.hello.from_stage.saturating_add(1));
            self.needs.shadow(hop.peer, (ring, stage));
            let inputs = self.hosted().inputs(ring, stage);
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
        self.stop.cancel();
        self.hosted().iter().for_each(|stage| stage.stop.cancel());
        self.needs.tasks.close();
        self.needs.tasks.wait().await;
    }
}

impl Stages {
    /// Hosts a stage from loading to its end.
    async fn host(
        &self,
        coordinator: NodeId,
        open: OpenRing,
        (serial, sessions): (u64, Arc<AtomicU32>),
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
        needs.closed(|stage| stage.coordinator == coordinator).await;
        let prepare = needs.prepare(coordinator, &open);
        let Some((prepared, early)) = beside(prepare, &mut inbox, &open).await? else {
            return Ok(());
        };
        let measured = StageEngine {
            model: open.contract.model,
            layers: layers.len(),
            engine: prepared.engine.clone(),
        };
        self.hosted().loaded(serial, measured);
        let load_ms = begun.elapsed().as_millis() as u64;
        let ready = RingReady {
            ring: open.ring,
            contract: prepared.mine.clone(),
            load_ms,
        };
        info!(ring = %open.ring.short(), stage = open.stage, %layers, load_ms, "a stage is hosted");
        needs
            .links
            .send(coordinator, LinkBody::RingReady(ready))
            .map_err(|error| refusal(RefusalCode::EngineFailed, error))?;
        serve::Serve::new(
            needs.clone(),
            coordinator,
            open,
            (prepared, early),
            sessions,
        )?
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
) -> Result<Option<(Prepared, Option<Inlet>)>, Refusal> {
    let mut early = None;
    let mut prepare = std::pin::pin!(prepare);
    loop {
        let input = tokio::select! {
            prepared = &mut prepare => return Ok(Some((prepared?, early))),
            input = inbox.recv() => input,
        };
        match input {
            Some(Input::Hop(hop)) => early = serve::admit(hop, open).await.or(early),
            Some(Input::Inlet(inlet)) => early = Some(inlet),
            // No session is open that could be meant, and who has not loaded is not moved.
            Some(Input::Control(_) | Input::Move(_) | Input::Keep(_)) => {}
            None => return Ok(None),
        }
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
