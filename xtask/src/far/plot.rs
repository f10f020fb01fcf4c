//! A picture of the pace over distance, as SVG.

use std::fmt::Write;

use super::ring::Who;
use super::{Cell, RTTS_MS, SPLITS, STREAMS};

/// Size of one panel and the room around it, in pixels.
const PANEL: (f64, f64) = (360.0, 260.0);
const MARGIN: (f64, f64) = (56.0, 44.0);
/// Where the key stands, below the panels.
const KEY: f64 = 40.0;
/// How a line is drawn for 1, 2 and 3 remote stages.
const DASHES: [&str; 3] = ["none", "6 3", "2 3"];

/// A panel for each number of streams: tokens a second, on a logarithmic scale, over the time from a machine to another and back.
pub(super) fn picture(cells: &[Cell]) -> String {
    let width = (PANEL.0 + 2.0 * MARGIN.0) * STREAMS.len() as f64;
    let height = PANEL.1 + 2.0 * MARGIN.1 + KEY;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\" \
         role=\"img\">\n<title>Tokens a second over distance</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let scale = Scale::of(cells);
    for (at, streams) in STREAMS.iter().enumerate() {
        let left = at as f64 * (PANEL.0 + 2.0 * MARGIN.0) + MARGIN.0;
        panel(&mut svg, (left, MARGIN.1), *streams, (cells, scale));
    }
    key(&mut svg, height - KEY / 2.0);
    svg += "</svg>\n";
    svg
}

/// Powers of ten between which all figures lie.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(cells: &[Cell]) -> Self {
        let logs = cells.iter().map(|cell| cell.decode.max(1e-3).log10());
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (low.min(log.floor()), high.max(log.ceil()))
        });
        match low < high {
            true => Self { low, high },
            false => Self {
                low: 0.0,
                high: 1.0,
            },
        }
    }

    /// How far up, from 0 to 1.
    fn up(self, decode: f64) -> f64 {
        (decode.max(1e-3).log10() - self.low) / (self.high - self.low)
    }
}

fn panel(
    svg: &mut String,
    (left, top): (f64, f64),
    streams: usize,
    (cells, scale): (&[Cell], Scale),
) {
    let (width, height) = PANEL;
    let furthest = RTTS_MS.into_iter().max().unwrap_or(1);
    let x = |rtt_ms: u32| left + width * f64::from(rtt_ms) / f64::from(furthest);
    let y = |decode: f64| top + height * (1.0 - scale.up(decode));
    let title = if streams == 1 {
        "1 stream".to_owned()
    } else {
        format!("{streams} streams")
    };
    text(
        svg,
        (left + width / 2.0, top - 16.0),
        "middle",
        &format!("tokens a second, {title}"),
    );
    let (low, high) = (scale.low as i32, scale.high as i32);
    for power in low..=high {
        let at = y(10f64.powi(power));
        line(svg, &[(left, at), (left + width, at)], "#ddd", "none");
        text(
            svg,
            (left - 6.0, at + 4.0),
            "end",
            &format!("{}", 10f64.powi(power)),
        );
    }
    for rtt_ms in RTTS_MS {
        line(
            svg,
            &[(x(rtt_ms), top), (x(rtt_ms), top + height)],
            "#eee",
            "none",
        );
        text(
            svg,
            (x(rtt_ms), top + height + 16.0),
            "middle",
            &rtt_ms.to_string(),
        );
    }
    text(
        svg,
        (left + width / 2.0, top + height + 34.0),
        "middle",
        "there and back, ms",
    );
    for who in Who::ALL {
        for (split, dash) in SPLITS.into_iter().zip(DASHES) {
            let mut points: Vec<&Cell> = cells
                .iter()
                .filter(|cell| (cell.who, cell.split, cell.streams) == (who, split, streams))
                .collect();
            points.sort_by_key(|cell| cell.rtt_ms);
            let points: Vec<(f64, f64)> = points
                .iter()
                .map(|cell| (x(cell.rtt_ms), y(cell.decode)))
                .collect();
            line(svg, &points, colour(who), dash);
        }
    }
}

fn key(svg: &mut String, y: f64) {
    let mut x = MARGIN.0;
    for who in Who::ALL {
        for (split, dash) in SPLITS.into_iter().zip(DASHES) {
            line(svg, &[(x, y), (x + 26.0, y)], colour(who), dash);
            text(
                svg,
                (x + 30.0, y + 4.0),
                "start",
                &format!("{}, {split} remote", who.words()),
            );
            x += 150.0;
        }
    }
}

fn colour(who: Who) -> &'static str {
    match who {
        Who::Myzel => "#0b6e4f",
        Who::Llama => "#b23a48",
    }
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str, dash: &str) {
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        points.join(" ")
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::cells;
    use super::*;

    #[test]
    fn more_is_further_up_and_every_line_is_there() {
        let cells = cells(20.0, 5.0);
        let scale = Scale::of(&cells);
        assert_eq!((scale.low, scale.high), (0.0, 2.0));
        assert!(scale.up(20.0) > scale.up(5.0) && scale.up(100.0) == 1.0);
        let svg = picture(&cells);
        assert_eq!(
            svg.matches(colour(Who::Myzel)).count(),
            9,
            "six lines, and three of the key"
        );
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
