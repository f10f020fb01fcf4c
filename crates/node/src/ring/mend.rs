//! Who takes the places of those that a ring has lost.

use proto::ids::NodeId;
use proto::model::LayerRange;

/// A place of the ring that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Who had it, and is still there.
    pub(super) left: Option<NodeId>,
    /// Its layers.
    pub(super) layers: LayerRange,
}

/// The places of a ring that has the same layers in the same order. `spare` are others, with the layers that each has
/// room for, the best first. `loaded` says who has layers loaded already.
///
/// One that is still there keeps its place, so that what it has loaded can be used again. When somebody is missing and
/// no spare one has room for the place, one who is left and has loaded it takes it as a second one; where there is none, all
/// who are left share the layers evenly. `None` when nobody is.
pub(super) fn mend(
    places: &[Place],
    spare: &[(NodeId, u32)],
    loaded: impl Fn(NodeId, LayerRange) -> bool,
) -> Option<Vec<(NodeId, LayerRange)>> {
    replace(places, spare, loaded).or_else(|| share(places, spare))
}

fn replace(
    places: &[Place],
    spare: &[(NodeId, u32)],
    loaded: impl Fn(NodeId, LayerRange) -> bool,
) -> Option<Vec<(NodeId, LayerRange)>> {
    let mut spare = spare.to_vec();
    let mut place = |place: &Place| {
        if let Some(id) = place.left {
            return Some((id, place.layers));
        }
        let has = spare.iter().position(|(id, _)| loaded(*id, place.layers));
        let at = has.or_else(|| {
            let fits = |(_, room): &(NodeId, u32)| *room >= place.layers.len();
            spare.iter().position(fits)
        });
        if let Some(at) = at {
            return Some((spare.remove(at).0, place.layers));
        }
        // A second stage for somebody who has one.
        let mut left = places.iter().filter_map(|place| place.left);
        let id = left.find(|id| loaded(*id, place.layers))?;
        Some((id, place.layers))
    };
    places.iter().map(&mut place).collect()
}

fn share(places: &[Place], spare: &[(NodeId, u32)]) -> Option<Vec<(NodeId, LayerRange)>> {
    let left = places.iter().filter_map(|place| place.left);
    let all: Vec<NodeId> = left.chain(spare.iter().map(|(id, _)| *id)).collect();
    let (first, end) = (places.first()?.layers.first, places.last()?.layers.end);
    let (layers, count) = (end - first, all.len().min(places.len()) as u32);
    let mut at = first;
    let range = |(n, id): (u32, NodeId)| {
        let next = at + layers / count + u32::from(n < layers % count);
        let layers = LayerRange {
            first: std::mem::replace(&mut at, next),
            end: next,
        };
        (id, layers)
    };
    (count > 0).then(|| (0..count).zip(all).map(range).collect())
}

#[cfg(test)]
mod tests {
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
    }

    #[test]
    fn those_that_are_left_share_what_nobody_takes() {
        check(&[2], &[], &[(1, 2, 10), (3, 10, 17)]);
        check(&[2], &[(8, 4)], &[(1, 2, 7), (3, 7, 12), (8, 12, 17)]);
        check(&[1, 2], &[], &[(3, 2, 17)]);
        check(&[1, 2, 3], &[], &[]);
    }
}
