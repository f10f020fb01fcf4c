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
/// no spare one has room for the place, one who has a place and has loaded this one takes it as a second one; where there is none,
/// all who are left share the layers evenly. `None` when nobody is.
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
    let mut placed: Vec<NodeId> = places.iter().filter_map(|place| place.left).collect();
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
            let id = spare.remove(at).0;
            placed.push(id);
            return Some((id, place.layers));
        }
        // A second stage for somebody who has one.
        let id = placed.iter().find(|id| loaded(**id, place.layers))?;
        Some((*id, place.layers))
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
mod tests;
