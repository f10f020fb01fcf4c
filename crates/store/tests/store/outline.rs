//! Models of which there is no more than the header.

use crate::blocks::{Bench, hand_over, manifest, specimen_of};
use proto::gguf::Header;
use proto::manifest::BlockKind;
use specimen::Family;
use std::fs;
use std::sync::Arc;
use store::blocks::ModelBlocks;
use store::progress::Silent;
use store::stages::Stages;

#[tokio::test]
async fn the_header_block_is_enough_to_plan_and_weigh_with() {
    let (full, new) = (Bench::new(), Bench::new());
    let model = full.model(&specimen_of(Family::Llama));
    let contents = full
        .blocks
        .contents_of(&model, Arc::new(Silent))
        .await
        .unwrap();
    new.blocks.keep(manifest(&contents)).await.unwrap();
    let header = *contents.block(BlockKind::Header).unwrap();
    hand_over(&full.blocks, &new.blocks, &[header]).await;
    let source = ModelBlocks::open(&new.blocks, &contents).await.unwrap();
    let expected = source.header().clone();
    let stages = Stages::open(&new.path("stages")).unwrap();
    let hollow = stages.hollow_model(source).await.unwrap();
    let path = hollow.path().to_owned();
    let (whole, holes) = (fs::read(&model.path).unwrap(), fs::read(&path).unwrap());
    let data = usize::try_from(expected.data_offset()).unwrap();
    assert_eq!((whole.len(), &whole[..data]), (holes.len(), &holes[..data]));
    assert!(holes[data..].iter().all(|byte| *byte == 0), "no weights");
    let read = Header::from_bytes(&holes).unwrap();
    assert_eq!(read, expected);
    drop(hollow);
    assert!(!path.exists());
}
