//! Models by content: blocks of real files, handed from one directory to another as peers would.

use crate::common::*;
use bao_tree::io::outboard::{PostOrderMemOutboard, PostOrderOutboard};
use bao_tree::io::sync::{ReadAt, encode_ranges_validated};
use bao_tree::{BaoTree, BlockSize, ChunkRanges};
use proto::gguf::{BlockMap, Header, plan};
use proto::host::Role;
use proto::ids::{Hash, NodeId};
use proto::manifest::{Block, BlockKind, Contents, LEAF_CHUNKS_LOG2, Manifest, PART_BYTES};
use proto::model::LayerRange;
use specimen::{Family, Shape, Weights};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use store::blocks::{Blocks, BlocksError, Missing, ModelBlocks, Offered, Put};
use store::models::{Model, Models, PullError};
use store::progress::{Event, Silent};
use store::stages::{StageError, StageRequest, Stages};

pub(crate) const LEAF: BlockSize = BlockSize::from_chunk_log(LEAF_CHUNKS_LOG2);

/// A node's directory, and a model's file outside of it.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) blocks: Blocks,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blocks = Blocks::open(&dir.path().join("blocks")).unwrap();
        Self { dir, blocks }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a restart does.
    fn reopen(&mut self) {
        self.blocks = Blocks::open(&self.path("blocks")).unwrap();
    }

    pub(crate) fn model(&self, bytes: &[u8]) -> Model {
        let path = self.path("model.gguf");
        fs::write(&path, bytes).unwrap();
        Model {
            path,
            blake3: Hash::of(bytes),
            name: "m".into(),
            bytes: bytes.len() as u64,
            licence: None,
            sampling: None,
        }
    }

    fn names(&self) -> Vec<String> {
        files(&self.path("blocks"))
    }
}

pub(crate) fn specimen_of(family: Family) -> Vec<u8> {
    specimen::bytes(family, &Shape::MINIATURE, Weights::F32, 1)
}

fn read_all(offered: &Offered) -> Vec<u8> {
    let mut out = vec![0; offered.bytes() as usize];
    let mut at = 0;
    while at < out.len() {
        match offered.read_at(at as u64, &mut out[at..]).unwrap() {
            0 => panic!("it ends at {at}"),
            n => at += n,
        }
    }
    assert_eq!(offered.read_at(at as u64, &mut [0]).unwrap(), 0);
    out
}

pub(crate) fn manifest(contents: &Contents) -> Manifest {
    Manifest {
        version: 1,
        contents: contents.clone(),
        name: "m".into(),
        licence: Some("MIT".into()),
        maker: NodeId([1; 32]),
        membership: None,
        issued_s: 1,
        signature: [0; 64],
    }
}

/// Hands over what lacks, as a fetch does.
pub(crate) async fn hand_over(from: &Blocks, to: &Blocks, wanted: &[Block]) {
    for Missing { block, parts } in to.missing(wanted).await.unwrap() {
        let bytes = read_all(&from.find(block.hash).unwrap());
        for part in parts {
            to.put(&block, part, part_of(&bytes, part)).unwrap();
        }
    }
    assert_eq!(to.missing(wanted).await.unwrap(), []);
}

pub(crate) fn part_of(bytes: &[u8], part: u32) -> &[u8] {
    let start = (u64::from(part) * PART_BYTES) as usize;
    &bytes[start..bytes.len().min(start + PART_BYTES as usize)]
}

struct TreeOf<'a>(&'a Offered);

impl ReadAt for TreeOf<'_> {
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.tree_at(at, buffer)
    }
}

#[tokio::test]
async fn a_model_of_every_family_is_offered_block_by_block_from_its_one_file() {
    for family in Family::ALL {
        let bench = Bench::new();
        let bytes = specimen_of(family);
        let model = bench.model(&bytes);
        let contents = bench
            .blocks
            .contents_of(&model, Arc::new(Silent))
            .await
            .unwrap();
        contents.check().unwrap();
        assert_eq!((contents.root, contents.bytes), (model.blake3, model.bytes));
        assert!(bench.blocks.held(&contents).iter().all(|held| *held));
        let map = BlockMap::of(&Header::from_bytes(&bytes).unwrap());
        for block in &contents.blocks {
            let offered = bench.blocks.find(block.hash).unwrap();
            let data = read_all(&offered);
            let expected: Vec<u8> = map
                .block(block.kind)
                .flat_map(|run| &bytes[run.in_file as usize..(run.in_file + run.bytes) as usize])
                .copied()
                .collect();
            assert!(
                data == expected && Hash::of(&data) == block.hash,
                "{family:?} {}",
                block.kind
            );
            // The tree proves what is read, in the form in which peers are served.
            let outboard = PostOrderOutboard {
                root: PostOrderMemOutboard::create(&data, LEAF).root,
                tree: BaoTree::new(block.bytes, LEAF),
                data: TreeOf(&offered),
            };
            encode_ranges_validated(&data[..], outboard, &ChunkRanges::all(), io::sink()).unwrap();
        }
        assert!(
            bench.names().iter().all(|name| name.ends_with(".tree")),
            "{family:?}"
        );
    }
}

/// Whoever has fetched a middle's header and layer serves them as well.
async fn hands_on(blocks: &Blocks, contents: &Contents, needed: &[Block]) {
    assert_eq!(needed.len(), 2, "a middle needs the header and its layer");
    let answer = blocks.answer(contents.root).unwrap();
    let held = (0..contents.blocks.len()).filter(|at| answer.holds(*at));
    assert_eq!(held.count(), 2);
    let third = Bench::new();
    hand_over(blocks, &third.blocks, needed).await;
}

#[tokio::test]
async fn a_newcomer_composes_its_stage_from_few_blocks_and_hands_those_on() {
    for family in [Family::Llama, Family::Qwen2, Family::Gemma3] {
        let (full, new) = (Bench::new(), Bench::new());
        let model = full.model(&specimen_of(family));
        let contents = full
            .blocks
            .contents_of(&model, Arc::new(Silent))
            .await
            .unwrap();
        new.blocks.keep(manifest(&contents)).await.unwrap();
        assert!(
            new.blocks.answer(contents.root).is_none(),
            "it has nothing yet"
        );
        let missing = ModelBlocks::open(&new.blocks, &contents).await.unwrap_err();
        assert!(matches!(
            missing,
            BlocksError::Missing {
                kind: BlockKind::Header,
                ..
            }
        ));
        let header = *contents.block(BlockKind::Header).unwrap();
        hand_over(&full.blocks, &new.blocks, &[header]).await;

        for (role, first, end) in [(Role::Middle, 1, 2), (Role::Tail, 2, 3), (Role::Head, 0, 1)] {
            let layers = LayerRange { first, end };
            let source = ModelBlocks::open(&new.blocks, &contents).await.unwrap();
            let needed = source.needed(&plan(source.header(), role, layers).unwrap());
            let stages = Stages::open(&new.path("stages")).unwrap();
            let Err(StageError::Blocks(BlocksError::Missing { kind, .. })) =
                stages.get_from_blocks(source, role, layers).await
            else {
                panic!("{family:?}: a stage out of nothing");
            };
            assert!(needed.iter().any(|block| block.kind == kind));
            hand_over(&full.blocks, &new.blocks, &needed).await;
            let source = ModelBlocks::open(&new.blocks, &contents).await.unwrap();
            let composed = stages.get_from_blocks(source, role, layers).await.unwrap();
            let whole = Stages::open(&full.path("stages")).unwrap();
            let request = StageRequest {
                source: model.path.clone(),
                model: model.blake3,
                role,
                layers,
            };
            let cut = whole.get(request).await.unwrap();
            assert_eq!(composed.file_name(), cut.file_name());
            assert!(
                fs::read(&composed).unwrap() == fs::read(&cut).unwrap(),
                "{family:?} {role:?}"
            );
            Stages::verify(&composed).unwrap();
            if role == Role::Middle {
                hands_on(&new.blocks, &contents, &needed).await;
            }
        }
    }
}

#[tokio::test]
async fn all_blocks_are_the_whole_model_which_is_adopted_and_replaces_them() {
    let (full, mut new) = (Bench::new(), Bench::new());
    let bytes = specimen_of(Family::Qwen3);
    let model = full.model(&bytes);
    let contents = full
        .blocks
        .contents_of(&model, Arc::new(Silent))
        .await
        .unwrap();
    let manifest = manifest(&contents);
    new.blocks.keep(manifest.clone()).await.unwrap();
    hand_over(&full.blocks, &new.blocks, &contents.blocks).await;
    let models = Models::open(config(&new.path("models"), Vec::new())).unwrap();
    let heard = Heard::default();
    let source = ModelBlocks::open(&new.blocks, &contents).await.unwrap();
    let pulled = models
        .adopt(source, &manifest, heard.listen())
        .await
        .unwrap();
    heard.phases(model.bytes);
    assert!(pulled.fresh && pulled.model.blake3 == model.blake3);
    assert_eq!(
        (pulled.model.name.as_str(), pulled.model.licence.as_deref()),
        ("m", Some("MIT"))
    );
    assert!(fs::read(&pulled.model.path).unwrap() == bytes);
    assert_eq!(files(&new.path("models")), files_of(&[&bytes]));
    assert!(
        !new.names().iter().any(|name| name.ends_with(".block")),
        "{:?}",
        new.names()
    );
    assert!(new.blocks.held(&contents).iter().all(|held| *held));
    // After a restart the whole file is offered again, from the manifest and the trees, without hashing.
    new.reopen();
    assert!(new.blocks.answer(contents.root).is_none());
    new.blocks
        .offer_whole(
            &new.blocks.manifest(contents.root).unwrap().contents,
            &pulled.model.path,
        )
        .unwrap();
    assert!(new.blocks.held(&contents).iter().all(|held| *held));
    // Who removes the model offers it no more.
    fs::remove_file(&pulled.model.path).unwrap();
    assert!(new.blocks.answer(contents.root).is_none());
}

#[tokio::test]
async fn a_manifest_that_lies_about_the_root_is_found_out_and_nothing_is_stored() {
    let bench = Bench::new();
    let model = bench.model(&specimen_of(Family::Llama));
    let honest = bench
        .blocks
        .contents_of(&model, Arc::new(Silent))
        .await
        .unwrap();
    let lie = Contents {
        root: Hash([9; 32]),
        ..honest.clone()
    };
    let models = Models::open(config(&bench.path("models"), Vec::new())).unwrap();
    let source = ModelBlocks::open(&bench.blocks, &lie).await.unwrap();
    let error = models
        .adopt(source, &manifest(&lie), Arc::new(Silent))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            PullError::FalseManifest {
                maker: NodeId([1, ..]),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(files(&bench.path("models")), [""; 0]);

    let mut other_sizes = honest;
    other_sizes.blocks[1].bytes -= 1;
    other_sizes.blocks[2].bytes += 1;
    let error = ModelBlocks::open(&bench.blocks, &other_sizes)
        .await
        .unwrap_err();
    assert!(
        matches!(error, BlocksError::Contradiction { .. }),
        "{error}"
    );
    let error = bench
        .blocks
        .offer_whole(&other_sizes, &model.path)
        .unwrap_err();
    assert!(
        matches!(error, BlocksError::Contradiction { .. }),
        "{error}"
    );
}

/// A block of a little more than three parts, and its bytes.
pub(crate) fn made_up() -> (Block, Vec<u8>) {
    let bytes: Vec<u8> = (0..3 * PART_BYTES + 5)
        .map(|n| (n * 7 % 251) as u8)
        .collect();
    let block = Block {
        kind: BlockKind::Layer(1),
        hash: Hash::of(&bytes),
        bytes: bytes.len() as u64,
    };
    (block, bytes)
}

async fn lacks(blocks: &Blocks, block: Block) -> Vec<u32> {
    let missing = blocks.missing(&[block, block]).await.unwrap();
    assert!(missing.len() <= 1, "one block, twice");
    missing
        .into_iter()
        .flat_map(|missing| missing.parts)
        .collect()
}

#[tokio::test]
async fn a_fetch_goes_on_where_the_last_process_was() {
    let (block, bytes) = made_up();
    let mut bench = Bench::new();
    assert_eq!(lacks(&bench.blocks, block).await, [0, 1, 2, 3]);
    for (part, left) in [(2, vec![0, 1, 3]), (0, vec![1, 3]), (3, vec![1])] {
        assert_eq!(
            bench
                .blocks
                .put(&block, part, part_of(&bytes, part))
                .unwrap(),
            Put::More
        );
        assert_eq!(lacks(&bench.blocks, block).await, left);
        // Killed: nothing is closed in order, and the next process finds the files as they are.
        bench.reopen();
        assert_eq!(lacks(&bench.blocks, block).await, left);
        assert!(bench.blocks.find(block.hash).is_none());
    }
    assert_eq!(
        bench.blocks.put(&block, 2, part_of(&bytes, 2)).unwrap(),
        Put::More,
        "twice is once"
    );
    assert_eq!(
        bench.blocks.put(&block, 1, part_of(&bytes, 1)).unwrap(),
        Put::Sealed
    );
    assert_eq!(
        bench.blocks.put(&block, 1, part_of(&bytes, 1)).unwrap(),
        Put::Sealed
    );
    let names = ["block", "tree"].map(|end| format!("{}.{end}", block.hash));
    assert_eq!(bench.names(), names);
    bench.reopen();
    assert_eq!(lacks(&bench.blocks, block).await, [0; 0]);
    assert!(read_all(&bench.blocks.find(block.hash).unwrap()) == bytes);
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new()
        .append(true)
        .open(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

#[tokio::test]
async fn a_list_that_a_dying_process_tore_loses_no_more_than_its_last_entry() {
    let (block, bytes) = made_up();
    type Strike = fn(&Path, &Path);
    let strikes: [(&str, Strike, &[u32]); 6] = [
        ("half an entry", |_, list| append(list, &[3, 0]), &[1, 3]),
        (
            "a part that cannot be",
            |_, list| append(list, &[99, 0, 0, 0]),
            &[1, 3],
        ),
        (
            "another format",
            |_, list| fs::write(list, b"MYZHAVE0\0\0\0\0").unwrap(),
            &[0, 1, 2, 3],
        ),
        (
            "a list that is too long",
            |_, list| append(list, &[0; 100]),
            &[0, 1, 2, 3],
        ),
        (
            "no list",
            |_, list| fs::remove_file(list).unwrap(),
            &[0, 1, 2, 3],
        ),
        (
            "a shorter file",
            |part, _| fs::write(part, [7; PART_BYTES as usize + 9]).unwrap(),
            &[1, 2, 3],
        ),
    ];
    for (name, strike, left) in strikes {
        let mut bench = Bench::new();
        for part in [0, 2] {
            bench
                .blocks
                .put(&block, part, part_of(&bytes, part))
                .unwrap();
        }
        let file = |end: &str| bench.path("blocks").join(format!("{}.{end}", block.hash));
        strike(&file("part"), &file("have"));
        bench.reopen();
        assert_eq!(lacks(&bench.blocks, block).await, left, "{name}");
        let mut last = Put::More;
        for part in left {
            last = bench
                .blocks
                .put(&block, *part, part_of(&bytes, *part))
                .unwrap();
        }
        // What the disk changed behind our back shows at the end, and all of it is fetched anew.
        if name == "a shorter file" {
            assert_eq!(last, Put::Damaged);
            for part in 0..4 {
                last = bench
                    .blocks
                    .put(&block, part, part_of(&bytes, part))
                    .unwrap();
            }
        }
        assert_eq!(last, Put::Sealed, "{name}");
        assert!(
            read_all(&bench.blocks.find(block.hash).unwrap()) == bytes,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_block_that_the_disk_changed_gets_no_name_and_is_wanted_anew() {
    let (block, bytes) = made_up();
    let bench = Bench::new();
    for part in 0..3 {
        bench
            .blocks
            .put(&block, part, part_of(&bytes, part))
            .unwrap();
    }
    let part = bench.path("blocks").join(format!("{}.part", block.hash));
    let mut changed = fs::read(&part).unwrap();
    changed[500_000] ^= 1;
    fs::write(&part, changed).unwrap();
    assert_eq!(
        bench.blocks.put(&block, 3, part_of(&bytes, 3)).unwrap(),
        Put::Damaged
    );
    assert_eq!(bench.names(), [""; 0]);
    assert!(bench.blocks.find(block.hash).is_none());
    assert_eq!(lacks(&bench.blocks, block).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_model_is_hashed_once_and_a_damaged_one_makes_no_manifest() {
    let bench = Bench::new();
    let bytes = specimen_of(Family::Phi3);
    let model = bench.model(&bytes);
    let heard = Heard::default();
    let contents = bench
        .blocks
        .contents_of(&model, heard.listen())
        .await
        .unwrap();
    heard.phases(2 * model.bytes);
    bench.blocks.keep(manifest(&contents)).await.unwrap();

    assert_eq!(
        bench
            .blocks
            .contents_of(&model, Arc::new(deaf))
            .await
            .unwrap(),
        contents
    );

    let rotten = Bench::new();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let model = Model {
        blake3: Hash::of(&bytes),
        ..rotten.model(&changed)
    };
    let error = rotten
        .blocks
        .contents_of(&model, Arc::new(Silent))
        .await
        .unwrap_err();
    assert!(matches!(error, BlocksError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("myzel model verify"));
    assert_eq!(rotten.names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hashing_ends_when_nobody_waits_and_leaves_nothing_half_named() {
    let bench = Bench::new();
    let model = bench.model(&specimen_of(Family::Llama));
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = mpsc::sync_channel::<()>(1);
    let gate = Mutex::new((Some(begun), goes_on));
    let progress = Arc::new(move |_: &Event<'_>| {
        let mut gate = gate.lock().unwrap();
        if let Some(begun) = gate.0.take() {
            begun.send(()).unwrap();
            gate.1.recv().unwrap();
        }
    });
    let (blocks, heard) = (bench.blocks.clone(), progress.clone());
    let hashing = tokio::spawn(async move { blocks.contents_of(&model, heard).await });
    begins.await.unwrap();
    hashing.abort();
    assert!(hashing.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    while Arc::strong_count(&progress) > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn forgetting_a_model_removes_its_blocks_but_not_those_that_another_has_too() {
    let (full, new) = (Bench::new(), Bench::new());
    let contents = full
        .blocks
        .contents_of(&full.model(&specimen_of(Family::Llama)), Arc::new(Silent))
        .await
        .unwrap();
    hand_over(&full.blocks, &new.blocks, &contents.blocks[..3]).await;
    new.blocks.keep(manifest(&contents)).await.unwrap();
    let mut sibling = contents.clone();
    sibling.root = Hash([8; 32]);
    sibling.blocks[0].hash = Hash([7; 32]);
    new.blocks.keep(manifest(&sibling)).await.unwrap();
    new.blocks.forget(contents.root).await.unwrap();
    assert!(new.blocks.manifest(contents.root).is_none());
    assert!(new.blocks.find(contents.blocks[0].hash).is_none());
    assert!(new.blocks.find(contents.blocks[1].hash).is_some());
    new.blocks.forget(sibling.root).await.unwrap();
    assert_eq!(new.names(), [""; 0]);
}

fn deaf(event: &Event<'_>) {
    panic!("hashed again: {event:?}");
}
