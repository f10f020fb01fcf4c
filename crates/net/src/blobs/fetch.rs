//! Fetching blocks from several members at once: the schedule, run on real connections.

use super::ALPN_BLOBS;
use super::ask::call;
use super::get::{self, GetFault};
use super::schedule::{Effect, Event, FetchReport, Outcome, PartAt, ProviderState, Schedule};
use crate::end;
use crate::endpoint::Core;
use crate::limits::{FETCH_TICK_MS, PROVIDERS_MAX};
use crate::links::Links;
use iroh::endpoint::Connection;
use proto::close::CloseCode;
use proto::ids::Hash;
use proto::manifest::{Block, BlockKind};
use proto::member::Member;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::MissedTickBehavior;

/// A block that lacks, and which parts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The block.
    pub block: Block,
    /// The parts of [`proto::manifest::PART_BYTES`] that are not here.
    pub parts: Vec<u32>,
}

/// A member, and the blocks that it says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Who, and where it is reached.
    pub member: Member,
    /// The hashes of the blocks.
    pub blocks: HashSet<Hash>,
}

/// Why a part could not be kept.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// What became of a part that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    Part,
    /// It was the last of its block, and the block is not what it should be: the disk lost something. All is wanted anew.
    Damaged,
}

/// Where verified parts go. Called on threads that may block, several at once.
pub trait Sink: Send + Sync + 'static {
    /// Keeps a part. Two providers may have raced for it: a second time must be as good as once.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being kept, a full disk for instance; the fetch ends with that.
    fn put(&self, block: &Block, part: u32, bytes: &[u8]) -> Result<Kept, SinkError>;
}

/// A fetch that did not get everything. What was kept stays kept, and the next fetch begins there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody is left who could deliver the rest.
    #[error("{}", told(lacks, report))]
    Stuck {
        /// The blocks that lack.
        lacks: Vec<BlockKind>,
        /// What each provider did.
        report: FetchReport,
    },
    /// What came could not be kept.
    #[error("{0}")]
    Sink(SinkError),
    /// The disk lost what it was given, twice.
    #[error("the disk does not keep the block {kind} as it was written; check the disk")]
    Disk {
        /// The block.
        kind: BlockKind,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

fn told(lacks: &[BlockKind], report: &FetchReport) -> String {
    let some: Vec<String> = lacks.iter().take(8).map(ToString::to_string).collect();
    let more = if lacks.len() > some.len() {
        " and others"
    } else {
        ""
    };
    let mut text = format!(
        "no node is left that could deliver {}{more}",
        some.join(", ")
    );
    for provider in &report.providers {
        let peer = provider.peer.short();
        match &provider.state {
            ProviderState::Lost { detail } => write!(text, "\n  {peer} was lost: {detail}"),
            ProviderState::Refused { detail } => write!(text, "\n  {peer} refused: {detail}"),
            ProviderState::Poisoned { detail } => {
                write!(text, "\n  {peer} is not asked again: {detail}")
            }
            ProviderState::Away | ProviderState::Ready => {
                write!(text, "\n  {peer} does not have them")
            }
        }
        .expect("writing to memory cannot fail");
    }
    text
}

impl Links {
    /// Fetches blocks from at most [`PROVIDERS_MAX`] members at once, and hands every part to `sink` when it has been
    /// verified. `progress` hears how far it is, at least every [`FETCH_TICK_MS`]. Dropping the future ends it.
    ///
    /// # Errors
    ///
    /// [`FetchError`]. A provider that failed is no error as long as others deliver: the report names it.
    pub async fn fetch(
        &self,
        wanted: &[Wanted],
        providers: &[Provider],
        sink: Arc<dyn Sink>,
        progress: &(dyn Fn(&FetchReport) + Send + Sync),
    ) -> Result<FetchReport, FetchError> {
        let core = self.mesh().core.clone();
        let stop = core.stop.clone();
        let fetch = Box::pin(run(core, wanted, providers, sink, progress));
        tokio::select! {
            () = stop.cancelled() => Err(FetchError::Stopped),
            fetched = fetch => fetched,
        }
    }
}

async fn run(
    core: Arc<Core>,
    wanted: &[Wanted],
    providers: &[Provider],
    sink: Arc<dyn Sink>,
    progress: &(dyn Fn(&FetchReport) + Send + Sync),
) -> Result<FetchReport, FetchError> {
    let providers = &providers[..providers.len().min(PROVIDERS_MAX)];
    let holds = |provider: &Provider| {
        let holds = wanted
            .iter()
            .map(|wanted| provider.blocks.contains(&wanted.block.hash));
        (provider.member.id, holds.collect())
    };
    let blocks: Vec<_> = wanted.iter().map(|w| (w.block, w.parts.clone())).collect();
    let holdings: Vec<_> = providers.iter().map(holds).collect();
    let (schedule, effects) = Schedule::new(&blocks, &holdings);
    let mut fetch = Fetch {
        core,
        members: providers
            .iter()
            .map(|provider| provider.member.clone())
            .collect(),
        blocks: wanted.iter().map(|wanted| wanted.block).collect(),
        sink,
        schedule,
        tasks: JoinSet::new(),
        connections: providers.iter().map(|_| None).collect(),
        running: HashMap::new(),
        damaged: HashSet::new(),
        began: Instant::now(),
    };
    fetch.perform(effects);
    let outcome = fetch.pump(progress).await;
    let report = fetch.schedule.report();
    progress(&report);
    match outcome? {
        Outcome::Stuck => Err(FetchError::Stuck {
            lacks: fetch.schedule.lacks(),
            report,
        }),
        Outcome::Finished | Outcome::Running => Ok(report),
    }
}

/// What a task of a fetch came to.
enum Ended {
    Called(usize, Result<Connection, String>),
    Got(usize, PartAt, Result<Kept, GetFault>),
}

/// A part that was asked for.
struct Running {
    task: AbortHandle,
    heard: Arc<AtomicU64>,
}

struct Fetch {
    core: Arc<Core>,
    members: Vec<Member>,
    blocks: Vec<Block>,
    sink: Arc<dyn Sink>,
    schedule: Schedule,
    tasks: JoinSet<Ended>,
    connections: Vec<Option<Connection>>,
    running: HashMap<(usize, PartAt), Running>,
    damaged: HashSet<usize>,
    began: Instant,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        for connection in self.connections.iter().flatten() {
            end::close(connection, CloseCode::Done, "");
        }
    }
}

impl Fetch {
    async fn pump(
        &mut self,
        progress: &(dyn Fn(&FetchReport) + Send + Sync),
    ) -> Result<Outcome, FetchError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(FETCH_TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            match self.schedule.outcome() {
                Outcome::Running => {}
                over => return Ok(over),
            }
            tokio::select! {
                _ = ticks.tick() => {
                    self.listen();
                    self.tell(Event::Tick);
                    progress(&self.schedule.report());
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ended::Called(provider, connection)) => self.called(provider, connection),
                    Ok(Ended::Got(provider, at, part)) => self.got(provider, at, part)?,
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
    }

    /// Tells the schedule how much of each part has come.
    fn listen(&mut self) {
        let heard: Vec<_> = self
            .running
            .iter()
            .map(|((provider, at), running)| Event::Heard {
                provider: *provider,
                at: *at,
                bytes: running.heard.load(Ordering::Relaxed),
            })
            .collect();
        heard.into_iter().for_each(|event| self.tell(event));
    }

    fn tell(&mut self, event: Event) {
        let effects = self.schedule.handle(event, self.began.elapsed());
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call { provider, pause } => self.call(provider, pause),
                Effect::Get { provider, at } => self.get(provider, at),
                Effect::CallOff { provider, at } => {
                    if let Some(running) = self.running.remove(&(provider, at)) {
                        running.task.abort();
                    }
                }
                Effect::Leave { provider } => self.leave(provider),
            }
        }
    }

    fn call(&mut self, provider: usize, pause: Duration) {
        let (core, member) = (self.core.clone(), self.members[provider].clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            let called = Box::pin(call(&core, &member, ALPN_BLOBS)).await;
            Ended::Called(provider, called.map_err(|error| error.to_string()))
        });
    }

    fn get(&mut self, provider: usize, at: PartAt) {
        let Some(connection) = self.connections[provider].clone() else {
            return;
        };
        let (sink, block) = (self.sink.clone(), self.blocks[at.block]);
        let heard = Arc::new(AtomicU64::new(0));
        let count = heard.clone();
        let task = self.tasks.spawn(async move {
            let fetched = Box::pin(get::part(&connection, &block, at.part, &count)).await;
            let kept = match fetched {
                Ok(bytes) => keep(sink, block, at.part, bytes).await,
                Err(fault) => Err(fault),
            };
            Ended::Got(provider, at, kept)
        });
        self.running.insert((provider, at), Running { task, heard });
    }

    fn called(&mut self, provider: usize, connection: Result<Connection, String>) {
        match connection {
            Ok(connection) => {
                self.connections[provider] = Some(connection);
                self.tell(Event::Ready { provider });
            }
            Err(detail) => self.tell(Event::Lost { provider, detail }),
        }
    }

    fn got(
        &mut self,
        provider: usize,
        at: PartAt,
        part: Result<Kept, GetFault>,
    ) -> Result<(), FetchError> {
        // What was called off in the same moment may have been kept all the same, and failed without harm.
        let wanted = self.running.remove(&(provider, at)).is_some();
        let fault = match part {
            Ok(kept) => {
                self.tell(Event::Kept { provider, at });
                return match kept {
                    Kept::Part => Ok(()),
                    Kept::Damaged => self.damaged(at.block),
                };
            }
            Err(GetFault::Sink(error)) => return Err(FetchError::Sink(error)),
            Err(fault) => fault,
        };
        let detail = fault.to_string();
        let peer = self.members[provider].id;
        match fault {
            GetFault::Poison(_) => {
                tracing::warn!(peer = %peer.short(), detail, "a provider is not asked again");
                self.tell(Event::Poisoned { provider, detail });
            }
            GetFault::Refused(_) if wanted => self.tell(Event::Refused { provider, detail }),
            GetFault::Lost(_) if wanted => self.tell(Event::Lost { provider, detail }),
            _ => {}
        }
        Ok(())
    }

    fn damaged(&mut self, block: usize) -> Result<(), FetchError> {
        if !self.damaged.insert(block) {
            let kind = self.blocks[block].kind;
            return Err(FetchError::Disk { kind });
        }
        self.tell(Event::Damaged { block });
        Ok(())
    }

    fn leave(&mut self, provider: usize) {
        let parts: Vec<_> = self
            .running
            .keys()
            .filter(|(of, _)| *of == provider)
            .copied()
            .collect();
        for part in parts {
            if let Some(running) = self.running.remove(&part) {
                running.task.abort();
            }
        }
        if let Some(connection) = self.connections[provider].take() {
            end::close(&connection, CloseCode::Done, "");
        }
    }
}

async fn keep(
    sink: Arc<dyn Sink>,
    block: Block,
    part: u32,
    bytes: Vec<u8>,
) -> Result<Kept, GetFault> {
    match spawn_blocking(move || sink.put(&block, part, &bytes)).await {
        Ok(kept) => kept.map_err(GetFault::Sink),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(GetFault::Sink(error.into())),
    }
}
