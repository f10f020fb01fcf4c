use super::*;

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// Places of five layers each, from layer 2; `lost` are gone.
fn check(lost: &[u8], spare: &[(u8, u32)], expected: &[(u8, u32, u32)]) {
    check_loaded(lost, spare, &[], expected);
}

/// Of those that are spare, some have loaded a place's layers.
fn check_loaded(
    lost: &[u8],
    spare: &[(u8, u32)],
    loaded: &[(u8, u32)],
    expected: &[(u8, u32, u32)],
) {
    let place = |n: u8| Place {
        left: (!lost.contains(&n)).then(|| id(n)),
        layers: LayerRange {
            first: u32::from(n) * 5 - 3,
            end: u32::from(n) * 5 + 2,
        },
    };
    let places = [place(1), place(2), place(3)];
    let spare: Vec<_> = spare.iter().map(|(n, room)| (id(*n), *room)).collect();
    let has = |id: NodeId, layers: LayerRange| loaded.contains(&(id.0[0], layers.first));
    let placed = mend(&places, &spare, has).unwrap_or_default();
    let placed: Vec<_> = placed
        .iter()
        .map(|(id, l)| (id.0[0], l.first, l.end))
        .collect();
    assert_eq!(placed, expected, "{lost:?} {spare:?}");
}

#[test]
fn a_spare_one_takes_the_place_if_it_has_room() {
    check(&[], &[], &[(1, 2, 7), (2, 7, 12), (3, 12, 17)]);
    check(&[2], &[(8, 5)], &[(1, 2, 7), (8, 7, 12), (3, 12, 17)]);
    check(
        &[2],
        &[(8, 4), (9, 6)],
        &[(1, 2, 7), (9, 7, 12), (3, 12, 17)],
    );
    check(
        &[1, 3],
        &[(8, 9), (9, 9)],
        &[(8, 2, 7), (2, 7, 12), (9, 12, 17)],
    );
}

#[test]
fn who_has_loaded_a_place_comes_first() {
    check_loaded(
        &[2],
        &[(8, 9), (9, 0)],
        &[(9, 7)],
        &[(1, 2, 7), (9, 7, 12), (3, 12, 17)],
    );
    check_loaded(
        &[1, 2],
        &[(8, 9), (9, 9)],
        &[(9, 2), (8, 7)],
        &[(9, 2, 7), (8, 7, 12), (3, 12, 17)],
    );
}

#[test]
fn who_is_left_and_has_loaded_the_place_takes_a_second_one() {
    check_loaded(&[2], &[], &[(3, 7)], &[(1, 2, 7), (3, 7, 12), (3, 12, 17)]);
    check_loaded(
        &[2],
        &[(8, 9)],
        &[(3, 7)],
        &[(1, 2, 7), (8, 7, 12), (3, 12, 17)],
    );
    check_loaded(&[2, 3], &[], &[(3, 7)], &[(1, 2, 17)]);
    // Also where it had none before.
    check_loaded(
        &[1, 2],
        &[(8, 9)],
        &[(8, 2), (8, 7)],
        &[(8, 2, 7), (8, 7, 12), (3, 12, 17)],
    );
}

#[test]
fn those_that_are_left_share_what_nobody_takes() {
    check(&[2], &[], &[(1, 2, 10), (3, 10, 17)]);
    check(&[2], &[(8, 4)], &[(1, 2, 7), (3, 7, 12), (8, 12, 17)]);
    check(&[1, 2], &[], &[(3, 2, 17)]);
    check(&[1, 2, 3], &[], &[]);
}
