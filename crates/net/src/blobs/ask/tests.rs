use super::*;
use proto::manifest::{Block, BlockKind, Contents};

fn answer(id: u8, says: u8) -> (Manifest, Provider) {
    let block = Block {
        kind: BlockKind::Header,
        hash: Hash([says; 32]),
        bytes: 1,
    };
    let contents = Contents {
        root: Hash([1; 32]),
        bytes: 1,
        blocks: vec![block],
    };
    let manifest = Manifest {
        version: 1,
        contents,
        name: "m".into(),
        licence: None,
        maker: NodeId([id; 32]),
        membership: None,
        issued_s: u64::from(id),
        signature: [0; 64],
    };
    let member = Member {
        id: NodeId([id; 32]),
        addrs: Vec::new(),
        name: String::new(),
        relays: None,
    };
    let blocks = [block.hash].into();
    (manifest, Provider { member, blocks })
}

fn check(answers: &[(u8, u8)], says: Option<u8>, providers: &[u8], named: &[u8]) {
    let survey = count_votes(
        answers
            .iter()
            .map(|(id, says)| answer(*id, *says))
            .collect(),
        Vec::new(),
    );
    let hash = survey
        .manifest
        .map(|manifest| manifest.contents.blocks[0].hash.0[0]);
    assert_eq!(hash, says, "{answers:?}");
    let ids: Vec<u8> = survey.providers.iter().map(|p| p.member.id.0[0]).collect();
    assert_eq!(ids, providers, "{answers:?}");
    let faults: Vec<u8> = survey
        .faults
        .iter()
        .map(|fault| match fault {
            AskError::Disagrees { peer, .. } => peer.0[0],
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(faults, named, "{answers:?}");
}

#[test]
fn what_most_say_counts_and_who_disagrees_is_named() {
    check(&[], None, &[], &[]);
    check(&[(3, 7)], Some(7), &[3], &[]);
    check(&[(3, 7), (1, 7), (2, 8)], Some(7), &[1, 3], &[2]);
    check(&[(3, 7), (1, 8), (2, 7)], Some(7), &[2, 3], &[1]);
    check(&[(2, 7), (1, 8)], Some(8), &[1], &[2]);
    check(&[(1, 8), (2, 7)], Some(8), &[1], &[2]);
}
