use super::*;

#[test]
fn stages_are_spread_over_those_that_are_spare() {
    let spread = |stages, spare| spread(stages, spare).collect::<Vec<_>>();
    assert_eq!(spread(2, 2), [(0, 0), (1, 1)]);
    assert_eq!(spread(3, 2), [(0, 0), (1, 1), (2, 0)]);
    assert_eq!(spread(2, 1), [(0, 0), (1, 0)]);
    assert_eq!(spread(1, 3), [(0, 0)]);
    assert_eq!(spread(2, 0), []);
}

#[test]
fn what_is_not_kept_any_more_is_forgotten() {
    let standbys = Standbys::default();
    let range = |first| LayerRange {
        first,
        end: first + 1,
    };
    let kept = |n: u8, first| Kept {
        status: StandbyStatus {
            node: NodeId([n; 32]),
            stage: 1,
            layers: range(first),
            model: String::new(),
        },
        member: Member {
            id: NodeId([n; 32]),
            addrs: Vec::new(),
            name: String::new(),
            relays: None,
        },
        ring: RingId([9; 16]),
    };
    assert!(standbys.note(kept(1, 1), true));
    assert!(!standbys.note(kept(1, 1), true), "no news");
    assert!(standbys.note(kept(1, 2), true));
    assert!(standbys.note(kept(2, 1), true));
    assert_eq!(*standbys.lock(), [kept(1, 2), kept(2, 1)]);
    assert!(!standbys.note(kept(2, 1), false));
    assert!(standbys.note(kept(1, 1), true));
    assert_eq!(*standbys.lock(), [kept(1, 2), kept(1, 1)]);
    assert!(standbys.has(NodeId([1; 32]), range(1)) && !standbys.has(NodeId([2; 32]), range(1)));
    let of = |ring| standbys.of(RingId([ring; 16]), range(1));
    assert_eq!(of(9).map(|member| member.id), Some(NodeId([1; 32])));
    assert_eq!(of(8), None, "it was not asked for that ring yet");
    standbys.retain(|_, layers| layers.first == 2);
    assert_eq!(*standbys.lock(), [kept(1, 2)]);
}
