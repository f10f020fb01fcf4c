//! Models by content: this node hands on to other members what it has of models, and fetches from them what it lacks.
//!
//! A model's root is the name of its content, so it does not matter whose bytes they are: every part is verified
//! while it streams, whole models against their root and layers against a manifest that a member signed.

mod shelf;
mod stages;

pub use stages::{Cuts, Outline};

use crate::roster::Roster;
use crate::standing::now_s;
use identity::{NodeKey, Statement, sign_manifest};
use net::blobs::{
    AskError, FetchError, FetchReport, Provider, ProviderReport, ProviderState, UploadLimits,
    WallClock, Wanted,
};
use net::{Links, PeerState, Standing};
use proto::ad::Room;
use proto::codec::{self, DecodeError};
use proto::gguf::CutError;
use proto::ids::{Hash, NodeId};
use proto::manifest::{Block, BlockKind, Manifest};
use proto::member::Member;
use proto::model::LayerRange;
use serde::{Deserialize, Serialize};
use shelf::Shelf;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::FileError;
use store::blocks::{Blocks, BlocksError, ModelBlocks};
use store::models::{Model, Models, PullError};
use store::progress::{Event, Progress, Silent};
use store::stages::{StageError, Stages};
use swarm::members::{Ask, Event as Told};

/// How long a newcomer waits for the first link before it looks elsewhere for a model.
const FIRST_LINK_MAX: Duration = Duration::from_secs(10);
/// How long it then waits for others that the first one knows, at least and at most.
const MORE_LINKS_MIN: Duration = Duration::from_millis(500);
const MORE_LINKS_MAX: Duration = Duration::from_secs(2);
/// How often it looks.
const LINK_POLL: Duration = Duration::from_millis(50);
/// Fetches that are remembered for status.
const FETCHES_KEPT: usize = 8;

/// Why something was not had from other members.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No linked member holds anything of the model.
    #[error("no linked node has anything of the model {}{}", root.short(), told(faults))]
    Nobody {
        /// The model's root.
        root: Hash,
        /// What those said that were asked.
        faults: Vec<AskError>,
    },
    /// The parts did not all come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The disk, or what came, is not as it should be.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be cut like that.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The stage was not composed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The whole model was not put together.
    #[error(transparent)]
    Whole(#[from] PullError),
    /// This node's own manifest would not be read by anybody.
    #[error("no manifest is made: {0}")]
    Manifest(#[from] DecodeError),
}

fn told(faults: &[AskError]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// What was fetched, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchStatus {
    /// The model's root.
    pub model: Hash,
    /// What of it, for people.
    pub what: String,
    /// Bytes that came.
    pub bytes: u64,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// Who delivered how much.
    pub providers: Vec<ProviderStatus>,
}

/// A member that was asked for blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// Its key.
    pub node: NodeId,
    /// Bytes of it that were verified and kept.
    pub bytes: u64,
    /// Why it was given up, if it was.
    pub why: Option<String>,
}

/// What this node has of models, and where it gets the rest. Clones are the same.
#[derive(Debug, Clone)]
pub struct Content {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blocks: Blocks,
    models: Models,
    files: Stages,
    links: Links,
    roster: Roster,
    key: NodeKey,
    standing: Standing,
    fetches: Mutex<VecDeque<FetchStatus>>,
}

impl Content {
    /// Offers to members what is in `blocks`, within `limits`, and fetches over `links`.
    #[must_use]
    pub fn new(
        (blocks, models, files): (Blocks, Models, Stages),
        (links, roster): (Links, Roster),
        (key, standing): (NodeKey, Standing),
        limits: UploadLimits,
    ) -> Self {
        let clock = Arc::new(WallClock::default());
        links.offer(Arc::new(Shelf(blocks.clone())), limits, clock);
        let inner = Inner {
            blocks,
            models,
            files,
            links,
            roster,
            key,
            standing,
            fetches: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Hands a whole model on from now on. It is hashed once; later starts only look at it.
    ///
    /// # Errors
    ///
    /// [`ContentError`]; the model is not offered then.
    pub async fn hand_on(&self, model: &Model) -> Result<(), ContentError> {
        let inner = &self.inner;
        let contents = inner.blocks.contents_of(model, Arc::new(Silent)).await?;
        if inner.blocks.manifest(contents.root).is_none() {
            let statement = Statement {
                name: model.name.clone(),
                licence: model.licence.clone(),
                membership: Some(inner.standing.membership.clone()),
                issued_s: now_s(),
            };
            let manifest = sign_manifest(&inner.key, contents, statement)?;
            inner.blocks.keep(manifest).await?;
        }
        Ok(())
    }

    /// The newest fetches.
    #[must_use]
    pub fn fetches(&self) -> Vec<FetchStatus> {
        let fetches = self.inner.fetches.lock();
        let fetches = fetches.unwrap_or_else(PoisonError::into_inner);
        fetches.iter().cloned().collect()
    }

    /// The models of which something can be had here.
    #[must_use]
    pub fn handed_on(&self) -> Vec<Hash> {
        let manifests = self.inner.blocks.manifests();
        manifests
            .iter()
            .map(|manifest| manifest.contents.root)
            .collect()
    }

    /// The hash of the signed manifest by which a model is handed on, where there is one.
    #[must_use]
    pub fn manifest(&self, root: Hash) -> Option<Hash> {
        let manifest = self.inner.blocks.manifest(root)?;
        Some(Hash::of(&codec::to_vec(&*manifest)))
    }

    /// Layers of models of which there are only parts here. Blocks.
    #[must_use]
    pub fn parts(&self) -> Vec<(Hash, Vec<LayerRange>)> {
        let part = |root: Hash| Some((root, self.part(root)?.1));
        self.handed_on().into_iter().filter_map(part).collect()
    }

    /// How many layers a model has of which there are only parts here, and which of them. Blocks.
    #[must_use]
    pub fn part(&self, root: Hash) -> Option<(u32, Vec<LayerRange>)> {
        if self.inner.models.find_by_hash(root).is_some() {
            return None;
        }
        let manifest = self.inner.blocks.manifest(root)?;
        let held = self.inner.blocks.held(&manifest.contents);
        let blocks = &manifest.contents.blocks;
        let layer = |block: &Block| match block.kind {
            BlockKind::Layer(layer) => Some(layer),
            _ => None,
        };
        let layers = blocks.iter().filter_map(layer).max()? + 1;
        let here = blocks.iter().zip(held).filter(|(_, held)| *held);
        let numbers: Vec<u32> = here.filter_map(|(block, _)| layer(block)).collect();
        (numbers.len() < layers as usize).then(|| (layers, ranges(&numbers)))
    }

    /// Fetches layers of a model, to have them and to hand them on.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn keep_layers(&self, root: Hash, layers: LayerRange) -> Result<(), ContentError> {
        let (manifest, providers) = self.survey(root).await?;
        let wanted = |block: &&Block| match block.kind {
            BlockKind::Layer(layer) => (layers.first..layers.end).contains(&layer),
            _ => false,
        };
        let blocks = manifest.contents.blocks.iter().filter(wanted);
        let blocks: Vec<Block> = blocks.copied().collect();
        let what = format!("layers {layers} of {}, to spare", manifest.name);
        self.fetch(root, &what, &blocks, &providers, &Silent).await
    }

    /// A whole model, fetched from other members and put together; checked against its root.
    ///
    /// # Errors
    ///
    /// [`ContentError`].
    pub async fn whole(
        &self,
        root: Hash,
        progress: Arc<dyn Progress>,
    ) -> Result<Model, ContentError> {
        let (manifest, providers) = self.survey(root).await?;
        let all = manifest.contents.blocks.clone();
        let what = format!("all of {}", manifest.name);
        self.fetch(root, &what, &all, &providers, &*progress)
            .await?;
        let source = ModelBlocks::open(&self.inner.blocks, &manifest.contents).await?;
        let adopted = self.inner.models.adopt(source, &manifest, progress).await;
        match adopted {
            Ok(pulled) => Ok(pulled.model),
            Err(error) => {
                if let PullError::FalseManifest { maker, .. } = error {
                    // What is here is of no use to anybody.
                    self.inner.blocks.forget(root).await?;
                    self.inner.roster.tell(Told::FalseBytes(maker)).await;
                }
                Err(error.into())
            }
        }
    }

    /// Whether something of a model may be had: something is here, or others may hold it.
    #[must_use]
    pub fn may_have(&self, root: Hash) -> bool {
        self.inner.blocks.manifest(root).is_some() || !self.inner.links.snapshot().is_empty()
    }

    /// Waits a moment for somebody to be linked, and then for those who were heard of from them: a newcomer has just
    /// been let in. Nobody is waited for where the model is known.
    pub async fn first_links(&self, root: Hash) {
        if self.inner.blocks.manifest(root).is_some() {
            return;
        }
        let begun = Instant::now();
        let mut first = None;
        while begun.elapsed() < FIRST_LINK_MAX {
            let peers = self.inner.links.snapshot();
            if peers.iter().any(|peer| peer.state == PeerState::Up) {
                let since = first.get_or_insert_with(Instant::now).elapsed();
                let calls = peers.iter().any(|peer| peer.state == PeerState::Dialing);
                if since > MORE_LINKS_MAX || (since > MORE_LINKS_MIN && !calls) {
                    return;
                }
            }
            tokio::time::sleep(LINK_POLL).await;
        }
    }

    fn linked(&self) -> Vec<Member> {
        let all = self.inner.links.snapshot().into_iter();
        let up = all.filter(|peer| peer.state == PeerState::Up);
        up.map(|peer| peer.member).collect()
    }

    /// Who holds what of a model. Members whose ads say that they hold some of it are asked first.
    async fn survey(&self, root: Hash) -> Result<(Manifest, Vec<Provider>), ContentError> {
        let inner = &self.inner;
        let ask = Ask {
            room: Room::Square,
            model: root,
            layer_bytes: 0,
            build: None,
        };
        let seen = inner.roster.view(&ask);
        let says = |member: &Member| {
            seen.iter()
                .any(|seen| seen.node == member.id && (seen.whole || !seen.on_disk.is_empty()))
        };
        let mut members = self.linked();
        members.sort_by_key(|member| !says(member));
        let doubted = inner.roster.doubted();
        let survey = inner.links.survey(&members, root, &doubted).await;
        for fault in &survey.faults {
            tracing::debug!(%fault, "a member is not asked for blocks");
        }
        match survey.manifest {
            Some(manifest) => {
                inner.blocks.keep(manifest.clone()).await?;
                Ok((manifest, survey.providers))
            }
            None => Err(ContentError::Nobody {
                root,
                faults: survey.faults,
            }),
        }
    }

    /// Fetches what lacks of these blocks.
    async fn fetch(
        &self,
        model: Hash,
        what: &str,
        blocks: &[Block],
        providers: &[Provider],
        progress: &dyn Progress,
    ) -> Result<(), ContentError> {
        let missing = self.inner.blocks.missing(blocks).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Wanted> = missing
            .into_iter()
            .map(|missing| Wanted {
                block: missing.block,
                parts: missing.parts,
            })
            .collect();
        let begun = Instant::now();
        let phase = format!("fetching {what} from other nodes");
        let tell = |report: &FetchReport| {
            progress.report(&Event {
                phase: &phase,
                done: report.done,
                total: report.total,
            });
        };
        let sink = Arc::new(Shelf(self.inner.blocks.clone()));
        let links = &self.inner.links;
        let fetched = links.fetch(&wanted, providers, sink, &tell).await;
        let report = match &fetched {
            Ok(report) | Err(FetchError::Stuck { report, .. }) => Some(report),
            Err(_) => None,
        };
        for told in report.into_iter().flat_map(lessons) {
            self.inner.roster.tell(told).await;
        }
        let report = fetched?;
        let status = FetchStatus {
            model,
            what: what.to_owned(),
            bytes: report.done,
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            providers: report.providers.iter().map(provider).collect(),
        };
        tracing::info!(
            what,
            bytes = status.bytes,
            took_ms = status.took_ms,
            "fetched from other nodes"
        );
        let mut fetches = self
            .inner
            .fetches
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        fetches.truncate(FETCHES_KEPT - 1);
        fetches.push_front(status);
        Ok(())
    }
}

/// What a fetch says of its providers, for the members machine: what went through from each, and who sent false bytes.
fn lessons(report: &FetchReport) -> Vec<Told> {
    let measured = |provider: &ProviderReport| {
        let bytes_per_s = provider.bytes_s.filter(|_| provider.bytes > 0)?;
        let node = provider.peer;
        Some(Told::Bandwidth { node, bytes_per_s })
    };
    let poisoned = |provider: &ProviderReport| match provider.state {
        ProviderState::Poisoned { .. } => Some(Told::FalseBytes(provider.peer)),
        _ => None,
    };
    let providers = || report.providers.iter();
    let all = providers().filter_map(measured);
    all.chain(providers().filter_map(poisoned)).collect()
}

fn provider(report: &ProviderReport) -> ProviderStatus {
    use ProviderState::{Away, Lost, Poisoned, Ready, Refused};
    let why = match &report.state {
        Away | Ready => None,
        Lost { detail } => Some(format!("it was lost: {detail}")),
        Refused { detail } => Some(format!("it refused: {detail}")),
        Poisoned { detail } => Some(format!("it sent false bytes: {detail}")),
    };
    ProviderStatus {
        node: report.peer,
        bytes: report.bytes,
        why,
    }
}

/// Numbers of layers, in ascending order, as ranges.
fn ranges(numbers: &[u32]) -> Vec<LayerRange> {
    let mut ranges: Vec<LayerRange> = Vec::new();
    for &layer in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == layer => last.end += 1,
            _ => ranges.push(LayerRange {
                first: layer,
                end: layer + 1,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_delivered_is_measured_and_who_sent_false_bytes_is_told() {
        let provider = |n: u8, bytes, bytes_s, state| ProviderReport {
            peer: NodeId([n; 32]),
            bytes,
            bytes_s,
            state,
        };
        let poisoned = || ProviderState::Poisoned {
            detail: "a wrong bit".into(),
        };
        let lost = ProviderState::Lost {
            detail: "gone".into(),
        };
        let report = FetchReport {
            done: 5,
            total: 5,
            providers: vec![
                provider(1, 5, Some(7), ProviderState::Ready),
                provider(2, 0, Some(9), poisoned()),
                provider(3, 5, None, lost),
                provider(4, 2, Some(3), poisoned()),
            ],
        };
        let words = |told: Told| match told {
            Told::Bandwidth { node, bytes_per_s } => format!("{} {bytes_per_s}", node.0[0]),
            Told::FalseBytes(node) => format!("{} false", node.0[0]),
            other => panic!("{other:?}"),
        };
        let words: Vec<String> = lessons(&report).into_iter().map(words).collect();
        assert_eq!(words, ["1 7", "4 3", "2 false", "4 false"]);
    }
}
