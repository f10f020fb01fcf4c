//! How traffic and state of a node grow with the commons.

use anyhow::{Context, Result};
use sim::setup::Setup;
use sim::weather::Weather;
use sim::world::World;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use swarm::members::limits::renew_ms;

/// The sizes that are measured.
const SIZES: [usize; 9] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];
/// The most nodes that take in what they hear; the others pass it on.
const LISTENERS: usize = 250;
/// How long is measured, in seconds.
const SPAN_S: u64 = 60;
const SEED: u64 = 1;

/// What was measured at one size, for one node.
#[derive(Debug, Clone, Copy)]
struct Row {
    nodes: usize,
    renew_s: u64,
    ads_a_second: f64,
    messages_a_second: f64,
    bytes_a_second: f64,
    members: f64,
    state_bytes: f64,
}

/// Measures all sizes and writes the page.
pub(crate) fn run() -> Result<()> {
    let mut rows = Vec::new();
    for nodes in SIZES {
        let row = measure(nodes);
        super::say(&format!("{row:?}"))?;
        rows.push(row);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let write = |name: &str, text: String| {
        let path = docs.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("swarm-growth.md", page(&rows))?;
    write("swarm-growth.svg", plot(&rows))
}

fn measure(nodes: usize) -> Row {
    let renew_s = renew_ms(nodes) / 1_000;
    let mut world = World::new(Setup {
        weather: Weather {
            loss: 0.01,
            cuts: Vec::new(),
        },
        listens: nodes.div_ceil(LISTENERS),
        arrive_s: renew_s,
        ..Setup::quiet(SEED, nodes)
    });
    world.run(renew_s + 5);
    world.acquaint();
    world.run(15);
    let before = (world.traffic(), world.tally.published);
    world.run(SPAN_S);
    let after = (world.traffic(), world.tally.published);
    let each = |before: u64, after: u64| (after - before) as f64 / SPAN_S as f64 / nodes as f64;
    let (members, state_bytes) = world.state();
    Row {
        nodes,
        renew_s,
        ads_a_second: each(before.1, after.1) * nodes as f64,
        messages_a_second: each(before.0.messages, after.0.messages),
        bytes_a_second: each(before.0.gossip_bytes, after.0.gossip_bytes),
        members,
        state_bytes,
    }
}

fn page(rows: &[Row]) -> String {
    let mut page = String::from(
        "# How the swarm grows\n\n\
         What one node sends and keeps, in a quiet commons of so many. Simulated with the machines of the real node (members, \
         and the gossip of iroh) by `cargo run --release -p sim -- growth`, which writes this page: seed 1, distances of up to \
         some 100 ms one way, 1 % of packets lost and sent again. Each node sends about as much as it receives.\n\n\
         Ads are renewed more rarely in a large commons, so that all together renew ten in a second; what a node hears and \
         passes on is then bounded. What it keeps grows with the members that it knows, 8,192 at most. With more than 250 \
         nodes, every so many-th keeps a table, so that the simulation fits into memory; the others pass ads on and say as much as \
         they would otherwise.\n\n\
         ![Traffic and state of one node](swarm-growth.svg)\n\n\
         | nodes | an ad is renewed every | ads heard a second | messages sent a second | sent, kB/s | members known | state, kB |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let _ = writeln!(
            page,
            "| {} | {} s | {:.2} | {:.1} | {:.2} | {:.0} | {:.0} |",
            row.nodes,
            row.renew_s,
            row.ads_a_second,
            row.messages_a_second,
            row.bytes_a_second / 1e3,
            row.members,
            row.state_bytes / 1e3,
        );
    }
    page.push_str("\nState is the size of all ads that are kept, read and as they came, and 256 bytes for each member beside them.\n");
    page
}

/// One curve of the plot.
type Curve = (&'static str, &'static str, fn(&Row) -> f64);

/// The plot's curves: name, colour, values.
const CURVES: [Curve; 3] = [
    ("bytes sent a second", "#0a7d5a", |row| row.bytes_a_second),
    ("members known", "#b3541e", |row| row.members),
    ("state, kB", "#3b5ba5", |row| row.state_bytes / 1e3),
];
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const EDGE: f64 = 60.0;
/// Both axes in powers of ten: nodes from 10 to 10,000, values from 1 to 100,000.
const NODES_POWERS: (i32, i32) = (1, 4);
const VALUES_POWERS: (i32, i32) = (0, 5);

/// Where a value lies on an axis, from 0 to 1.
fn along(value: f64, (low, high): (i32, i32)) -> f64 {
    (value.max(1e-9).log10() - f64::from(low)) / f64::from(high - low)
}

fn x(nodes: f64) -> f64 {
    EDGE + along(nodes, NODES_POWERS) * (WIDTH - 2.0 * EDGE)
}

fn y(value: f64) -> f64 {
    HEIGHT - EDGE - along(value, VALUES_POWERS).clamp(0.0, 1.0) * (HEIGHT - 2.0 * EDGE)
}

fn plot(rows: &[Row]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut line = |text: String| svg.push_str(&(text + "\n"));
    for power in NODES_POWERS.0..=NODES_POWERS.1 {
        let (at, low, high) = (x(10_f64.powi(power)), y(1.0), y(1e5));
        line(format!(
            "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"#ddd\"/>"
        ));
        line(format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            low + 20.0,
            10_u64.pow(power as u32)
        ));
    }
    for power in VALUES_POWERS.0..=VALUES_POWERS.1 {
        let (at, left, right) = (y(10_f64.powi(power)), x(10.0), x(1e4));
        line(format!(
            "<path d=\"M{left:.1} {at:.1}H{right:.1}\" stroke=\"#ddd\"/>"
        ));
        line(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            10_u64.pow(power as u32)
        ));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">nodes</text>",
        WIDTH / 2.0,
        HEIGHT - 12.0
    ));
    for ((name, colour, value), row) in CURVES.iter().zip(0..) {
        let points: Vec<String> = rows
            .iter()
            .map(|r| format!("{:.1},{:.1}", x(r.nodes as f64), y(value(r))))
            .collect();
        line(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        let (left, top) = (EDGE + 20.0, 24.0 + 16.0 * f64::from(row));
        line(format!(
            "<text x=\"{left:.1}\" y=\"{top:.1}\" fill=\"{colour}\">{name}</text>"
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
