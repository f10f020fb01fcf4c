//! The whole way of a model: hashed and offered from one disk, fetched onto another, composed, handed on.

#[path = "../../../node/src/content/shelf.rs"]
mod on_disk;

use crate::blobs::newcomer;
use crate::common::{Node, key, membership, now_s, within};
use crate::shelf::{HandClock, unlimited};
use identity::{Statement, sign_manifest};
use net::blobs::{
    FetchError, FetchReport, Kept, ProviderState, Sink, SinkError, Survey, UploadLimits, WallClock,
    Wanted,
};
use on_disk::Shelf;
use proto::gguf::plan;
use proto::host::Role;
use proto::ids::Hash;
use proto::manifest::{Block, BlockKind, Contents};
use proto::model::LayerRange;
use specimen::{Family, Shape, Weights};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::blocks::{Blocks, ModelBlocks};
use store::models::Model;
use store::progress::Silent;
use store::stages::{StageRequest, Stages};

/// Some megabytes a layer, so that a layer has several parts.
const SHAPE: Shape = Shape {
    layers: 4,
    embedding: 256,
    heads: 4,
    heads_kv: 2,
    feed_forward: 1024,
    ..Shape::SMALL
};
const MIDDLE: LayerRange = LayerRange { first: 1, end: 3 };

/// The disk of a node, and how many parts went there.
struct Disk {
    blocks: Blocks,
    shelf: Shelf,
    puts: AtomicUsize,
}

impl Sink for Disk {
    fn put(&self, block: &Block, part: u32, bytes: &[u8]) -> Result<Kept, SinkError> {
        let kept = self.shelf.put(block, part, bytes)?;
        self.puts.fetch_add(1, Ordering::SeqCst);
        Ok(kept)
    }
}

impl Disk {
    fn open(dir: &Path) -> Arc<Self> {
        let blocks = Blocks::open(&dir.join("blocks")).unwrap();
        Arc::new(Self {
            shelf: Shelf(blocks.clone()),
            blocks,
            puts: AtomicUsize::new(0),
        })
    }

    async fn wanted(&self, blocks: &[Block]) -> Vec<Wanted> {
        let missing = self.blocks.missing(blocks).await.unwrap();
        let wanted = |missing: store::blocks::Missing| Wanted {
            block: missing.block,
            parts: missing.parts,
        };
        missing.into_iter().map(wanted).collect()
    }

    async fn fetch(
        self: &Arc<Self>,
        node: &Node,
        survey: &Survey,
        blocks: &[Block],
    ) -> Result<FetchReport, FetchError> {
        let wanted = self.wanted(blocks).await;
        node.links
            .fetch(&wanted, &survey.providers, self.clone(), &|_| ())
            .await
    }
}

/// A node with a whole model on its disk, which it has hashed and signed for.
async fn owner(n: u8, dir: &Path, model: &Model) -> (Node, Arc<HandClock>) {
    let disk = Disk::open(dir);
    let contents = disk
        .blocks
        .contents_of(model, Arc::new(Silent))
        .await
        .unwrap();
    let statement = Statement {
        name: model.name.clone(),
        licence: model.licence.clone(),
        membership: Some(membership(n)),
        issued_s: now_s(),
    };
    disk.blocks
        .keep(sign_manifest(&key(n), contents, statement).unwrap())
        .await
        .unwrap();
    let node = Node::start(n, Vec::new()).await;
    let slow = UploadLimits {
        all_bytes_s: NonZeroU64::new(1 << 20),
        peer_bytes_s: None,
    };
    let clock = Arc::new(HandClock::default());
    let shelf = Arc::new(disk.shelf.clone());
    node.links.offer(shelf, slow, clock.clone());
    (node, clock)
}

fn model_in(dir: &Path) -> Model {
    let bytes = specimen::bytes(Family::Qwen3, &SHAPE, Weights::F32, 5);
    let path = dir.join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    Model {
        path,
        blake3: Hash::of(&bytes),
        name: "specimen".into(),
        bytes: bytes.len() as u64,
        licence: None,
        sampling: None,
    }
}

fn sum(wanted: &[Wanted]) -> u64 {
    let parts = |wanted: &Wanted| -> u64 {
        wanted
            .parts
            .iter()
            .map(|part| wanted.block.part_bytes(*part))
            .sum()
    };
    wanted.iter().map(parts).sum()
}

async fn stage_of(stages: &Path, disk: &Disk, contents: &Contents) -> PathBuf {
    let source = ModelBlocks::open(&disk.blocks, contents).await.unwrap();
    let stages = Stages::open(stages).unwrap();
    stages
        .get_from_blocks(source, Role::Middle, MIDDLE)
        .await
        .unwrap()
}

/// The same stage, cut from the whole model.
async fn cut_of(stages: &Path, model: &Model) -> PathBuf {
    let request = StageRequest {
        source: model.path.clone(),
        model: model.blake3,
        role: Role::Middle,
        layers: MIDDLE,
    };
    Stages::open(stages).unwrap().get(request).await.unwrap()
}

/// How much time passes for two slow owners in [`midway`]: by then each has sent what may go at once and two parts more,
/// which is less than all together, however late the disk is.
const MIDWAY: Duration = Duration::from_millis(2_200);

/// Lets time pass for two slow owners until some parts have come.
async fn midway(disk: &Disk, clocks: [&HandClock; 2]) {
    while disk.puts.load(Ordering::SeqCst) < 3 {
        for clock in clocks {
            let late = *clock.now.borrow() < MIDWAY;
            if late && clock.waiting.load(Ordering::SeqCst) > 0 {
                clock
                    .now
                    .send_modify(|now| *now += Duration::from_millis(100));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What these nodes say of a model, whom nobody doubts.
async fn ask(from: &Node, nodes: &[&Node], root: Hash) -> Survey {
    let members: Vec<_> = nodes.iter().map(|node| node.member()).collect();
    within(from.links.survey(&members, root, &Default::default())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_fetches_its_range_is_killed_goes_on_composes_and_hands_on() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [a_dir, b_dir, c_dir, d_dir] = dirs.each_ref().map(tempfile::TempDir::path);
    let model = model_in(a_dir);
    let (mut a, a_clock) = owner(2, a_dir, &model).await;
    let (mut b, b_clock) = owner(3, b_dir, &model_in(b_dir)).await;
    let c = newcomer(4, &mut [&mut a, &mut b]).await;
    let mut disk = Disk::open(c_dir);

    // What is there, the header first: it says what the stage needs.
    let survey = ask(&c, &[&a, &b], model.blake3).await;
    assert_eq!(survey.providers.len(), 2, "{:?}", survey.faults);
    let manifest = survey.manifest.clone().unwrap();
    disk.blocks.keep(manifest.clone()).await.unwrap();
    let contents = &manifest.contents;
    let header = *contents.block(BlockKind::Header).unwrap();
    within(disk.fetch(&c, &survey, &[header])).await.unwrap();
    let source = ModelBlocks::open(&disk.blocks, contents).await.unwrap();
    let needed = source.needed(&plan(source.header(), Role::Middle, MIDDLE).unwrap());
    assert_eq!(
        needed.len(),
        3,
        "the header and two layers of {}",
        contents.blocks.len()
    );

    // Killed midway: the fetch is gone in the middle of writing, and the directory is opened anew.
    let all = sum(&disk.wanted(&needed).await);
    tokio::select! {
        done = disk.fetch(&c, &survey, &needed) => panic!("it was not slow enough: {done:?}"),
        () = within(midway(&disk, [&a_clock, &b_clock])) => {}
    }
    // What a killed process would not do any more.
    while Arc::strong_count(&disk) > 1 {
        tokio::task::yield_now().await;
    }
    disk = Disk::open(c_dir);
    let left = sum(&disk.wanted(&needed).await);
    assert!(0 < left && left < all, "{left} of {all} bytes lack");

    // It goes on where it was, from both at once.
    for node in [&a, &b] {
        node.links.limit_uploads(unlimited());
    }
    let report = within(disk.fetch(&c, &survey, &needed)).await.unwrap();
    assert_eq!((report.done, report.total), (left, left));
    let served = [a.links.uploads().bytes, b.links.uploads().bytes];
    assert!(served.iter().all(|bytes| *bytes > 1 << 20), "{served:?}");
    let composed = stage_of(&c_dir.join("stages"), &disk, contents).await;
    let cut = cut_of(&a_dir.join("stages"), &model).await;
    assert!(std::fs::read(composed).unwrap() == std::fs::read(cut).unwrap());

    // The next newcomer gets the range from this one alone.
    let mut c = c;
    let shelf = Arc::new(disk.shelf.clone());
    c.links
        .offer(shelf, unlimited(), Arc::new(WallClock::default()));
    let d = newcomer(5, &mut [&mut c]).await;
    let disk = Disk::open(d_dir);
    let survey = ask(&d, &[&c], model.blake3).await;
    assert_eq!(survey.manifest.as_ref(), Some(&manifest));
    within(disk.fetch(&d, &survey, &needed)).await.unwrap();
    stage_of(&d_dir.join("stages"), &disk, contents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_disk_sends_nothing_wrong_and_a_full_range_comes_from_another() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [a_dir, b_dir, c_dir] = dirs.each_ref().map(tempfile::TempDir::path);
    let rotten = model_in(a_dir);
    let (mut a, _) = owner(2, a_dir, &rotten).await;
    let (mut b, _) = owner(3, b_dir, &model_in(b_dir)).await;
    let mut bytes = std::fs::read(&rotten.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&rotten.path, bytes).unwrap();
    let c = newcomer(4, &mut [&mut a, &mut b]).await;
    for node in [&a, &b] {
        node.links.limit_uploads(unlimited());
    }
    let disk = Disk::open(c_dir);
    let mut survey = ask(&c, &[&a, &b], rotten.blake3).await;
    let contents = survey.manifest.clone().unwrap().contents;
    survey
        .providers
        .sort_by_key(|provider| provider.member.id != a.id());
    let honest = survey.providers.split_off(1);
    let error = within(disk.fetch(&c, &survey, &contents.blocks))
        .await
        .unwrap_err();
    let FetchError::Stuck { lacks, report } = error else {
        panic!("{error}");
    };
    let state = &report.providers[0].state;
    assert!(
        matches!(state, ProviderState::Refused { .. }),
        "nothing rotten was met: {state:?}"
    );
    assert!(!lacks.is_empty());
    survey.providers = honest;
    within(disk.fetch(&c, &survey, &contents.blocks))
        .await
        .unwrap();
    assert!(disk.blocks.held(&contents).iter().all(|held| *held));
}
