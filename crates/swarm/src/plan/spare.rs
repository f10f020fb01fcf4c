//! Which layers to keep on disk beside those that are computed, so that taking over is a load and not a download.

use proto::model::LayerRange;

/// Holders of a layer that suffice.
pub const HOLDERS_ENOUGH: usize = 3;

/// The window of so many layers that the fewest of the others hold: the weakest place of the model. `None` when each layer
/// has [`HOLDERS_ENOUGH`] holders, or is among `mine`.
#[must_use]
pub fn spare(
    layers: u32,
    others: &[Vec<LayerRange>],
    mine: &[LayerRange],
    length: u32,
) -> Option<LayerRange> {
    let covers = |ranges: &[LayerRange], layer: u32| {
        ranges
            .iter()
            .any(|range| (range.first..range.end).contains(&layer))
    };
    let holders = |layer: u32| others.iter().filter(|held| covers(held, layer)).count();
    let weak: Vec<Option<usize>> = (0..layers)
        .map(|layer| {
            let holders = holders(layer);
            (!covers(mine, layer) && holders < HOLDERS_ENOUGH).then_some(holders)
        })
        .collect();
    let length = length.clamp(1, layers.max(1));
    let windows = (0..=layers.checked_sub(length)?).map(|first| LayerRange {
        first,
        end: first + length,
    });
    let mends = |window: &LayerRange| {
        let inside = &weak[window.first as usize..window.end as usize];
        let lacking: usize = inside
            .iter()
            .flatten()
            .map(|has| HOLDERS_ENOUGH - has)
            .sum();
        let weakest = inside.iter().flatten().min().copied();
        (weakest, lacking)
    };
    windows
        .filter(|window| mends(window).0.is_some())
        // The weakest layer first, then the most that is mended, then the earliest.
        .min_by_key(|window| {
            let (weakest, lacking) = mends(window);
            (weakest, std::cmp::Reverse(lacking), window.first)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, end: u32) -> LayerRange {
        LayerRange { first, end }
    }

    fn check(
        others: &[&[(u32, u32)]],
        mine: &[(u32, u32)],
        length: u32,
        expected: Option<(u32, u32)>,
    ) {
        let ranges = |held: &[(u32, u32)]| held.iter().map(|(a, b)| range(*a, *b)).collect();
        let others: Vec<Vec<LayerRange>> = others.iter().map(|held| ranges(held)).collect();
        let mine: Vec<LayerRange> = ranges(mine);
        let expected = expected.map(|(first, end)| range(first, end));
        assert_eq!(spare(10, &others, &mine, length), expected);
    }

    #[test]
    fn the_weakest_place_is_mended() {
        check(&[], &[], 3, Some((0, 3)));
        check(&[], &[(0, 3)], 3, Some((3, 6)));
        check(&[&[(0, 10)], &[(0, 4)], &[(0, 4)]], &[], 4, Some((4, 8)));
        check(
            &[&[(0, 5)], &[(5, 10)], &[(0, 2)]],
            &[(2, 5)],
            2,
            Some((5, 7)),
        );
        check(&[&[(0, 10)], &[(0, 10)], &[(0, 10)]], &[], 4, None);
        check(&[], &[(0, 10)], 4, None);
        check(&[], &[], 99, Some((0, 10)));
    }
}
